"""All checks of this host, and what they find: as text, as JSON, or as a script of fixes.

A check tries the operation where it can. A setting that looks right proves nothing on a host where a security module,
a mount option or an outer container decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless import log
from rootless.doctor import (
    cdi_checks,
    directory_checks,
    id_checks,
    image_checks,
    namespace_checks,
    network_checks,
    session_checks,
)
from rootless.doctor.problem import ESSENTIAL, MISSING, OPTIONAL, Host
from rootless.errors import RootlessError, one_line
from rootless.host import facts as host_facts

if TYPE_CHECKING:
    from rootless.doctor.problem import Check, Problem

CHECKS = (
    *namespace_checks.CHECKS,
    *id_checks.CHECKS,
    *network_checks.CHECKS,
    *image_checks.CHECKS,
    *directory_checks.CHECKS,
    *session_checks.CHECKS,
    *cdi_checks.CHECKS,
)
CONDITIONS = tuple({condition.code: condition for check in CHECKS for condition in check.conditions}.values())
_LEVELS = (ESSENTIAL, MISSING, OPTIONAL)


class Report:
    """The result of all checks, as an ordinary user sees this host; for real root, they run as an unprivileged user.

    Attributes:
        host: what the checks knew.
        problems: what they have found, the essential first and the optional last.
        works: the checks that have found nothing.
        untried: the checks that were left out or broke off, each with the reason.
        devices: a line about each CDI spec.
    """

    def __init__(self, command: str = "") -> None:
        """Run them; `command` is the path of the installed `rootless`, which an AppArmor profile has to name."""
        self.host = Host(host_facts.read(), command)
        self.works: list[Check] = []
        self.untried: list[tuple[Check, str]] = []
        found: list[Problem] = []
        for check in CHECKS:
            if check.contained and any(problem.level == ESSENTIAL for problem in found):
                self.untried.append((check, "no container can run"))
                continue
            try:
                problems = list(check.run(self.host))
            except (OSError, RootlessError) as error:
                words = error.strerror if isinstance(error, OSError) else ""
                self.untried.append((check, one_line(words or str(error))))
                continue
            if not problems:
                self.works.append(check)
            found += problems
            if log.is_debug():
                words = "; ".join(f"{each.condition.what}: {each.evidence}" for each in problems)
                log.debug(f"checked {check.subject}: {words or 'nothing is missing'}")
        self.problems = sorted(found, key=lambda problem: _LEVELS.index(problem.level))
        self.devices = cdi_checks.listed(self.host)

    @property
    def status(self) -> int:
        """The exit status: 1 if no container can run on this host."""
        return int(any(problem.level == ESSENTIAL for problem in self.problems))

    def text(self) -> str:
        """Return it for a person."""
        lines = [str(problem) for problem in self.problems]
        if all(problem.level == OPTIONAL for problem in self.problems):
            lines.insert(0, "Nothing is missing on this host.")
        lines += [f"works: {check.subject}: {check.tried}" for check in self.works]
        lines += [f"not tried: {check.subject}: {reason}" for check, reason in self.untried]
        return "".join(f"{line}\n" for line in (*lines, *self.devices))

    def as_json(self) -> dict[str, object]:
        """Return it as JSON data, whose keys are stable."""
        return {
            "user": self.host.facts.user,
            "usable": not self.status,
            "problems": [problem.as_json() for problem in self.problems],
            "works": [{"subject": check.subject, "evidence": check.tried} for check in self.works],
            "untried": [{"subject": check.subject, "reason": reason} for check, reason in self.untried],
            "devices": self.devices,
        }

    def script(self) -> str:
        """Return a script of the fixes, for an administrator to read and to run: nothing here runs it."""
        from rootless.doctor.fix_script import script

        return script(self.problems, self.host.facts.user)
