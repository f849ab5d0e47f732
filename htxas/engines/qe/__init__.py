"""Quantum ESPRESSO: core-hole supercells of pseudopotential plane waves, spectra by Lanczos recursion."""
