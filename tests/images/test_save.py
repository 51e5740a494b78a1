"""`rootless save`: a bundle or an image, with the changes of an overlay, becomes one image."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from contextlib import ExitStack

import pytest

from rootless.image import save as save_module
from rootless.image.squashfs.image_file import open_image

CHANGES = """
set -e
rm /srv/empty
rm -r /data
mkdir /data
touch /data/new
chown 33:34 /data/new
ln -s /etc /srv/link
ln /data/new /srv/other
echo more >> "/srv/hard"
"""
FIND = (
    r"""find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' -exec stat -c '%n %u %g %a %F %N' {} + | sort"""
)


@pytest.fixture
def rootless_run(user, rootless_command):
    def run(*words, status=0):
        done = user.run([rootless_command, *words])
        assert done.returncode == status, done.stderr
        return done

    return run


@pytest.fixture
def bundle(user, rootless_run, image):
    rootless_run("new", user.tmp / "box", "--from", image)
    return user.tmp / "box"


def left(user):
    return sorted(path.name for path in user.tmp.iterdir())


def files_in(need, image, directory):
    """Return mode, owner, size and name of each file in an image."""
    listing = subprocess.run([need("unsquashfs"), "-lln", image], capture_output=True, check=True, text=True).stdout
    return {line.split("squashfs-root", 1)[1]: line.split()[:2] for line in listing.splitlines()}


def test_a_saved_bundle_has_the_files_and_settings_of_its_image(user, rootless_run, bundle, image, need):
    rootless_run("save", bundle, "--output", user.tmp / "saved.sqsh")
    assert files_in(need, user.tmp / "saved.sqsh", user.tmp) == files_in(need, image, user.tmp)
    config = open_image(str(user.tmp / "saved.sqsh")).config["config"]
    assert (config["Cmd"], config["User"], config["WorkingDir"]) == (["id", "-u"], "33:34", "/srv")
    rootless_run("new", user.tmp / "again", "--from", user.tmp / "saved.sqsh")
    assert rootless_run("run", user.tmp / "again").stdout == "33\n"
    assert left(user) == ["again", "box", "image.sqsh", "oci", "saved.sqsh"]


@pytest.mark.parametrize("squashfs", [[], ["--squashfs"]], ids=["directory", "image"])
def test_the_changes_of_an_overlay_are_saved(user, rootless_run, image, need, squashfs):
    bundle, changes, saved = user.tmp / "box", user.tmp / "changes", user.tmp / "saved.sqsh"
    rootless_run("new", bundle, "--from", image, *squashfs)
    rootless_run("run", "--user", "0", f"--overlay={changes}", bundle, "--", "sh", "-c", CHANGES)
    rootless_run("save", bundle, "--overlay", changes, "--output", saved)
    found = files_in(need, saved, user.tmp)
    assert "/srv/empty" not in found
    assert [name for name in found if name.startswith("/data/")] == ["/data/new"]
    assert found["/data/new"] == found["/srv/other"] == ["-rw-r--r--", "33/34"]
    assert found["/srv/link -> /etc"][0] == "lrwxrwxrwx"
    assert open_image(str(saved)).read("/srv/hard") == b"content\nmore\n"
    assert not any("user.overlay" in name or ".wh." in name for name in found)


def test_skopeo_and_umoci_read_the_archive(user, rootless_run, bundle, need):
    archive = user.tmp / "saved.tar"
    rootless_run("save", bundle, "-o", f"oci-archive:{archive}")
    shown = user.run([need("skopeo"), "inspect", "--config", f"oci-archive:{archive}"], check=True).stdout
    assert json.loads(shown)["config"]["Cmd"] == ["id", "-u"]
    layout = user.tmp / "layout"
    user.run([need("skopeo"), "copy", "--quiet", f"oci-archive:{archive}", f"oci:{layout}:test"], check=True)
    user.run([need("umoci"), "unpack", "--rootless", "--image", f"{layout}:test", user.tmp / "unpacked"], check=True)
    assert (user.tmp / "unpacked/rootfs/srv/hard").read_bytes() == b"content\n"
    with tarfile.open(archive) as opened:
        assert sorted(opened.getnames())[-2:] == ["index.json", "oci-layout"]


def test_an_image_is_saved_without_a_bundle(user, rootless_run, image, need):
    rootless_run("save", image, "-o", user.tmp / "saved.sqsh")
    assert files_in(need, user.tmp / "saved.sqsh", user.tmp) == files_in(need, image, user.tmp)
    assert open_image(str(user.tmp / "saved.sqsh")).config["config"] == open_image(str(image)).config["config"]


@pytest.mark.parametrize(
    ("machine", "platform"), [("aarch64", "arm64 v8"), ("armv7l", "arm v7"), ("i686", "386 "), ("x86_64", "amd64 ")]
)
def test_the_platform_is_named_as_in_images(monkeypatch, machine, platform):
    uname = os.uname_result(("Linux", "host", "6", "1", machine))
    monkeypatch.setattr("posix.uname", lambda: uname)
    found = save_module._platform()
    assert (found["os"], f"{found['architecture']} {found.get('variant', '')}") == ("linux", platform)


def test_a_packed_layer_has_no_name_in_the_directory(user, image, tmp_path):
    """Others may be able to write to the directory and replace a name with a symlink, whose target would be written."""
    (user.tmp / "tree").mkdir()
    (user.tmp / "tree/file").touch()
    with ExitStack() as stack:
        for source, member in ((open_image(str(image)), "srv/hard"), (str(user.tmp / "tree"), "./file")):
            layer = save_module._layer(stack, str(tmp_path), source)
            assert os.listdir(tmp_path) == []
            with tarfile.open(layer.path) as opened:
                assert member in opened.getnames()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["box"], "save: it needs a file to write to; fix: write --output FILE.sqsh"),
        (["box", "-o", "missing/x"], "make the image: no such file or directory"),
        (["nothing", "-o", "x"], "cannot read "),
        (["box", "-o", "x", "--overlay", "nothing"], "--overlay nothing: No such file or directory; fix: name the dir"),
        (["box", "-o", "x", "--overlay", "oci"], "--overlay oci: others can change it; fix: name the directory"),
    ],
)
def test_invalid_arguments_are_refused_and_leave_nothing(user, rootless_command, bundle, words, message):
    before = left(user)
    done = user.run([rootless_command, "save", *words], cwd=user.tmp)
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: " + message)
    assert left(user) == before
