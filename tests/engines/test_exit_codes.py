"""The exit status that podman derives from a runtime's messages, compared with crun; docker's, compared with runc."""

from __future__ import annotations

import pytest

from tests.lib.engines import DOCKER_RUN, IMAGE

RUN = {
    "the program's status": ([], ["sh", "-c", "exit 3"], 3),
    "ended by a signal": (["--init"], ["sh", "-c", "kill -KILL $$"], 137),
    "not in PATH": ([], ["nope"], 127),
    "missing": ([], ["/nope/nope"], 127),
    "missing, relative": ([], ["./nope"], 127),
    "not executable": ([], ["/etc/passwd"], 126),
    "a directory": ([], ["/etc"], 126),
    "below a file": ([], ["/etc/passwd/nope"], 126),
    "an empty name": ([], [""], 127),
    "a file on a directory": (["--volume={tmp}/script:/etc"], ["true"], 126),
    "a mount below a file": (["--device=/dev/null:/etc/passwd/null"], ["true"], 126),
    "a bad mount option": (["--mount=type=tmpfs,destination=/x,tmpfs-size=bad"], ["true"], 126),
    "a missing sysctl": (["--sysctl=net.nope=1"], ["true"], 127),
    "a user that is not mapped": (["--user=100000"], ["true"], 126),
    "a group that is not mapped": (["--user=5000:100000"], ["true"], 126),
    "a host name that is too long": ([f"--hostname={'x' * 70}"], ["true"], 126),
    "a working directory that is a file": (["--workdir=/etc/passwd"], ["true"], 126),
}
EXEC = {
    "the program's status": ([], ["sh", "-c", "exit 3"], 3),
    "ended by a signal": ([], ["sh", "-c", "kill -KILL $$"], 137),
    "not in PATH": ([], ["nope"], 127),
    "missing": ([], ["/nope/nope"], 127),
    "not executable": ([], ["/etc/passwd"], 126),
    "a directory": ([], ["/etc"], 126),
    "below a file": ([], ["/etc/passwd/nope"], 255),
    "a missing working directory": (["--workdir=/nope"], ["true"], 127),
    "a working directory that is a file": (["--workdir=/etc/passwd"], ["true"], 255),
    "a user that is not mapped": (["--user=100000"], ["true"], 255),
    "not in PATH, detached": (["--detach"], ["nope"], 125),
}
RUNTIMES = ("rootless", "crun")
"""runc has other messages, for example if the program is a directory, and podman exits with 255 for these."""
DOCKER = ("not in PATH", "missing", "not executable", "a directory", "below a file", "the program's status")


@pytest.fixture(scope="module")
def podman(podman_in_cgroup2, need):
    """podman on a host where both runtimes work, and a file that some cases name."""
    for runtime in RUNTIMES[1:]:
        need(runtime)
    script = podman_in_cgroup2.account.tmp / "script"
    script.write_text("#!/nope\n")
    script.chmod(0o755)
    return podman_in_cgroup2


@pytest.fixture(scope="module")
def containers(podman):
    """A running container of each runtime."""
    for runtime in RUNTIMES:
        podman.with_runtime(runtime, "run", "--detach", f"--name={runtime}", IMAGE, "sleep", "1000", check=True)
    yield RUNTIMES
    podman("rm", "--force", "--time=0", *RUNTIMES, check=True)


@pytest.fixture(scope="module")
def docker_containers(docker, need):
    """The same for docker."""
    names = ("rootless", need("runc").rpartition("/")[2])
    for name in names:
        docker(
            "run",
            "--detach",
            f"--name={name}",
            f"--runtime={name}",
            *DOCKER_RUN[2:],
            IMAGE,
            "sleep",
            "1000",
            check=True,
        )
    yield names
    docker("rm", "--force", *names, check=True)


@pytest.mark.parametrize("case", RUN)
def test_podman_run_has_the_same_exit_status_as_with_crun(podman, case):
    flags, command, status = RUN[case]
    words = ["run", "--rm", *(flag.format(tmp=podman.account.tmp) for flag in flags), IMAGE, *command]

    ours, theirs = (podman.with_runtime(runtime, *words) for runtime in ("rootless", "crun"))

    assert ours.returncode == theirs.returncode == status, (ours.stderr, theirs.stderr)


@pytest.mark.parametrize("case", EXEC)
def test_podman_exec_has_the_same_exit_status_as_with_crun(podman, containers, case):
    flags, command, status = EXEC[case]

    ours, theirs = (podman("exec", *flags, name, *command) for name in containers)

    assert ours.returncode == theirs.returncode == status, (ours.stderr, theirs.stderr)


def test_podman_prints_the_whole_error_line(podman):
    done = podman.run(IMAGE, "/etc/passwd")

    assert done.stderr.count("\n") == 1
    assert "permission denied (config.json: process.args[0]); fix: make it executable (chmod +x)" in done.stderr


def test_podman_reports_a_missing_interpreter(podman):
    """With crun and runc the container has started by then: it exits with 1 and reports no error."""
    done = podman.run(f"--volume={podman.account.tmp}/script:/script:ro", IMAGE, "/script")

    assert done.returncode == 126
    assert "its first line names the interpreter /nope" in done.stderr


@pytest.mark.parametrize("case", DOCKER)
def test_docker_run_has_the_same_exit_status_as_with_runc(docker, need, case):
    need("runc")
    command = RUN[case][1]

    ours, theirs = (docker(*DOCKER_RUN, f"--runtime={name}", IMAGE, *command) for name in ("rootless", "runc"))

    assert ours.returncode == theirs.returncode != 0, ours.stderr


@pytest.mark.parametrize("case", DOCKER)
def test_docker_exec_has_the_same_exit_status_as_with_runc(docker, docker_containers, case):
    ours, theirs = (docker("exec", name, *EXEC[case][1]) for name in docker_containers)

    assert ours.returncode == theirs.returncode != 0, ours.stderr
