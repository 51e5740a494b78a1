"""Attributes that the executor gives to the process before the program starts, read back from the program."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import struct
from pathlib import Path

import pytest

from rootless.launch.protocol import READY
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.ops import Op
from tests.lib.bundles import own
from tests.lib.executor import Executor, as_user, failure, in_user_namespace, make_root, output, refusals, rooted

SHELL = "/bin/busybox"
EVERYTHING = (1 << 64) - 1
AMBIENT_NET_RAW = 1 << 13


@pytest.fixture
def root(user):
    return make_root(user)


def status(*operations, **options) -> dict[str, str]:
    """Execute `operations` in a user namespace and return /proc/self/status of the program."""
    text = output(in_user_namespace(*operations, args=["/bin/cat", "/proc/self/status"]), **options)
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def said(*operations, script, env=(), **options) -> str:
    return output(in_user_namespace(*operations, args=["/bin/sh", "-c", script], env=env), **options)


def in_root(root, *operations, script, **options) -> str:
    """Return the output of a shell script in `root`; `operations` come just before it."""
    return output(rooted(root, args=[SHELL, "sh", "-c", script], last=operations), **options)


def signed(mask: int) -> int:
    return mask - (1 << 64) if mask >> 63 else mask


def sets(found) -> dict[str, int]:
    return {name: int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def test_resource_limits_are_set(user):
    lines = as_user(user, limits)
    assert lines[:3] == ["100", "200", "0"]
    assert lines[3].split()[3:5] == ["4194304", str(1 << 40)]


def limits():
    return said(
        Op(ops.RLIMIT, resource.RLIMIT_NOFILE, 100, 200),
        Op(ops.RLIMIT, resource.RLIMIT_CORE, 0, 0),
        Op(ops.RLIMIT, resource.RLIMIT_FSIZE, 1 << 22, 1 << 40),
        script="ulimit -Sn; ulimit -Hn; ulimit -Sc; grep 'Max file size' /proc/self/limits",
    ).splitlines()


def test_a_program_that_is_not_root_has_the_requested_capabilities(user, need):
    need("newuidmap")

    def steps():
        return status(
            Op(ops.BOUNDING, 0xF0F | AMBIENT_NET_RAW),
            Op(ops.IDS, 33, 44),
            Op(ops.CAPABILITIES, AMBIENT_NET_RAW, AMBIENT_NET_RAW | 1, AMBIENT_NET_RAW | 1),
            Op(ops.AMBIENT, AMBIENT_NET_RAW),
            all_ids=True,
        )

    found = as_user(user, steps)
    assert (found["Uid"].split(), found["Gid"].split()) == (["33"] * 4, ["44"] * 4)
    assert sets(found) == {
        "CapInh": AMBIENT_NET_RAW | 1,
        "CapPrm": AMBIENT_NET_RAW,
        "CapEff": AMBIENT_NET_RAW,
        "CapBnd": 0xF0F | AMBIENT_NET_RAW,
        "CapAmb": AMBIENT_NET_RAW,
    }


def test_capabilities_of_root_come_from_its_bounding_set(user):
    found = as_user(user, status, Op(ops.BOUNDING, 0b101), Op(ops.CAPABILITIES, 0b101, 0b101, 0))
    assert sets(found) == {"CapInh": 0, "CapPrm": 0b101, "CapEff": 0b101, "CapBnd": 0b101, "CapAmb": 0}


def test_the_highest_capability_can_be_set(user):
    highest = 1 << int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    found = as_user(user, status, Op(ops.BOUNDING, highest), Op(ops.CAPABILITIES, highest, highest, 0))
    assert sets(found)["CapEff"] == highest
    # bits unknown to the kernel are not in the sets
    found = as_user(user, status, Op(ops.BOUNDING, signed(EVERYTHING)))
    assert sets(found)["CapBnd"] == (highest << 1) - 1


def test_ambient_capabilities_are_cleared(user):
    one = Op(ops.CAPABILITIES, 1, 1 | 1 << 8, 1)
    assert sets(as_user(user, status, one, Op(ops.AMBIENT, 1)))["CapAmb"] == 1
    assert sets(as_user(user, status, one, Op(ops.AMBIENT, 1), Op(ops.AMBIENT, 0)))["CapAmb"] == 0


@pytest.mark.parametrize("gids", ["", "7", "0,65535,7", "1,1"])
def test_supplementary_groups_are_set(user, need, gids):
    need("newgidmap")
    ids = b"".join(struct.pack("=I", int(gid)) for gid in gids.split(",") if gid)
    found = as_user(user, lambda: status(Op(ops.GROUPS, gids, ids), all_ids=True))
    assert sorted(found["Groups"].split()) == sorted(gids.split(",") if gids else [])


def test_the_umask_is_set(user):
    assert as_user(user, lambda: said(Op(ops.UMASK, 0o137), script="umask")) == "0137\n"


def test_no_new_privileges_is_set_on_request(user):
    assert as_user(user, status)["NoNewPrivs"] == "0"
    assert as_user(user, status, Op(ops.NO_NEW_PRIVS))["NoNewPrivs"] == "1"


def test_a_non_dumpable_process_cannot_be_inspected(user):
    def steps():
        running = Executor([Op(ops.NEW_USER), Op(ops.YIELD), Op(ops.NON_DUMPABLE), Op(ops.READY), Op(ops.WAIT_START)])
        assert running.until_settled().kind == READY
        try:
            os.readlink(f"/proc/{running.first}/cwd")
        except PermissionError:
            return True
        finally:
            running.leave()
            running.wait()

    assert as_user(user, steps)


def test_host_name_and_domain_name_are_set(user):
    script = "uname -n; cat /proc/sys/kernel/domainname"
    plan = [Op(ops.UNSHARE, CLONE_FLAGS["uts"]), Op(ops.HOSTNAME, "x" * 64), Op(ops.DOMAINNAME, "example.org")]
    assert as_user(user, lambda: said(*plan, script=script)).split() == ["x" * 64, "example.org"]


def test_loopback_is_up_and_network_sysctls_are_set(user):
    plan = [Op(ops.UNSHARE, CLONE_FLAGS["network"]), Op(ops.LINK_UP, "lo")]
    found = as_user(
        user,
        lambda: said(
            *plan,
            Op(ops.PROC_WRITE, "sys/net/ipv4/ip_default_ttl", "77"),
            script="cat /proc/net/if_inet6 /proc/sys/net/ipv4/ip_default_ttl",
        ),
    )
    assert found.split() == ["0" * 31 + "1", "01", "80", "10", "80", "lo", "77"]
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() != "77\n"


def test_a_partly_accepted_sysctl_is_a_failure(user):
    network = Op(ops.UNSHARE, CLONE_FLAGS["network"])
    ports = Op(ops.PROC_WRITE, "sys/net/ipv4/ip_local_port_range", "1000 2000 x")
    plan = in_user_namespace(network, ports, args=["/bin/true"])
    assert as_user(user, failure, plan) == ("proc_write", "EINVAL", "write")


def test_clock_offsets_are_set(user):
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("needs a kernel with time namespaces")

    def steps():
        plan = [
            Op(ops.NEW_USER),
            Op(ops.YIELD),
            Op(ops.UNSHARE, CLONE_FLAGS["time"]),
            Op(ops.PROC_WRITE, "self/timens_offsets", "monotonic 86400 0\nboottime 864000 0\n"),
            Op(ops.FORK),
            Op(ops.EXEC, ["/bin/cat", "/proc/self/timens_offsets", "/proc/uptime"], []),
        ]
        return output(plan).split()

    words = as_user(user, steps)
    assert words[:6] == ["monotonic", "86400", "0", "boottime", "864000", "0"]
    assert float(words[6]) > 864000


def test_the_process_has_its_own_session_keyring(user):
    plan = [Op(ops.KEYRING, "_ses.test")]
    text = as_user(user, lambda: said(*plan, script="cat /proc/keys"))
    assert "_ses.test" in text


# HOME

PASSWD = {
    # /etc/passwd, uid, HOME
    "its user": (b"root:x:0:0:root:/root:/bin/sh\nuser:x:33:33::/home/user:/bin/sh\n", 33, "/home/user"),
    "the first of two": (b"a:x:0:0::/one:\nb:x:0:0::/two:\n", 0, "/one"),
    "the last line without its end": (b"a:x:5:0::/five:\nb:x:0:0::/zero:/bin/sh", 0, "/zero"),
    "no shell": (b"root:x:0:0:root:/root\n", 0, "/root"),
    "no shell and no end": (b"root:x:0:0:root:/root", 0, "/root"),
    "more fields": (b"root:x:0:0:root:/root:/bin/sh:more:and:more\n", 0, "/root"),
    "fewer fields": (b"root:x:0:0\nroot:x:0:0::/root:\n", 0, "/root"),
    "no home": (b"root:x:0:0:root::/bin/sh\n", 0, "/"),
    "nobody": (b"a:x:1:1::/a:\n", 0, "/"),
    "empty": (b"", 0, "/"),
    "empty lines": (b"\n\n\n:\n::\n::::::\nroot:x:0:0::/root:\n", 0, "/root"),
    "one colon": (b":", 0, "/"),
    "a uid that is no number": (b"a:x:0x0:0::/a:\nb:x::0::/b:\nc:x: 0:0::/c:\nd:x:-0:0::/d:\n", 0, "/"),
    "a uid with something behind it": (b"a:x:0a:0::/a:\nb:x:0 :0::/b:\n", 0, "/"),
    "a uid of 33 bits": (b"a:x:4294967296:0::/a:\n", 0, "/"),
    "a uid of 65 bits": (b"a:x:18446744073709551616:0::/a:\n", 0, "/"),
    "a long uid": (b"a:x:" + b"0" * 5000 + b"1:0::/a:\nb:x:" + b"9" * 5000 + b":0::/b:\n", 0, "/"),
    "a uid with zeros": (b"a:x:000:0::/a:\n", 0, "/a"),
    "a long home": (b"a:x:0:0::/" + b"x" * 4094 + b":\n", 0, "/" + "x" * 4094),
    "a home that is too long": (b"a:x:0:0::/" + b"x" * 4095 + b":\nb:x:0:0::/b:\n", 0, "/"),
    "a huge line": (b"x" * (1 << 20) + b"\nroot:x:0:0::/root:\n", 0, "/root"),
    "a huge field": (b"a:" + b"x" * (1 << 20) + b":0:0::/root:\n", 0, "/root"),
    "no text at all": (bytes(range(256)) * 64 + b"\nroot:x:0:0::/root:\n", 0, "/root"),
    "a NUL": (b"a:x:0:0::/be\0hind:\n", 0, "/be"),
}


def home(root, uid, **options):
    return in_root(root, Op(ops.HOME, uid, "/etc/passwd", "/"), script='printf "%s" "$HOME"', **options)


@pytest.mark.parametrize(("text", "uid", "expected"), PASSWD.values(), ids=PASSWD)
def test_home_is_read_from_the_images_passwd(user, root, text, uid, expected):
    (root / "etc").mkdir()
    (root / "etc/passwd").write_bytes(text)
    own(user, root)
    assert as_user(user, home, root, uid) == expected


def test_home_of_the_last_uid(user, root):
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("last:x:4294967294:0::/last:\n")
    own(user, root)
    assert as_user(user, home, root, 4294967294) == "/last"


@pytest.mark.parametrize(
    "what", ["missing", "directory", "fifo", "socket", "dangling", "loop", "unreadable", "device", "hole"]
)
def test_an_unreadable_passwd_file_gives_the_default_home(user, root, what):
    passwd = root / "etc/passwd"
    passwd.parent.mkdir()
    match what:
        case "directory":
            passwd.mkdir()
        case "fifo":
            os.mkfifo(passwd)
        case "socket":
            os.mknod(passwd, stat.S_IFSOCK | 0o666)
        case "dangling" | "loop" | "device":
            passwd.symlink_to({"dangling": "missing", "loop": "passwd", "device": "/dev/zero"}[what])
        case "hole":
            with passwd.open("wb") as file:
                file.truncate(1 << 40)
    own(user, root)
    if what == "unreadable" and os.geteuid() == 0:
        passwd.touch(mode=0o600)
    assert as_user(user, home, root, 0) == "/"


def test_home_comes_after_the_other_variables(user):
    plan = in_user_namespace(Op(ops.HOME, 0, "/etc/passwd", "/"), args=["/usr/bin/env"], env=["A=1", "B=2"])
    lines = as_user(user, output, plan).splitlines()
    assert lines[:2] == ["A=1", "B=2"]
    assert lines[2].startswith("HOME=/")
    assert len(lines) == 3


# working directory and program


def test_the_working_directory_is_resolved(user, root):
    (root / "data").mkdir()
    (root / "link").symlink_to("/data")
    own(user, root)
    plan = rooted(root, args=[SHELL, "pwd"], enter=[Op(ops.CHDIR, 0, "/link")])
    assert as_user(user, output, plan) == "/data\n"


def test_a_working_directory_outside_of_the_root_is_refused(user, root):
    """A descriptor of the host that the caller passes on cannot be the working directory (CVE-2024-21626)."""

    def steps():
        assert os.open("/", os.O_PATH | os.O_DIRECTORY) == 3
        os.set_inheritable(3, True)  # noqa: FBT003 - the signature of the standard library
        proc = Op(ops.BIND, ops.RECURSIVE, *(0,) * 5, "/proc", "/proc")
        return [
            failure(rooted(root, proc, enter=[Op(ops.CLOSE_FDS), Op(ops.CHDIR, 0, f"/proc/self/fd/3{path}")]), keep=1)
            for path in ("", "/etc", "/../..")
        ]

    assert as_user(user, steps) == [("chdir", "EXDEV", "chdir")] * 3


@pytest.mark.parametrize("number", range(3, 12))
def test_no_descriptor_leads_out_of_the_root(user, root, number):
    """Not even the executor's own descriptors of the host, which a hostile working directory or program could name."""
    proc = Op(ops.BIND, ops.RECURSIVE, *(0,) * 5, "/proc", "/proc")
    null = Op(ops.MASK, "/bin/busybox")

    def steps():
        found = [failure(rooted(root, proc, enter=[Op(ops.CLOSE_FDS), Op(ops.CHDIR, 0, f"/proc/self/fd/{number}")]))]
        program = [f"/proc/self/fd/{number}/../bin/true", f"/proc/self/fd/{number}/bin/true"]
        found.append(refusals(rooted(root, proc, null, last=[Op(ops.COMMAND, program, "")])))
        return found

    (_, chdir, _), command = as_user(user, steps)
    # the descriptors of the protocol are pipes
    assert {chdir, *(errno.errorcode[number] for number in command)} <= {"ENOENT", "ENOTDIR"}


