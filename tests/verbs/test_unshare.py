"""`rootless unshare` runs a command with the IDs of containers, on the host's files."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.lib.boxes import subordinate
from tests.lib.containers import Reader, until


def test_the_ids_are_those_of_containers(rootless, user):
    done = rootless("unshare", "sh", "-c", "id -u; pwd; cat /proc/self/uid_map; touch new; chown 33:34 new", check=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["0", str(user.tmp)]
    assert lines[2].split() == ["0", str(user.uid), "1"]
    made = (user.tmp / "new").stat()
    assert (made.st_uid, made.st_gid) == (subordinate(user, 33), subordinate(user, 34))
    assert done.stderr == ""


def test_its_mounts_are_its_own(rootless, user):
    (user.tmp / "place").mkdir()
    rootless(
        "unshare", "--", "sh", "-c", "mount -t tmpfs tmpfs place && touch place/file && test -e place/file", check=True
    )
    assert list((user.tmp / "place").iterdir()) == []


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("cat; exit 3", 3)])
def test_input_and_exit_status_are_the_commands(rootless, script, status):
    done = rootless("unshare", "sh", "-c", script, input="text")
    assert done.returncode == status
    assert done.stdout == ("text" if "cat" in script else "")


def test_a_shell_is_the_default(rootless):
    done = rootless("unshare", input="echo $0 $HOME", env={"SHELL": "/bin/dash"})
    assert done.stdout == f"/bin/dash {rootless.user.home}\n"


@pytest.mark.parametrize("name", ["missing", "./missing", "/etc/passwd"])
def test_a_command_that_cannot_be_executed(rootless, name):
    done = rootless("unshare", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f'rootless: exec: "{name}": ')


def test_a_file_that_is_no_program_is_in_no_configuration(rootless, user):
    (user.tmp / "text").write_text("text")
    (user.tmp / "text").chmod(0o755)
    done = rootless("unshare", "./text")
    assert done.returncode == 1
    assert done.stderr == (
        "rootless: exec ./text: exec format error: it is neither an ELF program nor a script with a #! line; "
        "fix: start the script with #!/bin/sh\n"
    )


def test_signals_reach_the_command_once(rootless):
    """A terminal's go to the whole process group; others are forwarded."""
    script = "import os, signal\nnumbers = {signal.SIGINT, signal.SIGTERM}\n"
    script += "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\nos.write(1, b'ready\\n')\n"
    script += "while True: os.write(1, b'%d\\n' % signal.sigwait(numbers))"  # pause() would miss one just before it
    running = rootless.popen("unshare", "python3", "-c", script, stdout=subprocess.PIPE, process_group=0)
    with running:
        output = Reader(running.stdout)
        assert output.line() == "ready"
        until(lambda: _ignores(running.pid, signal.SIGINT), "the launcher")
        os.killpg(running.pid, signal.SIGINT)
        assert output.line() == str(int(signal.SIGINT))
        running.terminate()
        assert output.line() == str(int(signal.SIGTERM))
        os.killpg(running.pid, signal.SIGKILL)


def _ignores(pid, number):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (mask,) = [line.split()[1] for line in file if line.startswith("SigIgn:")]
    return int(mask, 16) >> number - 1 & 1


def test_a_single_id_is_a_warning(single_user, rootless_command):
    done = single_user.run([rootless_command, "unshare", "id", "-u"], check=True)
    assert done.stdout == "0\n"
    assert done.stderr.startswith("rootless: warning: only your own id exists in it: /etc/subuid has no range for")
