"""Devices that flags of `run` name, by their names in CDI specs."""

from __future__ import annotations

from rootless import log
from rootless.bundle.cdi.host_files import missing
from rootless.bundle.cdi.rules import is_name, parts_of
from rootless.bundle.cdi.specs import CODE, Specs, conflict, directories, generator
from rootless.bundle.edit.values import misused
from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.cdi.specs import Spec

_ALL = "all"
_DIGITS = 9
"""Of the number of a GPU, at most."""
_SHOWN = 8
"""Devices that a fix lists."""
_GPUS = ("nvidia.com/gpu", "amd.com/gpu")
"""The kinds of devices that --gpus looks for; the first one that this host has counts."""


class Chosen:
    """A device that flags name.

    Attributes:
        flag: the flag that names it, with its value.
        spec: the spec that defines it.
        name: its name there.
    """

    __slots__ = ("flag", "name", "spec")

    def __init__(self, flag: str, spec: Spec, name: str) -> None:
        self.flag = flag
        self.spec = spec
        self.name = name

    def check(self) -> None:
        """Refuse a device whose spec names files that this host does not have.

        Raises:
            RootlessError: `RL-CDI`.
        """
        for name in ("", self.name):
            for where, cause in missing(self.spec, name):
                raise self.stale(cause, where)

    def stale(self, cause: str, where: str) -> RootlessError:
        """Return the error for a spec that does not fit this host."""
        error = RootlessError(self.flag, cause=cause, where=where, fix=self.spec.regenerate, code=CODE)
        error.document = self.spec.path
        return error


def chosen(devices: Sequence[str], gpus: Sequence[str]) -> list[Chosen]:
    """Return the devices that the values of --device and --gpus name, each once.

    A spec that is broken is a warning: it may define a device that another directory defines too.

    Raises:
        RootlessError: `RL-USAGE`: a value is wrong; `RL-CDI`: there is no such device, or two specs define it.
    """
    specs = Specs()
    offered = specs.names()
    for error in specs.broken:
        log.warning(f"{error.what} is ignored: {error.cause}", fix=error.fix)
    asked = [(f"--device {text}", name) for text in devices for name in _names(text, offered)]
    asked += [(f"--gpus {text}", name) for text in gpus for name in _gpus(text, offered)]
    flags = {name: flag for flag, name in reversed(asked)}
    found = []
    for name in dict.fromkeys(name for _, name in asked):
        defined = offered.get(name, ())
        if len(defined) != 1:
            cause, fix = conflict(name, defined) if defined else _unknown(name, offered)
            if specs.broken and not defined:
                fix = specs.broken[0].fix  # the device may be in there
            raise RootlessError(flags[name], cause=cause, fix=fix, code=CODE)
        found.append(Chosen(flags[name], defined[0], name.partition("=")[2]))
    return found


def _names(text: str, offered: dict[str, list[Spec]]) -> list[str]:
    """Return the devices that a value of --device stands for: several for ``all``, unless a spec defines that name."""
    kind, name = parts_of(text)
    if not kind:
        raise misused("--device", text, "it is not VENDOR/CLASS=NAME", "write a name such as nvidia.com/gpu=0")
    every = _of_kind(kind, offered) if name == _ALL and text not in offered else []
    return every or [text]


def _gpus(text: str, offered: dict[str, list[Spec]]) -> list[str]:
    """Return the devices that a value of --gpus stands for: all, a number of them, or ``device=NAME,…`` like docker."""
    kind = next((each for each in _GPUS if _of_kind(each, offered)), _GPUS[0])
    if text == _ALL:
        return _names(f"{kind}={_ALL}", offered)
    word, equals, list_of_names = text.strip('"').partition("=")
    names = list_of_names.split(",")
    if equals and word == "device" and all(map(is_name, names)):
        return [f"{kind}={name}" for name in names]
    if equals or not text.isdecimal() or not text.strip("0") or len(text) > _DIGITS:
        raise misused("--gpus", text, "it is neither all, a number nor device=NAME", "write --gpus all, for example")
    # an index is the one name that each GPU has once: nvidia-ctk also writes their UUIDs, and all
    indexes = [name for name in _of_kind(kind, offered) if _is_index(name.partition("=")[2])]
    if len(indexes) < int(text):
        cause = f"the CDI specs define {len(indexes)} devices {kind}=NUMBER"
        raise RootlessError(f"--gpus {text}", cause=cause, fix="write a smaller number, or all", code=CODE)
    return sorted(indexes, key=lambda name: int(name.partition("=")[2]))[: int(text)]


def _is_index(name: str) -> bool:
    return name.isdecimal() and len(name) <= _DIGITS


def _of_kind(kind: str, offered: dict[str, list[Spec]]) -> list[str]:
    return [name for name in offered if name.startswith(f"{kind}=")]


def _unknown(name: str, offered: dict[str, list[Spec]]) -> tuple[str, str]:
    """Return the cause and the fix for a device that no spec defines."""
    kind, _, _ = name.partition("=")
    others = _of_kind(kind, offered)
    own = directories()[-1]
    if others:
        fix = f"name one of {', '.join(others[:_SHOWN])}"
    else:
        fix = generator(kind, f"{own}/{kind.partition('.')[0]}.yaml") or f"put a spec of the vendor into {own}"
    return f"no CDI spec defines {name}", fix
