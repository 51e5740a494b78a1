"""config.md "Mounts", "Linux mount options": every option set, and observed from inside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.lib.boxes import (
    MOUNTINFO,
    Box,
    add_mount,
    config_with_maps,
    make_volume,
    mount_table,
    own_mappings,
)
from tests.lib.bundles import base_config, own, write_config

# --- Options ----------------------------------------------------------------------------------------------------------

NEW = {
    "nothing": ([], {"rw", "relatime"}, set()),
    "ro": (["ro"], {"ro", "relatime"}, set()),
    "rw": (["rw"], {"rw", "relatime"}, set()),
    "last of ro and rw": (["ro", "rw"], {"rw", "relatime"}, set()),
    "nosuid": (["nosuid"], {"rw", "relatime", "nosuid"}, set()),
    "suid": (["nosuid", "suid"], {"rw", "relatime"}, set()),
    "nodev": (["nodev"], {"rw", "relatime", "nodev"}, set()),
    "dev": (["nodev", "dev"], {"rw", "relatime"}, set()),
    "noexec": (["noexec"], {"rw", "relatime", "noexec"}, set()),
    "exec": (["noexec", "exec"], {"rw", "relatime"}, set()),
    "noatime": (["noatime"], {"rw", "noatime"}, set()),
    "atime": (["noatime", "atime"], {"rw", "relatime"}, set()),
    "strictatime": (["strictatime"], {"rw"}, set()),
    "nostrictatime": (["strictatime", "nostrictatime"], {"rw", "relatime"}, set()),
    "nodiratime": (["nodiratime"], {"rw", "relatime", "nodiratime"}, set()),
    "diratime": (["nodiratime", "diratime"], {"rw", "relatime"}, set()),
    "sync": (["sync"], {"rw", "relatime"}, {"sync"}),
    "async": (["sync", "async"], {"rw", "relatime"}, set()),
    "dirsync": (["dirsync"], {"rw", "relatime"}, {"dirsync"}),
    "iversion": (["iversion", "noiversion"], {"rw", "relatime"}, set()),
    "silent": (["silent", "loud"], {"rw", "relatime"}, set()),
    "data": (["size=1m", "nr_inodes=20", "mode=0711"], {"rw", "relatime"}, {"size=1024k", "nr_inodes=20", "mode=711"}),
}
"""By option of a new tmpfs: the resulting options of the mount and of the file system."""

NEWER = {
    # runc 1.1.15 passes them to the file system, which refuses them
    "defaults": (["defaults"], {"rw", "relatime"}, set()),
    "nosymfollow": (["nosymfollow"], {"rw", "relatime", "nosymfollow"}, set()),
    "symfollow": (["nosymfollow", "symfollow"], {"rw", "relatime"}, set()),
    "lazytime": (["lazytime"], {"rw", "relatime"}, {"lazytime"}),
    "nolazytime": (["lazytime", "nolazytime"], {"rw", "relatime"}, set()),
    # runc 1.1.15 adds MS_RELATIME to MS_NOATIME, and the kernel uses the latter
    "relatime": (["noatime", "relatime"], {"rw", "relatime"}, set()),
    # runc 1.1.15 clears MS_RELATIME, which is the kernel's default then
    "norelatime": (["norelatime"], {"rw"}, set()),
    # and mand has no effect but a warning in the kernel's log
    "mand": (["mand", "nomand"], {"rw", "relatime"}, set()),
}
OF_SUPERBLOCK = {"sync", "dirsync", "lazytime"}


def test_options_of_a_new_file_system(either):
    wanted = NEW if either.oracle else NEW | NEWER
    config = config_with_maps(either.user)
    for number, (options, _, _) in enumerate(wanted.values()):
        add_mount(config, f"/data/{number}", "tmpfs", "tmpfs", *options)
    table = mount_table(either.lines(config, MOUNTINFO))
    shown = {}
    for number, (name, (options, _, of_superblock)) in enumerate(wanted.items()):
        mount = table[f"/data/{number}"]
        shown[name] = (options, mount[0], mount[4] & (of_superblock | OF_SUPERBLOCK))
    assert shown == wanted


BIND = {
    "nothing": (["bind"], {"rw"}),
    "rbind": (["rbind"], {"rw"}),
    "ro": (["bind", "ro"], {"ro"}),
    "nosuid": (["bind", "nosuid"], {"rw", "nosuid"}),
    "nodev": (["bind", "nodev"], {"rw", "nodev"}),
    "noexec": (["bind", "noexec"], {"rw", "noexec"}),
    "all": (["rbind", "ro", "nosuid", "nodev", "noexec"], {"ro", "nosuid", "nodev", "noexec"}),
}
"""Options of a bind mount of the host, except the access time mode, which a user namespace cannot change."""


@pytest.mark.parametrize("recursive", [False, True])
def test_options_of_a_bind_mount(either, recursive):
    volume = make_volume(either.user, file="text")
    config = config_with_maps(either.user)
    wanted = dict(BIND)
    if not either.oracle:
        wanted["nosymfollow"] = (["bind", "nosymfollow"], {"rw", "nosymfollow"})
        wanted["rw"] = (["bind", "ro", "rw"], {"rw"})  # runc 1.1.15 keeps rro when rrw follows
    for number, (options, _) in enumerate(wanted.values()):
        chosen = ["r" + word if recursive and "bind" not in word else word for word in options]
        add_mount(config, f"/data/{number}", "bind", volume, *chosen)
    table = mount_table(either.lines(config, MOUNTINFO))
    flags = {"rw", "ro", "nosuid", "nodev", "noexec", "nosymfollow"}
    shown = {name: (wanted[name][0], table[f"/data/{number}"][0] & flags) for number, name in enumerate(wanted)}
    assert shown == wanted


RECURSIVE = {
    # options: (the mount itself, the mount below it)
    "ro": ({"ro", "relatime"}, {"rw", "relatime"}),
    "rro": ({"ro", "relatime"}, {"ro", "relatime"}),
    "rnosuid": ({"rw", "relatime", "nosuid"},) * 2,
    "rnodev": ({"rw", "relatime", "nodev"},) * 2,
    "rnoexec": ({"rw", "relatime", "noexec"},) * 2,
    "rnoatime": ({"rw", "noatime"},) * 2,
    "rstrictatime": ({"rw"},) * 2,
    "rnodiratime": ({"rw", "relatime", "nodiratime"},) * 2,
    "rnosymfollow": ({"rw", "relatime", "nosymfollow"},) * 2,
}
TAKEN_BACK = ("rrw", "rsuid", "rdev", "rexec", "ratime", "rrelatime", "rdiratime", "rsymfollow")


def tree(either, config, *options):
    """Mount a tree of two file systems, which the user namespace owns, on /tree and /tree/below."""
    add_mount(config, "/tree", "tmpfs", "tmpfs", *options)
    add_mount(config, "/tree/below", "tmpfs", "tmpfs", *options)
    return either.rootfs / "tree"


def test_recursive_options_reach_what_is_mounted_below(either):
    config = config_with_maps(either.user)
    source = tree(either, config)
    for option in RECURSIVE:
        add_mount(config, f"/data/{option}", "bind", source, "rbind", option)
    table = mount_table(either.lines(config, MOUNTINFO))
    shown = {name: (table[f"/data/{name}"][0], table[f"/data/{name}/below"][0]) for name in RECURSIVE}
    assert shown == RECURSIVE


def test_recursive_options_revoke_earlier_ones(either):
    config = config_with_maps(either.user)
    # runc 1.1.15 creates the second mount point in the first mount, which therefore must not be read-only
    source = tree(either, config, "nosuid", "nodev", "noexec", "nodiratime")
    add_mount(config, "/data", "bind", source, "rbind", *(word for word in TAKEN_BACK if word != "rsymfollow"))
    table = mount_table(either.lines(config, MOUNTINFO))
    assert table["/tree/below"][0] == {"rw", "relatime", "nosuid", "nodev", "noexec", "nodiratime"}
    assert table["/data"][0] == table["/data/below"][0] == {"rw", "relatime"}


@pytest.mark.spec("mounts.options.bind", "mounts.options.rbind")
def test_a_bind_mount_without_what_is_below(either):
    config = config_with_maps(either.user)
    source = tree(either, config)
    add_mount(config, "/data/with", "bind", source, "rbind")
    add_mount(config, "/data/without", "bind", source, "bind")
    table = mount_table(either.lines(config, MOUNTINFO))
    assert "/data/with/below" in table
    assert "/data/without/below" not in table


@pytest.mark.spec("mounts.options.ro", "mounts.options.noexec")
def test_the_effect_of_options(either):
    """Each option works, and is not only listed in mountinfo."""
    volume = make_volume(either.user, script="#!/bin/sh\necho ran\n", target="text\n")
    (volume / "script").chmod(0o755)
    (volume / "link").symlink_to("target")
    config = config_with_maps(either.user)
    for name in ("ro", "noexec", "nosymfollow"):
        add_mount(config, f"/data/{name}", "bind", volume, "bind", *([name] if name != "nosymfollow" else []))
    add_mount(config, "/data/plain", "bind", volume, "bind")
    wanted = {
        "touch ro/new": "Read-only file system",
        "noexec/script": "Permission denied",
        "plain/script": "ran",
        "cat nosymfollow/link": "text",
        "touch plain/new; ls ro": "link new script target",
    }
    if not either.oracle:
        config["mounts"][-2]["options"].append("nosymfollow")
        wanted["cat nosymfollow/link"] = "Too many levels of symbolic links"
    said = either.lines(config, "cd /data", *(f"echo $({words} 2>&1 | sed 's/.*: //')" for words in wanted))
    assert dict(zip(wanted, said, strict=True)) == wanted


PROPAGATION = {
    "private": [],
    "rprivate": [],
    "shared": ["shared"],
    "rshared": ["shared"],
    "slave": ["master"],
    "rslave": ["master"],
    "unbindable": ["unbindable"],
    "runbindable": ["unbindable"],
}


def test_propagation(either):
    config = config_with_maps(either.user)
    source = tree(either, config)
    config["mounts"][-2]["options"] += ["shared"]
    config["mounts"][-1]["options"] += ["shared"]
    for option in PROPAGATION:
        add_mount(config, f"/data/{option}", "bind", source, "rbind", option)
    table = mount_table(either.lines(config, MOUNTINFO))

    def fields(point):
        return [field.split(":")[0] for field in table[point][1]]

    assert {name: fields(f"/data/{name}") for name in PROPAGATION} == PROPAGATION
    recursive = {name: words for name, words in PROPAGATION.items() if name[1:] in PROPAGATION}
    assert {name: fields(f"/data/{name}/below") for name in recursive} == recursive
    # the others leave the mounts below in their peer group
    assert {fields(f"/data/{name}/below")[0] for name in PROPAGATION.keys() - recursive} == {"shared"}


def test_shared_mounts_of_one_container_are_peers(either):
    config = config_with_maps(either.user)
    config["process"]["capabilities"] = {
        "effective": ["CAP_SYS_ADMIN"],
        "permitted": ["CAP_SYS_ADMIN"],
        "bounding": ["CAP_SYS_ADMIN"],
    }
    add_mount(config, "/one", "tmpfs", "tmpfs", "shared")
    add_mount(config, "/two", "bind", either.rootfs / "one", "bind", "shared")
    add_mount(config, "/three", "bind", either.rootfs / "one", "bind", "private")
    script = "mkdir /one/sub; mount -t tmpfs inner /one/sub; touch /one/sub/file; ls /two/sub; ls /three/sub"
    assert either.lines(config, script) == ["file"]


@pytest.mark.spec("mounts.options.remount")
def test_remount(either):
    config = config_with_maps(either.user)
    add_mount(config, "/one", "tmpfs", "tmpfs")
    add_mount(config, "/one", "tmpfs", "tmpfs", "remount", "size=1m")
    add_mount(config, "/two", "tmpfs", "tmpfs", "size=2m")
    add_mount(config, "/two", "bind", "/two" if either.oracle else "", "remount", "bind", "ro", "nosuid")
    if either.oracle:
        config["mounts"].pop()  # runc 1.1.15 does not support a remount of a bind mount
    table = mount_table(either.lines(config, MOUNTINFO))
    assert table["/one"][4] >= {"size=1024k"}
    if not either.oracle:
        assert table["/two"][0] == {"ro", "relatime", "nosuid"}
        assert table["/two"][4] >= {"rw", "size=2048k"}


# --- Fallbacks in a user namespace ------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["noatime", "strictatime", "nodiratime", "rnoatime"])
def test_the_mode_of_access_times_stays_the_hosts(box, option):
    """It is locked in a user namespace (mount_namespaces(7)); runc fails."""
    volume = make_volume(box.user, file="text")
    config = base_config()
    add_mount(config, "/data", "bind", volume, "bind", option, "ro")
    done = box.run(config, MOUNTINFO)
    assert done.returncode == 0, done.stderr
    assert mount_table(done.stdout.splitlines())["/data"][0] >= {"ro"}
    assert "mounts[4]" in done.stderr


@pytest.mark.parametrize("given", [["suid"], ["dev"], ["exec"], ["rsuid", "rexec"], ["rw"]])
def test_flags_of_the_hosts_mount_stay(box, given, require_root):
    """The program runs, with a warning about the flags."""
    option = "ro" if given == ["rw"] else "nosuid,nodev,noexec"
    config = base_config()
    add_mount(config, "/data", "bind", "/mnt", "rbind", *given)
    config["process"]["args"] = ["cat", "/proc/self/mountinfo"]
    box.command = [
        *("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o {option} locked /mnt; exec "$@"', "sh"),
        *("setpriv", f"--reuid={box.user.uid}", f"--regid={box.user.gid}", "--clear-groups"),
        *box.command,
    ]
    done = box.run(config, user=0, group=0)
    assert done.returncode == 0, done.stderr
    assert mount_table(done.stdout.splitlines())["/data"][0] >= set(option.split(","))
    assert "bound with the options of the host's mount, and recursively (config.json: mounts[4])" in done.stderr


def test_unrequested_restrictions_of_the_source_are_noted(box, require_root):
    config = base_config()
    add_mount(config, "/data", "bind", "/mnt", "bind", "nosuid")
    write_config(box.path, config)
    script = 'mount -t tmpfs -o ro,noexec locked /mnt; exec "$@"'
    as_user = ["setpriv", f"--reuid={box.user.uid}", f"--regid={box.user.gid}", "--clear-groups"]
    words = ["unshare", "--mount", "sh", "-c", script, "sh", *as_user, *box.command, "explain", "--json", box.path]
    plan = json.loads(box.user.run(words, user=0, group=0, check=True).stdout)
    told = {note["where"]: note["text"] for note in plan["notes"]}
    assert told["mounts[4]"] == "the source's ro, noexec cannot be removed in a user namespace"


def test_mounts_below_a_source_are_included(box, require_root):
    """The directory below may be secret (mount_namespaces(7)): the mount is bound too, with a warning."""
    config = base_config()
    add_mount(config, "/data", "bind", "/dev", "bind")
    done = box.run(config, MOUNTINFO)
    assert done.returncode == 0, done.stderr
    assert "/data/pts" in mount_table(done.stdout.splitlines())
    assert "bind /dev on /data: open_tree: Invalid argument: bound with the options" in done.stderr


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
def test_hosts_cgroups_are_read_only_unless_pure_v2(box, kind):
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("this host has pure cgroup v2")
    config = base_config()
    config["linux"]["namespaces"].append({"type": "cgroup"})
    add_mount(config, "/sys/fs/cgroup", kind, "cgroup", "nosuid", "noexec", "nodev", "relatime", "rw")
    lines = box.lines(config, "ls /sys/fs/cgroup", MOUNTINFO)
    names = sorted(os.listdir("/sys/fs/cgroup"))
    assert lines[: len(names)] == names
    table = mount_table(lines[len(names) :])
    below = [point for point in table if point.startswith("/sys/fs/cgroup")]
    assert all({"ro", "nosuid", "nodev", "noexec"} <= table[point][0] for point in below)


@pytest.mark.parametrize(("own_namespace", "options"), [(True, ["ro"]), (True, ["rw"]), (False, ["rw"])])
def test_cgroup_v2_is_mounted_in_a_cgroup_namespace_of_its_own(box, require_root, own_namespace, options):
    config = base_config()
    if own_namespace:
        config["linux"]["namespaces"].append({"type": "cgroup"})
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", *options)
    box.command[:0] = [
        *("unshare", "--mount", "sh", "-c", 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"', "sh"),
        *("setpriv", f"--reuid={box.user.uid}", f"--regid={box.user.gid}", "--clear-groups"),
    ]
    lines = box.lines(config, "cat /proc/self/mountinfo", user=0, group=0)
    shown, _, kind, source, _ = mount_table(lines)["/sys/fs/cgroup"]
    assert (kind, source == "cgroup") == ("cgroup2", own_namespace)
    assert {"nosuid", "ro" if not own_namespace else options[0]} <= shown


def test_unmapped_group_of_terminals_is_dropped(single_user, rootless_command):
    box = Box(single_user, [rootless_command])
    config = base_config()
    assert "gid=5" in config["mounts"][2]["options"]
    table = mount_table(box.lines(config, MOUNTINFO))
    assert table["/dev/pts"][4] == {"rw", "mode=620", "ptmxmode=666"}


def test_mapped_group_of_terminals_stays(either):
    table = mount_table(either.lines(config_with_maps(either.user), MOUNTINFO))
    assert f"gid={own_mappings(either.user)['gidMappings'][1]['hostID'] + 4}" in table["/dev/pts"][4]


PAIRS = {"iversion": ("iversion", "noiversion"), "silent": ("silent", "loud"), "mand": ("mand", "nomand")}
"""Options without a visible effect are accepted, and so are their opposites."""


MUST = '"Runtimes MUST … implement the following option strings"'


SHOULD = '"Runtimes … SHOULD … implement the following option strings"'


TO_FILE_SYSTEM = "it is passed to the file system, which does not know it"


NOTHING = "it has no effect"


REFUSED = "the kernel is asked for what it refuses (Invalid argument)"


TAKE_BACK = '"Corresponds to mount(8)", where the last of two opposite options counts: the first one stays'


BELOW = '"Corresponds to … shared subtrees": what is mounted below is changed too'


OF_THE_ROOT = '"Corresponds to … shared subtrees": without rootfsPropagation every mount is made private afterwards'


def each(sentence, options):
    """Return the sentence for each of the options."""
    return dict.fromkeys(options.split(), sentence)


ALONE = {
    "runc": each(f"{MUST}: {TO_FILE_SYSTEM}", "defaults") | each(f"{MUST}: {NOTHING}", "norelatime"),
    "crun": each(f"{MUST}: {TO_FILE_SYSTEM}", "iversion silent")
    | each(f"{MUST}: {NOTHING}", "norelatime")
    | each(f"{SHOULD}: {TO_FILE_SYSTEM}", "nosymfollow symfollow"),
}
"""The effect of an option in the other runtimes."""


AFTER_OPPOSITE = {
    "runc": each(f"{MUST}: after noatime {NOTHING}", "relatime"),
    "crun": each(TAKE_BACK, "suid dev exec atime nostrictatime diratime async relatime")
    | each(f"{SHOULD}: {TO_FILE_SYSTEM}", "symfollow"),
}


IN_A_TREE = {
    "runc": each(f"{SHOULD}: {REFUSED}", "ratime rnostrictatime") | each(f"{SHOULD}: {NOTHING}", "rnorelatime"),
    "crun": each(f"{SHOULD}: {REFUSED}", "rnoatime rstrictatime rnodiratime rdiratime ratime rnostrictatime rsymfollow")
    | each(f"{SHOULD}: {NOTHING}", "rnosymfollow rnorelatime")
    | each(f"{SHOULD}: it sets nosymfollow", "rrelatime"),
}


WITHOUT_ROOT_PROPAGATION = {
    "crun": each(OF_THE_ROOT, "private shared rshared slave rslave unbindable runbindable"),
}


def options(table, differences):
    """Return a parameter for each option, marked with its property and the runtimes that differ."""
    return [
        pytest.param(
            name,
            id=name,
            marks=[
                pytest.mark.spec(*(f"mounts.options.{option}" for option in PAIRS.get(name, (name,)))),
                *(pytest.mark.differs(who, said[name]) for who, said in differences.items() if name in said),
            ],
        )
        for name in table
    ]


FRESH = {
    name: case for name, case in (NEW | NEWER).items() if name not in ("nothing", "data") and "last of" not in name
}


OPPOSITE = {name: case for name, case in FRESH.items() if len(case[0]) > 1 and name not in PAIRS}


def shown(box, *words):
    """Return the resulting options of the mount and of the file system."""
    config = config_with_maps(box.user)
    add_mount(config, "/data", "tmpfs", "tmpfs", *words)
    mount = mount_table(box.lines(config, MOUNTINFO))["/data"]
    return mount[0], mount[4] & OF_SUPERBLOCK


@pytest.mark.parametrize("option", options(FRESH, ALONE))
def test_a_new_file_system(every, option):
    words, *wanted = FRESH[option]
    assert shown(every, *([option] if option in OPPOSITE else words)) == tuple(wanted)


@pytest.mark.parametrize("option", options(OPPOSITE, AFTER_OPPOSITE))
def test_last_of_two_opposite_options_wins(every, option):
    words, *wanted = OPPOSITE[option]
    assert shown(every, *words) == tuple(wanted)


TREE = {
    # (options of the tree, requested options): options of every mount afterwards
    **{name: ([], both[1]) for name, both in RECURSIVE.items() if name[0] == "r" and name != "ro"},
    "rrw": (["ro"], {"rw", "relatime"}),
    "rsuid": (["nosuid"], {"rw", "relatime"}),
    "rdev": (["nodev"], {"rw", "relatime"}),
    "rexec": (["noexec"], {"rw", "relatime"}),
    "rdiratime": (["nodiratime"], {"rw", "relatime"}),
    "rsymfollow": (["nosymfollow"], {"rw", "relatime"}),
    "ratime": (["noatime"], {"rw", "relatime"}),
    "rrelatime": (["noatime"], {"rw", "relatime"}),
    "rnorelatime": ([], {"rw"}),
    "rnostrictatime": (["strictatime"], {"rw", "relatime"}),
}


def owned_tree(box, config, *options):
    """Mount a tree of two file systems on /tree and /tree/below; return the source for a bind mount."""
    (box.rootfs / "tree/below").mkdir(parents=True, exist_ok=True)
    own(box.user, box.rootfs / "tree")
    add_mount(config, "/tree", "tmpfs", "tmpfs")
    add_mount(config, "/tree/below", "tmpfs", "tmpfs", *options)
    if options:
        # the upper one last: a read-only mount could not get another below it
        add_mount(config, "/tree", "bind", box.rootfs / "tree", "rbind", *options)
    return box.rootfs / "tree"


@pytest.mark.parametrize("option", options(TREE, IN_A_TREE))
def test_a_tree(every, option):
    before, wanted = TREE[option]
    config = config_with_maps(every.user)
    add_mount(config, "/data", "bind", owned_tree(every, config, *before), "rbind", option)
    table = mount_table(every.lines(config, MOUNTINFO))
    assert (table["/data"][0], table["/data/below"][0]) == (wanted, wanted)


def propagation(box, option, **linux):
    """Return the propagation of a bind mount and of the mount below it, from mountinfo."""
    config = config_with_maps(box.user)
    config["linux"] |= linux
    # only a shared mount can have a slave
    source = owned_tree(box, config)
    for mount in config["mounts"][-2:]:
        mount["options"].append("shared")
    add_mount(config, "/data", "bind", source, "rbind", option)
    table = mount_table(box.lines(config, MOUNTINFO))
    return [[field.split(":")[0] for field in table[point][1]] for point in ("/data", "/data/below")]


def propagated(option):
    return [PROPAGATION[option], PROPAGATION[option] if option[1:] in PROPAGATION else ["shared"]]


@pytest.mark.parametrize("option", options(PROPAGATION, {}))
def test_propagation_of_the_mount(every, option):
    assert propagation(every, option, rootfsPropagation="private")[0] == PROPAGATION[option]


@pytest.mark.parametrize("option", options(PROPAGATION, {"crun": each(BELOW, "private slave unbindable")}))
def test_propagation_of_mounts_below(every, option):
    assert propagation(every, option, rootfsPropagation="private") == propagated(option)


@pytest.mark.parametrize("option", options(PROPAGATION, WITHOUT_ROOT_PROPAGATION))
def test_propagation_without_rootfs_propagation(every, option):
    assert propagation(every, option) == propagated(option)


@pytest.mark.spec("mounts.options")
def test_options_of_the_file_system(every):
    """ "Runtimes SHOULD treat unknown options as filesystem-specific ones"."""
    config = config_with_maps(every.user)
    add_mount(config, "/data", "tmpfs", "tmpfs", "nr_inodes=20", "size=1m")
    assert mount_table(every.lines(config, MOUNTINFO))["/data"][4] >= {"size=1024k", "nr_inodes=20"}