def test_an_early_change_of_directory_is_not_repeated(user, root):
    (root / "data").mkdir()
    own(user, root)
    early = Op(ops.CHDIR, 1, "/missing")
    assert as_user(user, failure, rooted(root, enter=[early])) == ("chdir", "ENOENT", "chdir")
    # after the early change, the program's user needs no access to the directory
    twice = [Op(ops.CHDIR, 1, "/data"), Op(ops.CHDIR, 0, "/missing")]
    assert as_user(user, output, rooted(root, args=[SHELL, "pwd"], enter=twice)) == "/data\n"


@pytest.fixture
def programs(user):
    """A directory with programs that cannot be executed, each for one reason, and one, `works`, that can."""
    directory = user.tmp / "programs"
    directory.mkdir()
    (directory / "directory").mkdir()
    os.mkfifo(directory / "fifo")
    (directory / "fifo").chmod(0o777)
    for name in ("works", "not-executable"):
        (directory / name).write_text("#!/bin/sh\necho works\n")
        (directory / name).chmod(0o755 if name == "works" else 0o644)
    (directory / "loop").symlink_to("loop")
    (directory / "dangling").symlink_to("missing")
    own(user, directory)
    return directory


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["missing"], ["ENOENT"]),
        (["dangling"], ["ENOENT"]),
        (["works/below"], ["ENOTDIR"]),
        ([], []),
        (["not-executable"], ["EACCES"]),
        (["fifo"], ["EACCES"]),
        (["directory"], ["EISDIR"]),
        (["loop"], ["ELOOP"]),
        (["x" * 256], ["ENAMETOOLONG"]),
        (["missing", "not-executable", "missing"], ["ENOENT", "EACCES", "ENOENT"]),
        (["missing"] * 3000, ["ENOENT"] * (2048 - len("stat\0"))),
    ],
)
def test_programs_that_cannot_be_executed_are_reported(user, programs, names, numbers):
    plan = in_user_namespace(Op(ops.COMMAND, [f"{programs}/{name}" for name in names], "program"), args=["program"])
    assert [errno.errorcode[number] for number in as_user(user, refusals, plan)] == numbers


