"""Training. The only importer of torch and dask.

The way of a spectrum: :mod:`data` (a source is read once and frozen, hashed) -> :mod:`nets` (nets and the baselines
they must beat) -> :mod:`runs` (one run = one folder, on Dask) -> :mod:`studies` (many runs, one question), :mod:`serve`
(a trained model in use) or :mod:`choose` (what to compute next, what to look at again). Imports flow the other way
only. Importing this package loads none of them.
"""
