"""Attacks on vulnerabilities that other runtimes had, against an ordinary user and against root."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lib.boxes import MOUNTINFO, add_mount, make_volume, mount_table, set_namespaces, status_of
from tests.lib.bundles import base_config
from tests.lib.compiled import compiled
from tests.lib.containers import PATIENCE, until
from tests.lib.hostile import CALLERS, SEARCH, Victim, bind_socket, unharmed, victim

RUN = os.environ.get("ROOTLESS_TEST_RUN", "")
ALL = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
]
SECONDS = 3
"""How long a race lasts."""


@pytest.fixture(params=CALLERS)
def box(request, user, rootless_command):
    with victim(user, rootless_command, request.param) as box:
        yield box


@pytest.fixture
def attacker(box, user, rootless_command, need):
    """Another container of the same caller, whose image has the program `race`."""
    other = Victim(user, rootless_command, as_root=bool(box.options), name="attacker")
    shutil.copy(compiled(need, "race", "-static"), other.rootfs / "bin/race")
    yield other
    other.close()


@pytest.fixture
def shared(box):
    """A volume that two containers share. `swap` in it is a directory, `link` is a symlink out of it."""
    directory = make_volume(box.user, "shared")
    (directory / "swap").mkdir()
    (directory / "link").symlink_to(box.outside)
    box.own(directory)
    return directory


def privileged():
    config = base_config()
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), ALL)
    return config


def start(box, config, *script):
    """Start a container in the background; return the pid of its first process."""
    pid = box.create(config, *script, name=box.name)
    box.user.run([*box.command, "start", box.name], check=True, **box.options)
    return pid


def start_race(attacker, shared):
    config = base_config()
    add_mount(config, "/shared", "bind", shared, "rbind")
    first = (shared / "swap").lstat().st_ino
    start(attacker, config, "exec race /shared/swap /shared/link")
    until(lambda: (shared / "swap").lstat().st_ino != first, "the race")


def checksums(*paths):
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


OVERWRITE = """
mkdir /tmp/seen
/data/sleep 1000 & decoy=$!
(until [ -e /tmp/seen/$decoy ]; do sleep 0.01; done; kill $decoy) &
echo ready > /data/ready
while :; do
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        [ -e /tmp/seen/$pid ] && continue
        case $(readlink $directory/exe) in */busybox) continue ;; esac
        (
            exec 9< $directory/exe
            name=$(readlink /proc/self/fd/9)
            case $name in *busybox*) exit ;; esac
            echo "$name" >> /data/opened
            > /tmp/seen/$pid
            for try in $(seq 300); do
                echo overwritten > /proc/self/fd/9 && echo $pid >> /data/won && exit
                sleep 0.01
            done
        ) 2>> /data/errors &
    done