@pytest.mark.parametrize("before", ["missing", "not-executable", "directory", "fifo", "loop", "works/below"])
def test_the_first_executable_program_is_executed(user, programs, before):
    candidates = [f"{programs}/{name}" for name in (before, "works", "missing")]
    assert as_user(user, output, in_user_namespace(Op(ops.COMMAND, candidates, "works"), args=["name"])) == "works\n"


# seccomp: handwritten filters

LOAD_NUMBER = struct.pack("=HBBI", 0x20, 0, 0, 0)
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
KILL = struct.pack("=HBBI", 0x06, 0, 0, 0x80000000)
SYSCALLS = {"x86_64": {"execve": 59, "uname": 63}, "aarch64": {"execve": 221, "uname": 160}}


def refuse(name: str, answer: bytes, otherwise: bytes) -> bytes:
    """Return a filter that has `answer` for one system call and `otherwise` for all others."""
    machine = os.uname().machine
    if machine not in SYSCALLS:
        pytest.skip(f"needs the system call numbers of {machine}")
    return LOAD_NUMBER + struct.pack("=HBBI", 0x15, 0, 1, SYSCALLS[machine][name]) + answer + otherwise


def test_a_seccomp_filter_is_applied(user):
    no_uname = refuse("uname", struct.pack("=HBBI", 0x06, 0, 0, 0x50000 | errno.EDOM), ALLOW)
    plan = [Op(ops.NO_NEW_PRIVS), Op(ops.SECCOMP, 0, 0, no_uname)]
    found = as_user(user, lambda: said(*plan, script="uname 2>&1 || grep Seccomp: /proc/self/status"))
    assert os.strerror(errno.EDOM) in found
    assert found.endswith("Seccomp:\t2\n")


