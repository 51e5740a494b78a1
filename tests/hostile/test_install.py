"""install.sh with other users on the host, a falsified package, kills at any moment, and a home that nodes share."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess

import pytest

from tests.lib.bundles import own
from tests.lib.installing import CHECKOUT, install, installed, pip_settings

__all__ = ["install", "installed"]  # fixtures

KILL = "kill -9 0"  # its process group
KILL_ALONE = "kill -9 $$"
TERM = "kill -TERM $$"
FILL = 'number=0; while : >"$HOME/fill.$((number += 1))"; do :; done 2>/dev/null'
"""No file can be made any more. Even root's processes get ENOSPC on a tmpfs that has no inode left."""
MOMENTS = [
    # (the event, whether install.sh fails, the beginning of the command before which it comes)
    (KILL, True, "chmod 755"),
    (KILL, True, 'ln -sfn -- "$environment'),
    (KILL, True, "mv -fT"),
    (KILL, True, "trap - EXIT"),
    (KILL, True, 'ln -s -- "$1/$file"'),
    (KILL, True, 'rm -rf -- "$old"'),
    (KILL_ALONE, True, 'make_environment "$environment"'),
    (TERM, True, 'ln -sfn -- "$environment'),
    (TERM, True, "trap - EXIT"),
    (FILL, True, 'make_environment "$environment"'),
    (FILL, True, 'ln -sfn -- "$environment'),
    (FILL, False, "complete=true"),
]


def shims(user, **scripts):
    """Return a PATH with these programs in front."""
    directory = user.tmp / "shims"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, script in scripts.items():
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)
    own(user, directory)
    return f"{directory}:{user.env['PATH']}"


def works(user, install):
    done = user.run([install.command, "--version"])
    return (done.returncode, done.stderr) == (0, "")


def residue(install):
    """Return the files besides one environment, the command's symlink and the installer's own files."""
    base = install.home / ".local/share/rootless"
    expected = {str(install.command), *(str(base / name) for name in ("made", "install.lock", "shared"))}
    expected |= {str(install.command.resolve().parent.parent)}
    return {str(path) for directory in (base, install.command.parent) for path in directory.iterdir()} - expected


def test_installation_cannot_be_written_or_locked_by_others(user, single_user, install):
    """Whatever the umask and the variables for Python and pip are."""
    poison = user.tmp / "poison"
    user.run(["mkdir", poison], check=True)
    for name in ("json.py", "hatchling.py", "sitecustomize.py", "pip.py"):
        (poison / name).write_text("raise SystemExit('poison')\n")
    (poison / "pip.conf").write_text("[install]\nuser = true\n")
    (poison / "constraints").write_text("click==1\n")
    hostile = {
        "PIP_CONFIG_FILE": str(poison / "pip.conf"),
        "PIP_CONSTRAINT": str(poison / "constraints"),
        "PIP_DRY_RUN": "1",
        "PIP_TARGET": str(poison / "target"),
        "PIP_USER": "1",
        "PYTHONHOME": "/nonexistent",
        "PYTHONPATH": str(poison),
        "PYTHONUSERBASE": str(poison),
        "XDG_DATA_HOME": "not/absolute",
    }
    done = install(umask=0, **hostile)
    assert done.returncode == 0, done.stderr
    assert not (poison / "target").exists()
    loose = [
        path
        for path in install.home.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]
    assert loose == []
    # others can search the directories now
    install.home.chmod(0o755)
    lock = install.home / ".local/share/rootless/install.lock"
    done = single_user.run(["flock", "--nonblock", lock, "true"])
    assert done.returncode
    assert "Permission denied" in done.stderr
    old = lock.with_name("lock")  # of an earlier version: it may be held already
    old.touch()
    old.chmod(0o644)
    with single_user.popen(["flock", old, "sh", "-c", "echo held; read x"], **PIPES) as holder:
        assert holder.stdout.readline() == "held\n"
        assert install.stepped(copied="the present one").returncode == 0
        holder.stdin.close()
    assert residue(install) == set()


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


@pytest.mark.parametrize("list_name", ["run", "build"])
def test_a_package_with_a_wrong_hash_is_not_installed(user, install, list_name):
    checkout = user.tmp / "checkout"
    subprocess.run(["cp", "-a", CHECKOUT, checkout], check=True)
    path = checkout / f"helpers/requirements/{list_name}.txt"
    path.write_text(re.sub(r"sha256:[0-9a-f]{4}", "sha256:0000", path.read_text()))
    own(user, checkout)
    done = install(checkout=checkout)
    assert done.returncode
    assert "hash" in done.stderr.lower()
    assert not install.command.exists()
    assert install.environments() == []


