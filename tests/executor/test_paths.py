"""Paths of a hostile image: whatever it contains, the executor touches nothing outside of the root."""

from __future__ import annotations

import ctypes
import os
import stat

import pytest

from rootless.plan import ops
from rootless.plan.ops import Op
from tests.lib.bundles import own
from tests.lib.executor import NOTHING, Executor, as_user, failure, make_root, mounts, rooted

RENAME_EXCHANGE = 2
AT_FDCWD = -100
FILE = "/etc/hostname"
"""Any file of the host."""


@pytest.fixture
def root(user):
    """A root, with a directory `outside` beside it that must stay unchanged."""
    outside = user.tmp / "outside"
    outside.mkdir()
    (outside / "directory").mkdir()
    (outside / "file").write_text("of the host")
    own(user, outside)
    made = make_root(user)
    before = snapshot(outside)
    yield made
    assert snapshot(outside) == before


def snapshot(directory):
    found = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        found[path] = (status.st_mode, status.st_uid, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


def links(root, pairs):
    """Make symlinks from {path below the root: target}."""
    for path, text in pairs.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(text, root / path)


def tmpfs(target, flags=0, **options) -> Op:
    return Op(ops.MOUNT, flags, *NOTHING[1:], "tmpfs", "tmpfs", target, [], **options)


def bound_directory(target, flags=0, **options) -> Op:
    return Op(ops.BIND, flags | ops.RECURSIVE, *NOTHING[1:], "/usr", target, **options)


def bound_file(target, flags=0, **options) -> Op:
    return Op(ops.BIND, flags, *NOTHING[1:], FILE, target, **options)


def bound_device(target, **options) -> Op:
    return Op(ops.DEVICE_BIND, stat.S_IFCHR, 1, 3, 0, "/dev/null", target, **options)


def fifo(target, **options) -> Op:
    return Op(ops.DEVICE_NODE, stat.S_IFIFO | 0o666, 0, 0, 0, 0, target, **options)


def link(target, **options) -> Op:
    return Op(ops.SYMLINK, "anything", target, **options)


def directory(target, **options) -> Op:
    return Op(ops.MKDIR, target, **options)


MOUNTS = {"tmpfs": tmpfs, "directory": bound_directory, "file": bound_file, "device": bound_device}
MAKERS = {"mkdir": (directory, stat.S_ISDIR), "fifo": (fifo, stat.S_ISFIFO), "symlink": (link, stat.S_ISLNK)}

TRAPS = {
    # symlinks of the image, target of the mount, the same resolved inside
    "an absolute symlink": ({"data": "/outside"}, "/data/new", "/outside/new"),
    "a symlink up and out": ({"data": "../../../../../../../outside"}, "/data/new", "/outside/new"),
    "a symlink out by the directory's name": ({"data": "../outside"}, "/data/new", "/outside/new"),
    "a symlink in the middle": ({"a/b": "/outside", "outside/x": "y"}, "/a/b/c/new", "/outside/c/new"),
    "a symlink to a symlink": ({"a": "b/c", "b": "/d", "d/c": "../../../outside"}, "/a/new", "/outside/new"),
    "a symlink to the root": ({"a": "/"}, "/a/a/new", "/new"),
    "a symlink to its own directory": ({"a/b": "."}, "/a/b/b/b/new", "/a/new"),
    "up and out": ({}, "/bin/../../../outside/new", "/outside/new"),
    "up through a missing directory": ({}, "/missing/../../outside/new", "/outside/new"),
    "dots, slashes": ({}, "//./outside/.//new", "/outside/new"),
    "a symlink that ends with a slash": ({"data": "/outside/"}, "/data/new", "/outside/new"),
    "forty symlinks": ({f"l{n}": f"l{n + 1}" for n in range(39)} | {"l39": "outside"}, "/l0/new", "/outside/new"),
}
DANGLING = {
    "an absolute dangling symlink": ({"data/link": "/outside/new"}, "/data/link", "/outside/new"),
    "a relative dangling symlink": ({"data/link": "../../outside/new"}, "/data/link", "/outside/new"),
    "a chain of dangling symlinks": ({"a": "b/c", "b": "d", "d/c": "/outside/new"}, "/a", "/outside/new"),
    "a dangling symlink in the middle": ({"data": "/missing/one"}, "/data/two/new", "/missing/one/two/new"),
}
REFUSED = {
    # symlinks of the image, target of the mount, errno
    "a symlink to itself": ({"a": "a"}, "/a", "ELOOP"),
    "symlinks in a circle": ({"a": "b", "b": "/c/d", "c": "/", "d": "a"}, "/a/x", "ELOOP"),
    "forty-one symlinks": ({f"l{n}": f"l{n + 1}" for n in range(40)} | {"l40": "outside"}, "/l0/new", "ELOOP"),
    "a name that grows": ({"a": "a/a"}, "/a", "ELOOP"),
    "a symlink through /proc": ({"a": "/proc/self/root/outside"}, "/a/new", "ELOOP"),
    "/proc/self/root": ({}, "/proc/self/root/outside/new", "ELOOP"),
    "/proc/self/cwd": ({}, "/proc/self/cwd/new", "ELOOP"),
    "a descriptor": ({"a": "/proc/self/fd/0"}, "/a", "ELOOP"),
    "a long name": ({}, "/" + "x" * 256, "ENAMETOOLONG"),
    "a long name below a missing directory": ({}, "/missing/" + "x" * 256, "ENAMETOOLONG"),
    "a long path": ({}, "/x" * 2048, "ENAMETOOLONG"),
}


@pytest.mark.parametrize("make", MOUNTS.values(), ids=MOUNTS)
@pytest.mark.parametrize("case", (TRAPS | DANGLING).values(), ids=TRAPS | DANGLING)
def test_a_mount_target_is_resolved_inside_the_root(user, root, make, case):
    trap, target, inside = case
    links(root, trap)
    own(user, root)
    assert inside in as_user(user, mounts, root, make(target))


@pytest.mark.parametrize(("make", "is_made"), MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("case", TRAPS.values(), ids=TRAPS)
def test_files_are_created_inside_the_root(user, root, make, is_made, case):
    trap, target, inside = case
    links(root, trap)
    own(user, root)
    as_user(user, mounts, root, make(target))
    assert is_made((root / inside[1:]).lstat().st_mode)


@pytest.mark.parametrize("make", [*MOUNTS.values(), directory], ids=[*MOUNTS, "mkdir"])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_path_that_cannot_be_resolved_is_refused(user, root, make, case):
    trap, target, number = case
    links(root, trap)
    own(user, root)
    proc = Op(ops.BIND, ops.RECURSIVE, *NOTHING[1:], "/proc", "/proc")
    assert as_user(user, failure, rooted(root, proc, make(target)))[1] == number


@pytest.mark.parametrize("target", ["/link", "/link/file", "/link/directory", "/../outside/file", "/data"])
@pytest.mark.parametrize("kind", [ops.MASK, ops.READONLY_PATH, ops.REMOUNT], ids=lambda kind: kind.name)
def test_paths_outside_of_the_root_cannot_be_named(user, root, kind, target):
    links(root, {"link": "../outside", "data": str(user.tmp / "outside/file")})
    own(user, root)
    operation = Op(kind, *NOTHING, target, []) if kind is ops.REMOUNT else Op(kind, target)
    assert as_user(user, failure, rooted(root, operation))[1] == "ENOENT"


@pytest.mark.parametrize("text", ["/data", "data", "../outside", "/", "."])
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_symlinks_at_proc_sys_and_dev_are_refused(user, root, name, text):
    (root / "data").mkdir()
    if name == "proc":
        (root / name).rmdir()
    links(root, {name: text})
    own(user, root)
    for make in (tmpfs, bound_directory):
        assert as_user(user, failure, rooted(root, make(f"/{name}", ops.PLAIN_TARGET)))[1:] == ("ELOOP", "openat2")
    assert (root / name).is_symlink()


def test_missing_proc_sys_and_dev_are_created(user, root):
    (root / "proc").rmdir()
    plan = [bound_directory("/sys", ops.PLAIN_TARGET), tmpfs("/dev", ops.PLAIN_TARGET)]
    assert {"/sys", "/dev", "/proc"} <= set(as_user(user, mounts, root, *plan))


@pytest.mark.parametrize(
    ("make", "target", "number"),
    [
        (tmpfs, "/file", "ENOTDIR"),
        (tmpfs, "/fifo", "ENOTDIR"),
        (tmpfs, "/file/below", "ENOTDIR"),
        (tmpfs, "/fifo/below", "ENOTDIR"),
        (tmpfs, "/link", "ENOTDIR"),
        (bound_directory, "/file", "ENOTDIR"),
        (bound_directory, "/socket", "ENOTDIR"),
        (bound_file, "/bin", "ENOTDIR"),
        (bound_file, "/file/below", "ENOTDIR"),
        (bound_file, "/fifo/../below", "ENOTDIR"),
        (bound_device, "/bin", "ENOTDIR"),
        (directory, "/file/below", "ENOTDIR"),
        (link, "/file/below", "ENOTDIR"),
        (fifo, "/file/below", "ENOTDIR"),
        (fifo, "/file", "EEXIST"),
        (fifo, "/link", "EEXIST"),
    ],
)
def test_a_target_of_the_wrong_type_is_refused(user, root, make, target, number):
    (root / "file").write_text("")
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o666)
    links(root, {"link": "file"})
    own(user, root)
    assert as_user(user, failure, rooted(root, make(target)))[1] == number


def test_a_legacy_mount_on_a_file_is_refused(user, root):
    (root / "file").write_text("")
    own(user, root)
    assert as_user(user, failure, rooted(root, tmpfs("/file", ops.LEGACY))) == ("mount", "ENOTDIR", "fchdir")


@pytest.mark.parametrize("target", ["/fifo", "/link", "/socket"])
def test_a_file_is_bound_over_any_non_directory_without_opening_it(user, root, target):
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o666)
    links(root, {"link": "fifo"})
    own(user, root)
    assert {"/link": "/fifo"}.get(target, target) in as_user(user, mounts, root, bound_file(target))


