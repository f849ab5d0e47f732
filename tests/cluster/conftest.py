"""Fixtures of this folder."""

from tests.slurm.fixtures import grid_engine, slurm, slurm_cluster

__all__ = ["grid_engine", "slurm", "slurm_cluster"]
