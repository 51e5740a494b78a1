"""`rootless cp` copies files into a running container and out of it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle, own
from tests.lib.containers import until
from tests.lib.squashfs import CAPABLE


@pytest.fixture
def box(rootless, user):
    """A running container c1 and the user's directory, from which paths of the host begin."""
    config = base_config("sleep", "1000")
    config["root"] = {"path": "rootfs", "readonly": False}
    bundle = make_bundle(user, config)
    rootless.create("c1", bundle)
    rootless.start("c1")
    here = user.tmp / "here"
    here.mkdir()
    own(user, here)

    def cp(*words, **options) -> subprocess.CompletedProcess:
        return rootless("cp", *words, cwd=here, **options)

    def inside(script) -> str:
        done = rootless("exec", "c1", "sh", "-c", script)
        assert done.returncode == 0, done
        return done.stdout

    cp.here, cp.inside = here, inside
    return cp


def ok(done):
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def refused(done, cause):
    assert done.returncode == 1, done
    assert cause in done.stderr
    assert done.stderr.count("\n") == 1
    assert "fix:" in done.stderr


def test_a_file_out_and_in(box, user):
    box.inside("printf hello >/tmp/a; chmod 4751 /tmp/a; touch -d @1000000000 /tmp/a")
    ok(box("c1:/tmp/a", "."))
    status = (box.here / "a").stat()
    assert (box.here / "a").read_text() == "hello"
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (user.uid, user.gid, 0o751), "no setuid"
    assert status.st_mtime == 1000000000
    ok(box("a", "c1:/tmp/b"))
    assert box.inside("cat /tmp/b; stat -c ' %a %u %g %Y' /tmp/b") == "hello 751 0 0 1000000000\n"


def test_files_in_belong_to_the_user_of_the_program(rootless, user):
    config = base_config("sleep", "1000")
    config["process"]["user"] = {"uid": 33, "gid": 34}
    rootless.create("c1", make_bundle(user, config))
    rootless.start("c1")
    ok(rootless("cp", "/etc/hostname", "c1:/tmp/h"))
    assert rootless("exec", "c1", "stat", "-c", "%u %g", "/tmp/h").stdout == "33 34\n"


def test_directories_as_podman_names_them(box):
    box.inside("mkdir -p /tmp/d/sub; echo 1 >/tmp/d/one; echo 2 >/tmp/d/sub/two; ln -s /nowhere /tmp/d/link")
    (box.here / "there").mkdir()
    os.chown(box.here / "there", *(os.stat(box.here).st_uid, os.stat(box.here).st_gid))
    for source, target, place in (
        ("c1:/tmp/d", "there", "there/d"),
        ("c1:/tmp/d", "there/", "there/d"),
        ("c1:/tmp/d", "new", "new"),
        ("c1:/tmp/d/", "new2/", "new2"),
        ("c1:/tmp/d/.", "there", "there"),
        ("c1:/tmp/d/.", "new3", "new3"),
    ):
        ok(box(source, target))
        assert (box.here / place / "one").read_text() == "1\n"
        assert (box.here / place / "sub/two").read_text() == "2\n"
        assert os.readlink(box.here / place / "link") == "/nowhere"
    for source, target, place in (
        ("new", "c1:/tmp", "/tmp/new"),
        ("new", "c1:/tmp/other", "/tmp/other"),
        ("new/.", "c1:/tmp/other", "/tmp/other"),
        ("new/", "c1:/srv2/", "/srv2"),
        ("./new/.", "c1:srv3", "/srv3"),
    ):
        ok(box(source, target))
        assert box.inside(f"cat {place}/one {place}/sub/two; readlink {place}/link; ls -A {place}") == (
            "1\n2\n/nowhere\nlink\none\nsub\n"
        )


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["c1:/none", "."], "no such file or directory"),
        (["none", "c1:/tmp"], "no such file or directory"),
        (["c1:/etc/passwd", "none/"], "no such directory"),
        (["c1:/etc/passwd", "none/x"], "no such file or directory"),
        (["file", "c1:/none/"], "no such directory"),
        (["file", "c1:/none/x"], "No such file or directory"),
        (["c1:/etc", "file"], "it is a file, and the source a directory"),
        (["/etc/ld.so.conf.d", "c1:/etc/passwd"], "it is a file, and the source a directory"),
        (["file", "other"], "one of the two has to be CONTAINER:PATH"),
        (["c1:/etc/passwd", "c1:/tmp"], "one of the two has to be CONTAINER:PATH"),
        (["./c1:x", "other"], "one of the two has to be CONTAINER:PATH"),
        (["c2:/etc/passwd", "."], "container does not exist"),
        (["c.:/etc/passwd", "."], "container does not exist"),
        ([".*:/etc/passwd", "."], "invalid id format"),
        (["file", "c1:/proc/self"], ""),
    ],
)
def test_what_does_not_fit_is_one_line(box, words, cause):
    (box.here / "file").write_text("x")
    refused(box(*words), cause)
    assert {path.name for path in box.here.iterdir()} == {"file"}


