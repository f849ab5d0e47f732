"""VASP, the user's own: core-hole supercells by projector augmented waves, spectra as a dielectric function."""
