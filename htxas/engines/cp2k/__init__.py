"""CP2K: all-electron core-hole spectra of molecules (GAPW, transition potential), from the user's own executable."""