def test_an_image_needs_no_tar_and_no_shell(box):
    box.inside("rm -rf /usr/bin/tar /bin/tar")
    ok(box("c1:/etc/passwd", "."))
    ok(box("passwd", "c1:/tmp"))


def test_a_tar_archive_out(box):
    box.inside("mkdir /tmp/d; echo 1 >/tmp/d/one; chown 3:4 /tmp/d/one; ln -s one /tmp/d/link; mkfifo /tmp/d/pipe")
    long = "x" * 200
    box.inside(f"touch /tmp/d/{long}")
    done = box("c1:/tmp/d", "-", text=False)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {member.name: member for member in archive}
        assert found.keys() == {"d", "d/one", "d/link", "d/pipe", f"d/{long}"}
        assert (found["d/one"].uid, found["d/one"].gid) == (3, 4)
        assert found["d/link"].linkname == "one"
        assert found["d/pipe"].isfifo()
        assert archive.extractfile("d/one").read() == b"1\n"


def test_the_reader_of_an_archive_may_go(box, rootless, user):
    box.inside("head -c 1000000 /dev/zero >/tmp/big")
    words = " ".join(rootless.argv("cp", "c1:/tmp/big", "-"))
    done = user.run(["bash", "-c", f"{words} | head -c 1; echo $PIPESTATUS"], timeout=30)
    assert (done.stdout, done.stderr) == ("b141\n", "")


def archive_of(*members) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, type_, content in members:
            member = tarfile.TarInfo(name)
            member.type = type_
            member.mode = 0o4755
            if type_ == tarfile.REGTYPE:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.linkname = content
                archive.addfile(member)
    return output.getvalue()


