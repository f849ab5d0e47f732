"""The configuration file that PySCF reads in our engine process: it sets nothing."""
