"""A hundred containers at once with podman: none fails, and nothing is left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.lib.containers import executors, until
from tests.lib.engines import IMAGE

MANY = 100


def at_once(function):
    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(function, range(MANY)))


def nothing_is_left(podman):
    until(lambda: podman.left() == [], "nothing is left")
    assert podman.out("ps", "--all", "--quiet") == ""
    assert executors(podman.account) == set()


def test_a_hundred_parallel_runs_succeed(podman):
    done = at_once(lambda number: podman.run(IMAGE, "sh", "-c", f"echo {number}; exit {number % 7}"))

    assert [(each.returncode, each.stdout, each.stderr) for each in done] == [
        (number % 7, f"{number}\n", "") for number in range(MANY)
    ]
    nothing_is_left(podman)


def test_a_hundred_detached_containers_run_and_are_removed(podman):
    done = at_once(lambda number: podman("run", "--detach", f"--name=c{number}", IMAGE, "sleep", "1000"))

    assert [each.stderr for each in done] == [""] * MANY
    assert len(podman.out("ps", "--quiet", "--filter=status=running").split()) == MANY
    podman("rm", "--all", "--force", "--time=0", check=True)
    nothing_is_left(podman)
