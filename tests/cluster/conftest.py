"""Fixtures of the clusters: Slurm and Kubernetes."""

from tests.cluster.containerd import containerd, cri, cri_modules, cri_user
from tests.cluster.slurm import cluster, cluster_with_cgroups
from tests.lib.daemons import directory, enclosure, image, recorder

__all__ = [
    "cluster",
    "cluster_with_cgroups",
    "containerd",
    "cri",
    "cri_modules",
    "cri_user",
    "directory",
    "enclosure",
    "image",
    "recorder",
]
