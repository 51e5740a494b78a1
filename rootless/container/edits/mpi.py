"""A rank of an MPI program in a container: how it finds its group and its process manager (`run`, `explain`)."""

from __future__ import annotations

import posix

from rootless import paths
from rootless.bundle.edit import mpi
from rootless.bundle.edit.mounts import share_shm
from rootless.bundle.load import Bundle
from rootless.container.edits.ranks import NONE, STEP, keep_pmi_descriptor, key_of_rank, key_of_step
from rootless.jsontext import render
from rootless.plan.network.mode import HOST
from rootless.plan.request import AUTO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootless.plan.request import Request


def prepare_rank(bundle: Bundle, request: Request) -> Bundle:
    """Return the bundle of a rank with the variables and the directory of its process manager.

    Its own environment says whether this process is a rank. Variables of config.json may be those of a hostile image,
    which could name directories, descriptors and groups of the caller. They count only where slurmstepd has written
    them, which starts rootless with the variables of its daemon (_of_slurm).

    The rank gets the host's network, over which it reaches other nodes and the server of PMIx, and with PMIx it keeps
    the caller's IDs, without which the server does not answer; unless the caller or config.json decides otherwise.

    Ranks without --join are in the group of their step: MPI libraries crash or hang if the ranks of one node do not see
    each other's processes and memory.

    Raises:
        RootlessError: `RL-JOIN`: --join names no group, and there is no step.
    """
    own = _named(paths.environment())
    given = _named((bundle.config.get("process") or {}).get("env") or ())
    listed = {each["type"]: each.get("path") for each in (bundle.config.get("linux") or {}).get("namespaces") or ()}
    is_shared = bool(listed.get("user")) or not (posix.geteuid() or {"user", "ipc"} & listed.keys())
    is_alone = request.join == NONE or is_shared
    written = _of_slurm(bundle.directory, own, given)
    if request.join == STEP:
        request.join = key_of_step(own if own.get("SLURM_JOB_ID") else written)
    elif request.join == NONE:
        request.join = ""
    source = next(filter(mpi.is_rank, (own, written)), None)
    if source is None:
        return bundle
    request.is_rank = True
    config = mpi.pass_variables(bundle.config, mpi.translated(written) if source is written else mpi.passed(own))
    if not (request.join or is_alone):
        request.join = key_of_rank(source)
        config = share_shm(config)
    config = mpi.share_directories(config, _directories(source))
    if "network" in listed and not listed["network"] and request.network in ("", AUTO) and not request.publish:
        request.network = HOST
    if source.get(mpi.PMIX) and "user" not in listed:
        request.userns = request.userns or "keep-id"
    keep_pmi_descriptor(request, source.get(mpi.PMI, ""))
    wired = Bundle(bundle.directory, config, render(config).encode("utf-8", "surrogateescape"))
    wired.rootfs, wired.is_image = bundle.rootfs, bundle.is_image
    return wired


def _named(entries: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def _of_slurm(directory: str, own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in config.json that slurmstepd has written about the step: nothing if it has not.

    Then the bundle is in a directory that is named after the step, and the variables of this process tell which process
    manager srun has asked for.
    """
    job, step, manager = given.get("SLURM_JOB_ID"), given.get("SLURM_STEP_ID"), own.get("SLURM_MPI_TYPE", "")
    above = paths.parent(paths.normal(directory))
    if paths.name(above) != f"oci-job{job}-{step}":
        return {}
    found = {name: value for name, value in given.items() if name.startswith("SLURM_")}
    if manager.startswith("pmix"):
        found |= {name: value for name, value in given.items() if name.startswith("PMIX_")}
        if not paths.normal(found.get("PMIX_SERVER_TMPDIR", "")).startswith(f"{above}/"):
            found.pop("PMIX_SERVER_TMPDIR", "")
        found.pop("PMIX_SYSTEM_TMPDIR", "")
    elif manager.startswith("pmi2"):
        found |= {name: value for name, value in given.items() if name.startswith("PMI_")}
    return found | {name: own[name] for name in ("SLURMD_NODENAME",) if name in own}


def _directories(environment: Mapping[str, str]) -> list[str]:
    """Return the directories of a PMIx server that are there: its own, and that of Slurm for the files of the step.

    Slurm calls them pmix.JOB.STEP and spmix_appdir_UID_JOB.STEP. The second is beside the first or, of a step without
    --container, in a directory for temporary files.
    """
    server = environment.get("PMIX_SERVER_TMPDIR", "")
    place = paths.normal(server)
    if not server.startswith("/") or not paths.exists(place):
        return []
    files = f"spmix_appdir_{posix.geteuid()}_{paths.name(place).removeprefix('pmix.')}"
    above = (paths.parent(place), environment.get("PMIX_SYSTEM_TMPDIR", ""))
    return [place, *(f"{each}/{files}" for each in above if each.startswith("/") and paths.exists(f"{each}/{files}"))]
