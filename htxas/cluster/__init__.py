"""Cluster profiles, scheduler adapters, queue scripts and the hosts they run on. Knows no database and no FireWorks."""
