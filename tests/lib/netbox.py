"""A host for network tests, connected to one other machine: two network namespaces with no other connection.

    container ── helper ── the host: lo, uplink 198.51.100.2, 2001:db8::2 ──── the outside: 198.51.100.1, 2001:db8::1

The user's commands run on that host, which has its own /etc/resolv.conf and /etc/hosts: its resolver is a stub on
127.0.0.53, like systemd-resolved. Its libslirp reports a version without known vulnerabilities; a separate test covers
other versions. Servers of tests/lib/netservers.py run on both machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.lib.accounts import User, becoming
from tests.lib.bundles import base_config, own, write_config
from tests.lib.containers import PATIENCE, Reader, until

HOST = "198.51.100.2"
HOST6 = "2001:db8::2"
OUTSIDE = "198.51.100.1"
OUTSIDE6 = "2001:db8::1"
ECHO = 7000
HTTP = 8000
FETCH = "curl --silent --show-error --max-time 20"
IMAGE = "# the image's own\n"
"""The content of /etc/resolv.conf and /etc/hosts in its bundles."""
SERVERS = Path(__file__).with_name("netservers.py")

_NEW_NETWORK = 0x40000000
_RESOLVER = "nameserver 127.0.0.53\noptions edns0\nsearch example.test\n"
_HOSTS = "127.0.0.1 localhost\n192.0.2.99 known-to-the-host\n"
_SET_OUTSIDE_UP = f"""
for one in all default; do echo 0 >/proc/sys/net/ipv6/conf/$one/accept_dad; done
ip link set lo up
echo ready
read -r _
ip addr add {OUTSIDE}/24 dev downlink
ip -6 addr add {OUTSIDE6}/64 dev downlink nodad
echo 50 >/proc/sys/net/ipv6/neigh/downlink/retrans_time_ms
ip link set downlink up
echo ready
exec cat
"""
_SET_HOST_UP = f"""
mount --bind "$2/resolv.conf" /etc/resolv.conf
mount --bind "$2/hosts" /etc/hosts
[ -z "$3" ] || mount --bind "$2/libslirp" "$3"
for one in all default; do echo 0 >/proc/sys/net/ipv6/conf/$one/accept_dad; done
ip link set lo up
ip link add uplink type veth peer name downlink netns "$1"
ip addr add {HOST}/24 dev uplink
ip -6 addr add {HOST6}/64 dev uplink nodad
echo 50 >/proc/sys/net/ipv6/neigh/uplink/retrans_time_ms
ip link set uplink up
ip route add default via {OUTSIDE}
ip -6 route add default via {OUTSIDE6}
echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range
echo ready
exec cat
"""


def socket_of(pid: int, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket in the network namespace of a process."""
    made = []

    def make() -> None:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, _NEW_NETWORK) == 0:  # setns(2) changes this thread only
                made.append(socket.socket(family, kind))
        finally:
            os.close(fd)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (found,) = made
    found.settimeout(PATIENCE)
    return found


