"""podman as an ordinary user in a delegated cgroup, where each container has a cgroup and can be paused."""

from __future__ import annotations

from tests.lib.containers import until
from tests.lib.engines import IMAGE


def test_podman_pause_and_unpause_change_the_status(podman_in_own_cgroup):
    podman = podman_in_own_cgroup
    name = podman.detach("paused")
    podman("pause", name, check=True)
    assert podman.inspect(name, ".State.Status") == "paused"
    podman("unpause", name, check=True)
    assert podman.inspect(name, ".State.Status") == "running"
    assert podman("exec", name, "true").returncode == 0
    podman("rm", "--force", "--time=0", name, check=True)


def test_podman_rm_force_removes_a_paused_container(podman_in_own_cgroup):
    podman = podman_in_own_cgroup
    podman("run", "--detach", "--name=still", IMAGE, "sleep", "1000", check=True)
    podman("pause", "still", check=True)
    podman("rm", "--force", "--time=0", "still", check=True)
    until(lambda: podman.left() == [], "nothing is left")
