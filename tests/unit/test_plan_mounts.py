"""Mount options, mounts, paths and devices, each decision alone."""

from __future__ import annotations

import stat

import pytest

from rootless.plan import ops
from rootless.plan.context import ADAPTED, UNSUPPORTED
from rootless.plan.rootfs import mount_options as mo
from rootless.plan.rootfs.mount_options import MountOptions
from tests.unit.planning import (
    NESTED,
    ROOT,
    SINGLE,
    base_config,
    chosen,
    joining,
    mount,
    mounts_of,
    notes,
    plan_for,
    refused,
    the,
    with_mounts,
    without_namespace,
)

# --- Options of mounts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "on", "off"),
    [
        (["ro"], mo.READONLY, 0),
        (["ro", "rw"], 0, mo.READONLY),
        (["rw", "ro"], mo.READONLY, 0),
        (["nosuid", "nodev", "noexec"], mo.NOSUID | mo.NODEV | mo.NOEXEC, 0),
        (["suid", "dev", "exec"], 0, mo.NOSUID | mo.NODEV | mo.NOEXEC),
        (["noatime"], mo.NOATIME, mo.ATIME),
        (["noatime", "strictatime"], mo.STRICTATIME, mo.ATIME),
        (["strictatime", "relatime"], 0, mo.ATIME),
        (["norelatime"], mo.STRICTATIME, mo.ATIME),
        (["nostrictatime"], 0, mo.ATIME),
        (["nodiratime", "diratime"], 0, mo.NODIRATIME),
        (["nosymfollow"], mo.NOSYMFOLLOW, 0),
        (["defaults"], 0, 0),
    ],
)
def test_attributes(options, on, off):
    parsed = MountOptions(options)
    assert (parsed.set, parsed.clear, parsed.set_below, parsed.clear_below) == (on, off, 0, 0)
    assert not parsed.data
    recursive = MountOptions(["r" + option for option in options if option != "defaults"])
    assert (recursive.set, recursive.clear, recursive.set_below, recursive.clear_below) == (0, 0, on, off)


@pytest.mark.parametrize("options", [["bind", "rbind"], ["rbind", "bind"], ["rbind", "ro", "bind"]])
def test_any_recursive_option_makes_a_bind_recursive(options):
    assert MountOptions(options).recursive


RESTRICTIVE = mo.READONLY | mo.NOSUID | mo.NODEV | mo.NOEXEC


@pytest.mark.parametrize(
    ("options", "on", "off"),
    [
        (["bind"], 0, 0),
        (["bind", "rprivate"], 0, 0),
        (["bind", "rro"], 0, 0),
        (["bind", "nosuid"], mo.NOSUID, RESTRICTIVE & ~mo.NOSUID),
        (["rbind", "ro", "nodev"], mo.READONLY | mo.NODEV, mo.NOSUID | mo.NOEXEC),
        (["bind", "rw"], 0, mo.READONLY),
    ],
)
def test_root_clears_attributes_that_a_bind_does_not_set(options, on, off):
    """As in runc and crun: the options set all attributes if they set one."""
    config = with_mounts(mount("/data", "bind", *options, source="/srv"))
    (bound,) = mounts_of(plan_for(config, ROOT), "mounts[4]")
    assert (bound.number("set"), bound.number("clear")) == (on, off)
    (bound, *_) = mounts_of(plan_for(config), "mounts[4]")
    assert bound.number("clear") & ~mo.READONLY == 0, "a user namespace may not clear attributes of the host's mount"


def test_options_of_a_cgroup_mount_are_passed_on():
    cgroup2 = with_mounts(mount("/sys/fs/cgroup", "cgroup2", "ro", "nsdelegate", "unknown"))
    cgroup2["linux"]["namespaces"].append({"type": "cgroup"})
    plan = plan_for(cgroup2, dict(unified_cgroup=True))
    assert mounts_of(plan, "mounts[4]")[0].string("options") == ["nsdelegate", "unknown"]
    cgroup2["mounts"][-1] |= {"type": "cgroup", "options": ["ro", "nsdelegate", "name=systemd", "cpu"]}
    plan = plan_for(cgroup2, dict(unified_cgroup=True))
    assert mounts_of(plan, "mounts[4]")[0].string("options") == ["nsdelegate"]
    assert any("left out: options of cgroup v1 (name=systemd,cpu)" in note.text for note in plan.notes)


