"""podman containers that share namespaces, and what they get passed: the same outcome as with crun."""

from __future__ import annotations

import pytest

from tests.engines.engines import IMAGE

LOOK = "cat /proc/self/uid_map /proc/self/gid_map; id; stat -c '%u %g %a' /etc/hosts /etc/hostname; cat /etc/hostname"


@pytest.fixture
def both(podman_in_cgroup2, need):
    """Return a function that runs the same words with rootless and with crun, which have to agree."""
    need("crun")
    podman = podman_in_cgroup2

    def run(*words, **options):
        ours, theirs = (
            podman.with_runtime(runtime, "run", "--rm", "--hostname=box", *words, **options)
            for runtime in ("rootless", "crun")
        )
        assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
        return ours

    return run


@pytest.fixture
def first(podman_in_cgroup2):
    """Return a function that makes the container whose namespaces others join."""
    names = []

    def detach(*flags):
        name = f"first{len(names)}"
        names.append(name)
        return podman_in_cgroup2.detach(name, *flags)

    yield detach
    podman_in_cgroup2("rm", "--force", "--time=0", *names, check=True)


@pytest.mark.parametrize(
    "flags", [["--userns=keep-id"], ["--userns=auto:size=1000"], ["--uidmap=0:1:5000", "--gidmap=0:1:5000"]], ids=str
)
def test_a_joined_user_namespace_can_be_given_files(flags, both, first):
    """Its root may not reach them: podman's directories are the caller's."""
    done = both(f"--userns=container:{first(*flags)}", "--network=none", IMAGE, "sh", "-c", LOOK)

    assert done.returncode == 0
    assert done.stdout.endswith("\nbox\n")
