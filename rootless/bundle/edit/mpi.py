"""What a process manager gives to the ranks of an MPI program: PMI-1, PMI-2 and PMIx, as Slurm and mpirun provide them.

A rank finds the manager by variables. Those of PMIx lead to a server on this node, over its loopback, and to a
directory with files that the server shares with its clients. Those of PMI name an open descriptor, PMI_FD.
"""

from __future__ import annotations

from rootless.bundle.edit.environment import add_variables
from rootless.bundle.edit.mounts import add_mounts
from rootless.paths import name, normal, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootless.bundle.edit.values import Config

PMIX, PMI = "PMIX_NAMESPACE", "PMI_FD"
"""Variables that every rank has that uses PMIx, or PMI."""
_PASSED = ("PMIX_", "PMI_", "SLURM_")
_OF_THE_HOST = ("SLURM_CONF", "SLURM_CONF_SERVER")
"""They name files of the host."""
_TRANSLATED = {
    "PMIX_PTL_MODULE": "PMIX_MCA_ptl",
    "PMIX_SECURITY_MODE": "PMIX_MCA_psec",
    "PMIX_GDS_MODULE": "PMIX_MCA_gds",
}
"""What the server has chosen, and the variable by which the library of the image chooses the same."""
_TMPFS = ["nosuid", "nodev", "noexec", "mode=755"]
_OPTIONS = ["rbind", "rw", "nosuid", "nodev", "noexec", "rprivate"]


def is_rank(environment: Mapping[str, str]) -> bool:
    """Whether a process manager has started the process with this environment as a rank."""
    return bool(environment.get(PMIX) or environment.get(PMI))


def passed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the process manager, those that are translated included."""
    found = {
        each: value for each, value in environment.items() if each.startswith(_PASSED) and each not in _OF_THE_HOST
    }
    return translated(environment) | found


def translated(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which the library of the image chooses the modules of the server."""
    return {meant: environment[each] for each, meant in _TRANSLATED.items() if environment.get(each)}


def pass_variables(config: Config, variables: Mapping[str, str]) -> Config:
    """Return the configuration with these variables, except those that it has already."""
    return add_variables(config, [f"{each}={value}" for each, value in variables.items()])


def share_directories(config: Config, directories: Sequence[str]) -> Config:
    """Return the configuration with directories of the host at their own paths, as far as it has no bind of them.

    Their names are those of one job. A tmpfs on the directory above keeps such names out of the root file system.
    """
    mounts = config.get("mounts") or ()
    same = [f"{normal(mount['source'])}/" for mount in mounts if _is_same_place(mount)]
    wanted = [place for place in map(normal, directories) if not f"{place}/".startswith(tuple(same))]
    above = {spool for place in wanted if (spool := _spool(place))}
    above -= {normal(mount["destination"]) for mount in mounts}
    made = [{"destination": place, "type": "tmpfs", "source": "tmpfs", "options": _TMPFS} for place in sorted(above)]
    made += [{"destination": place, "type": "bind", "source": place, "options": _OPTIONS} for place in wanted]
    return add_mounts(config, made)


def _is_same_place(mount: Config) -> bool:
    source = mount.get("source") or ""
    return source.startswith("/") and normal(source) == normal(mount["destination"])


def _spool(place: str) -> str:
    """Return the directory above that is the same for all jobs, without a number in its name; empty near the root."""
    above = parent(place)
    while any(letter.isdigit() for letter in name(above)):
        above = parent(above)
    return above if above.count("/") > 1 else ""
