"""A failed operation becomes one sentence: what, the call, the reason, the place and the fix."""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rootless import log
from rootless.launch import exec_failure, failure
from rootless.launch.failure import explained, skipped
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.op_text import WORDS
from rootless.plan.ops import Op

MOUNT = Op(ops.MOUNT, 0, 0, 0, 0, 0, 0, "tmpfs", "tmpfs", "/data", ["size=x"], where="mounts[4]")

# The texts that podman (libpod, oci_util.go) and dockerd (errors.go) look for in a runtime's error.
PODMAN_PERMISSION = re.compile(r"(?i).*permission denied.*|.*operation not permitted.*")
PODMAN_NOT_FOUND = re.compile(r"(?i).*executable file not found in.*|.*no such file or directory.*|.*open executable.*")
DOCKER_126 = ("permission denied", "is a directory")
DOCKER_127 = ("executable file not found", "no such file or directory", "not a directory")


def command(name="sh", *directories):
    candidates = [f"{directory}/{name}" for directory in directories] if "/" not in name else [name]
    return Op(ops.COMMAND, candidates, name, where="process.args[0]")


def execute(*args):
    return Op(ops.EXEC, args, [], where="process.args")


# --- Operations -------------------------------------------------------------------------------------------------------


def test_the_sentence_has_everything_in_its_order():
    error = explained(MOUNT, "fsconfig", errno.EINVAL, b"tmpfs: Bad value for 'size'")
    assert str(error) == (
        "mount tmpfs on /data: fsconfig: Invalid argument: tmpfs: Bad value for 'size' (config.json: mounts[4]); "
        "fix: correct the options of this mount"
    )
    assert (error.code, error.status, error.where) == ("RL-MOUNT", 1, "mounts[4]")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_permission_errors_have_the_words_that_engines_match(number):
    assert PODMAN_PERMISSION.match(str(explained(MOUNT, "mount", number, b"")))


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, (_, fixes, _) in WORDS.items() for number in fixes], ids=str
)
def test_every_fix_reaches_its_reader(kind, number):
    op = Op(kind, *(0 for _ in kind.numbers), *("x" for _ in kind.strings), where="linux")
    line = str(explained(op, "call", number, b""))
    assert f"call: {os.strerror(number)} (config.json: linux); fix: {WORDS[kind][1][number]}" in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("op", "call", "number", "fix"),
    [
        (MOUNT, "move_mount", errno.ENOSPC, "sysctl -w fs.mount-max=200000"),
        (MOUNT, "write", errno.ENOSPC, "free some space"),
        (MOUNT, "move_mount", errno.ENODEV, "see /proc/filesystems"),
        (MOUNT, "openat2", errno.EAGAIN, "without processes that rename or cover directories"),
        (Op(ops.FORK), "clone3", errno.EAGAIN, "raise the limit of processes"),
        (Op(ops.FORK), "clone3", errno.ENOMEM, "a pid namespace, name one whose process 1 still runs"),
        (MOUNT, "fsmount", errno.ENFILE, "sysctl -w fs.file-max=1000000"),
        (MOUNT, "mount", errno.E2BIG, "shorten the options"),
        (MOUNT, "copy", errno.ENOSPC, "raise size or nr_inodes of this tmpfs"),
        (MOUNT, "copy", errno.EACCES, "make the directory readable"),
        (MOUNT, "copy", errno.EPERM, "leave tmpcopyup out"),
        (MOUNT, "copy", errno.EINVAL, "leave tmpcopyup out"),
        (Op(ops.TERMINAL, 0, 0, 0), "openat", errno.ENOSPC, "sysctl -w kernel.pty.max="),
        (Op(ops.TERMINAL, 0, 0, 0), "openat2", errno.ENOSPC, "free some space"),
        (Op(ops.TERMINAL, 0, 0, 0), "openat2", errno.ENOENT, "add a mount of type devpts"),
        (Op(ops.BIND, 0, 0, 0, 0, 0, 0, "/a", "/b"), "symlink", errno.EEXIST, "remove the file that the image has"),
        (Op(ops.DEVICE_NODE, 0, 0, 0, 0, 0, "/p"), "mknod", errno.EEXIST, "remove the file that the image has"),
        (Op(ops.JOIN, CLONE_FLAGS["network"], "/x"), "setns", errno.EPERM, "join the user namespace that owns it too"),
        (Op(ops.JOIN, CLONE_FLAGS["user"], "/x"), "setns", errno.EPERM, "one of your own processes created"),
        (Op(ops.NEW_USER), "unshare", errno.ENOSPC, "run rootless in an outer user namespace: the kernel nests 32"),
    ],
)
def test_the_fix_is_that_of_the_call(op, call, number, fix):
    assert fix in explained(op, call, number, b"").fix


