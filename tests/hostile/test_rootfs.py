"""Hostile images: whatever they contain, nothing on the host is read, changed or created.

Each attack is made on the whole command, run by an ordinary user and by the machine's root;
tests/executor/test_paths.py makes them on single operations.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time

import pytest

from tests.lib.boxes import MOUNTINFO, add_mount, make_volume, mount_table
from tests.lib.bundles import base_config
from tests.lib.compiled import compiled
from tests.lib.containers import until
from tests.lib.hostile import CALLERS, SEARCH, Victim, bind_socket, victim

KERNEL = ("/proc", "/dev", "/sys")
NO_LINK = "fix: replace the symlink in the image with a directory: a symlink could lead anywhere\n"


@pytest.fixture(params=CALLERS)
def box(request, user, rootless_command):
    with victim(user, rootless_command, request.param) as box:
        yield box


def ways_out(box):
    """Return symlinks out of the root as [(target, the same target resolved inside the root)]."""
    outside = str(box.outside)
    for number, text in ((1, "2"), (2, "../chain/3"), (3, f"{outside}/4")):
        box.link(f"/chain/{number}", text)
    return [
        (f"{outside}/0", f"{outside}/0"),
        ("../../outside/1", "/outside/1"),
        ("../" * 40 + outside[1:] + "/2", f"{outside}/2"),
        (f"{outside}/new", f"{outside}/new"),
        (f"{outside}/canary", f"{outside}/canary"),
        ("../" * 40 + "mnt", "/mnt"),
        ("/chain/1", f"{outside}/4"),
    ]


def magic(box):
    """Return targets that lead through magic links, which only the kernel can follow."""
    roots = [f"/proc/{process}/root{box.outside}" for process in ("self", "1", "thread-self")]
    return [*roots, "/proc/self/cwd/outside", "/proc/self/fd/3", "/proc/self/fd/5/outside"]


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as listener:
        bind_socket(listener, path)


def device_at(path):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


NO_DIRECTORY = {
    "file": lambda path: path.write_text(""),
    "FIFO": os.mkfifo,
    "socket": socket_at,
    "device": device_at,
}


def not_directories():
    return {name: make for name, make in NO_DIRECTORY.items() if name != "device" or os.geteuid() == 0}


# --- /proc, /dev, /sys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", KERNEL)
def test_a_symlink_at_proc_dev_or_sys_is_refused(box, target):
    box.link("/loop", target)
    out = [text for text, _ in ways_out(box)]
    for text in (*(out if target == "/dev" else out[:2]), magic(box)[0], target[1:], "/loop", "/data"):
        box.link(target, text)
        error = box.refused(base_config(), SEARCH)
        assert f" on {target}: openat2: Too many levels of symbolic links (config.json: mounts[" in error
        assert error.endswith(NO_LINK)
        assert os.readlink(box.rootfs / target[1:]) == text


@pytest.mark.parametrize("target", KERNEL)
def test_kernel_file_system_needs_a_directory(box, target):
    """A FIFO must not be opened, since that would block forever."""
    for make in not_directories().values():
        box.place(target, make)
        assert f" on {target}: move_mount: Not a directory (config.json: mounts[" in box.refused(base_config())


# --- Mounts elsewhere -------------------------------------------------------------------------------------------------


PLACES = ("/etc", "/tmp", "/data", "/run", "/var/lib", "/home", "/opt/a/b")


def put(config, kind, target, volume):
    """Add a mount or a device on `target` to the config."""
    if kind == "device":
        config["linux"].setdefault("devices", []).append({"path": target, "type": "p"})
    elif kind == "directory":
        add_mount(config, target, "bind", volume, "rbind", "ro")
    elif kind == "file":
        add_mount(config, target, "bind", volume / "file", "bind", "ro")
    else:
        add_mount(config, target, "tmpfs", "tmpfs", *kind.split()[1:])


@pytest.fixture
def volume(box):
    return make_volume(box.user, file="of the volume\n")


KINDS = ("tmpfs", "tmpfs tmpcopyup", "directory", "file")


@pytest.mark.parametrize(
    ("kind", "below"), [*((kind, below) for kind in KINDS for below in ("", "/deep/below")), ("device", "/deep/below")]
)
def test_a_mount_target_outside_is_resolved_inside_the_root(box, volume, kind, below):
    """The mount is made at the symlink's target as resolved inside the root."""
    ways = ways_out(box)
    config = base_config()
    for place, (text, _) in zip(PLACES, ways, strict=True):
        box.link(place, text)
        put(config, kind, place + below, volume)
    table = mount_table(box.contained(config, MOUNTINFO))
    for _, inside in ways:
        if kind == "device":
            assert (box.rootfs / (inside + below)[1:]).is_fifo()
        else:
            assert inside + below in table


