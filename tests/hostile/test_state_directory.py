"""Another local user attacks the caller's state directory: planted files are never trusted."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.lib.bare_host import BareHost
from tests.lib.bundles import base_config, make_bundle

ATTEMPTS = 60
"""Calls of the victim. A command that checked first and opened by name later was deceived once in twenty calls."""

SWAP = """
import itertools, os, shutil, sys
prepared, place, state = sys.argv[1:]
print("ready", flush=True)
for _ in itertools.count():
    try:
        # plant the files again that a deceived command has removed
        if not os.path.islink(prepared) and not os.path.exists(prepared + "/c1/state.json"):
            os.umask(0)
            os.makedirs(prepared + "/c1", exist_ok=True)
            with open(prepared + "/c1/state.json", "w") as file:
                file.write(state)
        os.rename(prepared, place)
        os.rename(place, prepared)
    except OSError:
        pass
"""
"""The attacker's loop: a prepared directory, or a symlink, appears at the victim's path and disappears."""


def planted(evidence):
    """Return the state of a stopped container whose hooks leave evidence if they run."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"id -u >> {evidence}"]}
    return {
        "ociVersion": "1.2.0",
        "id": "c1",
        "pid": 1,
        "status": "created",
        "startTime": 1,
        "bootId": "another",
        "bundle": "/planted",
        "rootfs": "/planted",
        "created": "2030-01-01T00:00:00.000000000Z",
        "annotations": {},
        "owner": "attacker",
        "afterStart": {"first": 0, "operations": []},
        "user": [0, 0],
        "keyring": True,
        "hooks": {"poststart": [hook], "poststop": [hook]},
    }


def plant(directory, evidence):
    """Return shell commands that create a state directory with that container, writable by everyone."""
    text = shlex.quote(json.dumps(planted(evidence)))
    return f"umask 0; mkdir -p {directory}/c1; printf %s {text} > {directory}/c1/state.json"


@pytest.fixture
def bundle(user):
    return make_bundle(user, base_config("echo", "hello"))


def _swapping(attacker, prepared, place):
    """Return shell commands that start the attacker's loop and wait until it runs."""
    words = ["python3", "-c", SWAP, prepared, place, json.dumps(planted("/tmp/evidence"))]
    loop = BareHost.as_user(attacker, shlex.join(words))
    return f"mkfifo -m 666 /tmp/ready; {loop} > /tmp/ready & read line < /tmp/ready"


def _calls(command, bundle, verb="delete --force c1"):
    """Return a script that calls the victim's command again and again, and in the end runs a container."""
    return (
        f"for i in $(seq {ATTEMPTS}); do {command} state c1; {command} {verb}; [ -e /tmp/evidence ] && break; done\n"
        f"{command} run --keep -b {bundle} mine; {command} list -q; {command} delete mine; {command} list -q"
    )


def _not_deceived(done):
    """Check that no state of the attacker was shown, no hook ran, and the victim's own container ran."""
    assert done.stdout == "hello\nmine\nno evidence\n", done.stderr
    assert "cannot" not in done.stderr.replace("cannot keep state", "")


REPORT = "[ -e /tmp/evidence ] && echo hooks were run by: $(cat /tmp/evidence) || echo no evidence"


def test_a_state_directory_swapped_into_tmp_is_never_trusted(user, single_user, rootless_command, bundle):
    host = BareHost(user, single_user)
    attack = _swapping(single_user, "/tmp/prepared", f"/tmp/rootless-{user.uid}")
    done = host.run(attack, host.as_user(user, _calls(rootless_command, bundle)), REPORT)
    _not_deceived(done)


def test_a_symlink_swapped_into_tmp_is_never_followed(user, single_user, rootless_command, bundle):
    """It must not make a directory of the user a state directory: `create` would empty it."""
    host = BareHost(user, single_user)
    link = host.as_user(single_user, f"ln -s {user.home} /tmp/prepared")
    own = host.as_user(user, "mkdir ~/c1; echo precious > ~/c1/file")
    attack = _swapping(single_user, "/tmp/prepared", f"/tmp/rootless-{user.uid}")
    calls = _calls(rootless_command, bundle)
    done = host.run(f"{link}; {own}; {attack}", host.as_user(user, calls), REPORT, f"cat {user.home}/c1/file")
    assert done.stdout == "hello\nmine\nno evidence\nprecious\n", done.stderr


@pytest.mark.parametrize("kept", ["", "XDG_RUNTIME_DIR"], ids=["nothing", "XDG_RUNTIME_DIR"])
def test_root_does_not_keep_state_where_users_can_plant_it(user, single_user, rootless_command, bundle, kept):
    """`su` and `sudo -E` keep a user's XDG_RUNTIME_DIR, which is not root's; everyone can write to /tmp."""
    host = BareHost(user, single_user)
    runtime = f"/run/user/{single_user.uid}"
    own = f"mkdir -p {runtime}; chown {single_user.uid} {runtime}; " + host.as_user(
        single_user, plant(f"{runtime}/rootless", "/tmp/evidence")
    )
    attack = _swapping(single_user, "/tmp/prepared", "/tmp/rootless-0")
    given = {kept: runtime} if kept else {}
    script = shlex.join(["env", "-i", "HOME=/tmp/home", "PATH=/usr/bin:/bin", *(f"{k}={v}" for k, v in given.items())])
    calls = f"chown -R 0:0 {bundle}; " + _calls(rootless_command, bundle)
    done = host.run(
        f"{own}; {attack}", f"{script} sh -c {shlex.quote(calls)}", REPORT, "stat -c '%n %a %u' /run/rootless"
    )
    assert done.stdout == "hello\nmine\nno evidence\n/run/rootless 700 0\n", done.stderr


