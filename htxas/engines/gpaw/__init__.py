"""GPAW: core-hole spectra of molecules on real-space grids, with walls in place of periodic images."""