OF_ITS_OWN = ("/dev/ptmx", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "//dev/./ptmx")


@pytest.mark.parametrize("path", OF_ITS_OWN)
def test_listed_devices_do_not_replace_default_symlinks(path):
    config = base_config()
    config["linux"]["devices"] = [{"path": path, "type": "c", "major": 5, "minor": 2}]
    for caller in ({}, ROOT):
        plan = plan_for(config, caller)
        assert not [op for op in plan.ops if op.where == "linux.devices[0]"]
        assert "is the container's own" in notes(plan, ADAPTED)["linux.devices[0]"]


def test_listed_console_is_the_containers_terminal():
    config = base_config()
    config["linux"]["devices"] = [{"path": "/dev/console", "type": "c", "major": 5, "minor": 1}]
    config["process"]["terminal"] = True
    assert not [op for op in plan_for(config).ops if op.where == "linux.devices[0]"]


def test_device_is_bound_from_its_path_on_the_host():
    config = base_config()
    config["linux"]["devices"] = [
        {"path": "/dev/other", "type": "c", "major": 10, "minor": 229},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
    ]
    plan = plan_for(config, dict(device_path=lambda *device: f"/dev/of-{device[2]}-{device[3]}"))
    bound = {op.string("target"): op.string("source") for op in chosen(plan, ops.DEVICE_BIND)}
    assert bound["/dev/other"] == "/dev/of-10-229"
    assert bound["/dev/null"] == "/dev/null"


@pytest.mark.parametrize("word", ["private", "shared", "slave", "unbindable"])
def test_propagation(word):
    parsed = MountOptions(["bind", word])
    assert (parsed.propagation, parsed.recursive_propagation) == (mo.PROPAGATIONS[word], False)
    parsed = MountOptions([word, "r" + word])
    assert (parsed.propagation, parsed.recursive_propagation) == (mo.PROPAGATIONS[word], True)


def test_bits_are_the_kernels():
    """Compared with linux/mount.h: a wrong bit would silently set another attribute."""
    assert [mo.READONLY, mo.NOSUID, mo.NODEV, mo.NOEXEC, mo.NOATIME, mo.STRICTATIME] == [1, 2, 4, 8, 0x10, 0x20]
    assert [mo.ATIME, mo.NODIRATIME, mo.NOSYMFOLLOW] == [0x70, 0x80, 0x200000]
    assert [mo.UNBINDABLE, mo.PRIVATE, mo.SLAVE, mo.SHARED] == [1 << 17, 1 << 18, 1 << 19, 1 << 20]


def test_unknown_mount_options_go_to_the_file_system():
    parsed = MountOptions(
        ["size=1m", "rbind", "ro", "mode=755", "sync", "rsize=8192", "tmpcopyup", "ridmap", "remount"]
    )
    assert parsed.data == ["size=1m", "mode=755", "sync", "rsize=8192"]
    assert parsed.bind
    assert parsed.recursive
    assert parsed.copy_up
    assert parsed.idmap
    assert parsed.remount
    assert MountOptions(["sync", "async", "lazytime", "nolazytime", "mand", "nomand"]).data == []


# --- Mounts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "target"),
    [
        ("/data", "/data"),
        ("data/below", "/data/below"),
        ("//data//x/", "/data/x"),
        ("/data/../../etc", "/etc"),
        ("../etc", "/etc"),
    ],
)
def test_destinations_are_relative_to_the_containers_root(destination, target):
    (op,) = mounts_of(plan_for(with_mounts(mount(destination))), "mounts[4]")
    assert op.string("target") == target


@pytest.mark.parametrize("destination", ["/", ".", "//", "/x/..", "../.."])
def test_nothing_is_mounted_on_the_root(destination):
    error = refused(with_mounts(mount(destination)))
    assert (error.code, error.where) == ("RL-MOUNT-ROOT", "mounts[4].destination")