def test_a_tar_archive_in(box):
    archive = archive_of(
        ("d", tarfile.DIRTYPE, ""),
        ("./d/one", tarfile.REGTYPE, b"1\n"),
        ("/d/hard", tarfile.LNKTYPE, "d/one"),
        ("d/link", tarfile.SYMTYPE, "one"),
        ("d/device", tarfile.CHRTYPE, ""),
    )
    done = box("-", "c1:/tmp", input=archive, text=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    assert b"d/device is left out" in done.stderr
    shown = box.inside("cat /tmp/d/link; stat -c '%a %h' /tmp/d/one; [ /tmp/d/one -ef /tmp/d/hard ] && echo same")
    assert shown == "1\n4755 2\nsame\n"


def test_another_stream_is_refused(box):
    done = box("-", "c1:/tmp", input=b"no tar archive at all" * 100, text=False)
    assert done.returncode == 1
    assert b"fix: write a tar archive" in done.stderr
    cut = archive_of(("big", tarfile.REGTYPE, os.urandom(100_000)))[:50_000]
    assert box("-", "c1:/tmp", input=cut, text=False).returncode == 1


def test_archives_and_terminals(box, rootless, user):
    words = " ".join(rootless.argv("cp", "c1:/etc/passwd", "-"))
    done = user.run(["script", "-qec", words, "/dev/null"])
    assert "standard output is a terminal" in done.stdout


def test_large_files_and_many(box):
    box.inside(
        "mkdir /tmp/many; head -c 30000000 /dev/zero >/tmp/many/big; i=0; "
        "while [ $i -lt 500 ]; do echo $i >/tmp/many/$i; i=$((i+1)); done"
    )
    ok(box("c1:/tmp/many", "."))
    assert (box.here / "many/big").stat().st_size == 30_000_000
    assert {path.name for path in (box.here / "many").iterdir()} == {"big", *map(str, range(500))}
    ok(box("many", "c1:/tmp/back"))
    assert box.inside("ls /tmp/back | wc -l; cmp /tmp/many/big /tmp/back/big && echo same") == "501\nsame\n"


def test_zeros_become_holes(box):
    size = 64 << 20
    half, whole = f"truncate -s {size // 2} /tmp/holes", f"truncate -s {size} /tmp/holes"
    box.inside(f"echo begin >/tmp/holes; {half}; echo middle >>/tmp/holes; {whole}")
    ok(box("c1:/tmp/holes", "."))
    ok(box("holes", "c1:/root/holes"))
    assert box.inside("cmp /tmp/holes /root/holes") == ""
    status = (box.here / "holes").stat()
    outside = status.st_size, status.st_blocks
    inside = tuple(map(int, box.inside("stat -c '%s %b' /root/holes").split()))
    assert outside[0] == inside[0] == size
    assert max(outside[1], inside[1]) * 512 < 1 << 20


def test_a_full_disk_of_the_host_is_an_error(box, require_root):
    """Also if the last write(2) still finds room for a part of its data."""
    disk = box.here / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k,mode=1777", "disk", disk], check=True)
    try:
        box.inside("head -c 65536 /dev/urandom >/tmp/a")
        refused(box("c1:/tmp/a", "disk"), "no space left on device")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_stopped_container_cannot_be_entered(box, rootless, user):
    rootless("kill", "c1", "KILL", check=True)
    until(lambda: rootless.status("c1") == "stopped", "the end")
    done = box("c1:/etc/passwd", ".")
    refused(done, "container not running")
    assert f"fix: run it again, such as by rootless restart c1: its mounts ended with it; or look into {user.tmp}" in (
        done.stderr
    )


def test_attributes_of_users_are_copied_out_and_in(box, rootless, user):
    rootfs = Path(rootless.state("c1")["bundle"]) / "rootfs"
    (rootfs / "d").mkdir()
    (rootfs / "d/file").write_text("x")
    for path in (rootfs / "d", rootfs / "d/file"):
        os.setxattr(path, "user.colour", b"blue\xff")
    os.setxattr(rootfs / "d/file", "user.overlay.opaque", b"y")
    own(user, rootfs / "d")
    done = box("c1:/d", ".")
    assert (done.returncode, done.stderr) == (
        0,
        "rootless: warning: cp: left out extended attributes: user.overlay.opaque\n",
    )
    for path in (box.here / "d", box.here / "d/file"):
        assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {"user.colour": b"blue\xff"}
    ok(box("d", "c1:/back"))
    for path in (rootfs / "back", rootfs / "back/file"):
        assert os.getxattr(path, "user.colour") == b"blue\xff"
    os.setxattr(box.here / "d/file", "user.overlay.redirect", b"/etc")
    done = box("d/file", "c1:/other")
    assert (done.returncode, done.stderr) == (
        0,
        "rootless: warning: cp: left out extended attributes: user.overlay.redirect\n",
    )
    assert os.listxattr(rootfs / "other") == ["user.colour"]


def test_capabilities_hold_in_the_container_only(box, rootless):
    """The kernel binds them to the user namespace: struct vfs_ns_cap_data has 24 bytes, and its root."""
    rootfs = Path(rootless.state("c1")["bundle"]) / "rootfs"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("program")
        member.pax_headers = CAPABLE | {"SCHILY.xattr.user.colour": "blue", "SCHILY.xattr.trusted.x": "y"}
        tar.addfile(member)
    done = box("-", "c1:/tmp", input=archive.getvalue(), text=False)
    assert (done.returncode, done.stderr) == (
        0,
        b"rootless: warning: cp -: left out extended attributes: trusted.x\n",
    )
    assert os.getxattr(rootfs / "tmp/program", "user.colour") == b"blue"
    if os.geteuid() == 0:  # another user gets it without its root, or not at all
        assert len(os.getxattr(rootfs / "tmp/program", "security.capability")) == 24
    done = box("c1:/tmp/program", "-", text=False)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.next().pax_headers == CAPABLE | {"SCHILY.xattr.user.colour": "blue"}
    done = box("c1:/tmp/program", ".")
    assert (done.returncode, done.stderr) == (
        0,
        "rootless: warning: cp: left out extended attributes: security.capability\n",
    )
    assert os.listxattr(box.here / "program") == ["user.colour"]


def test_a_file_system_without_attributes_is_reported_once(rootless, user):
    config = base_config("sleep", "1000")
    config["mounts"].append({"destination": "/ram", "type": "ramfs", "source": "ramfs"})
    rootless.create("c1", make_bundle(user, config))
    here = user.tmp / "here"
    here.mkdir()
    for name in ("one", "two"):
        (here / name).write_text(name)
        os.setxattr(here / name, "user.colour", b"blue")
    done = rootless("cp", f"{here}/.", "c1:/ram")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done
    assert "fsetxattr: Operation not supported: extended attributes are left out" in done.stderr
    rootless.start("c1")
    assert rootless("exec", "c1", "cat", "/ram/one", "/ram/two").stdout == "onetwo"


def test_hard_links_stay_in_an_archive(box):
    box.inside("mkdir /tmp/d; echo 1 >/tmp/d/a; ln /tmp/d/a /tmp/d/b")
    done = box("c1:/tmp/d", "-", text=False)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {member.name: member.linkname for member in archive if not member.isdir()}
    first, second = found
    assert found == {first: "", second: first}
    box.inside("mkdir /tmp/back")
    assert box("-", "c1:/tmp/back", input=done.stdout, text=False).returncode == 0
    assert box.inside("[ /tmp/back/d/a -ef /tmp/back/d/b ] && echo same") == "same\n"


def test_nothing_stays_of_the_process(box, rootless):
    before = box.inside("echo /proc/[0-9]*")
    ok(box("c1:/etc/passwd", "."))
    ok(box("passwd", "c1:/tmp"))
    assert len(box.inside("echo /proc/[0-9]*").split()) == len(before.split())


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_symlinks_of_the_container_lead_nowhere_on_the_host(box, user):
    secret = user.tmp / "secret"
    secret.write_text("secret of the host")
    own(user, secret)
    up = "../" * 20
    box.inside(f"ln -s {secret} /tmp/link; ln -s {user.tmp} /tmp/dir; ln -s {up}{secret} /tmp/up")
    for path in ("/tmp/link", f"/tmp/dir/{secret.name}", "/tmp/up", f"/proc/1/root/{secret}", f"/{up}{secret}"):
        assert box(f"c1:{path}", "out").returncode == 1
        assert not (box.here / "out").exists()
    box.inside("mkdir /tmp/tree; ln -s /etc/shadow /tmp/tree/shadow")
    ok(box("c1:/tmp/tree", "."))
    assert os.readlink(box.here / "tree/shadow") == "/etc/shadow"
    (box.here / "file").write_text("x")
    assert box("file", "c1:/tmp/dir/planted").returncode == 1
    assert not (user.tmp / "planted").exists()


def test_a_destination_with_symlinks_is_not_left(box, user):
    """Files of the host that an earlier copy, or another program, made symlinks."""
    outside = user.tmp / "outside"
    outside.mkdir()
    own(user, outside)
    (box.here / "d").mkdir()
    os.symlink(outside, box.here / "d/sub")
    os.symlink(outside / "file", box.here / "d/file")
    own(user, box.here)
    box.inside("mkdir -p /tmp/d/sub; echo evil >/tmp/d/sub/planted; echo evil >/tmp/d/file")
    box("c1:/tmp/d/.", "d")
    assert list(outside.iterdir()) == []
    box.inside("rm -r /tmp/d/sub")
    ok(box("c1:/tmp/d/.", "d"))
    assert (box.here / "d/file").read_text() == "evil\n"
    assert not (box.here / "d/file").is_symlink()


def test_a_tree_that_changes_all_the_time_stays_inside(box, user):
    secret = user.tmp / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret of the host")
    own(user, secret)
    box.inside(
        f"mkdir -p /tmp/t/a /tmp/swap; echo ok >/tmp/t/a/file; ln -s {secret} /tmp/swap/a; (while :; do "
        "mv /tmp/t/a /tmp/b; mv /tmp/swap/a /tmp/t/a; mv /tmp/t/a /tmp/swap/a; mv /tmp/b /tmp/t/a; done) "
        ">/dev/null 2>&1 &"
    )
    for number in range(30):
        box("c1:/tmp/t", f"out{number}")
        box("/etc/hostname", "c1:/tmp/t/a/planted")
    assert not (secret / "planted").exists()
    for path in box.here.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert "secret" not in path.read_text()


def test_another_user_of_the_container_cannot_redirect_what_comes_in(box):
    box.inside("mkdir -p /tmp/d/sub /safe; chmod 777 /tmp/d; rm -r /tmp/d/sub; ln -s /safe /tmp/d/sub")
    source = box.here / "d"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("x")
    done = box("d/.", "c1:/tmp/d")
    assert done.returncode == 1
    assert box.inside("ls -A /safe") == ""


def test_archives_with_hostile_names_are_refused(box):
    for name in ("../x", "a/../../x", "/../x"):
        done = box("-", "c1:/tmp", input=archive_of((name, tarfile.REGTYPE, b"x")), text=False)
        assert done.returncode == 1
        assert b"leads out of the archive" in done.stderr
    archive = archive_of(("link", tarfile.SYMTYPE, "/etc"), ("link/planted", tarfile.REGTYPE, b"x"))
    assert box("-", "c1:/tmp", input=archive, text=False).returncode == 1
    assert box.inside("test -e /etc/planted || echo no") == "no\n"


@pytest.mark.parametrize("record", [{"mtime": "nan"}, {"mtime": "inf"}, {"mtime": "1e300"}, {"size": str(2**64)}])
def test_archives_with_impossible_numbers_are_refused(box, record):
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("x")
        member.pax_headers = record
        archive.addfile(member)
    done = box("-", "c1:/tmp", input=output.getvalue(), text=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"rootless: cp -: 'x': its time or size is impossible"), done


def test_devices_and_pipes_of_the_container_do_not_block(box):
    box.inside("mkdir /tmp/d; mkfifo /tmp/d/pipe; echo x >/tmp/d/file")
    done = box("c1:/tmp/d", ".")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "a named pipe" in done.stderr
    assert {path.name for path in (box.here / "d").iterdir()} == {"file"}


def test_a_whole_root_comes_without_proc_and_sys(box):
    ok_or_warned = box("c1:/", "root", timeout=120)
    assert ok_or_warned.returncode == 0, ok_or_warned
    assert (box.here / "root/etc/passwd").is_file()
    assert list((box.here / "root/proc").iterdir()) == []


def test_a_file_that_is_a_mount_is_written_and_a_directory_is_not_replaced(box):
    box.inside("mkdir -p /tmp/d/x; echo old >/tmp/o")
    (box.here / "d").mkdir()
    (box.here / "d/x").write_text("new\n")
    refused(box("d/.", "c1:/tmp/d"), "File exists")
    assert box.inside("test -d /tmp/d/x && echo still") == "still\n"
