"""Errors: one line with the place, the cause and the fix, in words that engines recognize."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess

import pytest

from tests.lib.bundles import base_config, make_bundle

PODMAN = (
    ("denied", re.compile(r"(?i).*permission denied.*|.*operation not permitted.*")),
    (
        "not found",
        re.compile(r"(?i).*executable file not found in.*|.*no such file or directory.*|.*open executable.*"),
    ),
)
"""How podman classifies an error (libpod, oci_util.go): the first match counts, and podman shows only that line."""
DOCKER = (
    ("not found", ("executable file not found", "no such file or directory", "not a directory")),
    ("denied", ("permission denied", "is a directory")),
)
"""How dockerd classifies an error, in lower case (daemon/errors.go): exit status 127 or 126, the later one wins."""


def podman(message):
    return next((verdict for verdict, pattern in PODMAN if any(map(pattern.search, message.splitlines()))), "other")


def docker(message):
    found = [verdict for verdict, words in DOCKER if any(word in message.lower() for word in words)]
    return found[-1] if found else "other"


# --- building cases --------------------------------------------------------------------------------------------------


def config_with(change=None, **process):
    """Return a config.json whose process has these properties, changed by `change`."""
    config = base_config("true")
    config["process"] |= process
    if change:
        change(config)
    return config


def mounting(destination, kind, source, *options):
    def change(config):
        config["mounts"].append({"destination": destination, "type": kind, "source": source, "options": list(options)})

    return config_with(change)


def joining(kind, path):
    def change(config):
        namespaces = [each for each in config["linux"]["namespaces"] if each["type"] != kind]
        config["linux"]["namespaces"] = [*namespaces, {"type": kind, "path": path}]

    return config_with(change)


def setting(section, **properties):
    return config_with(lambda config: config[section].update(properties))


def script(text, mode=0o755):
    def prepare(root):
        (root / "bin/script").write_bytes(text)
        (root / "bin/script").chmod(mode)

    return prepare


def elf(machine, interpreter=b""):
    """Write a 64-bit, little-endian ELF program with an interpreter."""
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(interpreter) + 1
    return script(header + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, size, size, 1) + interpreter + b"\0")


def link_instead_of_proc(root):
    (root / "proc").rmdir()
    (root / "proc").symlink_to("data")


def directory_of_nobody(root):
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a directory of a user that the container does not have")
    (root / "data").chmod(0o700)
    os.chown(root / "data", 0, 0)


MACHINES = {"x86_64": 62, "aarch64": 183}
OURS = os.uname().machine
OTHERS = next(name for name in MACHINES if name != OURS)
IMAGE = "name a program that is in the image"
NO_LINK = "replace the symlink in the image with a directory: a symlink could lead anywhere"

CASES = {
    # name: (config.json, change of the root file system, the line, podman's and dockerd's classification)
    "bind source missing": (
        mounting("/data", "bind", "/nonexistent/x", "rbind"),
        None,
        (
            "bind /nonexistent/x on /data: open_tree: No such file or directory (config.json: mounts[4]); "
            "fix: create the source, or name another"
        ),
        "not found",
        "not found",
    ),
    "bind source closed": (
        mounting("/data", "bind", "/proc/1/root/x", "bind"),
        None,
        (
            "bind /proc/1/root/x on /data: open_tree: Permission denied (config.json: mounts[4]); "
            "fix: let the user who runs rootless search every directory on the way to it (chmod +x), "
            "and write to the image where the target is missing"
        ),
        "denied",
        "denied",
    ),
    "file on a directory": (
        mounting("/data", "bind", "/etc/passwd", "bind"),
        None,
        (
            "bind /etc/passwd on /data: move_mount: Not a directory (config.json: mounts[4]); "
            "fix: bind a directory on a directory, and a file on a file"
        ),
        "other",
        "not found",
    ),
    "bad option of tmpfs": (
        mounting("/data", "tmpfs", "tmpfs", "nosuid", "size=banana"),
        None,
        (
            "mount tmpfs on /data: fsconfig: Invalid argument: tmpfs: Bad value for 'size' (config.json: mounts[4]); "
            "fix: correct the options of this mount"
        ),
        "other",
        "other",
    ),
    "unknown option of tmpfs": (
        mounting("/data", "tmpfs", "tmpfs", "wibble=1"),
        None,
        (
            "mount tmpfs on /data: fsconfig: Invalid argument: tmpfs: Unknown parameter 'wibble' "
            "(config.json: mounts[4]); fix: correct the options of this mount"
        ),
        "other",
        "other",
    ),
    "unknown file system": (
        mounting("/data", "wibblefs", "none"),
        None,
        (
            "mount wibblefs on /data: fsopen: No such device (config.json: mounts[4]); "
            "fix: use a file system that this kernel has (see /proc/filesystems)"
        ),
        "other",
        "other",
    ),
    "link instead of /proc": (
        config_with(),
        link_instead_of_proc,
        (
            'filesystem "proc" must be mounted on ordinary directory: bind /proc on /proc: '
            f"openat2: Too many levels of symbolic links (config.json: mounts[0]); fix: {NO_LINK}"
        ),
        "other",
        "other",
    ),
    "mount on the root": (
        mounting("/", "tmpfs", "tmpfs"),
        None,
        "cannot mount on /: root.path is mounted there (config.json: mounts[4].destination); fix: name a path below /",
        "other",
        "other",
    ),
    "command missing, on PATH": (
        config_with(args=["nope"]),
        None,
        (
            'exec: "nope": executable file not found in $PATH (config.json: process.args[0]); '
            f"fix: {IMAGE} and in a directory of PATH in process.env"
        ),
        "not found",
        "not found",
    ),
    "command missing, absolute": (
        config_with(args=["/nope", "-x"]),
        None,
        f'exec: "/nope": stat /nope: no such file or directory (config.json: process.args[0]); fix: {IMAGE}',
        "not found",
        "not found",
    ),
    "command missing, relative": (
        config_with(args=["./nope"], cwd="/data"),
        None,
        f'exec: "./nope": stat ./nope: no such file or directory (config.json: process.args[0]); fix: {IMAGE}',
        "not found",
        "not found",
    ),
    "command below a file": (
        config_with(args=["/bin/busybox/x"]),
        None,
        f'exec: "/bin/busybox/x": not a directory (config.json: process.args[0]); fix: {IMAGE}',
        "other",
        "not found",
    ),
    "not executable": (
        config_with(args=["/bin/script"]),
        script(b"#!/bin/sh\n", 0o644),
        (
            'exec: "/bin/script": permission denied (config.json: process.args[0]); '
            "fix: make it executable (chmod +x), on a mount without noexec, in directories that the user may search"
        ),
        "denied",
        "denied",
    ),
    "directory": (
        config_with(args=["/bin"]),
        None,
        f'exec: "/bin": permission denied: it is a directory (config.json: process.args[0]); fix: {IMAGE}',
        "denied",
        "denied",
    ),
    "ELF interpreter missing": (
        config_with(args=["script"]),
        elf(MACHINES.get(OURS, 0), b"/lib/ld-missing.so"),
        (
            "exec script: no such file or directory: its ELF interpreter /lib/ld-missing.so is not in the image "
            "(config.json: process.args[0]); fix: put /lib/ld-missing.so and its libraries into the image"
        ),
        "not found",
        "not found",
    ),
    "#! interpreter missing": (
        config_with(args=["script"]),
        script(b"#!/bin/missing -x\n"),
        (
            "exec script: no such file or directory: its first line names the interpreter /bin/missing "
            "(config.json: process.args[0]); fix: put /bin/missing into the image, executable"
        ),
        "not found",
        "not found",
    ),
    "#! interpreter not executable": (
        config_with(args=["script"]),
        script(b"#!/etc/passwd\n"),
        (
            "exec script: permission denied: its first line names the interpreter /etc/passwd "
            "(config.json: process.args[0]); fix: put /etc/passwd into the image, executable"
        ),
        "denied",
        "denied",
    ),
    "script with carriage returns": (
        config_with(args=["script"]),
        script(b"#!/bin/sh\r\necho\r\n"),
        (
            "exec script: no such file or directory: its first line, #!/bin/sh, ends with a carriage return "
            "(config.json: process.args[0]); fix: save the script with Unix line endings"
        ),
        "not found",
        "not found",
    ),
    "other architecture": (
        config_with(args=["script"]),
        elf(MACHINES[OTHERS]),
        (
            f"exec script: exec format error: it is for {OTHERS}, this machine is {OURS} "
            "(config.json: process.args[0]); fix: use an image for this architecture"
        ),
        "other",
        "other",
    ),
    "script without #!": (
        config_with(args=["script"]),
        script(b"echo hello\n"),
        (
            "exec script: exec format error: it is neither an ELF program nor a script with a #! line "
            "(config.json: process.args[0]); fix: start the script with #!/bin/sh"
        ),
        "other",
        "other",
    ),
    "empty file": (
        config_with(args=["script"]),
        script(b""),
        (
            "exec script: exec format error: it is neither an ELF program nor a script with a #! line "
            "(config.json: process.args[0]); fix: start the script with #!/bin/sh"
        ),
        "other",
        "other",
    ),
    "working directory is a file": (
        config_with(cwd="/etc/passwd"),
        None,
        (
            "change the directory to /etc/passwd: chdir: Not a directory (config.json: process.cwd); "
            "fix: name a directory of the image, or a new one"
        ),
        "other",
        "not found",
    ),
    "working directory closed": (
        config_with(cwd="/data"),
        directory_of_nobody,
        (
            "change the directory to /data, if not yet there: chdir: Permission denied (config.json: process.cwd); "
            "fix: choose a working directory that the user of the program may enter"
        ),
        "denied",
        "denied",
    ),
    "uid not mapped": (
        config_with(user={"uid": 4000000000, "gid": 0}),
        None,
        (
            "cannot run as uid 4000000000: the container has no such id; it has {ids} (config.json: process.user.uid); "
            "fix: choose one of these, or have the administrator give {user} more with usermod --add-subuids"
        ),
        "other",
        "other",
    ),
    "namespace missing": (
        joining("network", "/proc/self/ns/nope"),
        None,
        (
            "join the network namespace /proc/self/ns/nope: open: No such file or directory "
            "(config.json: linux.namespaces[4].path); fix: name a namespace that exists, such as /proc/PID/ns/net"
        ),
        "not found",
        "not found",
    ),
    "namespace of another type": (
        joining("network", "/proc/self/ns/uts"),
        None,
        (
            "join the network namespace /proc/self/ns/uts: setns: Invalid argument "
            "(config.json: linux.namespaces[4].path); fix: name a namespace of this type, other than the caller's own"
        ),
        "other",
        "other",
    ),
    "sysctl of the host": (
        setting("linux", sysctl={"kernel.panic": "1"}),
        None,
        (
            "cannot set kernel.panic: it applies to the whole host "
            '(config.json: linux.sysctl["kernel.panic"]); '
            "fix: remove it, or have the administrator set it"
        ),
        "other",
        "other",
    ),
    "sysctl that there is not": (
        setting("linux", sysctl={"net.wibble": "1"}),
        None,
        (
            "write 1 to /proc/sys/net/wibble: open: No such file or directory "
            '(config.json: linux.sysctl["net.wibble"]); '
            "fix: remove the setting: this kernel does not have it"
        ),
        "not found",
        "not found",
    ),
    "sysctl with a bad value": (
        setting("linux", sysctl={"net.ipv4.ip_forward": "banana"}),
        None,
        (
            "write banana to /proc/sys/net/ipv4/ip_forward: write: Invalid argument "
            '(config.json: linux.sysctl["net.ipv4.ip_forward"]); fix: use a value that the kernel accepts'
        ),
        "other",
        "other",
    ),
    "device that there is not": (
        setting("linux", devices=[{"path": "/dev/wibble", "type": "c", "major": 200, "minor": 7}]),
        None,
        (
            "bind the host's device /dev/wibble (200:7) on /dev/wibble: open_tree: No such file or directory "
            "(config.json: linux.devices[0]); fix: remove the device from config.json: this host does not have it"
        ),
        "not found",
        "not found",
    ),
    "root file system missing": (
        setting("root", path="missing"),
        None,
        (
            "cannot use {bundle}/missing: no such file or directory (config.json: root.path); "
            "fix: unpack a root file system there; `rootless new DIR --from FILE.tar` does"
        ),
        "not found",
        "not found",
    ),
    "root file system is a file": (
        setting("root", path="config.json"),
        None,
        (
            "cannot mount {bundle}/config.json: it holds no squashfs file system (config.json: root.path); "
            "fix: name a directory, or an image that mksquashfs made"
        ),
        "other",
        "other",
    ),
    "wrong type": (
        config_with(args="sh"),
        None,
        (
            'config.json is not valid: found the string "sh", expected an array that is not empty '
            "(config.json: process.args); fix: write it as [ … ]"
        ),
        "other",
        "other",
    ),
    "namespace twice": (
        config_with(lambda config: config["linux"]["namespaces"].append({"type": "pid"})),
        None,
        (
            'config.json is not valid: found the string "pid" again, expected each type once (element 0 has it) '
            "(config.json: linux.namespaces[5].type); fix: remove one of the two"
        ),
        "other",
        "other",
    ),
    "newer major version": (
        config_with(lambda config: config.update(ociVersion="2.0.0")),
        None,
        (
            'config.json is not valid: unsupported ociVersion "2.0.0": rootless supports 1.x '
            "(config.json: ociVersion); fix: use a bundle for version 1 of the specification"
        ),
        "other",
        "other",
    ),
    "hooks": (
        config_with(lambda config: config.update(hooks={"prestart": [{"path": "/bin/false"}]})),
        None,
        "error running prestart hook #0: exit status 1 (/bin/false) (config.json: hooks.prestart[0])",
        "other",
        "other",
    ),
}


# --- the cases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_failure_is_one_line_with_cause_and_fix(rootless, user, name):
    config, prepare, expected, by_podman, by_docker = CASES[name]
    bundle = make_bundle(user, config)
    if prepare:
        prepare(bundle / "rootfs")
    log = user.tmp / "log"

    done = rootless("--log", log, "--log-format", "json", "run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout) == (1, "")
    ids = re.search("it has (.*?) [(]config", done.stderr)
    expected = expected.replace("{bundle}", str(bundle)).replace("{user}", user.name)
    expected = expected.replace("{ids}", ids[1] if ids else "")
    assert done.stderr == f"rootless: {expected}\n"
    assert rootless.list() == []

    (record,) = map(json.loads, log.read_text().splitlines())
    assert record["msg"] == expected
    assert record["code"].startswith("RL-")
    assert record.get("warnings") != [], "the list is not empty, or the key is missing"
    parts = (record["what"], record.get("cause"), record.get("fix"))
    assert all(part in expected for part in parts if part)
    assert (podman(expected), docker(expected)) == (by_podman, by_docker)

    assert _created_and_started(rootless, bundle) == f"rootless: {expected}\n", "engines read the same text"
    assert rootless.list() == []


def test_without_a_process_a_container_is_created_and_only_its_start_refused(rootless, user):
    """config.md: process is "REQUIRED when start is called"."""
    bundle = make_bundle(user, {name: value for name, value in base_config().items() if name != "process"})
    expected = (
        "rootless: there is nothing to run: config.json has no process (config.json: process); "
        'fix: add "process" with "args" and "cwd"; `rootless spec` writes an example\n'
    )
    done = rootless("run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stderr) == (1, expected)
    assert not rootless.root.exists(), "no operation has run"
    assert rootless.create("c1", bundle).stderr == ""
    for _ in range(2):
        done = rootless("start", "c1")
        assert (done.returncode, done.stderr) == (1, expected)
        assert rootless.status("c1") == "created"
    done = rootless("exec", "c1", "grep", "CapEff", "/proc/1/status", check=True)
    assert done.stdout == "CapEff:\t0000000000000000\n"
    assert not any(link.startswith("/") for link in links_of(rootless.pid("c1"))), "no file of the host is open"
    rootless("delete", "--force", "c1", check=True)


def links_of(pid):
    """Return the files of a process's descriptors."""
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd") if int(number) > 2]


