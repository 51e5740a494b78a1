"""How long podman takes with rootless, with runc and with crun."""

from __future__ import annotations

import pytest

from tests.lib.boxes import pure_cgroup2
from tests.lib.engines import IMAGE, make_image, opened_podman


@pytest.fixture
def podman(user, need, rootless_command):
    """The ordinary user's podman."""
    with pure_cgroup2("crun"), opened_podman(user, make_image(user.tmp), need("podman")) as podman:
        yield podman
    podman.remove_stores()


def test_duration_of_podman_run(podman, need, medians, figure):
    """All processes that it starts count: podman, conmon, the runtime, the clean-up."""
    runtimes = {"rootless": "rootless", "runc": need("runc"), "crun": need("crun")}
    steps = [
        {"name": name, "argv": [*podman.under(runtime), "run", "--rm", IMAGE, "true"], "orphans": True}
        for name, runtime in runtimes.items()
    ]
    figure("`podman run --rm`", medians(steps, env=podman.env))
