"""`rootless save`: a container, or a bundle or an image with the changes of an overlay, as one image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from contextlib import ExitStack

import pytest

from rootless.image import save as save_module
from rootless.image.squashfs.image_file import open_image
from tests.lib.containers import until

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


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(rootless, bundle, image, user):
    """Run a container c1 in the background: of the bundle or the image, with flags."""

    def run(source, *flags):
        words = ("--network", "none", "--user", "0", "--name", "c1", *flags)
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        rootless("run", "-d", *words, source, "busybox", "sleep", "1000", check=True, **streams)

    return run


KINDS = {
    "image": ("image", []),
    "image with a directory": ("image", ["--overlay=changes"]),
    "bundle": ("bundle", []),
    "bundle with memory": ("bundle", ["--overlay=memory"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_running_container_is_saved_with_its_changes(rootless, started, request, need, kind):
    user, (source, flags) = rootless.user, KINDS[kind]
    flags = [flag.replace("changes", f"{user.tmp}/changes") for flag in flags]
    started(request.getfixturevalue(source), "--env", "ADDED=1", *flags)
    rootless("exec", "c1", "sh", "-c", CHANGES, check=True)
    saved = user.tmp / "saved.sqsh"
    done = rootless("save", "c1", "-o", saved, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert rootless.status("c1") == "running"
    found = files_in(need, saved, user.tmp)
    assert "/srv/empty" not in found
    assert [name for name in found if name.startswith("/data/")] == ["/data/new"]
    assert found["/data/new"] == found["/srv/other"] == ["-rw-r--r--", "33/34"]
    assert found["/srv"] == ["drwxr-s---", "33/34"]
    assert found["/srv/link -> /etc"][0] == "lrwxrwxrwx"
    assert not [name for name in found if name.startswith(("/proc/", "/sys/", "/dev/"))], "nothing that is mounted"
    assert open_image(str(saved)).read("/srv/hard") == b"content\nmore\n"
    settings = open_image(str(saved)).config["config"]
    assert (settings["Cmd"], settings["WorkingDir"], settings.get("User")) == (
        ["busybox", "sleep", "1000"],
        "/srv",
        None,
    )
    assert "ADDED=1" in settings["Env"]
    assert settings["Labels"] == ({"a": "b"} if source == "image" else settings["Labels"])
    assert rootless("run", "--network", "none", saved, "cat", "/srv/hard").stdout == "content\nmore\n"


def test_a_container_becomes_an_archive_and_may_be_paused_or_not_yet_started(user, rootless, bundle, need):
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "user": {"uid": 0, "gid": 0}}
    (bundle / "config.json").write_text(json.dumps(config))
    rootless.create("c1", bundle)
    archive = user.tmp / "saved.tar"
    rootless("save", "c1", "-o", f"oci-archive:{archive}", check=True)
    shown = user.run([need("skopeo"), "inspect", "--config", f"oci-archive:{archive}"], check=True).stdout
    assert json.loads(shown)["config"]["Cmd"] == ["id", "-u"]
    assert rootless.status("c1") == "created"


def test_what_is_mounted_is_not_saved(user, rootless, started, bundle, need):
    (user.tmp / "host").mkdir()
    (user.tmp / "host/secret").touch()
    started(
        bundle, "-v", f"{user.tmp}/host:/mnt/host", "--tmpfs", "/scratch", "-v", f"{user.tmp}/host/secret:/srv/hard"
    )
    rootless("exec", "c1", "touch", "/scratch/file", check=True)
    rootless("save", "c1", "-o", user.tmp / "saved.sqsh", check=True)
    found = files_in(need, user.tmp / "saved.sqsh", user.tmp)
    assert {"/mnt/host", "/scratch", "/srv/hard"} <= found.keys()
    assert not {"/mnt/host/secret", "/scratch/file"} & found.keys()
    assert open_image(str(user.tmp / "saved.sqsh")).read("/srv/hard") == b"content\n", "what the mount covers"


HOSTILE = r"""
import os, socket
os.chdir(ROOT)
for name in (b"a\nb", b"\xff\xfe", b"x" * 255, b"\\", b"-rf", b" ", b"'\"$(id)"):
    open(name, "w").write("x")
    os.mkdir(name + b".d" if len(name) < 200 else b"long.d")
for name in (".wh.a", ".wh..wh..opq"):
    open(name, "w").close()