def test_a_device_at_a_symlink_is_refused(box):
    """It is not created at the symlink's target."""
    for text, _ in ways_out(box):
        box.link("/data", text)
        config = base_config()
        put(config, "device", "/data", None)
        assert "mknod: File exists (config.json: linux.devices[0])" in box.refused(config)


@pytest.mark.parametrize("kind", [*KINDS, "device"])
def test_a_mount_target_through_a_magic_link_is_refused(box, volume, kind):
    """Magic links bypass path resolution."""
    for below, text in [("/below", text) for text in (*magic(box), "loop")] + [("", magic(box)[0])] * (
        kind != "device"
    ):
        config = base_config()
        put(config, kind, "/loop" + below, volume)
        box.link("/loop", text)
        error = box.refused(config)
        assert "Too many levels of symbolic links (config.json: " in error
        assert " /loop" in error


@pytest.mark.parametrize(
    ("kind", "wrong"), [("tmpfs", NO_DIRECTORY), ("directory", NO_DIRECTORY), ("file", ["directory"])]
)
def test_a_mount_target_of_another_type_is_refused(box, volume, kind, wrong):
    for name in wrong:
        if name == "device" and os.geteuid() != 0:
            continue
        box.place("/data", NO_DIRECTORY.get(name, os.mkdir))
        config = base_config()
        put(config, kind, "/data", volume)
        assert "ot a directory (config.json: " in box.refused(config)


@pytest.mark.parametrize("name", NO_DIRECTORY)
def test_a_file_is_mounted_over_any_non_directory_without_opening_it(box, volume, name):
    """Opening a FIFO would block, and opening a device could have side effects."""
    if name == "device" and os.geteuid() != 0:
        pytest.skip("needs root: makes a device")
    box.place("/data", NO_DIRECTORY[name])
    config = base_config()
    put(config, "file", "/data", volume)
    assert box.contained(config, "cat /data") == ["of the volume"]


def test_tmpcopyup_opens_no_symlink_or_special_file(box):
    """Symlinks are copied as symlinks, and a FIFO is not read."""
    box.link("/data/link", f"{box.outside}/canary")
    box.link("/data/directory", box.outside)
    box.place("/data/fifo", os.mkfifo)
    box.place("/data/socket", socket_at)
    config = base_config()
    add_mount(config, "/data", "tmpfs", "tmpfs", "tmpcopyup")
    lines = box.contained(config, "cd /data; stat -c '%n %F' *; cat link directory/canary || true")
    assert lines == ["directory symbolic link", "fifo fifo", "link symbolic link", "socket socket"]


# --- Devices and terminals in the image's own /dev --------------------------------------------------------------------


def without_dev(*destinations):
    config = base_config()
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in ("/dev", *destinations)]
    return config


DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def test_symlinks_at_devices_of_the_image_stay_inside(box):
    """Existing files stay, and new ones are created inside."""
    for number, name in enumerate(DEVICES):
        box.link(f"/dev/{name}", f"{box.outside}/{number}/{name}")
    for name in (*LINKS, "ptmx", "pts"):
        box.link(f"/dev/{name}", f"{box.outside}/7")
    lines = box.contained(without_dev(), "cd /dev; for name in fd ptmx stderr; do readlink $name; done", SEARCH)
    assert lines == [f"{box.outside}/7"] * 3


@pytest.mark.parametrize("name", ["directory", "FIFO", "file", "socket"])
def test_another_file_at_a_device_of_the_image_is_covered_or_refused(box, name):
    box.place("/dev/null", NO_DIRECTORY.get(name, os.mkdir))
    done = box.attack(without_dev(), "stat -c %t:%T /dev/null")
    if name == "directory":
        assert "Not a directory" in done.stderr
    else:
        assert done.stdout == "1:3\n"


@pytest.fixture
def terminal(box):
    """A socket that receives the terminal of a container; yields the flags that name it."""
    with socket.socket(socket.AF_UNIX) as listener:
        path = bind_socket(listener, box.user.tmp / "console.sock")
        listener.listen(8)
        box.own(path)
        yield ["--console-socket", path]


TELL = "(stat -L -c '%n %F %t' /dev/console; tty; cat /proc/self/mountinfo) > /told 2>&1"
"""Writes to a file, since the output of a container with a terminal goes to the terminal."""


@pytest.mark.parametrize("name", ["console", "pts", "ptmx"])
def test_symlinks_at_terminal_files_of_the_image_are_not_followed(box, terminal, name):
    for text in (f"{box.outside}/0", "../../../outside/canary", magic(box)[0], "/dev/null", "console"):
        box.link(f"/dev/{name}", text)
        (box.rootfs / "told").unlink(missing_ok=True)
        config = without_dev()
        config["process"]["terminal"] = True
        if name == "console":
            assert "openat2: Too many levels of symbolic links" in box.refused(config, TELL, flags=terminal)
            continue
        done = box.attack(config, TELL, flags=terminal)
        if name == "ptmx":
            assert done.returncode == 0
            assert (box.rootfs / "told").read_text().startswith("/dev/console character special file 88\n/dev/pts/0\n")
        else:
            assert done.returncode == 1