def test_a_filter_may_allow_only_execve(user):
    only_execve = refuse("execve", ALLOW, KILL)

    def steps():
        plan = in_user_namespace(
            Op(ops.HOME, 0, "/etc/passwd", "/"),
            Op(ops.NO_NEW_PRIVS),
            Op(ops.SECCOMP, 0, 0, only_execve),
            args=["/bin/true"],
            env=["A=1"],
        )
        running = Executor(plan)
        assert running.until_settled() is None
        return running.wait()

    assert as_user(user, steps) == -signal.SIGSYS


@pytest.mark.parametrize(
    ("flags", "program"),
    [(0, b""), (0, ALLOW[:7]), (0, LOAD_NUMBER), (1 << 30, ALLOW), (0, ALLOW * 4097), (0, ALLOW * 65537)],
)
def test_an_invalid_filter_is_a_failure(user, flags, program):
    plan = in_user_namespace(Op(ops.NO_NEW_PRIVS), Op(ops.SECCOMP, flags, 0, program), args=["/bin/true"])
    assert as_user(user, failure, plan) == ("seccomp", "EINVAL", "seccomp")


def test_a_filter_without_privileges_is_a_failure(user):
    plan = in_user_namespace(Op(ops.CAPABILITIES, 0, 0, 0), Op(ops.SECCOMP, 0, 0, ALLOW), args=["/bin/true"])
    assert as_user(user, failure, plan) == ("seccomp", "EACCES", "seccomp")
