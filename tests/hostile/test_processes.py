"""Killing or deleting a container ends all of its own processes and no others."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.lib.boxes import add_mount, set_namespaces
from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import await_end, until

ENDS = ("delete --force {}", "kill --all {} KILL", "kill {} KILL")
FILES = {"network": "net", "mount": "mnt"}


def start(rootless, name, config, *script):
    """Start a container with a shell script and a mount of the other bundles; return its PID."""
    config["process"]["args"] = ["sh", "-c", "\n".join(script) or "exec sleep 1000"]
    if config["mounts"]:
        # a container that joins this mount namespace has to find its own root there
        add_mount(config, rootless.user.tmp, "bind", rootless.user.tmp, "rbind")
    rootless.create(name, make_bundle(rootless.user, config, name=f"bundle-{name}"))
    pid = rootless.pid(name)
    rootless.start(name)
    return pid


def joining(pid, *kinds, new=()):
    """Return a config that joins namespaces of a process."""
    config = base_config()
    set_namespaces(config, *new, **{kind: f"/proc/{pid}/ns/{FILES.get(kind, kind)}" for kind in kinds})
    config["mounts"] = []
    config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
    return config


def without_pid_namespace():
    config = base_config()
    set_namespaces(config, "network", "ipc", "uts", "mount")
    return config


def processes_of(rootless, name, count):
    """Wait until a container has `count` processes; return them."""
    found = []

    def are_there():
        found[:] = json.loads(rootless("ps", "--format", "json", name, check=True).stdout)
        return len(found) == count

    try:
        until(are_there, f"{count} processes of {name}")
    except AssertionError:
        table = subprocess.run(["ps", "-eo", "pid,ppid,sid,args"], capture_output=True, text=True, check=True).stdout
        pytest.fail(f"{name} has {found} instead of {count} processes\n{rootless.complaints(name)}\n{table}")
    return found


# --- A container in the namespaces of another -------------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kinds", [("user", "mount"), ("user", "mount", "network", "ipc", "uts")], ids=["some", "all"])
def test_ending_a_container_spares_the_one_whose_namespaces_it_joined(rootless, kinds, end):
    first = start(rootless, "a", base_config())
    second = start(rootless, "b", joining(first, *kinds), "sleep 1000 & sleep 1000; true")
    mine = processes_of(rootless, "b", 3)
    assert first not in mine
    assert rootless(*end.format("b").split()).returncode == 0
    for pid in (second, *mine):
        await_end(pid)
    assert rootless.status("a") == "running"


def test_a_container_of_an_older_release_ends_with_its_descendants_only(rootless):
    """Its state does not record which namespaces are its own."""
    first = start(rootless, "a", without_pid_namespace())
    second = start(rootless, "b", joining(first, "user", "mount"), "sleep 1000 & sleep 1000; true")
    mine = processes_of(rootless, "b", 3)
    file = rootless.root / "b/state.json"
    state = json.loads(file.read_text())
    state.pop("made", None)
    file.write_text(json.dumps(state))
    assert rootless("delete", "--force", "b").returncode == 0
    for pid in (second, *mine):
        await_end(pid)
    assert rootless.status("a") == "running"


@pytest.mark.parametrize("end", ENDS)
def test_ending_a_container_without_a_pid_namespace_ends_its_orphans(rootless, end):
    """Both orphans and processes that started a session of their own."""
    script = "(setsid sleep 1000 &)", "(sleep 1000 &)", "exec sleep 1000"
    start(rootless, "c1", without_pid_namespace(), *script)
    mine = processes_of(rootless, "c1", 3)
    done = rootless(*end.format("c1").split())
    assert (done.returncode, done.stderr) == (0, "")
    for pid in mine:
        await_end(pid)


def test_ending_a_container_in_joined_namespaces_ends_its_orphans(rootless):
    first = start(rootless, "a", base_config())
    start(rootless, "b", joining(first, "user", "mount", new=["uts"]), "(setsid sleep 1000 &)", "exec sleep 1000")
    mine = processes_of(rootless, "b", 2)
    assert rootless("delete", "--force", "b").returncode == 0
    for pid in mine:
        await_end(pid)
    assert rootless.status("a") == "running"


def test_delete_force_ends_a_storm_of_forks(rootless):
    config = without_pid_namespace()
    script = "storm() { sh -c 'sleep 0.05' & (sleep 0.05; storm) & (sleep 0.05 &) & }", "storm; storm; storm; storm"
    start(rootless, "c1", config, *script, "while :; do sleep 1; done")
    until(lambda: len(json.loads(rootless("ps", "--format", "json", "c1").stdout)) > 8, "the storm")
    namespace = os.readlink(f"/proc/{rootless.pid('c1')}/ns/mnt")
    done = rootless("delete", "--force", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: not in_namespace(namespace), "the end of its processes")


def in_namespace(namespace):
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.readlink(f"/proc/{name}/ns/mnt") == namespace:
                found.append(int(name))
        except OSError:
            continue
    return found


# --- Root -------------------------------------------------------------------------------------------------------------

HOST = """
# process 1 of a pid namespace that stands for the host
mount -t tmpfs -o mode=0755 dev /dev
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    set -- $node
    mknod -m 666 /dev/$1 c $2 $3
done
sleep 1000 &
witness=$!
$CALL --cgroup-manager disabled run --detach --bundle $BUNDLE b </dev/null >/dev/null 2>$BUNDLE/said || cat $BUNDLE/said
$CALL $END
grep -q 'State:.[RS]' /proc/$witness/status && echo witness lives
kill $witness
"""


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("caller", ["", "unshare --mount"], ids=["in the host's namespace", "in one of its own"])
def test_root_ends_only_the_container_in_the_hosts_mount_namespace(user, rootless_command, need, end, caller):
    """Namespaces of the test stand for the host: a mistake ends only their processes."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    config = joining(1, "mount")
    config["process"]["args"] = ["sleep", "1000"]
    bundle = make_bundle(user, config)
    subprocess.run(["chown", "-R", "0:0", bundle], check=True)
    env = {
        "PATH": os.environ["PATH"],
        "BUNDLE": str(bundle),
        "CALL": f"{caller} {rootless_command} --root {user.tmp}/root-state",
        "END": end.format("b"),
    }
    words = [need("unshare"), "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-ec", HOST]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "witness lives\n"), done
