"""Engines: one folder per code. Each writes inputs into a directory and reads results from it."""
