"""Training: frozen datasets, features, models, baselines, Dask, prediction. The only importer of torch and dask.

The seam, in order: :mod:`source` (where spectra come from) -> :mod:`dataset` (frozen and hashed) -> :mod:`features`
(standardised on the training split) -> :mod:`models`, :mod:`baselines` -> :mod:`runs` (one run = one folder) ->
:mod:`parallel` (Dask) -> :mod:`summary`, :mod:`plots`. Importing this package loads none of them.
"""
