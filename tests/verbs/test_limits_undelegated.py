"""Limits without sufficient delegation: the container runs, and one line names the limits that are not enforced.

With --require-limits it does not run, and nothing is left.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import InView, View
from tests.lib.containers import Rootless
from tests.lib.scenes import LIMITS, MIB, stage

__all__ = ["stage"]  # the fixture

WARNING = "rootless: warning: limits that are not enforced: "
REFUSAL = "rootless: limits that are not enforced: "

pytestmark = pytest.mark.usefixtures("require_root")


RDMA = {"rdma": {"mlx5_1": {"hcaHandles": 3}}}


def v1():
    """Return the controllers that this machine has in cgroup v1."""
    lists = [line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return {name for names in lists for name in names.split(",") if name and not name.startswith("name=")}


def check(runs, bundle, told, fix, *, names):
    """Check that a bundle runs with one warning, and with --require-limits is refused with nothing left."""
    before = runs.view.cgroups()
    with runs:
        done = runs("run", "--bundle", bundle, "c1")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "ran\n", 1), done
        line = done.stderr.rstrip("\n")
        assert line.startswith(WARNING)
        assert line.endswith(f" (config.json: linux.resources); fix: {fix}")
        assert told in line
        assert [name for name in names if name not in line] == []
        refused = runs("run", "--require-limits", "--bundle", bundle, "c2")
        assert (refused.returncode, refused.stdout) == (1, "")
        (line,) = refused.stderr.splitlines()
        assert line.startswith(REFUSAL)
        assert told in line
        assert runs("list", "-q").stdout == ""
        assert not runs.root.exists() or list(runs.root.iterdir()) == []
    assert runs.view.cgroups() == before


ROOTS = 'have root delegate one to you: see "Cgroup delegation" in cgroups(7)'


@pytest.mark.parametrize(
    ("how", "delegated", "told", "fix"),
    [
        ("", False, "your cgroup {path} belongs to root: it is not delegated to you", ROOTS),
        ("namespace", False, "your cgroup / belongs to root: it is not delegated to you", ROOTS),
        ("hybrid", False, "your cgroup {path} belongs to root: it is not delegated to you", ROOTS),
        (
            "read-only", True, "/sys/fs/cgroup is mounted read-only",
            "run, as root: mount -o remount,rw /sys/fs/cgroup",
        ),
    ],
)  # fmt: skip
def test_limits_without_delegation(stage, how, delegated, told, fix):
    if Path("/run/systemd/system").exists():
        fix = "log in through PAM (machinectl shell, ssh), or have root run: loginctl enable-linger"
    scene = stage(delegated=delegated)
    told = f"{scene.limit.name}: {told.format(path=scene.view.path)}"
    check(scene.runs(how=how), scene.bundle(), told, fix, names=[scene.limit.name])


def test_limits_without_a_cgroup2_mount(stage):
    scene = stage()
    if v1():
        told, fix = "this host has cgroup v1, and v2 is not mounted on /sys/fs/cgroup", "boot with cgroup_no_v1=all"
    else:
        told = "cgroup v2 is not mounted on /sys/fs/cgroup"
        fix = "run, as root: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    told = f"{scene.limit.name}: {told}"
    check(scene.runs(how="unmounted"), scene.bundle(), told, fix, names=[scene.limit.name])


@pytest.mark.parametrize("delegated", [True, False])
@pytest.mark.parametrize("how", ["", "hybrid", "unmounted"])
def test_limits_with_controllers_in_cgroup_v1(stage, how, delegated):
    asked = [each for each in LIMITS if each.controller in v1()]
    if not asked:
        pytest.skip("this machine has pure cgroup v2")
    scene = stage(delegated=delegated)
    bundle = scene.bundle(resources={key: value for each in asked for key, value in each.resources.items()})
    told = "this host has the controllers for that in cgroup v1"
    check(scene.runs(how=how), bundle, told, "boot with cgroup_no_v1=all", names=[each.name for each in asked])


def test_each_limit_has_its_own_reason(stage):
    there = {*v1(), *(Path(line.split()[0]).name for line in Path("/proc/cgroups").read_text().splitlines())}
    if "rdma" in there or not v1() & {"memory", "pids"}:
        pytest.skip("this kernel has the controller rdma, or no cgroup v1")
    scene = stage(delegated=False)
    resources = scene.limit.resources | RDMA | {"memory": {"limit": 256 * MIB}, "pids": {"limit": 77}}
    told = (
        "limits that are not enforced: memory.limit, pids.limit: this host has the controllers for that in cgroup v1; "
        f"{scene.limit.name}: your cgroup {scene.view.path} belongs to root: it is not delegated to you; "
        "rdma.mlx5_1: this kernel has no controller rdma"
    )
    fix = f"boot with cgroup_no_v1=all; {ROOTS}; boot a kernel with CONFIG_CGROUP_RDMA"
    check(scene.runs(), scene.bundle(resources=resources), told, fix, names=[])


def test_controller_not_enabled_at_the_root(stage):
    scene = stage()
    if scene.limit.controller in (scene.root / "cgroup.subtree_control").read_text().split():
        pytest.skip(f"the root enables {scene.limit.controller} already")
    told = f"{scene.limit.name}: the controller {scene.limit.controller} is not enabled below /"
    fix = f"run, as root: echo +{scene.limit.controller} >/sys/fs/cgroup/cgroup.subtree_control"
    check(scene.runs(), scene.bundle(), told, fix, names=[])


def test_controller_not_enabled_half_way_down(stage):
    scene = stage()
    scene.hand_on(scene.root)
    place = f"/{scene.view.top.name}"
    told = f"{scene.limit.name}: the controller {scene.limit.controller} is not enabled below {place}"
    fix = f"run, as root: echo +{scene.limit.controller} >/sys/fs/cgroup{place}/cgroup.subtree_control"
    check(scene.runs(), scene.bundle(), told, fix, names=[])


def test_cgroup_namespace_hides_the_missing_controller(stage):
    scene = stage()
    scene.hand_on(scene.root)
    told = f"{scene.limit.name}: no cgroup below /sys/fs/cgroup has the controller {scene.limit.controller}"
    fix = "enable it outside the container or cgroup namespace that you are in"
    check(scene.runs(how="namespace"), scene.bundle(), told, fix, names=[])


REMOUNT = "run, in a new cgroup namespace (unshare --cgroup): mount -t cgroup2 cgroup2 /sys/fs/cgroup"


def test_cgroups_of_another_namespace_are_not_used(stage):
    """A cgroup namespace without a new mount: the writable cgroups in view are not those of the namespace."""
    scene = stage()
    scene.cgroup("sub")
    runs = scene.runs(how="namespace")
    enter = 'echo 0 >/sys/fs/cgroup/sub/cgroup.procs; exec unshare --user --map-root-user --cgroup "$@"'
    runs.before += ["sh", "-ec", enter, "sh"]
    told = f"{scene.limit.name}: /sys/fs/cgroup does not show your cgroup namespace"
    check(runs, scene.bundle(), told, REMOUNT, names=[])


LEAVE = """
cgroup=$1 uid=$2 gid=$3
shift 3
mount --make-rprivate /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec 3>"/sys/fs/cgroup$cgroup/beside/cgroup.procs"
echo 0 >"/sys/fs/cgroup$cgroup/caller/cgroup.procs"
exec unshare --cgroup sh -ec '
    echo 0 >&3
    exec 3>&-
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    uid=$1 gid=$2
    shift 2
    exec setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
