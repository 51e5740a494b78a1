"""`--overlay`: the root file system stays as it is, changes go to memory or to a directory."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.containers import Reader
from tests.lib.squashfs import image_config, make_image_bundle
from tests.lib.waiting import until_attended

BUNDLES = {"directory": (make_bundle, base_config), "image": (make_image_bundle, image_config)}


@pytest.fixture(params=BUNDLES)
def run(request, user, rootless_command):
    """Run a script in a bundle of either kind with flags; return its output."""
    make, config_of = BUNDLES[request.param]
    bundle = make(user)
    before = listing(bundle)

    def run_script(script, *flags):
        write_config(bundle, config_of("sh", "-c", script))
        done = user.run([rootless_command, "run", "--network", "none", *flags, bundle])
        assert (done.returncode, done.stderr) == (0, ""), done
        assert listing(bundle) == before
        return done.stdout

    return run_script


def listing(bundle):
    """Return all that a container might change of a bundle, besides its configuration."""
    paths = [path for path in sorted(bundle.rglob("*")) if path.name != "config.json"]
    return [(path, (found := path.lstat()).st_mode, found.st_uid, found.st_size, found.st_mtime_ns) for path in paths]


CHANGE = (
    "touch /new && rm -r /root && mkdir /root && echo changed >> /etc/group && chown 5:6 /data && tail -1 /etc/group"
)
LOOK = "ls / | grep -c new; tail -1 /etc/group; stat -c '%u %g' /data"


def test_changes_in_memory_are_gone(run):
    assert run(CHANGE, "--overlay") == "changed\n"
    assert run(LOOK + "; true", "--overlay=memory") == "0\nuser:x:4321:\n0 0\n"


@pytest.mark.parametrize("userns", ["root", "keep-id"])
def test_changes_in_a_directory_stay(run, user, userns):
    overlay = f"--overlay={user.tmp / 'changes'}"
    flags = ("--userns", userns)
    # in a directory of the user's, root of the image is the user; with keep-id the user is nobody else's root
    script = CHANGE if userns == "root" else "touch /tmp/new && tail -1 /etc/group"
    run(script, overlay, *flags)
    status = (user.tmp / "changes").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (user.uid, 0o700)
    look = LOOK if userns == "root" else "ls /tmp"
    assert run(look, overlay, *flags) == ("1\nchanged\n5 6\n" if userns == "root" else "new\n")


def test_the_root_directory_has_the_owner_and_mode_of_the_image(run, user):
    own_modes = run("stat -c '%a %u %g' /")
    for value in ("memory", user.tmp / "changes"):
        assert run("stat -c '%a %u %g' /", f"--overlay={value}") == own_modes


def test_a_relative_directory_is_the_callers(run, user):
    run("touch /new", "--overlay=changes")
    assert (user.tmp / "changes/upper/new").exists()


@pytest.fixture
def box(user):
    return make_bundle(user)


def refused(user, rootless_command, box, directory):
    done = user.run([rootless_command, "run", "--network", "none", f"--overlay={directory}", box])
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
    assert f"--overlay {directory}: " in done.stderr
    assert "; fix: " in done.stderr
    assert not user.run([rootless_command, "list", "-q"]).stdout
    return done.stderr


def test_a_directory_of_another_user_is_refused(user, rootless_command, box, require_root):
    other = user.tmp / "other"
    other.mkdir()
    assert "others can change it" in refused(user, rootless_command, box, other)
    assert not list(other.iterdir())


def test_a_directory_that_others_can_write_to_is_refused(user, rootless_command, box):
    shared = user.tmp / "shared"
    shared.mkdir()
    own(user, shared)
    shared.chmod(0o777)
    assert "others can change it" in refused(user, rootless_command, box, shared)


def test_a_symlink_is_refused(user, rootless_command, box):
    (user.tmp / "real").mkdir(mode=0o700)
    own(user, user.tmp / "real")
    (user.tmp / "link").symlink_to("real")
    refused(user, rootless_command, box, user.tmp / "link")
    assert not list((user.tmp / "real").iterdir())


def test_a_file_is_refused(user, rootless_command, box):
    (user.tmp / "file").touch()
    refused(user, rootless_command, box, user.tmp / "file")


def test_a_directory_that_cannot_be_made_is_refused(user, rootless_command, box):
    refused(user, rootless_command, box, "/proc/changes")


def test_a_symlink_for_the_upper_directory_leads_nowhere(user, rootless_command, box):
    """The directory is the caller's, but a container may have written there before."""
    changes, outside = user.tmp / "changes", user.tmp / "outside"
    for directory in (changes, outside):
        directory.mkdir(mode=0o700)
    (changes / "upper").symlink_to(outside)
    own(user, changes)
    own(user, outside)
    write_config(box, base_config("touch", "/new"))
    done = user.run([rootless_command, "run", "--network", "none", f"--overlay={changes}", box])
    assert done.returncode == 1, done
    assert not os.listdir(outside)


def test_a_directory_in_use_is_refused_until_its_container_has_ended(rootless, user, rootless_command, box):
    write_config(box, base_config("sleep", "1000"))
    changes = user.tmp / "changes"
    overlay = f"--overlay={changes}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    rootless("run", "-d", overlay, "--bundle", box, "first", check=True, **quiet)
    done = rootless("run", overlay, "--bundle", box, "second")
    assert f"--overlay {changes}: container first uses it; fix: rootless delete --force first" in done.stderr
    # from another state directory, too, while a command waits for its end
    rootless("delete", "--force", "first", check=True)
    write_config(box, base_config("sh", "-c", "echo up; cat"))
    with rootless.popen(
        "run", overlay, "--bundle", box, "third", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as third:
        assert Reader(third.stdout).line() == "up"
        for _ in range(2):
            done = user.run([rootless_command, "run", overlay, "--bundle", box, "fourth"])
            assert "another container uses it" in done.stderr, done
            until_attended(third.pid)
        third.stdin.close()
        assert third.wait() == 0


def test_pivot_root_is_needed(user, rootless_command, box):
    done = user.run([rootless_command, "run", "--network", "none", "--overlay", "--no-pivot", box])
    assert "--overlay: it needs pivot_root (config.json: root.path); fix: leave out --no-pivot" in done.stderr
