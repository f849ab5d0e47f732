"""Independent runs of a training file on Dask, each in a folder of its own, and the report at their end."""
