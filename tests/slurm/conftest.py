"""Fixtures of this folder."""

from tests.slurm.fixtures import slurm, slurm_cluster

__all__ = ["slurm", "slurm_cluster"]
