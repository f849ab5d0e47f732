"""Elk: all-electron core-hole supercells of crystals by linearised augmented plane waves."""
