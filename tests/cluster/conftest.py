"""The clusters."""

from tests.cluster.slurm import cluster

__all__ = ["cluster"]
