"""`rootless new`: the bundles that it makes run, and a failure leaves nothing behind."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import stat
import subprocess
import tarfile
import time

import pytest

CAPABILITY = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode()
"""cap_net_bind_service=ep, as the kernel stores it (revision 2 of struct vfs_cap_data)."""


@pytest.fixture
def new(user, rootless_command):
    def run(*words, **options):
        return user.run([rootless_command, "new", *words], **options)

    return run


@pytest.fixture
def run(user, rootless_command):
    """Return a function that runs a bundle and returns its output."""

    def output(bundle):
        done = user.run([rootless_command, "run", bundle])
        assert done.returncode == 0, done.stderr
        return done.stdout

    return output


def config(user, bundle="bundle"):
    return json.loads((user.tmp / bundle / "config.json").read_text())


def left(user):
    return sorted(path.name for path in user.tmp.iterdir())


def entry(name, kind=tarfile.REGTYPE, target="", *, data=b"", mode=0o644, uid=0, **attributes):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode, info.uid, info.gid = kind, target, len(data), mode, uid, uid
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, data


def write_archive(path, *entries, add=()):
    """Write an archive of a busybox, its shell, and `entries`."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for file, name in add:
            info = archive.gettarinfo(file, name)
            info.uid = info.gid = 0
            with open(file, "rb") as opened:
                archive.addfile(info, opened)
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    path.chmod(0o644)
    return path


@pytest.fixture
def busybox(need):
    """The start of each small root filesystem here: a static busybox. SHELL is its shell."""
    path = need("busybox")
    if b"statically linked" not in subprocess.run(["file", "-L", path], capture_output=True, check=True).stdout:
        pytest.skip("needs busybox-static, provided by CI")
    return [(path, "bin/busybox")]


SHELL = entry("bin/sh", tarfile.SYMTYPE, "busybox")


def test_a_bundle_of_the_hosts_programs_runs(user, new, run):
    done = new("bundle", "--", "sh", "-c", "id -u; id -g; echo hello | sed s/h/H/; ls / | grep -c bin; pwd; ls -d /tmp")
    assert (done.returncode, done.stderr) == (0, "")
    assert "programs, " in done.stdout
    assert "rootless run bundle" in done.stdout
    assert run("bundle") == "0\n0\nHello\n2\n/\n/tmp\n"
    assert left(user) == ["bundle"]


def test_every_program_of_a_bundle_starts(user, new, run):
    script = """
        for program in /usr/bin/* /bin/* /usr/sbin/* /sbin/*; do
            [ -x "$program" ] || continue
            timeout 5 "$program" --version </dev/null >/tmp/output 2>&1
            case $? in 126|127) echo "$program"; cat /tmp/output;; esac
        done
        echo end
    """
    assert new("bundle", "--", "sh", "-c", script).returncode == 0
    assert run("bundle") == "end\n"


