"""The session keyring: the caller's keys stay private when the quota is used up, and no planted keyring is joined."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import as_real_root, set_namespaces
from tests.lib.bundles import make_bundle, own, write_config
from tests.lib.containers import PATIENCE, Reader, until
from tests.lib.intruders import add_program, intruding, results

SWITCHED_OFF = {"search": ["EDQUOT"], "request": ["EDQUOT"], "read": ["EDQUOT"], "link": ["EDQUOT"]}
MANY = 1000
MOST_KEPT = 20


@pytest.fixture
def intruder(box, need):
    return add_program(box, need, "intruder")


@pytest.fixture(autouse=True)
def free_quota(user):
    """Wait until the kernel has collected the keys of earlier containers; it does so some time after their end."""
    until(lambda: keys_of(user) < MOST_KEPT, "the keys of earlier tests are collected")
    yield
    until(lambda: keys_of(user) < MOST_KEPT, "the keys are collected")


def keys_of(user):
    """Return how many keys count towards a user's quota (proc_key-users(5))."""
    lines = [line.split() for line in Path("/proc/key-users").read_text().splitlines()]
    return next((int(fields[3].partition("/")[0]) for fields in lines if fields[0] == f"{user.uid}:"), 0)


def with_a_secret(user, intruder, script, *words, **options):
    """Run a shell script in a session that has a secret key, whose number is $1."""
    done = user.run([intruder, "lock", "/bin/sh", "-ec", script, "sh", "NUMBER", *words], **options)
    assert done.returncode == 0, done
    return done


def test_a_used_up_quota_exposes_no_key_of_the_caller(box, rootless, intruder):
    hostile = make_bundle(box.user, intruding("fill"), name="hostile")
    (hostile / "rootfs/bin/intruder").write_bytes(intruder.read_bytes())
    (hostile / "rootfs/bin/intruder").chmod(0o755)
    own(box.user, hostile)
    write_config(box.path, intruding("unlock", "KEY"))
    script = f"""
    sed -i s/KEY/$1/ {box.path}/config.json
    shift
    mkfifo {box.user.tmp}/said
    "$@" run --detach --bundle {hostile} hostile </dev/null >{box.user.tmp}/said 2>&1 &
    exec 3<{box.user.tmp}/said
    read line <&3
    echo "$line" >&2
    "$@" run --bundle {box.path} victim
    """
    done = with_a_secret(box.user, intruder, script, *rootless.argv(), timeout=PATIENCE)
    assert "full" in done.stderr
    assert results(done.stdout) == SWITCHED_OFF
    assert "Disk quota exceeded: the container cannot use keyctl, add_key and request_key" in done.stderr
    # processes of the first container, and of exec in it, have a keyring of their own
    assert rootless("exec", "hostile", "intruder", "session").stdout.startswith("session ")


def test_a_thousand_containers_at_once_read_no_key_of_the_caller(box, rootless, intruder):
    """The quota is 200 keys; crun and runc stop there."""
    write_config(box.path, intruding("unlock", "KEY"))
    script = f"""
    sed -i s/KEY/$1/ {box.path}/config.json
    shift
    for half in 1 2; do
        number=$half
        while [ $number -le {MANY} ]; do
            "$@" create --bundle {box.path} c$number </dev/null >{box.user.tmp}/$number.out 2>{box.user.tmp}/$number.err
            number=$((number + 2))
        done &
    done
    wait
    """
    with_a_secret(box.user, intruder, script, *rootless.argv(), timeout=500)
    states = rootless.list()
    assert [state["status"] for state in states] == ["created"] * MANY
    found = []
    for number in (1, 2, MANY - 1, MANY):
        rootless.start(f"c{number}")
        output = box.user.tmp / f"{number}.out"
        until(lambda output=output: output.read_text().count("\n") == len(SWITCHED_OFF), "its results")
        found.append(results(output.read_text()))
    assert found[2:] == [SWITCHED_OFF] * 2
    assert all(result[0].startswith("E") for each in found for result in each.values())
    assert rootless("delete", "--force", "--regex", "^c", timeout=300).returncode == 0


def test_a_keyring_planted_by_another_user_is_not_joined(box, intruder, single_user):
    as_real_root(box)
    config = intruding("session")
    with single_user.popen([intruder, "plant", "_ses.box"], stdout=subprocess.PIPE) as planter:
        planted = results(Reader(planter.stdout).line())["planted"]
        found = results(box.run(config, check=True).stdout)["session"]
        planter.kill()
    assert int(found[0]) > 0
    assert found != planted


def test_a_keyring_planted_by_another_container_is_not_joined(box, rootless, intruder):
    """Both containers share a user namespace, and so the names of keyrings."""
    write_config(box.path, intruding("plant", "_ses.b"))
    rootless.create("a", box.path)
    rootless.start("a")
    until(lambda: rootless.output("a"), "it is planted")
    config = intruding("session")
    set_namespaces(config, "mount", "pid", "ipc", "uts", user=f"/proc/{rootless.pid('a')}/ns/user")
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "sysfs"]
    write_config(box.path, config)
    done = rootless("run", "--bundle", box.path, "b", check=True)
    assert int(results(done.stdout)["session"][0]) > 0
    assert results(done.stdout)["session"] != results(rootless.output("a"))["planted"]


def test_exec_joins_its_containers_keyring_in_a_shared_user_namespace(box, rootless, intruder):
    write_config(box.path, intruding("plant", "_ses.x"))
    rootless.create("a", box.path)
    rootless.start("a")
    config = intruding("session")
    set_namespaces(config, "mount", "pid", "ipc", "uts", user=f"/proc/{rootless.pid('a')}/ns/user")
    config["mounts"] = [each for each in config["mounts"] if each["type"] != "sysfs"]
    config["process"]["args"] = ["sh", "-c", "intruder session; exec sleep 1000"]
    write_config(box.path, config)
    rootless.create("b", box.path)
    rootless.start("b")
    until(lambda: rootless.output("b"), "its session")
    assert rootless("exec", "b", "intruder", "session").stdout == rootless.output("b")