def test_mounts_keep_their_order_and_names():
    wanted = [
        mount("/a", "tmpfs", source="first"),
        mount("/a/b", "ext4", source="/dev/vda"),
        mount("/a", "ramfs", source=""),
    ]
    plan = plan_for(with_mounts(*wanted))
    made = [op.strings[:3] for op in chosen(plan, ops.MOUNT) if op.where in ("mounts[4]", "mounts[5]", "mounts[6]")]
    assert made == [("tmpfs", "first", "/a"), ("ext4", "/dev/vda", "/a/b"), ("ramfs", "ramfs", "/a")]


@pytest.mark.parametrize(
    ("wanted", "flags"),
    [
        (mount("/data"), ops.KEEP_MODE),
        (mount("/data", "tmpfs", "mode=700"), 0),
        (mount("/data", "tmpfs", "tmpcopyup", "mode=700"), ops.COPY_UP),
        (mount("/data", "ramfs", "tmpcopyup"), 0),
        (mount("/dev", "tmpfs", "mode=755"), ops.PLAIN_TARGET),
        (mount("/data", "overlay", "lowerdir=" + "x" * 255), 0),
        (mount("/data", "overlay", "lowerdir=" + "x" * 256), ops.LEGACY),
        (mount("/data", "overlay", "lowerdir=" + "ü" * 128), ops.LEGACY),
        (mount("/data", "tmpfs", "mode=700", "rprivate"), ops.RECURSIVE_PROPAGATION),
    ],
)
def test_how_a_file_system_is_mounted(wanted, flags):
    (op,) = mounts_of(plan_for(with_mounts(wanted)), "mounts[4]")
    assert op.number("flags") == flags


def test_options_too_long_for_fsconfig_are_one_string():
    wanted = mount("/data", "overlay", "userxattr", "lowerdir=" + "x" * 256)
    (op,) = mounts_of(plan_for(with_mounts(wanted)), "mounts[4]")
    assert list(op.string("options")) == ["userxattr,lowerdir=" + "x" * 256]


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        (mount("/data", "", "ro"), "RL-CONFIG", "neither a type nor the option bind"),
        (mount("/data", "none", "ro"), "RL-CONFIG", "neither a type nor the option bind"),
        (mount("/data", "bind", source=""), "RL-CONFIG", "a bind mount needs a source"),
        (mount("/data", "none", "rbind", source=""), "RL-CONFIG", "a bind mount needs a source"),
        (mount("/data", "bind", "bind", "idmap"), "RL-IDMAP-MOUNT", "only root of the host"),
        (mount("/data", "bind", uidMappings=[{"containerID": 0, "hostID": 1, "size": 1}]), "RL-CONFIG", "only one of"),
    ],
)
def test_impossible_mount_is_refused(wanted, code, words):
    error = refused(with_mounts(wanted))
    assert (error.code, error.where) == (code, "mounts[4]")
    assert words in str(error)


def test_a_source_is_relative_to_the_bundle():
    (op, _) = mounts_of(plan_for(with_mounts(mount("/data", "bind", source="../shared"))), "mounts[4]")
    assert op.string("source") == "/home/user/shared"


def test_file_system_options_of_a_bind_are_reported():
    plan = plan_for(with_mounts(mount("/data", "bind", "rbind", "mode=755", source="/srv")))
    assert "mode=755" in notes(plan, UNSUPPORTED)["mounts[4]"]


