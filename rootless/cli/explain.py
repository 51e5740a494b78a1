"""The verbs that show what would be done, what can be, and what cannot."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options


def explain(options: Options) -> int:
    """Carry out `rootless explain`."""
    from rootless.cli.output import put
    from rootless.container.explain import explain as describe

    put(describe(options).rstrip("\n") + "\n")
    return 0


def features(options: Options) -> int:
    """Carry out `rootless features`."""
    from rootless.cli.output import put
    from rootless.container.features import features as known
    from rootless.jsontext import render

    put(render(known(options), indent=2) + "\n")
    return 0


def doctor(options: Options) -> int:
    """Carry out `rootless doctor`."""
    del options  # it has none
    import os
    import sys

    from rootless.cli.output import put
    from rootless.doctor.host_checks import report

    command = os.path.realpath(sys.argv[0])
    text, status = report(command if os.path.basename(command) == "rootless" else "")
    put(text)
    return status


VERBS = {"explain": explain, "features": features, "doctor": doctor}
