"""The verb that shows what would be done."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.options import Options


def explain(options: Options) -> int:
    """Carry out `rootless explain`."""
    from rootless.cli.output import put
    from rootless.container.explain import explain as describe

    put(describe(options).rstrip("\n") + "\n")
    return 0


VERBS = {"explain": explain}