@pytest.mark.parametrize(
    ("options", "second"),
    [
        (["rbind"], None),
        (["rbind", "ro", "nosuid"], None),
        (["rbind", "rro"], None),
        (["bind"], (ops.RECURSIVE, 0, 0, 0, 0, 0)),
        (["bind", "ro", "rprivate"], (ops.RECURSIVE | ops.RECURSIVE_PROPAGATION, mo.PRIVATE, mo.READONLY, 0, 0, 0)),
        (["rbind", "rw", "suid", "noexec"], (ops.RECURSIVE, 0, mo.NOEXEC, 0, 0, 0)),
        (["rbind", "noatime", "nodiratime", "ro"], (ops.RECURSIVE, 0, mo.READONLY, 0, 0, 0)),
        (["rbind", "rnoatime", "rnodev", "rsuid"], (ops.RECURSIVE, 0, 0, 0, mo.NODEV, 0)),
    ],
)
def test_user_namespace_restrictions_have_fallbacks(options, second):
    """It may not clear attributes of a host mount, change its access time mode, or uncover a directory below it."""
    wanted = with_mounts(mount("/data", "bind", *options, source="/srv"))
    made = mounts_of(plan_for(wanted), "mounts[4]")
    assert (made[0].on_error, made[0].alternatives) == ((ops.ELSE, 1) if second else (ops.FAIL, 0))
    assert [op.numbers for op in made[1:]] == ([second] if second else [])
    (only,) = mounts_of(plan_for(wanted, ROOT), "mounts[4]")
    named = only.number("set")
    cleared = made[0].number("clear") | (RESTRICTIVE & ~named if named else 0)
    assert (only.numbers, only.on_error) == ((*made[0].numbers[:3], cleared, *made[0].numbers[4:]), ops.FAIL)


def test_remount():
    (op,) = mounts_of(plan_for(with_mounts(mount("/proc", "none", "remount", "ro", "hidepid=2"))), "mounts[4]")
    assert (op.kind, op.number("set"), op.strings) == (ops.REMOUNT, mo.READONLY, ("/proc", ["hidepid=2"]))


STATE = {"proc": ("pid", "/proc", 0), "sysfs": ("network", "/sys", 3)}


@pytest.mark.parametrize("kind", STATE)
def test_file_systems_of_a_new_namespace_are_mounted_again(kind):
    _, target, index = STATE[kind]
    fresh, bound = mounts_of(plan_for(), f"mounts[{index}]")
    assert (fresh.kind, fresh.on_error, fresh.alternatives) == (ops.MOUNT, ops.ELSE, 1)
    assert (bound.kind, bound.strings, bound.on_error) == (ops.BIND, (target, target), ops.FAIL)
    assert bound.number("flags") == ops.RECURSIVE | ops.PLAIN_TARGET
    (only,) = mounts_of(plan_for(facts=ROOT), f"mounts[{index}]")
    assert (only.kind, only.on_error) == (ops.MOUNT, ops.FAIL)


@pytest.mark.parametrize("kind", STATE)
def test_file_systems_of_shared_namespaces_are_bound(kind):
    namespace, target, index = STATE[kind]
    plan = plan_for(without_namespace(namespace))
    (bound,) = mounts_of(plan, f"mounts[{index}]")
    assert (bound.kind, bound.strings) == (ops.BIND, (target, target))
    assert f"shares the host's {namespace} namespace" in notes(plan, ADAPTED)[f"mounts[{index}]"]
    (only,) = mounts_of(plan_for(without_namespace(namespace), ROOT), f"mounts[{index}]")
    assert only.kind is ops.MOUNT


@pytest.mark.parametrize("kind", STATE)
@pytest.mark.parametrize("caller", [{}, NESTED])
def test_mounts_of_joined_namespaces_are_tried(kind, caller):
    namespace, _, index = STATE[kind]
    fresh, bound = mounts_of(plan_for(joining(**{namespace: "/proc/5/ns/x"}), caller), f"mounts[{index - 0}]")
    assert (fresh.kind, bound.kind, fresh.alternatives) == (ops.MOUNT, ops.BIND, 1)


def test_attributes_of_a_bound_host_tree_are_recursive():
    config = without_namespace("network")
    config["mounts"][3]["options"] = ["ro", "nosuid", "noatime", "rnoexec", "rprivate"]
    (bound,) = mounts_of(plan_for(config), "mounts[3]")
    assert bound.number("set_below") == mo.READONLY | mo.NOSUID | mo.NOEXEC
    assert (bound.number("set"), bound.number("clear"), bound.number("clear_below")) == (0, 0, 0)
    assert bound.number("propagation") == mo.PRIVATE
    assert bound.number("flags") & ops.RECURSIVE_PROPAGATION


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (["bind", "nosuid"], "the source's ro, noexec cannot be removed in a user namespace"),
        (["bind", "ro", "noexec"], "the source's nosuid cannot be removed in a user namespace"),
        (["bind", "ro", "nosuid", "noexec"], None),
        (["bind"], None),
    ],
)
def test_attributes_kept_from_a_source_are_noted(options, note):
    flags = mo.READONLY | mo.NOEXEC if "noexec" not in options else mo.READONLY | mo.NOSUID
    plan = plan_for(with_mounts(mount("/data", "bind", *options, source="/srv")), {"mount_flags": lambda _: flags})
    assert notes(plan).get("mounts[4]") == note