done 2> /dev/null
"""
"""Opens the executable of every new process and writes to it as soon as it is no longer running."""


def test_cve_2019_5736(box, attacker):
    """A container's root overwrote the runtime's executable through /proc/PID/exe once it was no longer running."""
    ours = [*Path(RUN, "checkout/rootless/launch/bin").iterdir(), Path(RUN, "bin/rootless"), Path("/usr/bin/env")]
    before = checksums(*ours)
    decoy = attacker.rootfs / "data/sleep"
    shutil.copy(attacker.rootfs / "bin/busybox", decoy)
    attacker.own(decoy)
    pid = start(attacker, privileged(), OVERWRITE)
    data = attacker.rootfs / "data"
    until((data / "ready").exists, "the attacker is ready")
    config = base_config()
    join = {"pid": f"/proc/{pid}/ns/pid"} | ({} if box.options else {"user": f"/proc/{pid}/ns/user"})
    set_namespaces(config, "mount", "ipc", "uts", "network", **join)
    for args in [["/proc/self/exe"], ["/bin/script"], ["true"], ["sleep", "0.1"]] * 3:
        box.place("/bin/script", lambda path: path.write_text("#!/proc/self/exe\n"))
        (box.rootfs / "bin/script").chmod(0o755)
        config["process"]["args"] = args
        assert box.run(config).returncode in (0, 2)
    until((data / "won").exists, "the attack works on a program of the image")
    assert decoy.read_bytes().startswith(b"overwritten\n")
    assert len(set((data / "won").read_text().split())) == 1, (data / "opened").read_text()
    assert checksums(*ours) == before


def fake_proc(box, name="fake"):
    """Make a fake /proc for a hostile image: writes to it have no effect."""
    volume = make_volume(box.user, name)
    for path in ("self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/exec", "sys/net/ipv4/ip_forward"):
        (volume / path).parent.mkdir(parents=True, exist_ok=True)
        (volume / path).write_text("of the image")
    box.own(volume)
    return volume


def test_cve_2019_16884(box):
    """A volume of the image on /proc received the runtime's writes, such as an AppArmor profile, without effect."""
    volume = fake_proc(box)
    config = base_config()
    add_mount(config, "/proc", "bind", volume, "rbind")
    add_mount(config, "/real", "proc", "proc")
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    with unharmed(volume):
        assert box.contained(config, "cat /real/sys/net/ipv4/ip_forward") == ["1"]
        config["process"]["apparmorProfile"] = "a-profile-that-is-not-loaded"
        assert "(config.json: process.apparmorProfile)" in box.refused(config, "true")


def test_cve_2019_19921(box, attacker):
    """An image whose /proc was a symlink to a volume had proc mounted there, and another container replaced it."""
    volume = fake_proc(box)
    box.link("/proc", "/shared/proc")
    (volume / "proc").mkdir()
    box.own(volume / "proc")
    other = base_config()
    add_mount(other, "/shared", "bind", volume, "rbind")
    start(attacker, other, "while :; do mv /shared/proc /shared/else; mv /shared/else /shared/proc; done")
    config = base_config()
    config["mounts"].insert(0, {"destination": "/shared", "type": "bind", "source": str(volume), "options": ["rbind"]})
    for _ in range(5):
        error = box.refused(config, "true")
        assert " on /proc: openat2: Too many levels of symbolic links (config.json: mounts[1])" in error


def rounds(enough):
    """Repeat for SECONDS, and until the race has had every outcome that the test needs."""
    begin = time.monotonic()
    while time.monotonic() < begin + SECONDS or not enough():
        assert time.monotonic() < begin + PATIENCE, enough.__doc__
        yield


def test_cve_2021_30465(box, attacker, shared):
    """A mount target in a shared volume was replaced with a symlink after its check: the mount was made outside."""
    names = [f"target-{number}" for number in range(20)]
    for name in names:
        (shared / "swap" / name).mkdir()
    box.own(shared)
    config = base_config()
    add_mount(config, "/shared", "bind", shared, "rbind")
    for name in names:
        add_mount(config, f"/shared/swap/{name}")
    start_race(attacker, shared)
    landed = []

    def enough():
        """The symlink was followed inside the root, and the directory was used."""
        return all(any(point.startswith(way) for point in landed) for way in (f"{box.outside}/", "/shared/"))

    for _ in rounds(enough):
        done = box.attack(config, MOUNTINFO)
        points = [line.split(" ")[4] for line in done.stdout.splitlines()]
        found = [point for point in points if Path(point).name in names]
        assert len(found) == (len(names) if done.returncode == 0 else 0), done
        landed += found


CAP_NET_RAW = 1 << 13


