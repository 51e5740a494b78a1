"""`rootless new --from IMAGE`: the bundle runs with the image's configuration, or nothing is left."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile
from rootless.image.squashfs.image_file import open_image
from rootless.image.squashfs.squashfs_tar import SquashfsTar
from tests.lib.bundles import own
from tests.lib.layers import LINK, entry, layout, packed


@pytest.fixture
def new(user, rootless_command):
    def run(*words, **options):
        return user.run([rootless_command, "new", *words], **options)

    return run


def config_of(bundle):
    return json.loads((bundle / "config.json").read_text())


def run(user, rootless_command, bundle, *words):
    done = user.run([rootless_command, "run", bundle, *words])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_has_the_configuration_of_its_image(user, rootless_command, new, image):
    bundle = user.tmp / "box"
    done = new(bundle, "--from", image)
    assert (done.returncode, done.stderr) == (0, "")
    config = config_of(bundle)
    assert config["process"]["args"] == ["id", "-u"]
    assert config["process"]["env"] == ["PATH=/bin", "NAME=value"]
    assert (config["process"]["cwd"], config["process"]["terminal"]) == ("/srv", False)
    assert config["annotations"]["a"] == "b"
    assert not any(name.startswith("run.oci.") for name in config["annotations"])
    assert run(user, rootless_command, bundle) == "33\n"


def test_an_image_can_be_named_by_a_reference(user, rootless_command, new, image):
    done = new(user.tmp / "box", "--from", f"oci:{user.tmp}/oci:test", "--store", user.tmp / "store")
    assert done.returncode == 0, done.stderr
    assert run(user, rootless_command, user.tmp / "box") == "33\n"
    assert not [path for path in (user.tmp / "store").iterdir() if path.name.startswith(".")]


def test_a_file_takes_precedence_over_an_image_of_its_name(user, new, image):
    image.rename(user.tmp / "debian")
    done = new("box", "--from", "debian", "--store", user.tmp / "store", "--pull", "never", cwd=user.tmp)
    assert done.returncode == 0, done.stderr
    assert config_of(user.tmp / "box")["process"]["args"] == ["id", "-u"]
    assert not (user.tmp / "store").exists()


def test_a_missing_image_is_an_error_and_leaves_nothing(user, new):
    done = new(user.tmp / "box", "--from", f"oci:{user.tmp}/nothing")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (user.tmp / "box").exists()


def test_files_of_a_bundle_are_those_of_its_image(user, rootless_command, new, image):
    bundle = user.tmp / "box"
    assert (
        new(bundle, "--from", image, "--", "stat", "-c", "%n %u %g %a %s %h", "/srv", "/tmp", "/srv/empty").returncode
        == 0
    )
    assert run(user, rootless_command, bundle).splitlines() == [
        "/srv 33 34 2750 " + run(user, rootless_command, bundle).split()[4] + " 2",
        "/tmp 0 0 1777 " + run(user, rootless_command, bundle).splitlines()[1].split()[4] + " 2",
        "/srv/empty 12 13 644 0 1",
    ]
    config = config_of(bundle)
    config["process"]["args"] = ["cat", "/srv/hard", '/srv/a file\twith \\ and "']
    (bundle / "config.json").write_text(json.dumps(config))
    assert run(user, rootless_command, bundle) == "content\ncontent\n"


def test_a_command_replaces_the_command_of_the_image(user, rootless_command, new, image):
    assert new(user.tmp / "box", "--from", image, "--", "pwd").returncode == 0
    assert run(user, rootless_command, user.tmp / "box") == "/srv\n"


def test_a_squashfs_without_configuration_runs_a_shell(user, rootless_command, new, image, need):
    plain = user.tmp / "plain.sqsh"
    tree = user.tmp / "tree"
    subprocess.run([need("unsquashfs"), "-quiet", "-no-progress", "-d", tree, image], check=True)
    subprocess.run([need("mksquashfs"), tree, plain, "-quiet", "-no-progress", "-comp", "gzip"], check=True)
    own(user, plain)
    assert new(user.tmp / "box", "--from", plain).returncode == 0
    assert config_of(user.tmp / "box")["process"]["args"] == ["sh"]
    assert new(user.tmp / "other", "--from", plain, "--", "cat", "/etc/group").returncode == 0
    assert run(user, rootless_command, user.tmp / "other") == "web:x:34:\n"


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "trailer"])
def test_a_damaged_image_leaves_nothing(user, new, image, damage):
    data = bytearray(image.read_bytes())
    size = open_image(str(image)).size
    if damage == "truncated":
        data = data[: size // 2]
    elif damage == "overwritten":
        data[2000 : size - 2000] = os.urandom(size - 4000)
    else:
        data[size:] = data[size:].replace(b'{"reference"', b'"reference"')
    image.write_bytes(data)
    done = new(user.tmp / "box", "--from", image)
    assert done.returncode == 1
    assert done.stderr.startswith(("rootless: open the image", "rootless: unpack the image"))
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in user.tmp.iterdir()) == ["image.sqsh", "oci"]


def test_squashfs_keeps_the_image_as_one_file(user, rootless_command, new, image):
    bundle = user.tmp / "box"
    assert new(bundle, "--from", image, "--squashfs").returncode == 0
    assert sorted(path.name for path in bundle.iterdir()) == ["config.json", "image.sqsh"]
    assert (bundle / "image.sqsh").read_bytes() == image.read_bytes()
    image.unlink()
    assert run(user, rootless_command, bundle) == "33\n"


def test_squashfs_needs_an_image(user, new):
    done = new(user.tmp / "box", "--squashfs")
    assert done.returncode == 1
    assert "it is no image; fix: name an image after --from" in done.stderr
    assert not (user.tmp / "box").exists()


def test_an_ambiguous_listing_of_unsquashfs_is_refused(image, tmp_path):
    """unsquashfs does not escape a line break in the target of a symlink."""
    paths, config, _ = layout(tmp_path / "oci", packed(entry("l", LINK, "a\nb")))
    path = str(tmp_path / "x.sqsh")
    build_image([LayerFile(paths[0])], config=config, manifest_digest="", reference="", output=path)
    with (
        pytest.raises(Exception, match="unsquashfs describes a file in an unknown way"),
        SquashfsTar(open_image(path)) as tar,
        open(tar.path, "rb") as file,
    ):
        file.read()