class _Namespaces:
    """Namespaces that a child process keeps until this process ends."""

    def __init__(self, script: str, *words: object) -> None:
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", *map(str, words)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._said = Reader(self._process.stdout)
        self.pid = self._process.pid
        self.await_ready()

    def await_ready(self) -> None:
        assert self._said.line() == "ready"

    def go_on(self) -> None:
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def enter(self, *words: str) -> list[str]:
        """Return the words before a command that runs in them; its pid stays that of the Popen object."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", f"--mount=/proc/{self.pid}/ns/mnt", *words, "--"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()


class NetUser(User):
    """An ordinary user on the host of a NetBox, without networks of its own yet."""

    def __init__(self, user: User, host: _Namespaces) -> None:
        self.__dict__.update(vars(user))
        self._host = host
        self.env = user.env | {"XDG_CONFIG_HOME": str(user.tmp / "config")}

    def popen(self, argv, *, env=None, cwd=None, **options) -> subprocess.Popen:
        become = becoming(self.uid, self.gid)
        words = [*self._host.enter(f"--wdns={cwd or self.tmp}"), *become, *map(os.fspath, argv)]
        options = {"text": True, "umask": 0o022} | options
        return subprocess.Popen(words, env=self.env | (env or {}), **options)


class NetBox:
    """The host and the outside machine, until it is closed; needs root.

    Attributes:
        libslirp: the path of the library on that host; empty if slirp4netns is not installed.

    These servers run: ECHO and HTTP on both addresses of the outside machine, HTTP on 127.0.0.1 and ::1 of the host,
    and DNS on 127.0.0.53 of the host and 198.51.100.1.
    """

    def __init__(self, directory: Path) -> None:
        (directory / "resolv.conf").write_text(_RESOLVER)
        (directory / "hosts").write_text(_HOSTS)
        self._directory = directory
        self.libslirp = _write_libslirp(directory / "libslirp", b"9")
        self._ends = contextlib.ExitStack()
        with contextlib.ExitStack() as ends:
            self._outside = _Namespaces(_SET_OUTSIDE_UP)
            ends.callback(self._outside.close)
            self._host = _Namespaces(_SET_HOST_UP, self._outside.pid, directory, self.libslirp)
            ends.callback(self._host.close)
            self._outside.go_on()
            self._outside.await_ready()
            started = [
                self._serve(self._outside, OUTSIDE, f"echo:{ECHO}", f"http:{HTTP}", "dns:53"),
                self._serve(self._outside, OUTSIDE6, f"echo:{ECHO}", f"http:{HTTP}"),
                self._serve(self._host, "127.0.0.1", f"http:{HTTP}"),
                self._serve(self._host, "::1", f"http:{HTTP}"),
                self._serve(self._host, "127.0.0.53", "dns:53"),
            ]
            for server in started:
                ends.callback(_end, server)
            for server in started:
                assert Reader(server.stdout).line() == "ready"
            until(self._reaches_outside, "an answer of the outside")
            self._ends = ends.pop_all()

    def _reaches_outside(self) -> bool:
        """Whether the connection works; IPv6 takes a moment."""
        try:
            return bool(self.ask(OUTSIDE6, ECHO, inside=True) and self.ask(OUTSIDE, ECHO, inside=True))
        except OSError:
            return False

    @contextlib.contextmanager
    def resolver(self, text: str):
        """Replace the content of the host's /etc/resolv.conf during the block."""
        (self._directory / "resolv.conf").write_text(text)
        try:
            yield
        finally:
            (self._directory / "resolv.conf").write_text(_RESOLVER)

    def write_libslirp(self, major: bytes) -> Path:
        """Write a copy of libslirp that reports this major version, a digit; return its path."""
        path = self._directory / f"libslirp-{major.decode()}"
        _write_libslirp(path, major)
        return path

    def user(self, user: User) -> NetUser:
        """Return `user` on the host."""
        return NetUser(user, self._host)

    def outside(self, *words: object, **options) -> subprocess.Popen:
        """Start a command as root on the outside machine."""
        return subprocess.Popen([*self._outside.enter(), *map(str, words)], **{"text": True} | options)

    def on_host(self, *words: object, **options) -> subprocess.Popen:
        """Start a command as root on the host."""
        return subprocess.Popen([*self._host.enter(), *map(str, words)], **{"text": True} | options)

    def open_socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, *, inside: bool = False):
        """Return a socket in the network namespace of the outside machine, or of the host (`inside`)."""
        return socket_of((self._host if inside else self._outside).pid, family, kind)

    def ask(self, address: str, port: int, text: str = "hello", kind: int = socket.SOCK_STREAM, *, inside=False) -> str:
        """Return the echo server's answer to the outside machine, or to the host (`inside`): ADDRESS TEXT."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.open_socket(family, kind, inside=inside) as asking:
            asking.connect((address, port))
            asking.sendall(f"{text}\n".encode())
            return Reader(asking).line()

    def _serve(self, where: _Namespaces, *words: str) -> subprocess.Popen:
        return subprocess.Popen([*where.enter(), sys.executable, SERVERS, *words], stdout=subprocess.PIPE)

    def close(self) -> None:
        self._ends.close()


def _write_libslirp(path: Path, major: bytes) -> str:
    """Write a copy of the machine's libslirp that reports another major version; return the path of the original."""
    program = shutil.which("slirp4netns")
    if not program:
        return ""
    loaded = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    (library,) = [line.split()[2] for line in loaded.splitlines() if "libslirp" in line]
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    (version,) = [line.split()[1].encode() for line in said.splitlines() if line.startswith("libslirp:")]
    content = Path(library).read_bytes()
    assert version in content
    path.write_bytes(content.replace(version, major + version[1:]))
    path.chmod(0o755)
    return library


def _end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def make_net_bundle(user: User, *args: str, name: str = "bundle", **linux) -> Path:
    """Make a bundle with programs of this host: curl, ping, iperf3, python3; /servers.py is netservers.py.

    An existing bundle of that name gets a new config.json.
    """
    bundle = user.tmp / name
    if not bundle.exists():
        _make_rootfs(bundle / "rootfs")
    config = base_config(*args)
    for source, target in (("/usr", "/usr"), (SERVERS, "/servers.py")):
        config["mounts"].append({"destination": target, "source": str(source), "options": ["rbind", "ro"]})
    config["linux"] |= linux
    write_config(bundle, config)
    own(user, bundle)
    return bundle


def _make_rootfs(rootfs: Path) -> None:
    for directory in ("dev", "etc", "proc", "sys", "tmp", "usr"):
        (rootfs / directory).mkdir(parents=True)
    for link in ("bin", "lib", "lib64", "sbin"):
        (rootfs / link).symlink_to(f"usr/{link}")
    (rootfs / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (rootfs / "etc/resolv.conf").write_text(IMAGE)
    (rootfs / "etc/hosts").write_text(IMAGE)
    (rootfs / "servers.py").touch()


earlier: set[int] = set()
"""Processes that serve networks of fixtures for the whole session; conftest.py sets them for each file of tests."""


def helpers() -> dict[int, str]:
    """Return {pid: name} of the other processes that serve networks: helpers of the host and netns holders."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and int(entry.name) not in earlier:
                name, _, state = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                if name.isdecimal():  # a process that was executed from a descriptor has its number as name
                    name = (entry / "cmdline").read_text().partition("\0")[0]
                if name.startswith(("slirp4netns", "pasta", "passt", "rootless:init")) and state.split()[0] not in "ZX":
                    found[int(entry.name)] = name
        except OSError:
            continue
    return found


@contextlib.contextmanager
def running(rootless, *flags, name="served", echo=(ECHO,)):
    """Run a container with servers on every address during the block; its id is `name`."""
    ports = [f"echo:{port}" for port in echo]
    bundle = make_net_bundle(rootless.user, "python3", "/servers.py", "::", f"http:{HTTP}", *ports, name=name)
    with rootless.popen("run", *flags, bundle, stdout=subprocess.PIPE) as process:
        try:
            assert Reader(process.stdout).line() == "ready"
            yield process
        finally:
            rootless("delete", "--force", name)
            process.wait(PATIENCE)


def opened(directory: Path):
    """Yield a NetBox; skip the test if it cannot be created."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a host and its network")
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    box = NetBox(directory)
    yield box
    box.close()