def test_the_terminal_must_come_from_a_devpts(box, terminal):
    """Files of the image in /dev/pts are not used as a terminal."""
    box.place("/dev/pts/ptmx", os.mkfifo)
    config = without_dev("/dev/pts")
    config["process"]["terminal"] = True
    error = box.refused(config, TELL, flags=terminal)
    assert "openat2: No such device (config.json: process.terminal)" in error


@pytest.mark.parametrize("name", ["file", "FIFO", "socket", "directory"])
def test_another_file_at_the_images_console_is_covered_or_refused(box, terminal, name):
    box.place("/dev/console", NO_DIRECTORY.get(name, os.mkdir))
    config = without_dev()
    config["process"]["terminal"] = True
    done = box.attack(config, TELL, flags=terminal)
    if name == "directory":
        assert "Not a directory (config.json: process.terminal)" in done.stderr
    else:
        assert (box.rootfs / "told").read_text().startswith("/dev/console character special file 88\n/dev/pts/0\n")


# --- Masked and read-only paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_masked_and_read_only_paths_through_symlinks_stay_inside(box, key):
    """They cover the target inside the root. If it does not exist, nothing is created."""
    ways = ways_out(box)
    config = base_config()
    config["linux"][key] = []
    for place, (text, _) in zip(PLACES, ways, strict=True):
        box.link(place, text)
        config["linux"][key] += [place, f"{place}/canary", f"{place}/../canary"]
    usual = mount_table(box.contained(base_config(), MOUNTINFO))
    assert mount_table(box.contained(config, MOUNTINFO)).keys() <= usual.keys()
    assert not os.path.lexists(box.rootfs / str(box.outside)[1:])


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_masked_and_read_only_paths_through_magic_links_are_refused(box, key):
    for number, text in enumerate(magic(box)):
        box.link("/data", text)
        config = base_config()
        config["linux"][key] = ["/data" + "/canary" * (number % 2)]
        done = box.attack(config, "true")
        # a descriptor that the executor does not have leads to no file, so there is nothing to protect
        if "/fd/" not in text or done.returncode:
            assert done.returncode == 1
            assert f"openat2: Too many levels of symbolic links (config.json: linux.{key}[0])" in done.stderr


@pytest.mark.parametrize("name", NO_DIRECTORY)
def test_any_non_directory_is_masked_without_opening_it(box, name):
    """Opening a FIFO would block, and opening a device could have side effects."""
    if name == "device" and os.geteuid() != 0:
        pytest.skip("needs root: makes a device")
    box.place("/data", NO_DIRECTORY[name])
    config = base_config()
    config["linux"]["maskedPaths"] = ["/data"]
    assert box.contained(config, "stat -c %t:%T /data; cat /data") == ["1:3"]


# --- The root, the working directory, /etc/passwd ---------------------------------------------------------------------


def test_dots_in_the_path_of_the_root_are_removed_before_lookup(box):
    """A symlink between two dots therefore has no effect."""
    box.link("/up", box.outside)
    for path in ("rootfs/../rootfs", "./rootfs/bin/..", "rootfs/up/..", "../outside/../bundle-box/rootfs"):
        config = base_config()
        config["root"]["path"] = path
        assert box.contained(config, "echo inside; ls /canary 2>&1 || true", SEARCH) == [
            "inside",
            "ls: /canary: No such file or directory",
        ]


def test_a_root_that_is_a_symlink_is_refused(box):
    """The user has checked the config.json of the bundle, which names no directory of the host."""
    box.rootfs.rename(box.rootfs.with_name("real"))
    for text in (str(box.outside), "../outside", "/", "/proc/self/cwd", "real"):
        box.rootfs.unlink(missing_ok=True)
        box.rootfs.symlink_to(text)
        for path in ("rootfs", "rootfs/", "./rootfs/."):
            config = base_config()
            config["root"]["path"] = path
            error = box.refused(config, SEARCH)
            assert "a symlink (config.json: root.path); fix: " in error
    box.rootfs.unlink()
    box.rootfs.with_name("real").rename(box.rootfs)


def test_a_root_below_a_symlink_is_refused(box):
    (box.path / "images").symlink_to(box.user.tmp)
    config = base_config()
    for path in ("images/outside", "images/bundle-box/rootfs"):
        config["root"]["path"] = path
        assert "a symlink (config.json: root.path); fix: " in box.refused(config, SEARCH)