IMPERATIVES = {
    "add", "allow", "ask", "bind", "choose", "close", "correct", "create", "end", "enter", "free", "give", "join",
    "leave", "let", "list", "load", "make", "map", "move", "name", "raise", "remove", "replace", "run", "set",
    "shorten", "start", "try", "unmount", "use", "write",
}  # fmt: skip


def test_every_kind_has_its_words():
    assert set(WORDS) == set(ops.KINDS)
    assert all(sentence for sentence, _, _ in WORDS.values())


def test_every_fix_begins_with_what_to_do():
    tables = [fixes for _, fixes, _ in WORDS.values()] + [*failure._CALL_FIXES.values()]
    words = {fix.partition(" ")[0] for fixes in tables for fix in fixes.values()}
    assert not words - IMPERATIVES


def test_limit_of_trees_equals_the_executors():
    assert f"at most {ops.MOST_TREES} " in WORDS[ops.TREE][1][errno.E2BIG]


def test_a_failure_without_a_known_fix_names_the_call():
    error = explained(Op(ops.SESSION), "setsid", errno.EPERM, b"")
    assert str(error) == "start a new session: setsid: Operation not permitted"
    assert error.code == "RL-SESSION"


def test_malformed_plan_is_reported():
    error = explained(None, "the plan", errno.EINVAL, b"it is empty")
    assert str(error) == "the executor cannot continue: the plan: it is empty"
    assert str(explained(None, "fork", errno.EAGAIN, b"")).endswith("fork: Resource temporarily unavailable")


@settings(deadline=None)
@given(st.binary(max_size=80), st.text(max_size=20), st.integers(0, 200))
def test_hostile_words_stay_on_one_line(more, name, number):
    op = Op(ops.BIND, 0, 0, 0, 0, 0, 0, name, "/\n" + name, where="mounts[0]")
    for error in (explained(op, "open_tree", number, more), explained(None, "x", number, more)):
        assert str(error).isprintable()


# --- Alternatives -----------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Return a function that returns the log message and its level."""
    monkeypatch.setattr(log, "_log", log._Log())
    log.configure(str(tmp_path / "log"), as_json=False, level="debug")
    return (tmp_path / "log").read_text


@pytest.mark.parametrize(
    ("op", "level", "words"),
    [
        (MOUNT, "info", "the host's mount is bound instead"),
        (Op(ops.DEVICE_NODE, 0, 1, 3, 0, 0, "/dev/null"), "info", "the host's device is bound instead"),
        (
            Op(ops.BIND, 0, 0, 0, 0, 0, 0, "/a", "/b", alternatives=1),
            "warning",
            "bound with the options of the host's mount, and recursively",
        ),
        (Op(ops.BIND, 0, 0, 0, 0, 0, 0, "/a", "/b"), "warning", "left out"),
        (Op(ops.GROUPS, "5,6", b""), "warning", "the caller's groups are kept"),
        (Op(ops.GROUPS, "", b""), "info", "the caller's groups are kept"),
        (Op(ops.BECOME, 0, 0), "info", "the namespace has no root, so the caller owns what is set up"),
        (Op(ops.KEYRING, "_ses.c1"), "info", "an unnamed one is joined instead"),
        (Op(ops.UNNAMED_KEYRING), "warning", "the container cannot use keyctl, add_key and request_key"),
        (Op(ops.SESSION), "warning", "left out"),
    ],
)
def test_an_alternative_is_logged(told, op, level, words):
    skipped(op, "mount", errno.EPERM)
    log.flush()
    assert f"level={level} " in told()
    assert f": mount: Operation not permitted: {words}" in told()