@pytest.mark.parametrize("options", [["ro", "nosuid"], ["rw"]])
def test_hosts_cgroups_are_read_only_if_cgroup2_cannot_be_mounted(options):
    wanted = with_mounts(mount("/sys/fs/cgroup", "cgroup", *options))
    plan = plan_for(wanted)
    (bound,) = mounts_of(plan, "mounts[4]")
    assert (bound.kind, bound.string("source")) == (ops.BIND, "/sys/fs/cgroup")
    assert bound.number("set_below") & mo.READONLY
    assert "shares its cgroup namespace" in notes(plan)["mounts[4]"]
    for caller in ({}, ROOT):
        plan = plan_for(wanted, {"unified_cgroup": False} | caller)
        assert mounts_of(plan, "mounts[4]")[0].number("set_below") & mo.READONLY
        assert "not pure cgroup v2" in notes(plan)["mounts[4]"]


def test_cgroup_v2_is_mounted_in_a_cgroup_namespace_of_its_own():
    config = with_mounts(mount("/sys/fs/cgroup", "cgroup", "ro", "cpu,cpuacct"))
    config["linux"]["namespaces"].append({"type": "cgroup"})
    fresh, bound = mounts_of(plan_for(config), "mounts[4]")
    assert fresh.strings == ("cgroup2", "cgroup", "/sys/fs/cgroup", [])
    assert (fresh.on_error, bound.kind) == (ops.ELSE, ops.BIND)


def test_missing_group_of_terminals_is_left_out():
    plan = plan_for(facts=SINGLE)
    (op,) = mounts_of(plan, "mounts[2]")
    assert op.string("options") == ["newinstance", "ptmxmode=0666", "mode=0620"]
    assert "gid=5 is left out" in notes(plan, ADAPTED)["mounts[2]"]
    for caller in ({}, ROOT, NESTED):
        (op,) = mounts_of(plan_for(facts=caller), "mounts[2]")
        assert "gid=5" in op.string("options")


@pytest.mark.parametrize(
    ("wanted", "caller", "cut", "root"),
    [
        ("", {}, mo.SLAVE, None),
        ("", ROOT, mo.SLAVE, None),
        ("rslave", {}, mo.SLAVE, None),
        ("private", {}, mo.PRIVATE, None),
        ("rprivate", ROOT, mo.PRIVATE, None),
        ("shared", ROOT, mo.SHARED, (0, mo.SHARED)),
        ("rshared", ROOT, mo.SHARED, (ops.RECURSIVE_PROPAGATION, mo.SHARED)),
        ("rshared", {}, mo.SLAVE, (ops.RECURSIVE_PROPAGATION, mo.SHARED)),
        ("unbindable", {}, mo.PRIVATE, (0, mo.UNBINDABLE)),
    ],
)
def test_propagation_of_the_root(wanted, caller, cut, root):
    config = base_config()
    config["linux"]["rootfsPropagation"] = wanted
    plan = plan_for(config, caller)
    assert the(plan, ops.PROPAGATION).numbers == (ops.RECURSIVE_PROPAGATION, cut)
    assert [op.numbers[:2] for op in chosen(plan, ops.ROOT_ATTRIBUTES)] == ([root] if root else [])
    assert the(plan, ops.ROOT).number("propagation") == (mo.SLAVE if wanted == "rslave" else mo.PRIVATE)


def test_a_shared_mount_does_not_reach_the_host_from_a_new_user_namespace():
    config = with_mounts(mount("/data", "bind", "rbind", "rshared"))
    assert "do not propagate to the host" in notes(plan_for(config))["mounts[4]"]
    for caller in (ROOT, NESTED):
        assert not notes(plan_for(config, caller))