def test_cve_2022_29162(box, need):
    """Unrequested inheritable capabilities were gained by programs with inheritable file capabilities."""
    if os.geteuid() != 0:
        pytest.skip("needs root: gives a file capabilities")
    elevated = box.rootfs / "data/cat"
    shutil.copy(box.rootfs / "bin/busybox", elevated)
    box.own(elevated)
    owner = [] if box.options else ["-n", str(box.owner[0])]
    subprocess.run([need("setcap"), *owner, "cap_net_raw=ei", elevated], check=True)
    config = base_config()
    config["process"] |= {"user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": False}
    wanted = ["CAP_NET_RAW", "CAP_CHOWN"]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective"), wanted)
    if box.options:
        box.command[:0] = ["setpriv", "--inh-caps", "+net_raw"]
    look = "/data/cat /proc/self/status"
    for inheritable, permitted in ((None, 0), ([], 0), (["CAP_NET_RAW"], CAP_NET_RAW)):
        if inheritable is not None:
            config["process"]["capabilities"]["inheritable"] = inheritable
        found = status_of(box.contained(config, look), "CapInh", "CapPrm")
        assert [int(value, 16) for value in found] == [permitted, permitted]


@pytest.mark.parametrize(("uid", "inheritable"), [("0", 0), ("1000", CAP_NET_RAW)])
def test_exec_capabilities_are_not_inheritable_cve_2022_29162(box, uid, inheritable):
    """The same for `exec --cap`. Only users other than root need them inheritable, for the ambient set."""
    config = base_config()
    config["process"]["capabilities"] = {"bounding": [], "permitted": [], "effective": []}
    box.create(config, "exec sleep 1000")
    box.user.run([*box.command, "start", "held"], check=True, **box.options)
    words = [*box.command, "exec", "--user", uid, "--cap", "CAP_NET_RAW", "held", "cat", "/proc/self/status"]
    lines = box.user.run(words, check=True, **box.options).stdout.splitlines()
    found = [int(value, 16) for value in status_of(lines, "CapInh", "CapAmb", "CapPrm", "CapEff")]
    assert found == [inheritable, inheritable, CAP_NET_RAW, CAP_NET_RAW]


def test_no_capability_is_inheritable_in_a_new_bundle_cve_2022_29162(user, rootless_command):
    """The same in the config.json that `spec` writes."""
    user.run([rootless_command, "spec"], check=True)
    assert '"inheritable"' not in (user.tmp / "config.json").read_text()


@pytest.mark.parametrize("how", ["cgroup", "sysfs", "rbind"])
def test_cve_2023_25809(box, how):
    """Without a cgroup namespace, a container could write to the host's cgroups of the user's session."""
    config = base_config()
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), ALL[:-2])
    if how == "cgroup":
        add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime")
    else:
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/sys"]
        add_mount(config, "/sys", *(("bind", "/sys", "rbind", "ro") if how == "rbind" else ("sysfs", "sysfs", "ro")))
        kinds = [each["type"] for each in config["linux"]["namespaces"] if each["type"] != "network"]
        set_namespaces(config, *kinds)
    table = mount_table(box.contained(config, MOUNTINFO))
    cgroups = [point for point in table if point.startswith("/sys/fs/cgroup")]
    assert cgroups or how == "sysfs"
    assert [point for point in cgroups if "ro" not in table[point][0]] == []


@pytest.mark.parametrize("target", ["/proc", "/sys", "/dev"])
def test_cve_2023_27561(box, target):
    """Images whose /proc was a symlink bypassed AppArmor and masked paths again, after CVE-2019-19921."""
    box.link(target, "/data")
    error = box.refused(base_config(), "true")
    assert f" on {target}: openat2: Too many levels of symbolic links (config.json: mounts[" in error
    assert "replace the symlink in the image with a directory" in error


@pytest.mark.parametrize("target", ["/proc", "/sys"])
def test_cve_2023_28642(box, target):
    """If /proc or /sys was a symlink inside the image, an AppArmor profile was written to a file of the image."""
    fake = fake_proc(box)
    shutil.copytree(fake, box.rootfs / "fake")
    box.own(box.rootfs / "fake")
    box.link(target, "fake")
    config = base_config()
    with unharmed(box.rootfs / "fake"):
        assert " openat2: Too many levels of symbolic links" in box.refused(config, "true")
        config["process"]["apparmorProfile"] = "a-profile-that-is-not-loaded"
        box.refused(config, "true")


