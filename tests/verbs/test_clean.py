"""`rootless clean` removes what killed commands and earlier boots have left, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import Reader, await_end
from tests.lib.detached import detached

__all__ = ["detached"]


def cleaned(rootless, *flags):
    done = rootless("clean", *flags)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def of_another_boot(rootless, container):
    path = rootless.root / container / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"bootId": "00000000-0000-0000-0000-000000000000"}))


@pytest.fixture
def killed_create(rootless, user):
    """What is left of a create that was killed before there was a process."""
    rootless.make_root()
    place = rootless.root / "killed"
    place.mkdir(mode=0o700)
    (place / "resolv.conf").write_text("")
    for path in (place, place / "resolv.conf"):
        os.chown(path, user.uid, user.gid)
    os.utime(place, (0, 0))
    return place


@pytest.fixture
def killed_run(rootless, user):
    """A container whose foreground run was killed."""
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; sleep 1000"), name="killed-run")
    with rootless.popen("run", bundle, stdout=subprocess.PIPE) as run:
        assert Reader(run.stdout).line() == "ready"
        run.kill()
    return rootless.pid("killed-run")


def test_nothing_to_clean(rootless):
    assert cleaned(rootless) == ""
    assert not rootless.root.exists()


def test_a_killed_create(rootless, killed_create):
    what = "container killed: its create was killed\n"
    assert cleaned(rootless, "--dry-run") == f"would remove {what}"
    assert killed_create.exists()
    assert cleaned(rootless) == f"removed {what}"
    assert not killed_create.exists()
    assert cleaned(rootless) == ""


def test_a_directory_that_has_just_been_made_stays(rootless, killed_create):
    os.utime(killed_create)
    assert cleaned(rootless) == ""
    assert killed_create.exists()


def test_a_directory_that_is_not_a_containers_stays(rootless, killed_create):
    (killed_create / "thesis.tex").write_text("years of work")
    os.utime(killed_create, (0, 0))
    done = rootless("clean")
    assert (done.returncode, done.stdout) == (0, "")
    assert "it holds files that are not a container's" in done.stderr
    assert (killed_create / "thesis.tex").exists()


def test_a_killed_run_when_its_container_has_ended(rootless, killed_run):
    assert cleaned(rootless) == "", "it runs"
    os.kill(killed_run, signal.SIGKILL)
    await_end(killed_run)
    assert cleaned(rootless) == "removed container killed-run: its run was killed\n"
    assert rootless.list() == []


def test_a_killed_create_that_left_a_process(rootless, user):
    bundle = make_bundle(user)
    rootless.create("c1", bundle)
    pid = rootless.pid("c1")
    path = rootless.root / "c1/state.json"
    path.write_text(path.read_text().replace('"created"', '"creating"', 1))
    assert cleaned(rootless) == ""
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    assert cleaned(rootless) == "removed container c1: its create was killed\n"


def test_containers_of_an_earlier_boot(rootless, user, detached):
    detached("exit 3")
    of_another_boot(rootless, "bundle")
    assert cleaned(rootless) == "removed container bundle: it ended with an earlier boot\n"
    assert list(rootless.root.iterdir()) == []


def test_what_is_of_use_stays(rootless, user, detached):
    detached("exit 3")
    bundle = make_bundle(user, base_config("sleep", "1000"), name="other")
    rootless.create("created", bundle)
    rootless.create("running", bundle)
    rootless.start("running")
    rootless("run", "-d", bundle, check=True)
    assert rootless("run", "--keep", "--name", "kept", detached.bundle).returncode == 3
    rootless.create("stopped", bundle)
    rootless("kill", "stopped", "KILL", check=True)
    await_end(json.loads((rootless.root / "stopped/state.json").read_text())["pid"])
    before = {state["id"]: state["status"] for state in rootless.list()}
    assert before.keys() == {"bundle", "created", "running", "other", "kept", "stopped"}
    assert cleaned(rootless) == ""
    assert {state["id"]: state["status"] for state in rootless.list()} == before
    assert rootless("wait", "bundle").stdout == "3\n"


def test_damaged_states_are_named_and_stay(rootless, detached):
    detached("exit 3")
    (detached.place / "state.json").write_text("{")
    done = rootless("clean")
    assert (done.returncode, done.stdout) == (0, "")
    assert "rootless delete --force bundle" in done.stderr
    assert detached.place.exists()


def test_a_container_that_a_command_works_on_stays(rootless, killed_create):
    import fcntl

    fd = os.open(killed_create, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert cleaned(rootless) == ""
    os.close(fd)
    assert killed_create.exists()


def test_beside_containers_that_come_and_go(rootless, user):
    bundle = make_bundle(user, base_config("true"))
    over = threading.Event()
    said = []

    def clean():
        while not over.is_set():
            said.append(rootless("clean"))

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for number in range(15):
            done = rootless("run", "--bundle", bundle, f"c{number}")
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        over.set()
        cleaner.join()
    assert said
    assert {(done.returncode, done.stdout, done.stderr) for done in said} == {(0, "", "")}


def test_state_directories_of_earlier_boots(user, rootless_command):
    """As on a node where users have no runtime directory, and another user has made the one in /tmp."""
    home = user.tmp / "home"
    node = os.uname().nodename
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    above = home / ".local/state/rootless"
    names = (f"{node}.{boot}", f"{node}.0000", "other.0000", "notes.txt")
    for name in names:
        (above / name / "c1").mkdir(parents=True)
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", home], check=True)
    done = user.run([rootless_command, "clean"], env={"HOME": str(home)})
    assert done.stdout.splitlines() == [f"removed {above}/{node}.0000: the containers of an earlier boot"], done
    assert {path.name for path in above.iterdir()} == {*names} - {f"{node}.0000"}


def test_files_that_a_killed_pull_was_writing(user, rootless_command):
    store = user.tmp / "images"
    for directory in (store, store / "blobs", store / "blobs/sha256", store / "references"):
        directory.mkdir(mode=0o700)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    dead = store / f".image.{boot}.{namespace}.{2**22 - 1}.1"
    alive = store / f".image.{boot}.{namespace}.{os.getpid()}.{start}"
    for path in (dead, alive, store / "notes.txt"):
        path.touch()
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", store], check=True)
    done = user.run([rootless_command, "--root", user.tmp / "state", "clean"], env={"ROOTLESS_IMAGES": str(store)})
    assert (done.returncode, done.stdout) == (0, f"removed {dead}: its writer was killed\n"), done
    assert alive.exists()
    assert (store / "notes.txt").exists()