def test_paths_are_protected_after_the_mounts_and_before_the_root_changes():
    config = base_config()
    config["root"]["readonly"] = True
    config["process"]["cwd"] = "/srv/../data"
    plan = plan_for(config)
    steps = [op.kind.name for op in plan.ops]
    order = [steps.index(name) for name in ("mount", "readonly_path", "mask", "mkdir", "root_attributes", "pivot_root")]
    assert order == sorted(order)
    assert the(plan, ops.MKDIR).strings == ("/data",)
    assert the(plan, ops.ROOT_ATTRIBUTES).number("set") == mo.READONLY
    assert {op.on_error for op in chosen(plan, ops.MASK, ops.READONLY_PATH)} == {ops.SKIP_ABSENT}


def test_the_root_is_changed_without_pivot_root_when_that_is_asked():
    assert chosen(plan_for(no_pivot=True), ops.CHROOT, ops.PIVOT)[0].kind is ops.CHROOT


# --- Devices ----------------------------------------------------------------------------------------------------------

DEFAULT_DEVICES = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}


def test_default_devices_are_made_or_bound():
    plan = plan_for()
    assert {op.string("target") for op in chosen(plan, ops.DEVICE_BIND)} == DEFAULT_DEVICES
    assert not chosen(plan, ops.DEVICE_NODE)
    plan = plan_for(facts=ROOT)
    assert {op.string("target") for op in chosen(plan, ops.DEVICE_NODE)} == DEFAULT_DEVICES
    assert {op.alternatives for op in chosen(plan, ops.DEVICE_NODE)} == {1}
    assert {op.string("target") for op in chosen(plan, ops.DEVICE_BIND)} == DEFAULT_DEVICES
    links = {op.string("target"): op.string("link") for op in chosen(plan, ops.SYMLINK)}
    assert {"/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/ptmx"} <= links.keys()


def test_devices_of_config_json():
    config = base_config()
    config["linux"]["devices"] = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6},
        {"path": "/dev/loop7", "type": "b", "major": 7, "minor": 7, "fileMode": 0o60660},
        {"path": "/dev/pipe", "type": "p"},
        {"path": "/dev/raw", "type": "u", "major": 162, "minor": 0},
    ]
    nodes = {op.string("target"): op.numbers for op in chosen(plan_for(config, ROOT), ops.DEVICE_NODE)}
    assert nodes["/dev/null"] == (stat.S_IFCHR | 0o600, 1, 3, 5, 6)
    assert nodes["/dev/loop7"] == (stat.S_IFBLK | 0o660, 7, 7, 0, 0)
    assert nodes["/dev/pipe"] == (stat.S_IFIFO | 0o666, 0, 0, 0, 0)
    assert nodes["/dev/raw"] == (stat.S_IFCHR | 0o666, 162, 0, 0, 0)
    assert len(nodes) == len(DEFAULT_DEVICES) + 3
    plan = plan_for(config)
    assert [op.string("target") for op in chosen(plan, ops.DEVICE_NODE)] == ["/dev/pipe"]
    bound = {op.string("target"): (op.numbers, op.where) for op in chosen(plan, ops.DEVICE_BIND)}
    assert bound["/dev/null"] == ((stat.S_IFCHR, 1, 3, 0), "linux.devices[0]")
    assert bound["/dev/loop7"] == ((stat.S_IFBLK, 7, 7, 1), "linux.devices[1]")
    assert set(notes(plan, ADAPTED)) >= {"linux.devices[0]", "linux.devices[1]", "linux.devices[3]"}


@pytest.mark.parametrize(
    "wanted", [mount("/dev", "bind", source="/dev"), mount("/dev/", "none", "rbind", source="/dev")]
)
def test_bind_mount_on_dev_is_unchanged(wanted):
    config = base_config()
    config["mounts"][1] = wanted
    assert not chosen(plan_for(config), ops.DEVICE_BIND, ops.DEVICE_NODE, ops.SYMLINK)


