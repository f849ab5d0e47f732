"""FEFF 9 and 10: real-space multiple scattering, from the user's own executable."""