# --- Missing programs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directories", [("/bin",), ("/bin", "/usr/bin")])
def test_missing_name_is_reported(directories):
    error = explained(command("nope", *directories), "stat", errno.ENOENT, bytes([errno.ENOENT]))
    assert str(error).startswith(
        'exec: "nope": executable file not found in $PATH (config.json: process.args[0]); fix: '
    )
    assert error.code == "RL-EXEC-NOT-FOUND"
    assert PODMAN_NOT_FOUND.match(str(error))


def test_missing_path_is_reported():
    error = explained(command("/nope"), "stat", errno.ENOENT, bytes([errno.ENOENT]))
    assert str(error).startswith('exec: "/nope": stat /nope: no such file or directory (config.json: process.args[0])')
    assert PODMAN_NOT_FOUND.match(str(error))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EISDIR, "permission denied: it is a directory"),
        (errno.ENOTDIR, "not a directory"),
        (errno.ELOOP, "too many levels of symbolic links"),
    ],
)
def test_impossible_program_is_reported(number, words):
    line = str(explained(command("/x"), "stat", errno.ENOENT, bytes([number])))
    assert line.startswith(f'exec: "/x": {words} (config.json: process.args[0])')


def test_dockers_exit_status_follows_from_the_words():
    def status(line):
        line = line.lower()
        return (
            127
            if any(words in line for words in DOCKER_127)
            else 126
            if any(words in line for words in DOCKER_126)
            else 0
        )

    assert status(str(explained(command("nope", "/bin"), "stat", errno.ENOENT, bytes([errno.ENOENT])))) == 127
    assert status(str(explained(command("/nope"), "stat", errno.ENOENT, bytes([errno.ENOENT])))) == 127
    assert status(str(explained(command("/etc"), "stat", errno.ENOENT, bytes([errno.EISDIR])))) == 126
    assert status(str(explained(command("/etc/passwd"), "stat", errno.ENOENT, bytes([errno.EACCES])))) == 126
    assert status(str(explained(execute("/x"), "execve", errno.ENOENT, b"#!/nope\n"))) == 127


# --- The kernel refuses the program -----------------------------------------------------------------------------------

MACHINE = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine, 62)


