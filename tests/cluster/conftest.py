"""The Slurm cluster of the tests."""

from tests.cluster.slurm import cluster

__all__ = ["cluster"]
