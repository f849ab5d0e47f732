"""Runs that exist, brought into the database: found, read in parallel, judged by the gate, stored once."""