def elf(interpreter=b"/lib/ld.so", *, wide=True, big=False, machine=MACHINE, offset=None):
    """Return the beginning of an ELF program with one program header, PT_INTERP, after a PT_LOAD."""
    order = ">" if big else "<"
    ident = b"\x7fELF" + bytes([1 + wide, 1 + big, 1]) + bytes(9)
    header_size, entry = (64, 56) if wide else (52, 32)
    place = offset if offset is not None else header_size + 2 * entry
    if wide:
        rest = struct.pack(order + "HHIQQQIHHHHHH", 2, machine, 1, 0, header_size, 0, 0, header_size, entry, 2, 0, 0, 0)
        headers = struct.pack(order + "IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 0)
        headers += struct.pack(order + "IIQQQQQQ", 3, 4, place, 0, 0, len(interpreter) + 1, 0, 1)
    else:
        rest = struct.pack(order + "HHIIIIIHHHHHH", 2, machine, 1, 0, header_size, 0, 0, header_size, entry, 2, 0, 0, 0)
        headers = struct.pack(order + "IIIIIIII", 1, 0, 0, 0, 0, 0, 5, 0)
        headers += struct.pack(order + "IIIIIIII", 3, place, 0, 0, len(interpreter) + 1, 0, 4, 1)
    return ident + rest + headers + interpreter + b"\0"


def refusal(number, head, name="prog"):
    return explained(execute(name, "-x"), "execve", number, head)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("big", [True, False])
def test_a_missing_elf_interpreter_is_named(wide, big):
    error = refusal(errno.ENOENT, elf(b"/lib/ld-musl.so.1", wide=wide, big=big))
    assert str(error) == (
        "exec prog: no such file or directory: its ELF interpreter /lib/ld-musl.so.1 is not in the image "
        "(config.json: process.args[0]); fix: put /lib/ld-musl.so.1 and its libraries into the image"
    )
    assert error.code == "RL-EXEC"


def test_the_interpreter_of_a_real_program():
    with open(os.path.realpath(sys.executable), "rb") as file:
        head = file.read(1024)
    found = re.search(r"its ELF interpreter (\S+) is not in the image", str(refusal(errno.ENOENT, head)))
    assert os.access(found[1], os.X_OK)


def test_another_architecture_is_named():
    line = str(refusal(errno.ENOEXEC, elf(machine=22, big=True)))
    assert line.startswith(f"exec prog: exec format error: it is for s390x, this machine is {os.uname().machine} (")
    assert "ELF machine 4000" in str(refusal(errno.ENOEXEC, elf(machine=4000)))


def test_a_damaged_program_of_this_architecture():
    if os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("needs x86_64 or aarch64")
    assert "its ELF header is damaged" in str(refusal(errno.ENOEXEC, elf()))


@pytest.mark.parametrize(
    ("head", "number", "words"),
    [
        (b"#!/nope\necho", errno.ENOENT, "no such file or directory: its first line names the interpreter /nope ("),
        (b"#! /usr/bin/env python3\n", errno.ENOENT, "its first line names the interpreter /usr/bin/env ("),
        (b"#!/bin/sh", errno.EACCES, "permission denied: its first line names the interpreter /bin/sh ("),
        (b"#!/bin/sh\r\necho\r\n", errno.ENOENT, "its first line, #!/bin/sh, ends with a carriage return ("),
        (b"echo hello\n", errno.ENOEXEC, "it is neither an ELF program nor a script with a #! line ("),
        (b"", errno.ENOEXEC, "exec format error: it is neither"),
        (b"", errno.EACCES, "fix: make the file executable (chmod +x), and mount its file system without noexec"),
        (elf(), errno.EACCES, "exec prog: permission denied ("),
        (b"", errno.E2BIG, "argument list too long ("),
    ],
)
def test_reasons_why_a_file_cannot_be_executed(head, number, words):
    assert words in str(refusal(number, head))


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ENOMEM]))
@example(elf(b"/lib/\nx\xff"), errno.ENOENT)
@example(elf(offset=2**62), errno.ENOENT)
@example(b"#!\n", errno.ENOENT)
@example(b"\x7fELF\x02\x01" + b"\xff" * 100, errno.ENOENT)
def test_a_hostile_file_is_reported_on_one_line(head, number):
    for start in (b"", b"#!", b"\x7fELF", elf()[:70]):
        line = str(refusal(number, start + head, "na\nme"))
        assert line.isprintable()
        assert os.strerror(number).lower() in line


def test_architectures_have_the_names_of_uname():
    assert exec_failure._MACHINES[MACHINE] == os.uname().machine or os.uname().machine not in ("x86_64", "aarch64")


def test_every_code_is_in_the_documentation():
    checkout = Path(__file__).resolve().parent.parent.parent
    code = re.compile(r"\bRL-[A-Z]+(?:-[A-Z]+)*\b")
    texts = [file.read_text() for file in checkout.glob("rootless/**/*.py")]
    raised = {found for text in texts for found in code.findall(text)}
    told = set(code.findall((checkout / "docs/errors.md").read_text()))
    operations = {"RL-" + kind.name.upper().replace("_", "-") for kind in ops.KINDS}
    modules = {"RL-APPARMOR", "RL-SELINUX"}
    assert raised <= told
    assert told <= raised | operations | modules
