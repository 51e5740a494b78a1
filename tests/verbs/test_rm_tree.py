"""`rootless rm-tree` removes trees that have files of subordinate IDs, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lib.boxes import subordinate
from tests.lib.bundles import own
from tests.lib.compiled import compiled

ROUNDS = 15


@pytest.fixture
def tree(user):
    """A tree of several owners, which the user's rm cannot remove."""
    path = user.tmp / "tree"
    (path / "by-33/private").mkdir(parents=True)
    (path / "by-33/private/file").write_text("file")
    (path / "link").symlink_to("/etc")
    os.mkfifo(path / "pipe")
    own(user, path)
    if os.geteuid() == 0:
        for each in (path / "by-33", *(path / "by-33").rglob("*")):
            os.chown(each, subordinate(user, 33), subordinate(user, 33))
        (path / "by-33/private").chmod(0)
    return path


def refusal(rootless, *paths):
    """Return the error of an rm-tree that fails."""
    done = rootless("rm-tree", *paths)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_files_of_all_own_ids_are_removed(rootless, user, tree, require_root):
    assert user.run(["rm", "-rf", tree]).returncode == 1
    assert rootless("rm-tree", "tree/").stderr == ""
    assert not tree.exists()
    assert Path("/etc/passwd").exists()


def test_several_trees(rootless, user, tree):
    (user.tmp / "other").mkdir()
    own(user, user.tmp / "other")
    rootless("rm-tree", tree, user.tmp / "other", check=True)
    assert not tree.exists()
    assert not (user.tmp / "other").exists()


def test_a_user_without_subordinate_ids_removes_own_files(single_user, rootless_command):
    (single_user.tmp / "tree/private").mkdir(parents=True)
    own(single_user, single_user.tmp / "tree")
    (single_user.tmp / "tree/private").chmod(0)
    single_user.run([rootless_command, "rm-tree", "tree"], check=True)
    assert not (single_user.tmp / "tree").exists()


def test_relative_trees_are_found_from_where_the_command_was_called(rootless, user):
    for name in ("a/one", "a/two", "two"):
        (user.tmp / name).mkdir(parents=True)
    own(user, user.tmp / "a")
    own(user, user.tmp / "two")
    rootless("rm-tree", "a/one", "two", check=True)
    assert [path.name for path in (user.tmp / "a").iterdir()] == ["two"]
    assert not (user.tmp / "two").exists()


def test_depth_has_no_limit(rootless, user):
    """No path of it fits into a system call, and there are more levels than descriptors."""
    top = user.tmp / "deep"
    make = "import os\nfor each in range(3000):\n    os.mkdir('directory'); os.chdir('directory')\nopen('file', 'w')"
    top.mkdir()
    own(user, top)
    user.run(["python3", "-c", make], cwd=top, check=True)
    user.run(["sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *rootless.argv("rm-tree", top)], check=True)
    assert not top.exists()


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("missing", "no such file or directory"),
        ("file", "it is no directory"),
        ("link", "it is a symlink"),
        ("link/", "it is a symlink"),
        (".", "it does not name a directory by its last part"),
        ("tree/..", "it does not name a directory by its last part"),
        ("/", "it does not name a directory by its last part"),
        ("/usr", "the directory above it is not yours"),
    ],
)
def test_anything_but_a_tree_of_the_user_is_refused(rootless, user, tree, path, cause):
    (user.tmp / "file").write_text("")
    (user.tmp / "link").symlink_to("tree")
    error = refusal(rootless, path)
    assert error.startswith(f"rootless: rm-tree {path}: {cause}")
    assert tree.exists()


def test_the_home_directory_is_refused(rootless, user):
    assert "the directory above it is not yours" in refusal(rootless, user.home)
    assert user.home.exists()


def test_a_tree_in_a_shared_directory_is_the_users(rootless, user, require_root):
    shared = user.tmp.parent / f"shared-{os.getpid()}"
    shared.mkdir()
    try:
        shared.chmod(0o1777)
        for name, owner in (("mine", user.uid), ("theirs", 0)):
            (shared / name).mkdir()
            os.chown(shared / name, owner, owner)
        rootless("rm-tree", shared / "mine", check=True)
        assert "is not yours" in refusal(rootless, shared / "theirs")
        assert os.listdir(shared) == ["theirs"]
    finally:
        shutil.rmtree(shared)


def test_files_of_another_user_stay(rootless, tree, require_root):
    (tree / "of-root").mkdir(mode=0o755)
    (tree / "of-root/file").write_text("")
    error = refusal(rootless, tree)
    assert "Permission denied: file" in error
    assert "ask the administrator to remove it" in error
    assert (tree / "of-root/file").exists()


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_what_is_mounted_below_stays(rootless, user, tree, require_root, kind):
    source = user.tmp / "source"
    source.mkdir()
    (tree / "mounted").mkdir()
    subprocess.run(
        ["mount", *(["--bind"] if kind == "bind" else ["-t", "tmpfs"]), source, tree / "mounted"], check=True
    )
    try:
        (tree / "mounted/file").write_text("kept")
        own(user, tree / "mounted")
        error = refusal(rootless, tree)
        assert (tree / "mounted/file").exists()
        assert "unmount what is mounted there first" in error
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)


def test_a_directory_that_becomes_a_symlink_meanwhile_is_not_followed(single_user, rootless_command, need):
    """A process of a container may exchange them at any time; strace gives it the time before each is opened."""
    user = single_user
    victim = user.tmp / "victim"
    victim.mkdir()
    (victim / "file").write_text("")
    own(user, victim)
    race = compiled(need, "race", "-static")
    delay = [need("strace"), "-f", "-o", "/dev/null", "-e", "trace=openat2", "-e", "inject=openat2:delay_enter=5000"]
    for number in range(ROUNDS):
        tree = user.tmp / f"tree-{number}"
        (tree / "swap").mkdir(parents=True)
        (tree / "link").symlink_to(victim)
        own(user, tree)
        with user.popen([race, tree / "swap", tree / "link"], stdout=subprocess.PIPE) as racing:
            assert racing.stdout.readline() == "racing\n"
            user.run([*delay, rootless_command, "rm-tree", tree])
            racing.kill()
        assert (victim / "file").exists(), f"round {number}"
