"""Frozen datasets: where spectra come from, what is asked of them, and the arrays that a net sees."""