os.mkdir(".wh.d"); open(".wh.d/file", "w").close()
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
os.symlink("/etc/shadow", "outside"); os.symlink("../../../../etc", "up"); os.symlink("loop", "loop")
open("sparse", "w").truncate(1 << 30)
open("setuid", "w").close(); os.chmod("setuid", 0o6755)
os.setxattr("setuid", "user.colour", b"blue")
os.makedirs("/".join(["d" * 100] * 30))
"""


def test_hostile_names_of_a_container_harm_nothing(user, rootless, started, bundle, need):
    rootfs = bundle / "rootfs"
    user.run([sys.executable, "-c", HOSTILE.replace("ROOT", repr(str(rootfs / "tmp")))], check=True)
    started(bundle)
    before = left(user)
    done = rootless("save", "c1", "-o", user.tmp / "saved.sqsh", check=True)
    assert sorted(done.stderr.splitlines()) == [
        f"rootless: warning: save: tmp/{name} is left out: images mark removed files by such names"
        for name in (".wh..wh..opq", ".wh.a", ".wh.d", ".wh.d/file")
    ]
    tree = user.tmp / "tree"
    subprocess.run([need("unsquashfs"), "-quiet", "-no-progress", "-d", tree, user.tmp / "saved.sqsh"], check=True)
    here, there = (set(os.listdir(bytes(path / "tmp"))) for path in (rootfs, tree))
    assert here - there == {b".wh.a", b".wh.d", b".wh..wh..opq", b"socket"}
    assert there <= here
    assert (tree / "tmp/sparse").stat().st_size == 1 << 30
    assert (user.tmp / "saved.sqsh").stat().st_size < 10 << 20
    assert os.getxattr(tree / "tmp/setuid", "user.colour") == b"blue"
    assert (tree / "tmp/setuid").stat().st_mode & 0o7777 == 0o6755
    assert os.readlink(tree / "tmp/outside") == "/etc/shadow"
    assert left(user) == sorted([*before, "saved.sqsh", "tree"])


def test_a_container_that_changes_meanwhile_is_saved(user, rootless, started, image):
    started(image)
    script = (
        "mkdir -p /data/t; while :; do for n in 1 2 3 4 5 6 7 8 9; do ln -s /nowhere /data/t/$n; rm /data/t/$n; "
        "mkdir /data/t/$n; touch /data/t/$n/f; ln /data/t/$n/f /data/t/$n/g; rm -r /data/t/$n; "
        "echo long >/data/t/$n; : >/data/t/$n; rm /data/t/$n; done; done"
    )
    rootless("exec", "-d", "c1", "sh", "-c", script, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: rootless("exec", "c1", "ls", "/data/t").stdout, "the changes")
    for number in range(10):
        saved = user.tmp / f"{number}.sqsh"
        done = rootless("save", "c1", "-o", saved)
        assert (done.returncode, done.stderr) == (0, "")
        assert open_image(str(saved)).read("/srv/hard") == b"content\n"


def test_what_cannot_be_saved_of_a_container_is_one_line(user, rootless, started, bundle, image):
    started(bundle, "--overlay=memory", "--keep")
    mistakes = [(["c1", "--overlay", "x"], "c1 is a container, whose changes are saved anyway; fix: leave it out")]
    for words, message in mistakes:
        done = rootless("save", *words, "-o", user.tmp / "x")
        assert (done.returncode, message in done.stderr, done.stderr.count("\n")) == (1, True, 1), done
    rootless("kill", "c1", "KILL", check=True)
    until(lambda: rootless.status("c1") == "stopped", "the end")
    done = rootless("save", "c1", "-o", user.tmp / "x")
    assert "container not running; fix: save it while it runs: its changes were in memory" in done.stderr, done
    rootless("delete", "c1", check=True)
    for source, flags, fix in (
        (bundle, [], f"rootless save {bundle}/ --output …"),
        (image, [f"--overlay={user.tmp}/changes"], f"rootless save {image} --overlay {user.tmp}/changes --output …"),
    ):
        started(source, *flags)
        rootless("kill", "c1", "KILL", check=True)
        until(lambda: rootless.status("c1") == "stopped", "the end")
        done = rootless("save", "c1", "-o", user.tmp / "x")
        assert f"container c1: container not running; fix: {fix}" in done.stderr, done
        rootless("delete", "c1", check=True)
    assert not (user.tmp / "x").exists()


def test_a_container_wins_over_a_directory_of_its_name(user, rootless, started, bundle):
    started(bundle, "--overlay=memory")
    rootless("exec", "c1", "touch", "/data/changed", check=True)
    bundle.rename(user.tmp / "c1")
    for word, there in (("c1", True), ("./c1", False)):
        saved = user.tmp / f"{there}.sqsh"
        rootless("save", word, "-o", saved, cwd=user.tmp, check=True)
        try:
            open_image(str(saved)).read("/data/changed")
            found = True
        except FileNotFoundError:
            found = False
        assert found is there


# --- mistakes --------------------------------------------------------------------------------------------------------


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
        (["box", "-o", "x", "--overlay", ""], "--overlay: its value is empty; fix: name the directory"),
        (["box", "-o", "x", "--overlay", "oci"], "--overlay oci: others can change it; fix: name the directory"),
    ],
)
def test_invalid_arguments_are_refused_and_leave_nothing(user, rootless_command, bundle, words, message):
    before = left(user)
    done = user.run([rootless_command, "save", *words], cwd=user.tmp)
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: " + message)
    assert left(user) == before
