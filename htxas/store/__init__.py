"""The database: the only package that imports pymongo.

:class:`htxas.store.store.Store` is the interface, :mod:`htxas.store.records` is what it takes and returns,
:mod:`htxas.store.server` runs a private MongoDB. Nothing is imported here, so that records cost nothing.
"""