@pytest.mark.parametrize("planted", ["a directory", "a symlink to theirs", "a symlink to the victim's"])
def test_what_another_user_has_planted_is_refused(user, single_user, install, require_root, planted):
    """With XDG_DATA_HOME in a directory such as /tmp, whose names anybody can take first."""
    shared, directories = user.tmp / "shared", {"theirs": single_user.tmp / "theirs", "victim's": user.tmp / "mine"}
    shared.mkdir()
    shared.chmod(0o1777)
    single_user.run(["mkdir", directories["theirs"]], check=True)
    user.run(["mkdir", directories["victim's"]], check=True)
    target = directories.get(planted.rpartition(" ")[2])
    words = ["ln", "-s", target, shared / "rootless"] if target else ["mkdir", "-m", "777", shared / "rootless"]
    single_user.run(words, check=True)
    done = install(XDG_DATA_HOME=str(shared))
    assert (done.returncode, done.stderr) == (
        1,
        f"install.sh: {shared}/rootless belongs to another user; fix: move it away\n",
    )
    assert not [file for directory in directories.values() for file in directory.iterdir()]
    assert not install.command.exists()


def test_a_directory_that_others_can_write_to_is_refused(user, install):
    base = install.home / ".local/share/rootless"
    user.run(["mkdir", "-p", "-m", "777", base], check=True)
    done = install()
    assert (done.returncode, done.stderr) == (
        1,
        f"install.sh: other users can write to {base}; fix: chmod go-w '{base}'\n",
    )


def test_a_file_system_without_execution_is_reported(install, require_root):
    owner = install.home.stat()
    options = f"noexec,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "home", install.home], check=True)
    try:
        done = install()
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert done.stderr.startswith("install.sh: no program can be run in ")
        assert install.environments() == []
    finally:
        subprocess.run(["umount", install.home], check=True)


@pytest.mark.parametrize("home", ["", "relative/path"])
def test_a_home_that_is_no_path_is_refused(install, home):
    done = install(HOME=home)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("install.sh: HOME is not the path of a directory: ")


AS_ROOT = """
for directory in bin lib share; do mount -t tmpfs tmpfs /usr/local/$directory; done
mount -t tmpfs tmpfs /root
exec "$@"
"""


def test_root_ignores_the_calling_users_pip_conf(user, require_root):
    """sudo may keep HOME: pip, as root, would write its log to a file that the user chooses."""
    home = user.tmp / "home"
    (home / ".config/pip").mkdir(parents=True)
    victim = user.tmp / "victim"
    (home / ".config/pip/pip.conf").write_text(f"[global]\nlog = {victim}\n")
    own(user, home)
    kept = pip_settings(user) | {"HOME": str(home), "PYTHON": "/usr/bin/python3"}
    words = ["unshare", "--mount", "sh", "-euc", AS_ROOT, "sh", CHECKOUT / "install.sh"]
    done = user.run(words, env=kept, user=0, group=0, umask=0, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Installed rootless" in done.stdout
    assert not victim.exists()


@pytest.fixture
def small_disk(install, require_root):
    """The home on a file system of its own, which can be filled."""
    owner = install.home.stat()
    options = f"size=400m,nr_inodes=20000,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "home", install.home], check=True)
    yield
    subprocess.run(["umount", install.home], check=True)


def test_an_interrupted_upgrade_keeps_a_working_version_and_is_cleaned_up_later(user, install, installed, small_disk):
    [copied] = installed.environments()
    assert install.stepped(copied=copied).returncode == 0
    for event, fails, moment in MOMENTS:
        done = install.stepped(moment, event, copied=copied)
        for path in install.home.glob("fill.*"):
            path.unlink()
        assert bool(done.returncode) is fails, (moment, event, done.stdout, done.stderr)
        assert works(user, install), (moment, event)
    # in the midst of pip's and the compiler's work, and where they do not find room
    temporary = user.tmp / "temporary"
    user.run(["mkdir", temporary], check=True)
    for event in (KILL, "kill -TERM 0", FILL):
        done = install.stepped('"$@" --no-deps', event, TMPDIR=str(temporary))
        for path in install.home.glob("fill.*"):
            path.unlink()
        assert done.returncode, (event, done.stdout)
        assert works(user, install), event
    assert list(temporary.iterdir()) == []
    # at no command of an undisturbed upgrade there is a moment without a command
    done = install.stepped(copied=copied, event='[ -x "${link:-/}" ] || kill -9 0')
    assert done.returncode == 0, done.stderr
    assert works(user, install)
    assert residue(install) == set()
    assert len(install.environments()) == 1


def test_an_environment_in_a_shared_home_outlives_its_upgrade(user, install, installed):
    """Processes of other nodes, which may use it, are invisible here."""
    path = shims(user, stat='#!/bin/sh\n[ "$1" = -f ] || exec /usr/bin/stat "$@"\necho nfs\n')
    [copied] = installed.environments()
    assert install.stepped(copied=copied, PATH=path).returncode == 0
    first = install.command.resolve().parent.parent
    assert install.stepped(copied=copied, PATH=path).returncode == 0
    second = install.command.resolve().parent.parent
    assert set(install.environments()) == {first, second}
    os.utime(first / "replaced", (0, 0))  # long ago
    assert install.stepped(copied=copied, PATH=path).returncode == 0
    third = install.command.resolve().parent.parent
    assert set(install.environments()) == {second, third}