def test_cve_2024_21626(box):
    """A descriptor of the host was open until the working directory was set, and /proc/self/fd/N named it."""
    leaked = os.open(box.outside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert box.contained(base_config(), "ls /proc/self/fd", pass_fds=[leaked]) == ["0", "1", "2", "3"]
        for number in {3, 5, 7, leaked}:
            for cwd in (f"/proc/self/fd/{number}/..", "/data"):
                box.link("/data", f"/proc/self/fd/{number}")
                config = base_config()
                config["process"]["cwd"] = cwd
                assert "(config.json: process.cwd)" in box.refused(config, "pwd", SEARCH, pass_fds=[leaked])
            config = base_config(f"/proc/self/fd/{number}/../../bin/true")
            assert "(config.json: process.args[0])" in box.refused(config, pass_fds=[leaked])
    finally:
        os.close(leaked)


def test_a_preserved_descriptor_is_no_working_directory_cve_2024_21626(box):
    """The same with a descriptor that the caller passes to the container on purpose."""
    config = base_config()
    config["process"]["cwd"] = "/proc/self/fd/3"
    box.command = ["sh", "-c", f'exec 3< {box.outside}; exec "$@"', "sh", *box.command]
    assert "(config.json: process.cwd)" in box.refused(config, "pwd", SEARCH, flags=["--preserve-fds", "1"])


def test_cve_2024_45310(box, attacker, shared):
    """A directory was exchanged while missing mount targets were created in a shared volume: they were made outside."""
    volume = make_volume(box.user, file="of the volume\n")
    config = base_config()
    add_mount(config, "/shared", "bind", shared, "rbind")
    for number in range(10):
        add_mount(config, f"/shared/swap/{number}-a/b/c")
        add_mount(config, f"/shared/swap/{number}-file", "bind", volume / "file", "bind")
    config["process"]["cwd"] = "/shared/swap/cwd/below"
    start_race(attacker, shared)
    inside = box.rootfs / str(box.outside)[1:]
    statuses = set()

    def enough():
        """The symlink was followed inside the root, and a container ran."""
        return 0 in statuses and any(inside.rglob("*"))

    for _ in rounds(enough):
        statuses.add(box.attack(config, "true").returncode)


def test_the_race_succeeds_against_path_lookups(box, attacker, shared):
    """The attack of these races works against a program that uses paths."""
    decoy = box.user.tmp / "decoy"
    decoy.mkdir()
    (shared / "link").unlink()
    (shared / "link").symlink_to(decoy)
    box.own(decoy, shared)
    start_race(attacker, shared)

    def won():
        # the symlink changes between the two lookups of exist_ok
        with suppress(FileExistsError):
            (shared / "swap/by-name").mkdir()
        return (decoy / "by-name").exists()

    until(won, "a directory is made outside")


def test_cve_2025_31133(box):
    """An image's /dev/null that was a symlink was bound on masked paths, which then showed the symlink's target."""
    (box.rootfs / "data/secret").write_text("masked")
    box.own(box.rootfs / "data/secret")
    config = base_config()
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    config["linux"]["maskedPaths"] = ["/data/secret", "/proc/interrupts"]
    look = "stat -c %t:%T /data/secret /proc/interrupts; cat /data/secret /proc/interrupts; echo x > /data/secret"
    for text in (f"{box.outside}/canary", "../../../outside/canary", "/proc/sys/kernel/core_pattern", "/data/other"):
        box.link("/dev/null", text)
        done = box.attack(config, look)
        if done.returncode == 0:
            assert done.stdout.splitlines() == ["1:3", "1:3"]
        else:
            assert "/dev/null" in done.stderr
    box.place("/dev/null", lambda path: path.write_text("of the image"))
    assert box.contained(config, look) == ["1:3", "1:3"]
    assert (box.rootfs / "dev/null").read_text() == "of the image"
    assert (box.rootfs / "data/secret").read_text() == "masked"


def test_cve_2025_52565(box):
    """If the image's /dev/console or /dev/pts/N was a symlink, the terminal was mounted on, or was, a file in /proc."""
    config = base_config()
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/dev"]
    config["process"]["terminal"] = True
    with socket.socket(socket.AF_UNIX) as listener:
        path = bind_socket(listener, box.user.tmp / "console.sock")
        listener.listen(8)
        box.own(path)
        for text in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", f"{box.outside}/canary", "/dev/pts/0"):
            box.link("/dev/console", text)
            error = box.refused(config, "true", flags=["--console-socket", path])
            assert "openat2: Too many levels of symbolic links (config.json: process.terminal)" in error
        box.clear("/dev/console")
        # also without a devpts: the entries are the image's
        for name in ("0", "ptmx"):
            box.link(f"/dev/pts/{name}", f"{box.outside}/canary")
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/dev/pts"]
        error = box.refused(config, "true", flags=["--console-socket", path])
        assert "openat2: No such device (config.json: process.terminal)" in error


def on_a_host(box, before, after="true"):
    """Run the box between two scripts, in a mount namespace whose /proc the runtime takes for the host's."""
    words = ["unshare", "--mount"] if box.options else ["unshare", "--user", "--map-root-user", "--mount"]
    box.command[:0] = [*words, "sh", "-c", f'{before}\n"$@"\nstatus=$?; {after}\nexit $status', "sh"]


def with_setting(name="net.ipv4.ip_forward", value="1"):
    config = base_config()
    config["linux"]["sysctl"] = {name: value}
    return config


def test_cve_2025_52881(box):
    """Mounts in /proc redirected the runtime's writes of labels and sysctls to other files."""
    look = "cat /proc/sys/net/ipv4/ip_forward"
    assert box.contained(with_setting(), look) == ["1"]
    plain = list(box.command)
    volume = fake_proc(box)
    with unharmed(volume):
        for path in ("sys/net/ipv4/ip_forward", "sys/net/ipv4", "sys/net"):
            on_a_host(box, f"mount --bind {volume}/{path} /proc/{path}")
            done = box.attack(with_setting(), look)
            if done.returncode == 0:  # each network namespace has its own, which this mount does not cover
                assert done.stdout == "1\n"
                assert path != "sys/net"
            else:
                assert "open: Invalid cross-device link (config.json: linux.sysctl" in done.stderr
            box.command = list(plain)
    # LXC and nspawn mount this directory on itself: this is no attack
    on_a_host(box, "mount --bind /proc/sys/net /proc/sys/net")
    assert box.contained(with_setting(), look) == ["1"]


def test_a_sysctl_covered_by_another_is_not_written_cve_2025_52881(box):
    """The same with another file of /proc: a domain name is set by its system call, and no file is written."""
    if not box.options:
        pytest.skip("needs root: in a user namespace each namespace has its own sysctls, which no mount covers")
    name = "kernel.domainname"
    look = "cat /proc/sys/kernel/domainname; hostname"
    plain = box.contained(with_setting(name, "mine"), look)
    assert plain[0] == "mine"
    on_a_host(box, "mount --bind /proc/sys/kernel/hostname /proc/sys/kernel/domainname")
    assert box.contained(with_setting(name, "mine"), look) == plain


def test_cve_2026_30892(box):
    """`exec --user 1` ran the command as root."""
    box.create(base_config(), "exec sleep 1000")
    box.user.run([*box.command, "start", "held"], check=True, **box.options)
    for flags, ids in ((["--user", "1"], "1 0"), (["-u1"], "1 0"), (["--user=1:2"], "1 2"), (["-u", "12"], "12 0")):
        words = [*box.command, "exec", *flags, "held", "sh", "-c", 'echo "$(id -u) $(id -g)"']
        assert box.user.run(words, check=True, **box.options).stdout == f"{ids}\n", flags


@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "of-the-image"])
def test_cve_2026_41579(box, mounted):
    """If /dev was a symlink in the image, a file ptmx was removed and symlinks were created in any host directory."""
    config = base_config()
    if not mounted:
        config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    for text in (str(box.outside), "../../outside", "../" * 30 + str(box.outside)[1:], f"/proc/self/root{box.outside}"):
        box.link("/dev", text)
        done = box.attack(config, "cat /dev/ptmx /dev/canary 2> /dev/null; true")
        assert (box.outside / "ptmx").is_file()
        assert {path.name for path in box.outside.iterdir()} == {*map(str, range(10)), "canary", "null", "ptmx"}
        if mounted or text.startswith("/proc"):
            assert "openat2: Too many levels of symbolic links" in done.stderr
        else:
            assert done.returncode == 0