def test_an_absolute_root_may_lead_through_symlinks(box):
    """They belong to the host, such as /home on many machines."""
    link = box.user.tmp / "link"
    link.symlink_to(box.path)
    config = base_config()
    config["root"]["path"] = f"{link}/rootfs"
    assert box.contained(config, "echo inside", SEARCH) == ["inside"]


def test_a_working_directory_outside_is_resolved_inside_the_root(box):
    """If it does not exist inside, it is created there."""
    for number, (text, inside) in enumerate(ways_out(box)):
        below = "/below" * (number % 2)
        box.link("/data", text)
        config = base_config()
        config["process"]["cwd"] = f"/data{below}"
        assert box.contained(config, "pwd -P", SEARCH) == [inside + below]


def test_a_working_directory_through_a_magic_link_is_refused(box):
    for number, text in enumerate(magic(box)):
        box.link("/data", text)
        config = base_config()
        config["process"]["cwd"] = "/data" + "/below" * (number % 2)
        error = box.refused(config, SEARCH)
        assert "Too many levels of symbolic links (config.json: process.cwd)" in error


@pytest.mark.parametrize("name", ["file", "FIFO", "socket"])
def test_a_working_directory_that_is_not_a_directory_is_refused(box, name):
    box.place("/data", NO_DIRECTORY[name])
    config = base_config()
    config["process"]["cwd"] = "/data"
    assert "Not a directory (config.json: process.cwd)" in box.refused(config)


@pytest.mark.parametrize("name", ["link", "directory", *NO_DIRECTORY])
def test_a_passwd_file_that_is_not_a_regular_file_is_ignored(box, name):
    """HOME is read only from a regular file of the image."""
    if name == "device" and os.geteuid() != 0:
        pytest.skip("needs root: makes a device")
    if name == "link":
        box.link("/etc/passwd", f"{box.outside}/canary")
    else:
        box.place("/etc/passwd", NO_DIRECTORY.get(name, os.mkdir))
    assert box.contained(base_config(), 'echo "$HOME"', SEARCH) == ["/"]


# --- Races with another container -------------------------------------------------------------------------------------

SECONDS = 2
"""How long a race lasts."""
LONGEST = 30
"""Seconds, until an attack has been met."""


@pytest.fixture
def race(box, user, rootless_command, need):
    """Return a function that lets another container exchange two names in a directory that it shares with the box."""
    racer = Victim(user, rootless_command, as_root=bool(box.options), name="racer")
    shutil.copy(compiled(need, "race", "-static"), racer.rootfs / "bin/race")

    def start(directory, one, other):
        config = base_config()
        add_mount(config, "/shared", "bind", directory, "rbind")
        racer.create(config, f"exec race /shared/{one} /shared/{other}", name="racer")
        racer.user.run([*racer.command, "start", "racer"], check=True, **racer.options)
        first = (directory / one).lstat().st_ino
        until(lambda: (directory / one).lstat().st_ino != first, "the race")

    yield start
    racer.close()


def runs(box, config, *script, until_failure=False):
    """Run the box repeatedly, with `until_failure` longer if no run has failed; return the finished processes."""
    begin = time.monotonic()
    ends = []
    while (passed := time.monotonic() - begin) < SECONDS or (
        until_failure and passed < LONGEST and not any(done.returncode for done in ends)
    ):
        ends.append(box.attack(config, *script))
    return ends


def test_a_race_for_dev_in_a_shared_root_stays_inside(box, race):
    box.link("/else", box.outside)
    race(box.rootfs, "dev", "else")
    ends = runs(box, base_config(), "true", until_failure=True)
    assert any(done.returncode for done in ends), "the symlink was met"


LOOK = (
    "for try in $(seq 1000); do",
    "cat /proc/self/mountinfo 2>/dev/null && exit",
    "cat /else/self/mountinfo 2>/dev/null && exit",
    "done",
    "exit 9",
)


def test_a_race_for_proc_leaves_no_path_unprotected(box, race):
    """A directory that replaces /proc for a moment must not leave the real one unprotected (CVE-2023-27561)."""
    (box.rootfs / "else").mkdir()
    box.own(box.rootfs / "else")
    config = base_config()
    config["linux"]["readonlyPaths"] = ["/proc/sys", "/proc/fs"]
    config["linux"]["maskedPaths"] = ["/proc/interrupts", "/proc/driver", "/proc/bus"]
    race(box.rootfs, "proc", "else")
    for done in runs(box, config, *LOOK):
        if done.returncode == 0:
            lines = [line.split(" ") for line in done.stdout.splitlines()]
            proc = next(line[0] for line in lines if line[line.index("-") + 1] == "proc" and line[3] == "/")
            assert sum(line[1] == proc for line in lines) == 5
