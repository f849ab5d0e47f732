"""Files of measured spectra: one module per format behind :func:`htxas.learn.serve.formats.read.read_spectrum`.

The readers are htxas's own. The libraries that are alive and read these formats are no fit: rosettasciio (EMSA/MAS) is
under the GPL, and neither counts points nor names lines; xraylarch (XDI) brings 36 packages; the XDI group's own reader
is a C library that is on no index.
"""