def test_an_existing_fifo_is_used(user, root):
    os.mkfifo(root / "fifo", 0o600)
    own(user, root)
    as_user(user, mounts, root, fifo("/fifo"))
    assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)


def test_an_existing_symlink_is_kept(user, root):
    links(root, {"link": "another"})
    own(user, root)
    as_user(user, mounts, root, link("/link"))
    assert os.readlink(root / "link") == "another"


def test_names_of_maximum_length_work(user, root):
    name = "x" * 255
    target = "/".join(["", *[name] * 10])
    assert target in as_user(user, mounts, root, tmpfs(target))


def test_a_symlink_that_makes_a_path_too_long_is_an_error(user, root):
    text = "/".join(["missing"] * 500)
    links(root, {"link": text})
    own(user, root)
    kind, number, _ = as_user(user, failure, rooted(root, tmpfs("/link/" + "x/" * 100)))
    assert (kind, number) == ("mount", "ENAMETOOLONG")


def test_modes_do_not_depend_on_the_callers_umask(user, root):
    def steps():
        os.umask(0o777)
        mounts(root, tmpfs("/a/b"), bound_file("/c/d"), fifo("/e/f"), directory("/g"))

    as_user(user, steps)
    modes = {name: stat.S_IMODE((root / name).lstat().st_mode) for name in ("a", "a/b", "c", "c/d", "e", "e/f", "g")}
    assert modes == {"a": 0o755, "a/b": 0o755, "c": 0o755, "c/d": 0o644, "e": 0o755, "e/f": 0o666, "g": 0o755}


@pytest.mark.parametrize("text", ["/outside", "../outside", "{outside}"])
def test_paths_of_an_image_that_changes_stay_inside_the_root(user, root, text):
    makers = (*MOUNTS.values(), directory, link, fifo)
    (root / "outside").mkdir()
    (root / "swap").mkdir()
    links(root, {"link": text.format(outside=user.tmp / "outside")})
    own(user, root)
    plan = [make(f"/swap/{make.__name__}{n}", on_error=ops.ELSE) for n in range(100) for make in makers]

    def swap():
        libc = ctypes.CDLL(None)
        one, other = os.fsencode(root / "swap"), os.fsencode(root / "link")
        parent = os.getppid()
        while os.getppid() == parent:
            libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)

    def steps():
        racer = os.fork()
        if racer == 0:
            swap()
            os._exit(0)
        running = Executor(rooted(root, *plan))
        last = running.until_settled()
        os.kill(racer, 9)
        os.waitpid(racer, 0)
        assert last is None, last
        running.leave()
        running.wait()
        return [message.error for message in running.skipped]

    errors = as_user(user, steps)
    made = [path for name in ("swap", "link", "outside") for path in (root / name).glob("*[0-9]")]
    assert len(errors) < len(plan)
    assert made
