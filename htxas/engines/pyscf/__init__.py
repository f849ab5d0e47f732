"""PySCF engine: core-hole Kohn-Sham spectra of closed-shell molecules in vacuum."""
