"""install.sh with other users on the host, a falsified package, kills at any moment, and a home that nodes share."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess

import pytest

from tests.lib.bundles import own
from tests.lib.installing import CHECKOUT, install, pip_environment

__all__ = ["install", "pip_environment"]  # fixtures

KILLER = """#!/bin/sh
# Runs the real {name}; all of install.sh is killed before or after it.
{before}PATH={path} {name} "$@" && status=0 || status=$?
{after}exit "$status"
"""
KILL = "kill -9 0\n"  # its process group


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
    assert install(umask=0).returncode == 0
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
        assert install().returncode == 0
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


AS_ROOT = """
for directory in bin lib share; do mount -t tmpfs tmpfs /usr/local/$directory; done
mount -t tmpfs tmpfs /root
exec "$@"
"""


def test_root_ignores_the_calling_users_pip_conf(user, require_root, pip_environment):
    """sudo may keep HOME: pip, as root, would write its log to a file that the user chooses."""
    home = user.tmp / "home"
    (home / ".config/pip").mkdir(parents=True)
    victim = user.tmp / "victim"
    (home / ".config/pip/pip.conf").write_text(f"[global]\nlog = {victim}\n")
    own(user, home)
    kept = pip_environment | {"HOME": str(home), "PYTHON": "/usr/bin/python3"}
    words = ["unshare", "--mount", "sh", "-euc", AS_ROOT, "sh", CHECKOUT / "install.sh"]
    done = user.run(words, env=kept, user=0, group=0, umask=0, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Installed rootless" in done.stdout
    assert not victim.exists()


def test_a_killed_upgrade_keeps_the_old_version_and_is_cleaned_up_later(user, install):
    assert install().returncode == 0
    moments = [("mktemp", "", KILL), ("ln", "", KILL), ("mv", "", KILL)]
    for name, before, after in moments:
        killer = KILLER.format(name=name, before=before, after=after, path=user.env["PATH"])
        done = install(PATH=shims(user, **{name: killer}), options={"start_new_session": True})
        assert done.returncode == -signal.SIGKILL, (name, done.stdout, done.stderr)
        assert works(user, install)
    temporary = user.tmp / "temporary"
    user.run(["mkdir", temporary], check=True)
    killer = KILLER.format(name="uname", before=KILL, after="", path=user.env["PATH"])  # during creation
    done = install(PATH=shims(user, uname=killer), TMPDIR=str(temporary), options={"start_new_session": True})
    assert done.returncode == -signal.SIGKILL
    assert list(temporary.iterdir()) == []
    assert works(user, install)
    assert install().returncode == 0
    assert works(user, install)
    assert residue(install) == set()


def test_an_environment_in_a_shared_home_outlives_its_upgrade(user, install):
    """Processes of other nodes, which may use it, are invisible here."""
    path = shims(user, stat="#!/bin/sh\necho nfs\n")
    made = []
    for _ in range(2):
        assert install(PATH=path).returncode == 0
        made.append(install.command.resolve().parent.parent)
    first, second = made
    assert set(install.environments()) == {first, second}
    os.utime(first / "replaced", (0, 0))  # long ago
    assert install(PATH=path).returncode == 0
    third = install.command.resolve().parent.parent
    assert set(install.environments()) == {second, third}