def test_console():
    config = base_config()
    config["process"] |= {"terminal": True, "consoleSize": {"width": 80, "height": 24}, "user": {"uid": 7, "gid": 8}}
    plan = plan_for(config)
    assert the(plan, ops.TERMINAL).numbers == (80, 24, 7)
    assert plan.terminal
    assert not chosen(plan_for(), ops.TERMINAL)


# --- Read-only file systems, sources that the container's root cannot reach -------------------------------------------


@pytest.mark.parametrize(
    ("destination", "later", "sealed"), [("/dev", [], True), ("/x", ["/x/y"], True), ("/x", ["/xy", "/y"], False)]
)
def test_a_read_only_tmpfs_is_filled_first(destination, later, sealed):
    tmpfs = {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nosuid"]}
    plan = plan_for(with_mounts(tmpfs, *({"destination": path, "type": "tmpfs"} for path in later)))

    made = [op for op in chosen(plan, ops.MOUNT) if op.string("target") == destination][-1]
    assert made.number("set") == mo.NOSUID | (0 if sealed else mo.READONLY)
    remounted = chosen(plan, ops.REMOUNT)
    assert [(op.string("target"), op.number("set")) for op in remounted] == [(destination, mo.READONLY)] * sealed
    last = max(plan.ops.index(op) for op in chosen(plan, ops.MOUNT, ops.DEVICE_BIND, ops.SYMLINK))
    assert all(plan.ops.index(op) > last for op in remounted)


BIND_X = {"destination": "/x", "type": "bind", "source": "/srv/x", "options": ["rbind", "ro"]}


@pytest.mark.parametrize(
    ("lines", "caller", "taken"),
    [
        ([(0, 100000, 1000)], ROOT, True),
        ([(0, 0, 1000)], ROOT, True),
        ([(0, 1, 1000)], NESTED, True),
        ([(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64536)], NESTED, False),
    ],
)
def test_unreachable_sources_are_copied_by_the_caller(lines, caller, taken):
    """podman as root with --uidmap binds files of directories that only root may search."""
    config = with_mounts(BIND_X)
    config["linux"]["namespaces"].append({"type": "user"})
    for name in ("uidMappings", "gidMappings"):
        config["linux"][name] = [dict(zip(("containerID", "hostID", "size"), line, strict=True)) for line in lines]
    plan = plan_for(config, caller)

    bound = next(op for op in chosen(plan, ops.BIND) if op.string("target") == "/x")
    trees = chosen(plan, ops.TREE)
    assert [(tree.string("source"), tree.number("set")) for tree in trees] == [("/srv/x", mo.READONLY)] * taken
    assert bool(bound.number("flags") & ops.PREPARED) == taken
    assert all(plan.ops.index(tree) < plan.ops.index(the(plan, ops.NEW_USER)) for tree in trees)


@pytest.mark.parametrize("caller", [{}, ROOT, NESTED])
def test_a_joined_user_namespace_may_have_any_ids(caller):
    """Sources are copied as the caller: by root in its own namespaces, by an ordinary user before the ids change."""
    config = joining(user="/proc/7/ns/user")
    config["mounts"].append(BIND_X)
    plan = plan_for(config, caller)

    tree = next(op for op in plan.ops if op.kind is ops.TREE)
    unshared = next(op for op in plan.ops if op.kind is ops.UNSHARE and op.number("namespaces") & 0x20000)
    wanted = [tree, the(plan, ops.JOIN)] if caller else [unshared, tree, the(plan, ops.BECOME)]
    places = [plan.ops.index(op) for op in wanted]
    assert places == sorted(places)


def test_a_source_in_a_joined_mount_namespace_is_looked_up_there():
    config = joining(user="/proc/7/ns/user", mount="/proc/7/ns/mnt")
    config["mounts"].append(BIND_X)
    assert not chosen(plan_for(config, ROOT), ops.TREE)


def test_source_from_an_earlier_mount_is_looked_up_inside():
    config = joining(user="/proc/7/ns/user")
    config["mounts"].append(BIND_X | {"source": "rootfs/tmp/x"})
    assert not chosen(plan_for(config, ROOT), ops.TREE)
