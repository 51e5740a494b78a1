"""Checks of CDI specs: whether they are valid, and whether this host has the files that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless.bundle.cdi.host_files import missing
from rootless.bundle.cdi.specs import Specs, conflict
from rootless.doctor.problem import Check, Condition, advice
from rootless.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.bundle.cdi.specs import Spec
    from rootless.doctor.problem import Host, Problem

INVALID = Condition("RL-HOST-CDI-SPEC", "valid CDI specs", "rootless ignores those that are not")
AMBIGUOUS = Condition("RL-HOST-CDI-CONFLICT", "a single spec of each CDI device", "rootless cannot choose one")
STALE = Condition("RL-HOST-CDI-FILES", "files that CDI specs name", "the devices cannot be used")


def problems(host: Host) -> Iterable[Problem]:
    """Yield what is wrong with the specs of this host: one problem per spec and per conflict."""
    if not host.home_answers:
        return
    specs = Specs()
    for error in specs.broken:
        yield INVALID.found(f"{error.what}: {error.cause}", advice(error.fix))
    for name, defining in specs.names().items():
        if len(defining) > 1:
            cause, fix = conflict(name, defining)
            yield AMBIGUOUS.found(f"{name}: {cause}", advice(fix))
    for spec in specs.valid:
        yield from _stale(spec)


def _stale(spec: Spec) -> Iterable[Problem]:
    shared = [cause for _, cause in missing(spec, "")]
    lacking = {name: [cause for _, cause in missing(spec, name)] for name in spec.devices}
    useless = [f"{spec.kind}={name}" for name, causes in lacking.items() if causes or shared]
    if useless:
        causes = dict.fromkeys([*shared, *(cause for each in lacking.values() for cause in each)])
        yield STALE.found(f"{spec.path}, of {', '.join(useless)}: {'; '.join(causes)}", advice(spec.regenerate))


def listed(host: Host) -> list[str]:
    """Return a line about each valid spec: its devices."""
    return [
        one_line(f"CDI devices of {spec.path}: {', '.join(f'{spec.kind}={name}' for name in spec.devices)}")
        for spec in (Specs().valid if host.home_answers else ())
    ]


CHECKS = (
    Check(
        "CDI devices",
        "read their specs, and looked for the files that these name",
        problems,
        (INVALID, AMBIGUOUS, STALE),
    ),
)
