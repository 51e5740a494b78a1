"""config.md "Linux mount options", one by one: each is asked of every runtime, and looked for from inside.

What an option means together with others is in test_spec_mount_options.py, whose tables these are.
"""

from __future__ import annotations

import pytest

from tests.lib.boxes import add_mount, config_with_maps, make_volume, mount_table
from tests.lib.bundles import own
from tests.spec.test_mounts_options import NEW, NEWER, PROPAGATION, RECURSIVE

MOUNTINFO = "cat /proc/self/mountinfo"
OF_SUPERBLOCK = {"sync", "dirsync", "lazytime"}
PAIRS = {"iversion": ("iversion", "noiversion"), "silent": ("silent", "loud"), "mand": ("mand", "nomand")}
"""Those without an effect to be seen are taken, and taken back."""

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
"""What the others make of a single option."""
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
    """Return a parameter for each option, marked with what it shows and who differs."""
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


# --- Of a new file system ---------------------------------------------------------------------------------------------

FRESH = {
    name: case for name, case in (NEW | NEWER).items() if name not in ("nothing", "data") and "last of" not in name
}
OPPOSITE = {name: case for name, case in FRESH.items() if len(case[0]) > 1 and name not in PAIRS}


def shown(box, *words):
    """Return the options of the mount, and of the file system, that these words make."""
    config = config_with_maps(box.user)
    add_mount(config, "/data", "tmpfs", "tmpfs", *words)
    mount = mount_table(box.lines(config, MOUNTINFO))["/data"]
    return mount[0], mount[4] & OF_SUPERBLOCK


@pytest.mark.parametrize("option", options(FRESH, ALONE))
def test_a_new_file_system(every, option):
    words, *wanted = FRESH[option]
    assert shown(every, *([option] if option in OPPOSITE else words)) == tuple(wanted)


@pytest.mark.parametrize("option", options(OPPOSITE, AFTER_OPPOSITE))
def test_the_last_of_two_that_are_opposite(every, option):
    words, *wanted = OPPOSITE[option]
    assert shown(every, *words) == tuple(wanted)


# --- Of a tree of mounts ----------------------------------------------------------------------------------------------

TREE = {
    # what the tree has already, what is asked for: what every mount of it has then
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


def tree(box, config, *options):
    """Mount a tree of two file systems on /tree and /tree/below; return where a bind mount finds it."""
    (box.rootfs / "tree/below").mkdir(parents=True, exist_ok=True)
    own(box.user, box.rootfs / "tree")
    add_mount(config, "/tree", "tmpfs", "tmpfs")
    add_mount(config, "/tree/below", "tmpfs", "tmpfs", *options)
    if options:
        # the upper one last: a read-only one would not get another below it
        add_mount(config, "/tree", "bind", box.rootfs / "tree", "rbind", *options)
    return box.rootfs / "tree"


@pytest.mark.parametrize("option", options(TREE, IN_A_TREE))
def test_a_tree(every, option):
    before, wanted = TREE[option]
    config = config_with_maps(every.user)
    add_mount(config, "/data", "bind", tree(every, config, *before), "rbind", option)
    table = mount_table(every.lines(config, MOUNTINFO))
    assert (table["/data"][0], table["/data/below"][0]) == (wanted, wanted)


def propagation(box, option, **linux):
    """Return what mountinfo says of the propagation of a bind mount, and of what is mounted below it."""
    config = config_with_maps(box.user)
    config["linux"] |= linux
    # a mount is a slave of one that is shared
    source = tree(box, config)
    for mount in config["mounts"][-2:]:
        mount["options"].append("shared")
    add_mount(config, "/data", "bind", source, "rbind", option)
    table = mount_table(box.lines(config, MOUNTINFO))
    return [[field.split(":")[0] for field in table[point][1]] for point in ("/data", "/data/below")]


def propagated(option):
    return [PROPAGATION[option], PROPAGATION[option] if option[1:] in PROPAGATION else ["shared"]]


@pytest.mark.parametrize("option", options(PROPAGATION, {}))
def test_propagation(every, option):
    assert propagation(every, option, rootfsPropagation="private")[0] == PROPAGATION[option]


@pytest.mark.parametrize("option", options(PROPAGATION, {"crun": each(BELOW, "private slave unbindable")}))
def test_propagation_of_what_is_mounted_below(every, option):
    assert propagation(every, option, rootfsPropagation="private") == propagated(option)


@pytest.mark.parametrize("option", options(PROPAGATION, WITHOUT_ROOT_PROPAGATION))
def test_propagation_where_that_of_the_root_is_not_said(every, option):
    assert propagation(every, option) == propagated(option)


# --- Others -----------------------------------------------------------------------------------------------------------


@pytest.mark.spec("mounts.options.remount")
def test_remount(every):
    config = config_with_maps(every.user)
    add_mount(config, "/data", "tmpfs", "tmpfs")
    add_mount(config, "/data", "tmpfs", "tmpfs", "remount", "size=1m")
    assert mount_table(every.lines(config, MOUNTINFO))["/data"][4] >= {"size=1024k"}


@pytest.mark.spec("mounts.options.tmpcopyup")
def test_tmpcopyup(every):
    config = config_with_maps(every.user)
    add_mount(config, "/etc", "tmpfs", "tmpfs", "tmpcopyup")
    lines = every.lines(config, "cut -d : -f 1 /etc/group; rm /etc/group; stat -f -c %T /etc")
    assert lines == ["root", "www-data", "user", "tmpfs"]
    assert (every.rootfs / "etc/group").exists()


@pytest.mark.spec("mounts.options")
def test_options_of_the_file_system(every):
    """ "Runtimes SHOULD treat unknown options as filesystem-specific ones"."""
    config = config_with_maps(every.user)
    add_mount(config, "/data", "tmpfs", "tmpfs", "nr_inodes=20", "size=1m")
    assert mount_table(every.lines(config, MOUNTINFO))["/data"][4] >= {"size=1024k", "nr_inodes=20"}


@pytest.mark.spec("mounts.options.ro", "mounts.options.noexec")
def test_the_effect(every):
    volume = make_volume(every.user, f"effect-{every.runtime}", script="#!/bin/sh\necho ran\n")
    (volume / "script").chmod(0o755)
    config = config_with_maps(every.user)
    add_mount(config, "/data", "bind", volume, "bind", "ro", "noexec")
    said = every.lines(config, "exec 2>&1; touch /data/new; /data/script || true")
    assert [line.rpartition(": ")[2] for line in said] == ["Read-only file system", "Permission denied"]