def _created_and_started(rootless, bundle):
    """Create and start the container; return the error of the verb that failed."""
    created = rootless.create("c1", bundle, check=False)
    if created.returncode:
        return created.stderr
    started = rootless("start", "c1")
    assert (started.returncode, started.stdout) == (1, "")
    assert rootless.status("c1") == "stopped"
    assert rootless("delete", "c1").returncode == 0
    return started.stderr


FILES = {
    # content of config.json: the line from the file's name on
    "missing": (None, "no such file or directory; fix: name a directory with a config.json; "),
    "directory": (os.mkdir, "is a directory; fix: "),
    "unreadable": (lambda path: path.touch(mode=0), "permission denied; fix: "),
}
TEXTS = (b"", b"{", b"nonsense", b"[]", b"null", b'{"ociVersion": "1.0.2"', b"\xff\xfe", b"{}}", b'{"a": NaN}')


@pytest.mark.parametrize("name", FILES)
def test_unreadable_config_is_reported(rootless, user, name):
    make, expected = FILES[name]
    bundle = make_bundle(user)
    path = bundle / "config.json"
    path.unlink()
    if make:
        make(path)
    for verb in ("run", "create"):
        done = rootless(verb, "--bundle", bundle, "c1")
        assert done.returncode == 1
        assert done.stderr.startswith(f"rootless: cannot read {path}: {expected}")
        assert done.stderr.count("\n") == 1
    assert not rootless.root.exists(), "no operation has run"


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_malformed_config_is_reported(rootless, user, text):
    bundle = make_bundle(user)
    (bundle / "config.json").write_bytes(text)
    for verb in ("run", "create"):
        done = rootless(verb, "--bundle", bundle, "c1")
        assert done.returncode == 1
        assert done.stderr.startswith("rootless: ")
        assert "config.json" in done.stderr
        assert "; fix: " in done.stderr
        assert "internal error" not in done.stderr
        assert done.stderr.count("\n") == 1
    assert not rootless.root.exists(), "no operation has run"


