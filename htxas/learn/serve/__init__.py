"""Trained models in use: what one says of a molecule or a spectrum."""