def test_files_of_a_bundle_belong_to_the_user_without_privileges(user, new):
    assert new("bundle").returncode == 0
    bundle = user.tmp / "bundle"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700
    files = [path.lstat() for path in bundle.rglob("*")]
    assert len(files) > 100
    assert {status.st_uid for status in files} == {user.uid}
    assert not [status for status in files if status.st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert stat.S_IMODE((bundle / "rootfs/tmp").stat().st_mode) == 0o1777


def test_the_default_command_is_a_shell_at_a_terminal(user, new):
    new("bundle")
    process = config(user)["process"]
    assert (process["args"], process["terminal"]) == (["sh"], True)
    new("other", "--", "echo", "-n", "a b")
    process = config(user, "other")["process"]
    assert (process["args"], process["terminal"]) == (["echo", "-n", "a b"], False)


def test_the_callers_umask_does_not_affect_file_modes(user, new, run):
    assert new("bundle", "--", "sh", "-c", "stat -c %a / /usr /bin/sh /etc/passwd /tmp", umask=0o077).returncode == 0
    assert run("bundle").split() == ["755", "755", "777", "644", "1777"]


def test_an_empty_directory_becomes_the_bundle(user, new):
    (user.tmp / "bundle").mkdir()
    os.chown(user.tmp / "bundle", user.uid, user.gid)
    inode = (user.tmp / "bundle").stat().st_ino
    assert new(".", "--", "true", cwd=user.tmp / "bundle").returncode == 0
    assert (user.tmp / "bundle").stat().st_ino == inode
    assert left(user) == ["bundle"]
    assert sorted(path.name for path in (user.tmp / "bundle").iterdir()) == ["config.json", "rootfs"]


@pytest.mark.parametrize(
    ("directory", "cause"),
    [
        ("full", "full: it exists and is not empty; fix: "),
        ("file", "file: Not a directory"),
        ("dangling", "dangling: it is a symlink to nothing"),
        ("missing/bundle", "No such file or directory; fix: mkdir -p "),
        ("/proc/bundle", "/proc/bundle: "),
    ],
)
def test_an_unusable_directory_for_a_bundle_is_refused(user, new, directory, cause):
    (user.tmp / "full").mkdir()
    (user.tmp / "full/mine").write_text("mine")
    (user.tmp / "file").write_text("mine")
    (user.tmp / "dangling").symlink_to("nowhere")
    before = sorted(user.tmp.rglob("*"))
    done = new(directory)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rootless: make ")
    assert cause in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(user.tmp.rglob("*")) == before


# Without the files that the runtime mounts or creates there.
LIST = "cd /bin; for i in stat readlink cat; do busybox ln -s busybox $i; done; \
for file in /etc/deep /etc/early /etc/late /etc/shadow /etc/suid /srv; do stat -c '%n %u:%g %a %h %s' $file; done; \
readlink /lib; cat /etc/deep"


def test_entries_of_an_archive_keep_their_type_owner_and_mode(user, new, run, busybox):
    write_archive(
        user.tmp / "archive",
        SHELL,
        entry("./etc/", tarfile.DIRTYPE, mode=0o755),
        entry("etc/shadow", data=b"secret", mode=0o640, uid=42),
        entry("/etc/suid", data=b"x", mode=0o6755),
        entry("etc/early", tarfile.LNKTYPE, "etc/late"),
        entry("etc/late", data=b"linked", uid=65536),
        entry("etc/deep", tarfile.SYMTYPE, "/srv/" + "d" * 150 + "/file"),
        entry("srv", tarfile.DIRTYPE, mode=0o555, uid=33),
        entry("srv/" + "d" * 150 + "/file", data=b"deep\n", uid=33),
        entry("lib", tarfile.SYMTYPE, "/anywhere/../at/all"),
        entry("dev/null", tarfile.CHRTYPE, mode=0o666),
        entry("dev/sda", tarfile.BLKTYPE),
        add=busybox,
    )
    done = new("bundle", "--from", "archive", "--", "/bin/busybox", "sh", "-c", LIST)
    assert done.stderr == (
        "rootless: warning: left out dev/null and 1 more device nodes: every container gets its own /dev\n"
    )
    assert done.returncode == 0
    assert "11 entries" in done.stdout
    assert run("bundle").splitlines() == [
        "/etc/deep 0:0 777 1 160",
        "/etc/early 65536:65536 644 2 6",
        "/etc/late 65536:65536 644 2 6",
        "/etc/shadow 42:42 640 1 6",
        "/etc/suid 0:0 6755 1 1",
        "/srv 33:33 555 3 4096",
        "/anywhere/../at/all",
        "deep",
    ]
    assert stat.S_IMODE((user.tmp / "bundle").stat().st_mode) == 0o700


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
def test_compressed_archives_are_unpacked(user, new, need, program):
    path = write_archive(user.tmp / "archive", entry("etc/file", data=b"x" * 1_000_000))
    packed = subprocess.run([need(program), "-c"], input=path.read_bytes(), stdout=subprocess.PIPE, check=True).stdout
    path.write_bytes(packed)
    assert new("bundle", "--from", "archive", "--", "x").returncode == 0
    assert (user.tmp / "bundle/rootfs/etc/file").read_bytes() == b"x" * 1_000_000
    path.write_bytes(packed[:-5])
    assert "damaged, cut short" in new("cut", "--from", "archive").stderr
    assert left(user) == ["archive", "bundle"]


def test_file_capabilities_of_an_archive_on_stdin_are_kept(user, new, busybox):
    attributes = {"SCHILY.xattr.security.capability": CAPABILITY, "SCHILY.xattr.security.selinux": "label"}
    file = entry("bin/ping", data=b"ping", mode=0o755, pax_headers=attributes)
    path = write_archive(user.tmp / "archive", SHELL, file, add=busybox)
    with path.open("rb") as opened:
        done = new("bundle", "--from", "-", stdin=opened)
    assert done.returncode == 0
    assert done.stderr == (
        "rootless: warning: left out extended attributes that only host root may set: security.selinux\n"
    )
    capability = os.getxattr(user.tmp / "bundle/rootfs/bin/ping", "security.capability")
    assert capability[4:8] == CAPABILITY.encode()[4:8]
    assert int.from_bytes(capability[-4:], "little") == user.uid


def test_an_archive_of_a_bundles_root_makes_another_bundle(user, new, run):
    assert new("first").returncode == 0
    packing = ["tar", "-C", "first/rootfs", "--owner=0", "--group=0", "-czf", "archive.tgz", "."]
    user.run(packing, check=True)
    done = new("second", "--from", "archive.tgz", "--", "sh", "-c", "id -u; ls /bin/sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert run("second") == "0\n/bin/sh\n"


HOSTILE = {
    "above the root": [entry("../escaped")],
    "a hard link above the root": [entry("x", tarfile.LNKTYPE, "../../etc/passwd")],
    "a hard link to the host": [entry("x", tarfile.LNKTYPE, "/etc/passwd")],
    "through a symlink": [entry("l", tarfile.SYMTYPE, ".."), entry("l/escaped")],
    "through an absolute symlink": [entry("l", tarfile.SYMTYPE, "/tmp"), entry("l/escaped", tarfile.DIRTYPE)],
    "through a hard link to a symlink": [
        entry("l", tarfile.SYMTYPE, ".."),
        entry("h", tarfile.LNKTYPE, "l"),
        entry("h/escaped"),
    ],
    "a directory over a symlink": [entry("l", tarfile.SYMTYPE, ".."), entry("l", tarfile.DIRTYPE), entry("l/escaped")],
    "an id out of range": [entry("x", uid=4000000)],
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(user, new, hostile):
    # Files with subordinate owners before the hostile entry: the user alone could not remove them.
    beginning = [
        entry("private", tarfile.DIRTYPE, mode=0o700, uid=33),
        *(entry(f"private/{number}", uid=33) for number in range(2000)),
    ]
    write_archive(user.tmp / "archive", *beginning, *hostile)
    done = new("bundle", "--from", "archive")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr.startswith(f"rootless: unpack the entry {hostile[-1][0].name}: ")
        or "/escaped" in hostile[-1][0].name
    )
    assert done.stderr.count("\n") == 1
    assert left(user) == ["archive"]
    (user.tmp / "bundle").mkdir()
    os.chown(user.tmp / "bundle", user.uid, user.gid)
    assert new("bundle", "--from", "archive").returncode == 1
    assert list((user.tmp / "bundle").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08no archive", b"\x28\xb5\x2f\xfdno archive"])
def test_file_that_is_no_archive_is_an_error(user, new, content):
    (user.tmp / "archive").write_bytes(content)
    done = new("bundle", "--from", "archive")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: read archive: damaged, cut short, or no tar archive: ")
    assert left(user) == ["archive"]


def test_a_missing_archive_is_an_error(user, new):
    done = new("bundle", "--from", "nowhere.tar")
    assert (done.returncode, done.stderr) == (1, "rootless: open nowhere.tar: No such file or directory\n")
    assert left(user) == []


def test_an_archive_without_a_shell_is_reported(user, new):
    write_archive(user.tmp / "archive", entry("app", data=b"x", mode=0o755))
    done = new("bundle", "--from", "archive")
    assert done.returncode == 0
    assert "archive has no /bin/sh" in done.stderr
    assert new("other", "--from", "archive", "--", "/app").stderr == ""


def test_tar_failure_is_reported_and_leaves_nothing(user, new):
    write_archive(user.tmp / "archive", entry("ok"), entry("n" * 300))
    done = new("bundle", "--from", "archive")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: unpack archive: ")
    assert "File name too long" in done.stderr
    assert left(user) == ["archive"]


def test_tar_options_in_the_environment_are_ignored(user, new):
    write_archive(user.tmp / "archive", entry("etc/file", data=b"x"))
    done = new("bundle", "--from", "archive", env={"TAR_OPTIONS": "--transform=s/etc/elsewhere/"})
    assert done.returncode == 0
    assert (user.tmp / "bundle/rootfs/etc/file").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_unpacking_leaves_nothing(user, rootless_command, number):
    """Half of an archive comes through a pipe and is unpacked before the signal."""
    private = [
        entry("private", tarfile.DIRTYPE, mode=0o755, uid=33),
        *(entry(f"private/{name}", data=b"x" * 1000, uid=33) for name in range(2000)),
    ]
    archive = write_archive(user.tmp / "archive", *private).read_bytes()
    (user.tmp / "archive").unlink()
    with user.popen([rootless_command, "new", "bundle", "--from", "-"], stdin=subprocess.PIPE, text=False) as process:
        process.stdin.write(archive[: len(archive) // 2])
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(user.tmp.glob("bundle.tmp-*/rootfs/private/5*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert left(user) == []


def test_a_progress_bar_is_shown_on_a_terminal(user, new):
    write_archive(user.tmp / "archive.tar", *(entry(str(number), data=bytes(100_000)) for number in range(20)))
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        done = new("bundle", "--from", "archive.tar", stderr=theirs, env={"TERM": "xterm"})
        os.close(theirs)
        shown = b""
        try:
            while piece := screen.read(65536):
                shown += piece
        except OSError:
            pass  # the other end of the terminal is closed: all has been read
    assert done.returncode == 0
    assert b"unpacking archive.tar" in shown
    assert b"MB" in shown


def test_a_single_id_user_gets_one_owner_for_all_files_and_a_warning(single_user, rootless_command, busybox):
    archive = write_archive(single_user.tmp / "archive", SHELL, entry("etc/shadow", uid=42, mode=0o640), add=busybox)
    command = [
        rootless_command,
        "new",
        "bundle",
        "--from",
        archive,
        "--",
        "/bin/sh",
        "-c",
        "stat -c '%u %a' /etc/shadow",
    ]
    done = single_user.run(command)
    assert done.returncode == 0
    assert done.stderr.startswith("rootless: warning: every file is now owned by root of the container: ")
    assert "usermod --add-subuids" in done.stderr
    assert done.stderr.count("\n") == 1
    assert single_user.run([rootless_command, "run", "bundle"]).stdout == "0 640\n"


def test_a_single_id_user_makes_a_bundle_of_the_hosts_programs(single_user, rootless_command):
    done = single_user.run([rootless_command, "new", "bundle", "--", "id", "-u"])
    assert (done.returncode, done.stderr) == (0, "")
    assert single_user.run([rootless_command, "run", "bundle"]).stdout == "0\n"


def test_a_user_namespace_with_one_id_gives_one_owner_to_all_files(user, rootless_command):
    write_archive(user.tmp / "archive", entry("etc/shadow", uid=42))
    done = user.run(["unshare", "--user", "--map-root-user", rootless_command, "new", "bundle", "--from", "archive"])
    assert done.returncode == 0
    assert "every file is now owned by root of the container" in done.stderr
    assert (user.tmp / "bundle/rootfs/etc/shadow").stat().st_uid == user.uid


def test_a_tar_program_other_than_gnu_tar_is_refused(user, rootless_command, busybox):
    write_archive(user.tmp / "archive", entry("etc/shadow"))
    hide = 'mount --bind "$(readlink -f "$0")" "$(readlink -f /usr/bin/tar)" && exec "$@"'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hide, busybox[0][0]]
    done = user.run([*words, rootless_command, "new", "bundle", "--from", "archive"])
    assert done.returncode == 1
    assert "it is not GNU tar; fix: install GNU tar" in done.stderr
    assert left(user) == ["archive"]
