"""Mounts, binds, masks and copies of the executor, read back from inside."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import shutil
import socket
import stat
import struct
import termios

import pytest

from rootless.linux import NODEV, NOEXEC, NOSUID, READONLY
from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.rootfs.mount_options import (
    ATIME,
    NOATIME,
    NODIRATIME,
    NOSYMFOLLOW,
    PRIVATE,
    SHARED,
    SLAVE,
    UNBINDABLE,
)
from tests.lib.bundles import own
from tests.lib.executor import (
    ENTER,
    MS_BIND,
    NOTHING,
    Executor,
    as_user,
    failure,
    make_root,
    mount_here,
    mounts,
    output,
    rooted,
)

SHELL = "/bin/busybox"
PROC = Op(ops.BIND, ops.RECURSIVE, *NOTHING[1:], "/proc", "/proc")
LONGEST_VALUE = 255
"""The longest value of an option for fsconfig(2)."""


@pytest.fixture
def root(user):
    return make_root(user)


def mount(target, *options, flags=0, propagation=0, on=0, off=0, kind="tmpfs") -> Op:
    return Op(ops.MOUNT, flags, propagation, on, off, 0, 0, kind, kind, target, list(options))


def bind(source, target, flags=0, *, propagation=0, on=0) -> Op:
    return Op(ops.BIND, flags, propagation, on, 0, 0, 0, str(source), target)


def remount(target, *options, on=0, off=0, on_below=0, off_below=0, **rest) -> Op:
    return Op(ops.REMOUNT, 0, 0, on, off, on_below, off_below, target, list(options), **rest)


def said(root, *operations, script, **options) -> str:
    """Execute `operations` and return the output of a shell script in the root."""
    return output(rooted(root, PROC, *operations, args=[SHELL, "sh", "-c", script]), **options)


def words(line) -> set[str]:
    return set(line["options"].split(","))


def test_the_hosts_mounts_are_hidden_and_unchanged(user, root):
    def steps():
        with open("/proc/self/mountinfo") as file:
            before = file.read()
        inside = mounts(root, mount("/data"))
        with open("/proc/self/mountinfo") as file:
            return inside, before == file.read()

    inside, unchanged = as_user(user, steps)
    assert unchanged
    assert {target for target in inside if not target.startswith("/proc")} == {"/", "/data"}
    # no mount propagates from or to another namespace
    assert not any("shared" in line["group"] for line in inside.values())


ATTRIBUTES = {
    "ro": READONLY,
    "nosuid": NOSUID,
    "nodev": NODEV,
    "noexec": NOEXEC,
    "noatime": NOATIME,
    "nodiratime": NODIRATIME,
    "nosymfollow": NOSYMFOLLOW,
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_mount_attributes_are_set_and_cleared(user, root, name):
    bit = ATTRIBUTES[name]
    off = ATIME if name == "noatime" else 0
    # a user namespace may not change how a mount of the host keeps access times
    bound = [] if "atime" in name else [bind("/usr", "/bound", ops.RECURSIVE, on=bit)]
    plan = [
        *bound,
        mount("/new", on=bit, off=off),
        mount("/set"),
        remount("/set", on=bit, off=off),
        mount("/cleared", on=bit, off=off),
        remount("/cleared", off=off or bit),
        mount("/above"),
        mount("/above/below"),
        remount("/above", on_below=bit, off_below=off),
    ]
    found = as_user(user, mounts, root, *plan)
    having = {target for target, line in found.items() if name in words(line)}
    assert having >= {"/new", "/set", "/above", "/above/below", *(op.string("target") for op in bound)}
    assert "/cleared" not in having


@pytest.mark.parametrize(
    ("propagation", "group"),
    [(SHARED, "shared:"), (PRIVATE, ""), (SLAVE, ""), (UNBINDABLE, "unbindable"), (SHARED | SLAVE, "EINVAL")],
)
def test_mounts_have_the_requested_propagation(user, root, propagation, group):
    plan = [mount("/new", propagation=propagation), bind("/usr", "/bound", ops.RECURSIVE, propagation=propagation)]
    if group == "EINVAL":
        assert as_user(user, failure, rooted(root, *plan))[1:] == ("EINVAL", "mount_setattr")
        return
    found = as_user(user, mounts, root, *plan)
    for target in ("/new", "/bound"):
        assert found[target]["group"].rstrip("0123456789") == group


def test_propagation_is_recursive_only_on_request(user, root):
    recursive = Op(ops.REMOUNT, ops.RECURSIVE_PROPAGATION, SHARED, 0, 0, 0, 0, "/one", [])
    alone = Op(ops.REMOUNT, 0, SHARED, 0, 0, 0, 0, "/two", [])
    plan = [mount("/one"), mount("/one/below"), recursive, mount("/two"), mount("/two/below"), alone]
    found = as_user(user, mounts, root, *plan)
    shared = {target for target, line in found.items() if line["group"].startswith("shared:")}
    assert shared == {"/one", "/one/below", "/two"}


def test_the_root_has_the_requested_propagation_and_attributes(user, root):
    attributes = Op(ops.ROOT_ATTRIBUTES, 0, 0, READONLY | NODEV, 0, 0, 0)
    shared = Op(ops.ROOT_ATTRIBUTES, 0, SHARED, 0, 0, 0, 0)
    line = as_user(user, lambda: mounts(root, attributes, enter=(shared, *ENTER)))["/"]
    assert {"ro", "nodev"} <= words(line)
    assert line["group"].startswith("shared:")


@pytest.mark.parametrize("move", [0, 1])
def test_chroot_replaces_pivot_root(user, root, move):
    plan = [Op(ops.CHROOT, move) if op.kind is ops.PIVOT else op for op in rooted(root, PROC, args=[SHELL, "ls", "/"])]
    assert as_user(user, output, plan).split() == ["bin", "proc"]


def test_options_are_passed_to_the_file_system(user, root):
    found = as_user(user, mounts, root, mount("/new", "size=64k", "mode=1750", "nr_inodes=7"))
    assert {"size=64k", "nr_inodes=7", "mode=1750"} <= set(found["/new"]["superblock"].split(","))
    found = as_user(user, mounts, root, mount("/new", "size=64k"), remount("/new", "size=128k", on=READONLY))
    assert "size=128k" in found["/new"]["superblock"].split(",")
    assert "ro" in words(found["/new"])


@pytest.mark.parametrize(
    ("operation", "number", "call"),
    [
        (mount("/new", "nonsense=1"), "EINVAL", "fsconfig"),
        (mount("/new", "nonsense"), "EINVAL", "fsconfig"),
        (mount("/new", "size=x"), "EINVAL", "fsconfig"),
        (mount("/new", "size=" + "9" * 256), "EINVAL", "fsconfig"),
        (mount("/new", "k" * 300 + "=1"), "EINVAL", "fsconfig"),
        (mount("/new", kind="nosuchfs"), "ENODEV", "fsopen"),
        (mount("/new", kind="ext4"), "EPERM", "mount"),
        (remount("/proc/sys", "size=1k"), "EINVAL", "fspick"),
        (remount("/bin", on=READONLY), "EINVAL", "mount_setattr"),
        (bind("/", "/new"), "EINVAL", "open_tree"),
        (bind("/no/such/file", "/new"), "ENOENT", "open_tree"),
        (bind("/etc/passwd/x", "/new"), "ENOTDIR", "open_tree"),
        (bind("/bin", "/bin", ops.RECURSIVE, on=1 << 40), "EINVAL", "mount_setattr"),
        (Op(ops.READONLY_PATH, "/missing"), "ENOENT", "openat2"),
        (Op(ops.DEVICE_BIND, stat.S_IFCHR, 1, 5, 0, "/dev/null", "/null"), "ENODEV", "open_tree"),
        (Op(ops.DEVICE_BIND, stat.S_IFCHR, 2, 3, 0, "/dev/null", "/null"), "ENODEV", "open_tree"),
        (Op(ops.DEVICE_BIND, stat.S_IFBLK, 1, 3, 0, "/dev/null", "/null"), "ENODEV", "open_tree"),
        (Op(ops.DEVICE_BIND, stat.S_IFCHR, 1, 3, 0, "/etc/passwd", "/null"), "ENODEV", "open_tree"),
        (Op(ops.DEVICE_BIND, stat.S_IFCHR, 1, 3, 0, "/etc", "/null"), "ENODEV", "open_tree"),
        (Op(ops.DEVICE_BIND, stat.S_IFCHR, 1, 3, 0, "/no/such/device", "/null"), "ENOENT", "open_tree"),
        (Op(ops.DEVICE_NODE, stat.S_IFCHR | 0o666, 1, 3, 0, 0, "/null"), "EPERM", "mknod"),
        (Op(ops.DEVICE_NODE, stat.S_IFIFO | 0o666, 0, 0, 5, 0, "/fifo"), "EINVAL", "fchownat"),
    ],
)
def test_a_failed_mount_names_its_operation_error_and_call(user, root, operation, number, call):
    assert as_user(user, failure, rooted(root, PROC, operation)) == (operation.kind.name, number, call)


def test_a_device_node_whose_owner_cannot_be_set_is_removed(user, root):
    as_user(user, failure, rooted(root, Op(ops.DEVICE_NODE, stat.S_IFIFO | 0o666, 0, 0, 5, 0, "/fifo")))
    assert not (root / "fifo").exists()


def test_a_failure_includes_the_kernels_message(user, root):
    def steps():
        running = Executor(rooted(root, mount("/new", "nonsense=1")))
        last = running.until_settled()
        running.leave()
        running.wait()
        return last.text

    assert as_user(user, steps) == b"tmpfs: Unknown parameter 'nonsense'\n"


@pytest.mark.parametrize("mode", [0o1777, 0o700, 0o2751])
def test_a_tmpfs_keeps_the_mode_of_the_directory_that_it_covers(user, root, mode):
    (root / "data").mkdir()
    own(user, root)
    (root / "data").chmod(mode)
    covering = mount("/data", flags=ops.KEEP_MODE)
    assert as_user(user, lambda: said(root, covering, script="stat -c %a /data")) == f"{mode:o}\n"


def test_a_read_only_path_is_bound_on_itself(user, root):
    (root / "data").mkdir()
    own(user, root)
    found = as_user(user, mounts, root, Op(ops.READONLY_PATH, "/data"))
    assert "ro" in words(found["/data"])
    assert found["/data"]["source"].endswith("/root/data")


def test_overlay_with_options_too_long_for_fsconfig(user, root):
    lower = user.tmp / ("x" * 200) / ("y" * 100)
    lower.mkdir(parents=True)
    (lower / "below").write_text("")
    for name in ("upper", "work", "merged"):
        (user.tmp / name).mkdir()
    own(user, user.tmp)
    options = [f"lowerdir={lower}", f"upperdir={user.tmp}/upper", f"workdir={user.tmp}/work", "userxattr"]
    assert len(options[0]) > LONGEST_VALUE
    merged = mount("/merged", ",".join(options), flags=ops.LEGACY, on=NODEV, kind="overlay")
    script = "touch /merged/above; ls /merged; cat /proc/self/mountinfo"
    listed = as_user(user, lambda: said(root, merged, script=script))
    assert listed.split()[:2] == ["above", "below"]
    assert "/merged rw,nodev" in listed
    assert (user.tmp / "upper/above").exists()


def test_options_beyond_a_page_are_refused(user, root):
    assert "/new" in as_user(user, mounts, root, mount("/new", ",".join(["size=1k"] * 512), flags=ops.LEGACY))
    plan = rooted(root, mount("/new", ",".join(["size=1k"] * 513), flags=ops.LEGACY))
    assert as_user(user, failure, plan) == ("mount", "E2BIG", "mount")


def test_mounts_below_the_root_are_included(user, root):
    (root / "data").mkdir()
    own(user, root)

    def steps():
        mount_here(("tmpfs", root / "data", "tmpfs", 0))
        return mounts(root)

    assert as_user(user, steps)["/data"]["type"] == "tmpfs"


# masked and read-only paths


def test_masked_directories_are_empty_and_masked_files_are_null(user, root):
    for name in ("one", "two", "two/below"):
        (root / name).mkdir()
    (root / "one/secret").write_text("secret")
    (root / "file").write_text("secret")
    (root / "link").symlink_to("/file")
    (root / "another").write_text("secret")
    own(user, root)
    script = (
        "ls -A /one /two; cat /file /link /another; stat -c %t,%T /file; "
        "for f in /one /two; do mkdir $f/x 2>&1 | grep -o 'Read-only'; done; "
        "awk '{print $5, $6}' /proc/self/mountinfo | grep -E '^/(one|two|file|another) '"
    )
    masks = [Op(ops.MASK, path) for path in ("/one", "/two", "/link", "/another")]
    lines = as_user(user, lambda: said(root, *masks, script=script)).splitlines()
    assert lines[:6] == ["/one:", "", "/two:", "1,3", "Read-only", "Read-only"]
    options = dict(line.split() for line in lines[6:])
    assert options.keys() == {"/one", "/two", "/file", "/another"}
    assert "ro" in set(options["/one"].split(",")) & set(options["/two"].split(","))


def test_a_missing_path_is_skipped_only_on_request(user, root):
    absent = [
        Op(kind, path, on_error=ops.SKIP_ABSENT)
        for kind in (ops.MASK, ops.READONLY_PATH)
        for path in ("/missing", "/bin/busybox/below")
    ]
    assert "/missing" not in as_user(user, mounts, root, *absent)
    assert as_user(user, failure, rooted(root, Op(ops.MASK, "/missing"))) == ("mask", "ENOENT", "openat2")


def test_only_the_null_device_is_used_as_a_mask(user, root):
    """A file mounted on /dev/null would appear at the masked path, and be writable (CVE-2025-31133)."""
    (root / "file").write_text("secret")
    (user.tmp / "null").write_text("")
    own(user, root)
    own(user, user.tmp / "null")

    def steps():
        mount_here((user.tmp / "null", "/dev/null", "", MS_BIND))
        return failure(rooted(root, Op(ops.MASK, "/file")))

    assert as_user(user, steps) == ("mask", "ENODEV", "open_tree")


def test_masking_fails_without_the_null_device(user, root):
    """Only the masked path may be absent, not the device that covers it."""
    (root / "file").write_text("secret")
    own(user, root)
    mask = Op(ops.MASK, "/file", on_error=ops.SKIP_ABSENT)

    def steps():
        mount_here(("tmpfs", "/dev", "tmpfs", 0))
        return failure(rooted(root, mask, args=("/bin/busybox", "cat", "/file")))

    assert as_user(user, steps) == ("mask", "ENODEV", "open_tree")


def test_read_only_paths_include_the_mounts_below(user, root):
    (root / "data").mkdir()
    (root / "file").write_text("")
    own(user, root)
    plan = [mount("/data/below"), Op(ops.READONLY_PATH, "/data"), Op(ops.READONLY_PATH, "/file")]
    found = as_user(user, mounts, root, *plan)
    assert all("ro" in words(found[path]) for path in ("/data", "/data/below", "/file"))
    assert "ro" not in words(found["/"])


# copying up


LISTING = (
    "cd /data; find . | sort | while read -r f; do stat -c '%n %f %u %g %s %N' \"$f\"; done; "
    "find . -type f -exec md5sum {} + | sort"
)


@pytest.fixture
def filled(user, root, need):
    """A directory of the root with every type of file, owned by several IDs of the container."""
    need("newuidmap")
    data = root / "data"
    for name in ("sticky", "private/deep/deeper", "many"):
        (data / name).mkdir(parents=True)
    for number in range(300):
        (data / f"many/{'long' * 20}{number}").write_text(str(number))
    for name in ("plain", "set-user-id", "of another", "private/deep/file", "empty", "-n"):
        (data / name).write_text("" if name == "empty" else name)
    (data / "large").write_bytes(os.urandom(300_001))
    (data / "dangling").symlink_to("/no/such/file")
    (data / "long link").symlink_to("x/" * 1500)
    os.mkfifo(data / "fifo")
    os.mknod(data / "socket", stat.S_IFSOCK)
    own(user, root)
    owners = (
        "cd /data; chown 33:44 'of another' private/deep; chown -h 5:6 dangling fifo; chown 7 set-user-id; "
        "chmod 4755 set-user-id; chmod 1777 sticky; chmod 700 private; chmod 620 fifo; chmod 0 plain; "
        "chmod 2510 private/deep"
    )
    as_user(user, lambda: said(root, script=owners, all_ids=True))
    return root


def test_copying_up_keeps_contents_owners_and_modes(user, filled):
    before = as_user(user, lambda: said(filled, script=LISTING, all_ids=True))
    up = mount("/data", flags=ops.COPY_UP | ops.KEEP_MODE, on=READONLY)
    script = LISTING + "; touch x 2>&1 | grep -o 'Read-only'"
    after = as_user(user, lambda: said(filled, up, script=script, all_ids=True))
    directories = ["./many", "./sticky", "./private", "./private/deep", "./private/deep/deeper", "."]

    def without_directory_sizes(text):
        lines = [line.split(" ") for line in text.splitlines()]
        return [[*words[:4], *words[5:]] if words[0] in directories else words for words in lines]

    assert len(before.splitlines()) > 600
    assert "04755" not in before
    assert without_directory_sizes(after) == [*without_directory_sizes(before), ["Read-only"]]


def test_copying_up_into_too_little_space_is_a_failure(user, filled):
    plan = rooted(filled, mount("/data", "size=64k", flags=ops.COPY_UP))
    assert as_user(user, lambda: failure(plan, all_ids=True)) == ("mount", "ENOSPC", "copy")


def test_copying_up_an_unreadable_file_is_a_failure(user, root, require_root):
    (root / "data").mkdir()
    own(user, root)
    (root / "data/secret").touch(mode=0o600)  # it belongs to root of the host
    assert as_user(user, failure, rooted(root, mount("/data", flags=ops.COPY_UP))) == ("mount", "EACCES", "copy")


def test_copying_up_a_file_is_a_failure(user, root):
    (root / "data").write_text("")
    own(user, root)
    assert as_user(user, failure, rooted(root, mount("/data", flags=ops.COPY_UP))) == ("mount", "ENOTDIR", "copy")


def test_copying_up_a_missing_directory_gives_an_empty_one(user, root):
    assert as_user(user, lambda: said(root, mount("/data", flags=ops.COPY_UP), script="ls -A /data")) == ""


# the terminal


def with_terminal(root, *operations, script="true", columns=0, rows=0, uid=0, devices=True):
    """Return (the executor, the master side of its terminal) for a script."""
    ours, theirs = socket.socketpair()
    dev = [mount("/dev", "mode=755"), mount("/dev/pts", "newinstance", "ptmxmode=0666", "mode=0620", kind="devpts")]
    plan = rooted(
        root,
        PROC,
        *(dev if devices else []),
        *operations,
        Op(ops.TERMINAL, columns, rows, uid),
        Op(ops.BIND, ops.PLAIN_TARGET, *NOTHING[1:], "/proc/self/fd/0", "/dev/console"),
        args=[SHELL, "sh", "-c", script],
    )
    running = Executor(plan, console=theirs.fileno(), all_ids=uid != 0)
    theirs.close()
    last = running.until_settled()
    if last:
        running.leave()
        running.wait()
        return plan[last.value].kind.name, last.error, last.call
    data, control, *_ = ours.recvmsg(64, socket.CMSG_SPACE(64))
    assert data == b"/dev/ptmx"
    [(_, _, descriptors)] = control
    [master] = array.array("i", descriptors)
    running.leave()
    assert running.wait() == 0
    text = b""
    try:
        while piece := os.read(master, 65536):
            text += piece
    except OSError:  # no process has the terminal open any more
        pass
    size = struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))[:2]
    return text.decode().split("\r\n")[:-1], size


def test_the_terminal_is_controlling_and_has_its_size(user, root):
    script = (
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; echo tty >/dev/console; "
        "set -- $(cat /proc/self/stat); test $7 != 0 && echo controlling; stat -c %d,%i /dev/console /dev/pts/0; "
        "ls /proc/self/fd | wc -l"
    )
    lines, size = as_user(user, lambda: with_terminal(root, script=script, columns=123, rows=45))
    assert lines[:4] == ["terminal", "45 123", "tty", "controlling"]
    assert lines[4] == lines[5]
    assert lines[6] == "4"
    assert size == (45, 123)


def test_the_terminal_belongs_to_the_programs_user(user, root, need):
    need("newuidmap")
    lines, _ = as_user(user, lambda: with_terminal(root, script="stat -c %u,%a /dev/console", uid=33))
    assert lines == ["33,620"]


@pytest.mark.parametrize(
    ("trap", "number"),
    [
        ({}, "ENOENT"),
        ({"dev/pts/": ""}, "ENODEV"),
        ({"dev/pts/ptmx": "fifo"}, "ENODEV"),
        ({"dev/pts": "fifo"}, "ENOTDIR"),
        ({"dev/pts": "/dev/pts"}, "ELOOP"),
        ({"dev": "/outside"}, "ELOOP"),
    ],
)
def test_a_terminal_must_come_from_a_devpts(user, root, trap, number):
    for name, what in trap.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        elif what == "fifo":
            os.mkfifo(root / name)
        else:
            (root / name).symlink_to(what)
    own(user, root)
    kind, error, call = as_user(user, lambda: with_terminal(root, devices=False))
    assert (kind, call) == ("terminal", "openat2")
    assert errno.errorcode[error] == number


def test_a_symlink_at_dev_console_is_refused(user, root):
    made = Op(ops.SYMLINK, "/outside", "/dev/console")
    kind, error, call = as_user(user, lambda: with_terminal(root, made))
    assert (kind, error, call) == ("bind", errno.ELOOP, "openat2")


def test_only_pipes_are_given_to_the_programs_user(user, need):
    need("newuidmap")
    os.mkfifo(user.tmp / "fifo")
    os.chown(user.tmp / "fifo", user.uid, user.gid)

    def steps():
        pipe, other = os.pipe()
        pair, _ = socket.socketpair()
        named = os.open(user.tmp / "fifo", os.O_RDWR)
        owners = []
        for stream in (pipe, pair.fileno(), named):
            os.dup2(stream, 0)
            plan = [
                Op(ops.NEW_USER),
                Op(ops.YIELD),
                Op(ops.BECOME, 0, 0),
                Op(ops.STDIO_OWNER, 33),
                Op(ops.EXEC, [shutil.which("stat"), "-L", "-c", "%u", "/proc/self/fd/0", "/proc/self/fd/1"], []),
            ]
            owners.append(output(plan, all_ids=True).split())
        return owners, os.fstat(other).st_uid

    owners, outside = as_user(user, steps)
    assert owners == [["33", "0"], ["0", "0"], ["0", "0"]]
    assert outside != user.uid