UNDO_PLANTED = (
    """mkdir /tmp/victim; printf '["resctrl","%s",{"directories":["/tmp/victim"]}]\\n' """
    "$(cat /proc/sys/kernel/random/boot_id) > /tmp/homes/c1/undo"
)
"""Shell commands that plant an undo note; a process that trusts it removes a directory."""

VERBS = ("state c1", "list", "start c1", "kill c1", "delete c1", "delete --force c1", "exec c1 true", "ps c1")


@pytest.mark.parametrize("caller", ["user", "root"])
def test_a_root_of_another_user_is_refused_by_every_verb(user, single_user, rootless_command, bundle, caller):
    host = BareHost(user, single_user)
    state = "/tmp/planted"
    attack = host.as_user(single_user, plant(state, "/tmp/evidence"))
    verbs = (*VERBS, f"create -b {bundle} c2", f"run -b {bundle} c2")
    script = "; ".join(f"{rootless_command} --root {state} {verb}; echo $?" for verb in verbs)
    run = host.as_user(user, script) if caller == "user" else f"unset XDG_RUNTIME_DIR; {script}"
    done = host.run(attack, run, REPORT)
    statuses = ["255" if verb.startswith("exec") else "1" for verb in verbs]
    assert done.stdout.splitlines() == [*statuses, "no evidence"], done.stderr
    assert done.stderr == len(verbs) * (
        f"rootless: cannot keep state in {state}: it belongs to another user; "
        "fix: give a directory of your own with --root, or set XDG_RUNTIME_DIR, or run as its owner: "
        f"sudo -u '#{single_user.uid}' rootless …\n"
    )


@pytest.mark.parametrize("caller", ["user", "root"])
def test_a_root_that_others_may_write_to_is_refused(user, single_user, rootless_command, caller):
    """The caller owns it and made it writable by a group or by all, so its files may be anyone's."""
    host = BareHost(user, single_user)
    own = "mkdir /tmp/state; chmod 777 /tmp/state"
    own = host.as_user(user, own) if caller == "user" else own
    attack = host.as_user(single_user, plant("/tmp/state", "/tmp/evidence"))
    script = f"{rootless_command} --root /tmp/state delete --force c1; echo $?"
    done = host.run(f"{own}; {attack}", host.as_user(user, script) if caller == "user" else script, REPORT)
    assert done.stdout == "1\nno evidence\n", done.stderr
    assert done.stderr == (
        "rootless: cannot keep state in /tmp/state: other users may write to it; "
        "fix: chmod go-w /tmp/state, or give a directory of your own with --root\n"
    )


@pytest.mark.parametrize("owner", ["another user", "root"])
def test_a_container_directory_of_another_user_is_refused(user, single_user, rootless_command, bundle, owner):
    """As in /home and /run/user: its files would name the processes, cgroups and hooks for root."""
    host = BareHost(user, single_user)
    planted_there = plant("/tmp/homes", "/tmp/evidence") + f"; {UNDO_PLANTED}"
    if owner == "another user":
        prepare = f"mkdir -m 755 -p /tmp/homes/c1; chown {single_user.uid} /tmp/homes/c1"
    else:
        prepare = "mkdir -m 755 /tmp/homes; mkdir -m 777 /tmp/homes/c1; chmod 777 /tmp/homes/c1"
    verbs = (*(verb for verb in VERBS if verb != "list"), f"create -b {bundle} c1", f"run -b {bundle} c1")
    script = "; ".join(f"{rootless_command} --root /tmp/homes {verb} >/dev/null; echo $?" for verb in verbs)
    prepare += f"; {host.as_user(single_user, planted_there)}; chown -R 0:0 {bundle}"
    done = host.run(prepare, script, REPORT, "ls /tmp/homes/c1", "ls -d /tmp/victim")
    statuses = ["255" if verb.startswith("exec") else "1" for verb in verbs]
    assert done.stdout.splitlines() == [*statuses, "no evidence", "state.json", "undo", "/tmp/victim"], done.stderr
    cause = "it belongs to another user" if owner == "another user" else "other users may write to it"
    assert done.stderr.count(f"rootless: cannot keep state in /tmp/homes/c1: {cause}; fix: ") == len(verbs)


def test_the_callers_own_root_is_used_below_any_directory(user, rootless_command, bundle):
    """The owner of the directories above does not matter: the directory itself is opened once and checked."""
    host = BareHost(user)
    prepare = f"mkdir -m 777 /tmp/open; chmod 777 /tmp/open; chown {user.uid} /tmp/open"
    root = f"{rootless_command} --root /tmp/open/state"
    done = host.run(
        prepare, f"chown -R 0:0 {bundle}; {root} run --keep -b {bundle} c1; {root} list -q; {root} delete c1"
    )
    assert (done.stdout, done.stderr) == ("hello\nc1\n", "")


def test_state_survives_systemd_tmpfiles(user, rootless_command, need):
    """systemd-tmpfiles erases old files in /tmp, except those with the sticky bit, while a container runs."""
    tmpfiles = need("systemd-tmpfiles")
    host = BareHost(user)
    bundle = make_bundle(user, base_config("sleep", "1000"))
    command = rootless_command
    create = host.as_user(user, f"{command} create -b {bundle} c1 < /dev/null > /dev/null 2>&1")
    clean = f"echo 'd /tmp 1777 root root 0' > /run/tmp.conf; {tmpfiles} --clean /run/tmp.conf"
    done = host.run(
        "touch /tmp/old",
        create,
        clean,
        "[ -e /tmp/old ] || echo others were erased",
        host.as_user(user, f"{command} start c1; {command} exec c1 echo hello; {command} delete --force c1"),
    )
    assert (done.stdout, done.stderr) == ("others were erased\nhello\n", "")
