"""Checks of CDI specs: whether they are valid, and whether this host has the files that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless.bundle.cdi.host_files import missing
from rootless.bundle.cdi.specs import Specs, conflict
from rootless.doctor.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless.bundle.cdi.specs import Spec


def problems() -> Iterable[Problem]:
    """Yield what is wrong with the specs of this host: one problem per spec and per conflict."""
    specs = Specs()
    for error in specs.broken:
        yield Problem(f"a valid {error.what} ({error.cause})", "rootless ignores it", error.fix)
    for name, defining in specs.names().items():
        if len(defining) > 1:
            cause, fix = conflict(name, defining)
            yield Problem(f"a single spec of the CDI device {name} ({cause})", "rootless cannot choose one", fix)
    for spec in specs.valid:
        yield from _stale(spec)


def _stale(spec: Spec) -> Iterable[Problem]:
    shared = [cause for _, cause in missing(spec, "")]
    lacking = {name: [cause for _, cause in missing(spec, name)] for name in spec.devices}
    useless = [f"{spec.kind}={name}" for name, causes in lacking.items() if causes or shared]
    if useless:
        causes = dict.fromkeys([*shared, *(cause for each in lacking.values() for cause in each)])
        why = f"{', '.join(useless)} cannot be used"
        yield Problem(f"files that the CDI spec {spec.path} names ({'; '.join(causes)})", why, spec.regenerate)


def listed() -> list[str]:
    """Return a line about each valid spec: its devices."""
    return [
        f"CDI devices of {spec.path}: {', '.join(f'{spec.kind}={name}' for name in spec.devices)}"
        for spec in Specs().valid
    ]