' again "$uid" "$gid" "$@"
"""


def test_cgroup_outside_the_mount(stage, user):
    """The process was moved out of its cgroup namespace's root."""
    scene = stage()
    scene.cgroup("beside")
    scene.cgroup("caller")
    runs = scene.runs()
    runs.before = ["unshare", "--mount", "sh", "-ec", LEAVE, "enter", scene.view.path, str(user.uid), str(user.gid)]
    told = f"{scene.limit.name}: your cgroup is not visible below /sys/fs/cgroup"
    check(runs, scene.bundle(), told, REMOUNT, names=[])


def test_processes_that_block_controllers(stage, user):
    scene = stage()
    scene.hand_on(scene.root, scene.view.top)
    own = scene.cgroup("job/step")
    job = own.parent
    # they belong to the user but are not in the caller's cgroup: their purpose is unknown
    process = user.popen(["sleep", "1000"])
    (job / "cgroup.procs").write_text(str(process.pid))
    place = f"/sys/fs/cgroup{scene.view.path}/job"
    told = f"{scene.limit.name}: the processes in {place} must stay there, and so no controller can be enabled below it"
    fix = "begin in a cgroup of its own: systemd-run --user --scope -p Delegate=yes rootless …"
    check(scene.runs(path=f"{scene.view.path}/job/step"), scene.bundle(), told, fix, names=[])
    assert (job / "cgroup.procs").read_text().split() == [str(process.pid)]
    process.kill()
    process.wait()


