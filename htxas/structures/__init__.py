"""Structures from files and SMILES, and their symmetry-unique sites."""
