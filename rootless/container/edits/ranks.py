"""A rank of an MPI program: the group that it belongs to, and the descriptor that leads to its process manager."""

from __future__ import annotations

import posix

from rootless import log, paths
from rootless.container.state.store import is_id
from rootless.errors import RootlessError
from rootless.files import HIGHEST_FD, is_inherited
from rootless.procfs import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.plan.request import Request

STEP = "step"
"""What --join without a key stands for."""
NONE = "none"
"""The word with which a rank shares nothing."""
_FD_DIGITS = 9
_STEP_VARIABLES = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURMD_NODENAME")


def key_of_step(environment: Mapping[str, str]) -> str:
    """Return the key of the job, step and node of Slurm that a process with this environment belongs to.

    Raises:
        RootlessError: `RL-JOIN`: it belongs to none.
    """
    job, step, node = (environment.get(name, "") for name in _STEP_VARIABLES)
    if not (job and step):
        raise _no_key("--join", "this is no step of a Slurm job: SLURM_JOB_ID and SLURM_STEP_ID are not set")
    return check_key(".".join(filter(None, (job, step, node))))


def key_of_rank(environment: Mapping[str, str]) -> str:
    """Return the key of a rank's step in Slurm, else of its job, or of the process that starts the node's ranks."""
    if environment.get("SLURM_JOB_ID") and environment.get("SLURM_STEP_ID"):
        return key_of_step(environment)
    job = environment.get("PMIX_NAMESPACE", "")
    key = "".join(letter if is_id(letter) or letter == "." else "_" for letter in job)
    return key if is_id(key) else ".".join(["pmi", *map(str, identity(posix.getppid()))])


def name_of_rank(name: str) -> str:
    """Return the name of a rank's container if the caller gives none: the ranks of a node have the same image.

    It adds the job, the step and the rank, as far as they are numbers.
    """
    rank = paths.variable("PMIX_RANK") or paths.variable("PMI_RANK")
    words = (paths.variable("SLURM_JOB_ID"), paths.variable("SLURM_STEP_ID"), rank)
    return ".".join([name, *(word for word in words if word.isascii() and word.isdecimal())])


def check_key(key: str) -> str:
    """Return a key of --join that can be the name of a directory.

    Raises:
        RootlessError: `RL-JOIN`: it cannot.
    """
    if not is_id(key):
        raise _no_key(f"--join {key}", "it cannot be the name of a directory")
    return key


def _no_key(what: str, cause: str) -> RootlessError:
    fix = "name the group: --join=KEY, with letters, digits and _ + - . only"
    return RootlessError(what, cause=cause, fix=fix, code="RL-JOIN")


def keep_pmi_descriptor(request: Request, text: str) -> None:
    """Let the container inherit the descriptor with the number in `text`, if the caller has it, and none before it."""
    fd = int(text) if text.isascii() and text.isdecimal() and len(text) <= _FD_DIGITS else -1
    first = 3 + request.preserve_fds
    if fd < first or not is_inherited(fd):
        return
    if fd > HIGHEST_FD:
        log.warning(
            f"the rank does not find its process manager: PMI_FD is {fd}, and at most {HIGHEST_FD} is passed on",
            fix="use PMIx (srun --mpi=pmix), or start fewer ranks on a node",
        )
        return
    for other in filter(is_inherited, range(first, fd)):
        posix.set_inheritable(other, False)  # noqa: FBT003 - it takes no keyword
    request.preserve_fds = fd - 2