@pytest.mark.parametrize("path", ["", "job/step/task"])
def test_controllers_are_enabled_from_the_top(stage, path):
    """Controllers are enabled from the highest cgroup that belongs to the caller."""
    scene = stage()
    scene.hand_on(scene.root, scene.view.top)
    if path:
        scene.cgroup(path)
    with scene.runs(path=f"{scene.view.path}/{path}".rstrip("/")) as runs:
        done = runs("run", "--require-limits", "--bundle", scene.showing(scene.limit.file), "c1")
    assert (done.stdout, done.stderr) == (f"{scene.limit.value}\n", "")
    assert not [name for name in scene.view.cgroups() if "c1" in name]


def test_foreign_cgroup_below_the_callers(stage):
    """The caller is in a cgroup of root, below one of the caller, which is enough."""
    scene = stage()
    scene.hand_on(scene.root, scene.view.top)
    scene.cgroup("roots", delegated=False)
    with scene.runs(path=f"{scene.view.path}/roots") as runs:
        done = runs("run", "--require-limits", "--bundle", scene.showing(scene.limit.file), "c1")
    assert (done.stdout, done.stderr) == (f"{scene.limit.value}\n", "")
    assert scene.view.cgroups() == ["roots"]


def test_update_changes_a_limit(stage):
    scene = stage()
    scene.hand_on(scene.root, scene.view.top)
    scene.cgroup("roots", delegated=False)
    with scene.runs(path=f"{scene.view.path}/roots") as runs:
        runs.create("c1", scene.bundle("sleep 1000"))
        (name,) = [name for name in scene.view.cgroups() if "c1" in name]
        file = scene.view.directory / name / scene.limit.file
        assert file.read_text() == f"{scene.limit.value}\n"
        asked = json.dumps({"unified": {scene.limit.file: "max"}})
        assert runs("update", "--resources", "-", "c1", input=asked).returncode == 0
        assert file.read_text() == "max\n"


@pytest.mark.parametrize("how", ["", "unmounted"])
@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_without_systemd_on_the_path_it_just_runs(user, rootless_command, how, path):
    view = View(user, delegated=False)
    try:
        with InView(view, user, rootless_command, how=how) as runs:
            config = base_config("/bin/sh", "-c", "echo ran")
            words = [*runs.argv("run", "--bundle", make_bundle(user, config), "c1")]
            words[len(runs.before) : len(runs.before)] = ["/usr/bin/env", f"PATH={path}"]
            done = user.run(words, **View.options)
            assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
        assert view.cgroups() == []
    finally:
        view.close()


def test_container_with_limits_runs_on_this_machine(user, rootless_command):
    """On any machine it runs, and limits that are not enforced are reported."""
    with Rootless(user, rootless_command) as runs:
        config = base_config("sh", "-c", "echo ran")
        config["linux"]["resources"] = {"memory": {"limit": 256 * MIB}, "pids": {"limit": 77}}
        bundle = make_bundle(user, config)
        done = runs("run", "--bundle", bundle, "c1")
        assert (done.returncode, done.stdout) == (0, "ran\n")
        required = runs("run", "--require-limits", "--bundle", bundle, "c1")
        if done.stderr:
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"{WARNING}memory.limit, pids.limit: ")
            assert (required.returncode, required.stdout) == (1, "")
            assert required.stderr.startswith(f"{REFUSAL}memory.limit, pids.limit: ")
        else:
            assert (required.returncode, required.stdout, required.stderr) == (0, "ran\n", "")