def without_dev(config):
    """Return the configuration without a mount on /dev: the container has that of the image."""
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    return config


@pytest.mark.parametrize("readonly", [False, True])
def test_cve_2026_88264(box, readonly):
    """If /dev/console was a symlink in the image, the terminal was mounted on, or created, a file of the host."""
    config = without_dev(base_config())
    config["process"]["terminal"] = True
    config["root"]["readonly"] = readonly
    with socket.socket(socket.AF_UNIX) as listener:
        path = bind_socket(listener, box.user.tmp / "console.sock")
        listener.listen(16)
        box.own(path)
        for text in (f"{box.outside}/new", f"{box.outside}/canary", "../../outside/new", "/proc/self/root/data/new"):
            box.link("/dev/console", text)
            box.refused(config, "true", flags=["--console-socket", path])
        box.clear("/dev/console")
        # the same with a directory of the path
        box.link("/dev", str(box.outside))
        box.attack(config, "true", flags=["--console-socket", path])


def test_cve_2026_88265(box):
    """If /dev/null was a symlink in the image, standard streams were opened there, and its target changed its owner."""
    config = without_dev(base_config())
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    box.place("/data/other", lambda path: path.write_text("of the image"))
    box.command = ["sh", "-c", 'exec "$@" </dev/null 2>/dev/null', "sh", *box.command]
    look = "stat -Lc %t:%T /proc/self/fd/0 /proc/self/fd/2; echo text >&2; cat"
    for text in (f"{box.outside}/canary", "../../../outside/null", "/data/other", f"/proc/self/root{box.outside}/null"):
        box.link("/dev/null", text)
        done = box.run(config, look)
        assert (done.returncode, done.stdout) in ((0, "1:3\n1:3\n"), (1, "")), done
        other = box.rootfs / "data/other"
        assert (other.stat().st_uid, other.read_text()) == (box.owner[0], "of the image")


@pytest.mark.parametrize("text", ["{outside}", "../../outside", "/proc/self/root{outside}", "/oldroot{outside}"])
def test_cve_2026_87766(box, text):
    """Directories and files for mounts were created on the host, if a parent directory was a symlink in the image.

    This is bubblewrap's GHSA-pxhw-h44j-8pfx.
    """
    volume = make_volume(box.user, file="of the volume\n")
    box.link("/data/link", text.format(outside=box.outside))
    config = base_config()
    add_mount(config, "/data/link/made/directory")
    add_mount(config, "/data/link/made/file", "bind", volume / "file", "bind")
    done = box.attack(config, "cat /data/link/made/file")
    assert (done.returncode, done.stdout) in ((0, "of the volume\n"), (1, "")), done
    if text == "{outside}":
        assert (box.rootfs / str(box.outside)[1:] / "made/directory").is_dir(), "the symlink is followed in the root"
