"""What the checks declare and find: conditions of a host, problems, and the commands that fix them."""

from __future__ import annotations

import errno
import shlex
from typing import TYPE_CHECKING

from rootless.errors import one_line
from rootless.files import text_of
from rootless.plan.network.helpers import PACKAGES, device_commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rootless.host.facts import Facts

ESSENTIAL = "essential"
"""No container runs without it."""
MISSING = "missing"
"""Containers run, and something that people expect does not work."""
OPTIONAL = "optional"
"""Few containers need it."""

SUDO = "\0"
"""Precedes a word of a command that only root may run: a person reads `sudo `. No argument can have this character."""

_FOR_IMAGES = {"squashfuse_ll": "squashfuse", "sqfstar": "squashfs-tools", "skopeo": "skopeo"}
_PACKAGES = {
    "debian": ("apt-get install", {"newuidmap": "uidmap", "libseccomp": "libseccomp2"} | PACKAGES | _FOR_IMAGES),
    "fedora": ("dnf install", {"newuidmap": "shadow-utils", "libseccomp": "libseccomp"} | PACKAGES | _FOR_IMAGES),
}


class Fix:
    """How to fix a problem.

    Attributes:
        commands: lines of shell, with SUDO before each word that needs root; empty if a person has to decide.
        advice: the instruction where there are no commands.
    """

    __slots__ = ("advice", "commands")

    def __init__(self, *commands: str, advice: str = "") -> None:
        self.commands = commands
        self.advice = advice
        if not all(command.replace(SUDO, "").isprintable() for command in commands):
            # a terminal would obey a name with escapes when a person reads the script
            self.advice, self.commands = self._line, ()

    def __str__(self) -> str:
        """Return what a person reads and types."""
        return one_line(self.advice or self._line)

    @property
    def _line(self) -> str:
        return " && ".join(self.commands).replace(SUDO, "sudo ")

    @property
    def by_root(self) -> bool:
        """Whether a command needs root."""
        return any(SUDO in command for command in self.commands)

    @property
    def script(self) -> list[str]:
        """The commands as root runs them in a script."""
        return [command.replace(SUDO, "") for command in self.commands]


def advice(text: str) -> Fix:
    """Return an instruction, for a problem that no command fixes."""
    return Fix(advice=text)


class Condition:
    """The declaration of one thing that a host may not have.

    Attributes:
        code: stable identifier; docs/errors.md has all of them.
        what: the thing that is missing.
        cost: what does not work without it.
        level: ESSENTIAL, MISSING or OPTIONAL.
    """

    __slots__ = ("code", "cost", "level", "what")

    def __init__(self, code: str, what: str, cost: str, level: str = MISSING) -> None:
        self.code = code
        self.what = what
        self.cost = cost
        self.level = level

    def found(self, evidence: str, fix: Fix) -> Problem:
        """Return the problem: this host does not have it."""
        return Problem(self, evidence, fix)


class Problem:
    """A condition that this host does not meet: `evidence` is what a check has seen, `fix` what helps."""

    __slots__ = ("condition", "evidence", "fix", "level")

    def __init__(self, condition: Condition, evidence: str, fix: Fix) -> None:
        self.condition = condition
        self.evidence = one_line(evidence)
        self.fix = fix
        self.level = condition.level

    def __str__(self) -> str:
        """Return four lines for a person."""
        kind = OPTIONAL if self.level == OPTIONAL else MISSING
        lines = (
            f"{kind}: {self.condition.what} ({self.condition.code})",
            f"evidence: {self.evidence}",
            f"cost: {self.condition.cost}",
            f"fix: {self.fix}",
        )
        return "\n    ".join(lines)

    def as_json(self) -> dict[str, object]:
        """Return it as JSON data, whose keys are stable."""
        return {
            "code": self.condition.code,
            "level": self.level,
            "what": self.condition.what,
            "evidence": self.evidence,
            "cost": self.condition.cost,
            "fix": str(self.fix),
            "commands": self.fix.script,
            "root": self.fix.by_root,
        }


class Check:
    """One check of the host.

    Attributes:
        subject: what works if it finds nothing.
        tried: how the check knows.
        run: yields the problems that it finds, given the Host.
        conditions: all that it can find.
        contained: it needs a user namespace, and is left out where an earlier check found something essential.
    """

    __slots__ = ("conditions", "contained", "run", "subject", "tried")

    def __init__(
        self,
        subject: str,
        tried: str,
        run: Callable[[Host], Iterable[Problem]],
        conditions: Iterable[Condition],
        *,
        contained: bool = False,
    ) -> None:
        self.subject = subject
        self.tried = tried
        self.run = run
        self.conditions = tuple(conditions)
        self.contained = contained


class Host:
    """What the checks know.

    Attributes:
        facts: the host and the caller.
        command: the path of the installed `rootless`; empty in a checkout.
        home_answers: the file system of the home has answered; a check that touches it otherwise would hang.
    """

    __slots__ = ("command", "facts", "home_answers")

    def __init__(self, facts: Facts, command: str = "") -> None:
        self.facts = facts
        self.command = command
        self.home_answers = True


# --- Fixes --------------------------------------------------------------------------------------------------


def set_sysctl(name: str, value: int | str) -> Fix:
    """Return the command that changes a setting, now and after the next boot."""
    file = "/etc/sysctl.d/90-rootless.conf"
    return Fix(f"echo {shlex.quote(f'{name}={value}')} | {SUDO}tee -a {file}", f"{SUDO}sysctl -p {file}")


def device_fix(module: str, device: str, error: int) -> Fix:
    """Return the commands that let users open a device, which failed with `error`."""
    is_closed = error in (errno.EACCES, errno.EPERM)
    return Fix(*device_commands(module, device, is_closed=is_closed, sudo=SUDO))


def install(thing: str, words: str) -> Fix:
    """Return the command that installs the package with `thing`, or a hint on an unknown distribution."""
    family = os_family(text_of("/etc/os-release"))
    if family not in _PACKAGES:
        return advice(f"install the distribution's package of {words}")
    manager, packages = _PACKAGES[family]
    return Fix(f"{SUDO}{manager} {packages[thing]}")


def os_family(os_release: str) -> str:
    """Return "debian", "fedora" or "" by the text of os-release(5)."""
    words: set[str] = set()
    for line in os_release.splitlines():
        name, _, value = line.partition("=")
        if name in ("ID", "ID_LIKE"):
            words.update(value.strip("'\" ").split())
    if words & {"debian", "ubuntu"}:
        return "debian"
    return "fedora" if words & {"fedora", "rhel", "centos"} else ""


def sysctl(name: str) -> str:
    """Return a sysctl; empty where the kernel does not have it."""
    return text_of("/proc/sys/" + name.replace(".", "/"))


def raise_sysctl(name: str, enough: int, setting: Callable[[str], str] = sysctl) -> Fix:
    """Return the command that raises a limit that is used up: to `enough`, or above its present value."""
    now = setting(name)
    return set_sysctl(name, max(enough, 2 * int(now) if now.isdecimal() else 0))