def test_config_error_is_one_printable_line(rootless, user):
    hostile = "x\n\x1b[2Jrootless: created\r\u2028\u202e\ud800"
    for config in (
        mounting(f"/data/{hostile}", "wibblefs", "none"),
        mounting("/data", "bind", f"/nonexistent/{hostile}", "bind"),
        config_with(args=[f"/bin/{hostile}"]),
        config_with(args=[hostile]),
        config_with(cwd=f"/etc/passwd/{hostile}"),
        joining("network", f"/proc/{hostile}"),
        setting("linux", sysctl={f"net.{hostile}": hostile}),
        setting("root", path=hostile),
        {hostile: 1},
    ):
        bundle = make_bundle(user, config, name=f"bundle{len(list(user.tmp.iterdir()))}")
        done = rootless("run", "--bundle", bundle, "c1")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr[:-1].isprintable(), done.stderr
        assert "internal error" not in done.stderr


def test_debug_adds_details_to_the_same_error(rootless, user):
    bundle = make_bundle(user, config_with(args=["/nope"]))
    plain = rootless("run", "--bundle", bundle, "c1").stderr
    done = rootless("--debug", "run", "--bundle", bundle, "c1")
    assert done.stderr.splitlines(keepends=True)[-1] == plain


def test_closed_standard_error_changes_no_status(rootless, user):
    bundle = make_bundle(user, config_with(args=["/nope"]))
    with rootless.popen("run", "--bundle", bundle, "c1", stderr=subprocess.PIPE) as run:
        run.stderr.close()
        assert run.wait(timeout=30) == 1
    with open("/dev/full", "w") as full:
        assert rootless("run", "--bundle", bundle, "c1", stderr=full).returncode == 1
        assert rootless("list", stdout=full).returncode == 1
