"""Conditions of a host that `doctor` finds, and how a test makes them come about; doctor_table.py has the others."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lib.broken_host import NETWORK, ROOT, USER

FAILS = "an error with the evidence and the fix"
RUNS = "runs"
SINGLE = "runs with one ID, and a warning"
COMMANDS = "by its commands"


class Case:
    """One way in which a host comes not to meet a condition.

    Attributes:
        code: the condition's.
        how: the way, for people.
        kind: ROOT or USER, a host of tests/lib/broken_host.py.
        script: what root of the host does.
        outer, wrap, env: what surrounds the user's commands.
        launch: FAILS, RUNS or SINGLE: the result of `rootless run`.
        repair: COMMANDS, a script that does what the fix says, or nothing: then the commands run without the
            surroundings.
        kept: why the commands of the fix are not run on the test machine; empty if they are, or there are none.
    """

    def __init__(
        self, code, how, kind, script="", *, outer=(), wrap=(), env=None, launch=RUNS, repair="", kept=""
    ) -> None:
        self.code = f"RL-HOST-{code}"
        self.how = how
        self.kind = kind
        self.script = script
        self.outer = outer
        self.wrap = wrap
        self.env = env
        self.launch = launch
        self.repair = repair
        self.kept = kept

    def __repr__(self) -> str:
        return f"{self.code}: {self.how}"


_PROGRAM = "cp -a $(command -v {0}) /mnt/scratch/{0}; mount --bind /mnt/scratch/{0} $(command -v {0}); "
_HIDE = "command -v {0} >/mnt/scratch/{0}.path; mount --bind /dev/null $(command -v {0})"
_SHOW = "umount $(cat /mnt/scratch/{0}.path)"
_UNBIND = "umount $(command -v {0})"
_IN_HOME = "mount -t tmpfs -o mode=700,uid=$TEST_UID,{0} tmpfs $TEST_HOME"
_NO_PACKAGES = "the package is installed, and the test hides it"
_FORBID = """
import ctypes, os, sys
library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
library.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.seccomp_init(0x7FFF0000))
library.seccomp_attr_set(context, 3, 0)  # no no_new_privs, as root of an engine loads it
for name, error in FORBIDDEN:
    number = library.seccomp_syscall_resolve_name(name)
    assert library.seccomp_rule_add(context, 0x00050000 | error, number, 0) == 0
assert library.seccomp_load(context) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""
_DOCKER = '((b"unshare", 1), (b"mount", 1), (b"setns", 1), (b"clone3", 38))'
_FILL = """
import ctypes, os, platform, sys
keyctl, add_key = {"x86_64": (250, 248), "aarch64": (219, 217)}[platform.machine()]
library = ctypes.CDLL(None, use_errno=True)
library.syscall(keyctl, 1, None)
number = 0
while library.syscall(add_key, b"user", b"key%d" % number, b"x", 1, -3) > 0:
    number += 1
os.execvp(sys.argv[1], sys.argv[1:])
"""
_LINES = "/etc/subuid /etc/subgid"
_EXCHANGE = 'sed -i "s/^\\($TEST_USER\\):.*/\\1:2000000000:65536/" /etc/subuid'
_CHROOT = """
mkdir -p /mnt/scratch/root && cd /mnt/scratch/root
for name in /*; do
    [ -d $name ] && [ ! -L $name ] && [ $name != /mnt ] && mkdir .$name && mount --rbind $name .$name
    [ ! -L $name ] || cp -a $name .
done
"""

_DIRECTORY_SERVICE = f"""
mkdir /etc/directory /mnt/scratch/libraries /mnt/scratch/work
cc -shared -fPIC -Wall -Werror -o /mnt/scratch/libraries/libnss_test.so.2 {Path(__file__).with_name("name_service.c")}
ln -s libnss_test.so.2 /mnt/scratch/libraries/libsubid_test.so
libraries=$(dirname $(readlink -f $(ldconfig -p | sed -n 's/.*libseccomp.so.2 .* => //p' | head -n 1)))
mount -t overlay -o lowerdir=$libraries,upperdir=/mnt/scratch/libraries,workdir=/mnt/scratch/work overlay $libraries
"""

CASES = (
    Case(
        "PROC",
        "/proc is not mounted",
        ROOT,
        "while mountpoint -q /proc; do umount -l /proc; done",
        launch=FAILS,
        repair=COMMANDS,
    ),
    Case("MEMFD", "vm.memfd_noexec is 2", ROOT, "sysctl -qw vm.memfd_noexec=2", launch=FAILS, repair=COMMANDS),
    Case(
        "USERNS-LIMIT",
        "user.max_user_namespaces is 0",
        USER,
        "sysctl -qw user.max_user_namespaces=0",
        launch=FAILS,
        repair=COMMANDS,
    ),
    Case(
        "USERNS-DEPTH",
        "rootless runs in 33 nested user namespaces",
        USER,
        wrap=["unshare", "-Ur"] * 32 + ["setpriv", "--securebits", "+noroot", "--inh-caps=-all"],
        launch=FAILS,
    ),
    Case(
        "USERNS-SECCOMP",
        "a seccomp filter as that of docker's default profile",
        ROOT,
        outer=[sys.executable, "-c", _FORBID.replace("FORBIDDEN", _DOCKER)],
        launch=FAILS,
    ),
    Case(
        "MOUNTS",
        "a filter that forbids mounts only, as docker's AppArmor profile does",
        ROOT,
        outer=[sys.executable, "-c", _FORBID.replace("FORBIDDEN", '((b"mount", 13), (b"mount_setattr", 13))')],
        launch=FAILS,
    ),
    Case(
        "USERNS-CHROOT",
        "a chroot",
        ROOT,
        _CHROOT,
        outer=["chroot", "/mnt/scratch/root"],
        launch=FAILS,
    ),
    Case("USERNS-UNMAPPED", "a user namespace without ID maps", ROOT, wrap=["unshare", "--user"], launch=FAILS),
    Case(
        "NAMESPACES",
        "user.max_net_namespaces is 0",
        USER,
        "sysctl -qw user.max_net_namespaces=0",
        launch=FAILS,
        repair=COMMANDS,
    ),
    Case(
        "NAMESPACES",
        "user.max_mnt_namespaces is 0",
        USER,
        "sysctl -qw user.max_mnt_namespaces=0",
        launch=FAILS,
        repair=COMMANDS,
    ),
    Case(
        "PROC-MOUNT",
        "a file of /proc is masked, as in a container",
        USER,
        "mount --bind /dev/null /proc/keys",
        repair="umount /proc/keys",
    ),
    Case(
        "LIBSECCOMP",
        "the library is hidden",
        ROOT,
        "for file in $(ldconfig -p | sed -n 's/.*libseccomp.so.2 .* => //p'); do mount --bind /dev/null $file; done",
        repair="umount $(ldconfig -p | sed -n 's/.*libseccomp.so.2 .* => //p')",
        kept=_NO_PACKAGES,
    ),
    Case(
        "IDMAP-PROGRAMS",
        "newuidmap is hidden",
        ROOT,
        _HIDE.format("newuidmap"),
        launch=SINGLE,
        repair=_SHOW.format("newuidmap"),
        kept=_NO_PACKAGES,
    ),
    *(
        Case(
            "IDMAP-SETUID",
            f"{name} without its set-user-ID bit",
            ROOT,
            _PROGRAM.format(name) + f"chmod u-s /mnt/scratch/{name}",
            launch=FAILS,
            repair=COMMANDS,
        )
        for name in ("newuidmap", "newgidmap")
    ),
    Case(
        "IDMAP-NOSUID",
        "newuidmap on a mount with nosuid",
        ROOT,
        _PROGRAM.format("newuidmap") + "mount -o remount,bind,nosuid $(command -v newuidmap)",
        launch=FAILS,
        repair=COMMANDS,
    ),
    Case("IDMAP-PRIVILEGES", "no_new_privs", ROOT, wrap=["setpriv", "--no-new-privs"], launch=FAILS),
    Case(
        "IDMAP",
        "newuidmap refuses the range",
        ROOT,
        "printf '#!/bin/sh\\necho not today >&2; exit 1' >/mnt/scratch/no; chmod 4755 /mnt/scratch/no; "
        "mount --bind /mnt/scratch/no $(command -v newuidmap)",
        launch=FAILS,
        repair=_UNBIND.format("newuidmap"),
    ),
    Case(
        "SUBIDS",
        "no line in /etc/subuid and /etc/subgid",
        ROOT,
        f"sed -i /^$TEST_USER:/d {_LINES}",
        launch=SINGLE,
        repair=COMMANDS,
    ),
    Case(
        "SUBIDS",
        "no range from the name service (getsubids)",
        ROOT,
        _DIRECTORY_SERVICE + "echo 'subid: test' >>/etc/nsswitch.conf",
        launch=SINGLE,
        repair='echo "$TEST_USER:500000:65536" >/etc/directory/subid',
    ),
    Case(
        "SUBIDS",
        "no range for a user whom only a directory service knows",
        ROOT,
        _DIRECTORY_SERVICE + f"grep ^$TEST_USER: /etc/passwd >/etc/directory/passwd; "
        f"sed -i /^$TEST_USER:/d {_LINES} /etc/passwd; sed -i '/^passwd:/s/$/ test/' /etc/nsswitch.conf",
        launch=SINGLE,
        repair=COMMANDS,
    ),
    Case(
        "SUBIDS-FEW",
        "a range of 1000 IDs",
        ROOT,
        f'sed -i "s/^\\($TEST_USER:[0-9]*\\):.*/\\1:1000/" {_LINES}',
        repair=COMMANDS,
    ),
    Case(
        "SUBIDS-SHARED",
        "another user has the same range",
        ROOT,
        'sed -n "s/^$TEST_USER:/other:/p" /etc/subuid >>/etc/subuid',
        repair=_EXCHANGE,
    ),
    Case(
        "SUBIDS-SHARED",
        "an account has one of the IDs",
        ROOT,
        'first=$(sed -n "s/^$TEST_USER:\\([0-9]*\\):.*/\\1/p" /etc/subuid); '
        'echo "x:x:$((first + 7)):1::/:/bin/sh" >>/etc/passwd',
        repair=_EXCHANGE,
    ),
    Case("SUBIDS-NESTED", "a user namespace with one ID", ROOT, wrap=["unshare", "-Ur"]),
    Case(
        "NETWORK",
        "pasta and slirp4netns are hidden",
        ROOT,
        "; ".join(_HIDE.format(name) for name in ("pasta", "slirp4netns")),
        repair="; ".join(_SHOW.format(name) for name in ("pasta", "slirp4netns")),
        kept=_NO_PACKAGES,
    ),
    Case(
        "NETWORK-BOTH",
        "slirp4netns is hidden",
        ROOT,
        _HIDE.format("slirp4netns"),
        repair=_SHOW.format("slirp4netns"),
        kept=_NO_PACKAGES,
    ),
    Case(
        "TUN",
        "/dev/net/tun is for root only",
        ROOT,
        "mount -t tmpfs -o mode=755 tmpfs /dev/net; mknod -m 600 /dev/net/tun c 10 200",
        repair=COMMANDS,
    ),
    Case(
        "TUN",
        "/dev/net/tun does not exist",
        ROOT,
        "mount -t tmpfs -o mode=755 tmpfs /dev/net",
        repair="umount /dev/net",
        kept="the kernel of the test machine has no modules",
    ),
    Case(
        "NETWORK-BROKEN",
        "a pasta that fails",
        ROOT,
        "printf '#!/bin/sh\\necho it is broken >&2; exit 1' >/mnt/scratch/broken; chmod 755 /mnt/scratch/broken; "
        "mount --bind /mnt/scratch/broken $(command -v pasta)",
        repair=_UNBIND.format("pasta"),
        kept=_NO_PACKAGES,
    ),
    Case(
        "LIBSLIRP",
        "the version of libslirp that this machine has",
        ROOT,
        repair="printf '#!/bin/sh\\necho libslirp: 4.9.6' >/mnt/scratch/new; chmod 755 /mnt/scratch/new; "
        "mount --bind /mnt/scratch/new $(command -v slirp4netns)",
    ),
    Case(
        "PASTA",
        "a pasta of February 2024",
        ROOT,
        "printf '#!/bin/sh\\necho pasta 0.0~git20240220.1e6f92b-1' >/mnt/scratch/old; chmod 755 /mnt/scratch/old; "
        "mount --bind /mnt/scratch/old $(command -v pasta)",
        repair=_UNBIND.format("pasta"),
        kept=_NO_PACKAGES,
    ),
    Case("PORTS", "the default setting", NETWORK, repair=COMMANDS),
    Case("PING", "the kernel's default setting", NETWORK, repair=COMMANDS),
    Case(
        "SQUASHFUSE",
        "squashfuse_ll of 2012",
        ROOT,
        "printf '#!/bin/sh\\necho squashfuse 0.1.105 >&2' >/mnt/scratch/old; chmod 755 /mnt/scratch/old; "
        "mount --bind /mnt/scratch/old $(command -v squashfuse_ll)",
        repair=_UNBIND.format("squashfuse_ll"),
        kept=_NO_PACKAGES,
    ),
    *(
        Case(name.upper(), f"{name} is hidden", ROOT, _HIDE.format(name), repair=_SHOW.format(name), kept=_NO_PACKAGES)
        for name in ("sqfstar", "skopeo")
    ),
    Case(
        "FUSE-DEVICE",
        "/dev/fuse is for root only",
        ROOT,
        "mount -t tmpfs -o mode=755 tmpfs /mnt/scratch; mknod -m 600 /mnt/scratch/fuse c 10 229; "
        "mount --bind /mnt/scratch/fuse /dev/fuse",
        repair=COMMANDS,
    ),
    Case(
        "HOME",
        "a home on a read-only mount",
        ROOT,
        _IN_HOME.format("ro"),
        repair="mount -o remount,rw $TEST_HOME",
    ),
    Case("HOME", "a full disk", ROOT, _IN_HOME.format("nr_inodes=1"), repair="umount $TEST_HOME"),
    Case(
        "HOME-SEARCH",
        "a directory above the home that only root may search",
        ROOT,
        'mount --bind "$TEST_HOME" "$TEST_HOME"; mkdir -m 700 /mnt/closed; mkdir /mnt/closed/home; '
        "chown $TEST_UID /mnt/closed/home; "
        'sed -i "s,^\\($TEST_USER:.*\\):$TEST_HOME:,\\1:/mnt/closed/home:," /etc/passwd',
        env={"HOME": "/mnt/closed/home"},
        repair=COMMANDS,
    ),
    Case(
        "HOME-NOEXEC",
        "a home mounted noexec",
        ROOT,
        _IN_HOME.format("noexec"),
        repair="mount -o remount,exec $TEST_HOME",
    ),
    Case(
        "HOME-NOSUID",
        "a home mounted nosuid",
        ROOT,
        _IN_HOME.format("nosuid"),
        repair="mount -o remount,suid $TEST_HOME",
    ),
    Case(
        "HOME-OWNERS",
        "a mount that keeps files of the user only, as a server with root squash does",
        ROOT,
        "mount --bind -o X-mount.idmap=b:$TEST_UID:$TEST_UID:1 $TEST_HOME $TEST_HOME",
        repair="umount $TEST_HOME",
    ),
    Case(
        "RUNTIME-DIR",
        "no /run/user/UID, and XDG_RUNTIME_DIR is not set",
        ROOT,
        "mount -t tmpfs -o mode=755 tmpfs /run/user; [ ! -d /run/systemd ] || mount -t tmpfs tmpfs /run/systemd",
        env={"XDG_RUNTIME_DIR": None},
        repair=COMMANDS,
    ),
    Case("RUNTIME-DIR", "XDG_RUNTIME_DIR is root's, as after su", ROOT, env={"XDG_RUNTIME_DIR": "/run/lock"}),
    Case(
        "USER-MANAGER",
        "systemd runs, and no manager of the user",
        ROOT,
        "mount -t tmpfs tmpfs /run/systemd 2>/dev/null || mkdir /run/systemd; mkdir -p /run/systemd/system",
        repair="rmdir /run/systemd/system",
        kept="systemd does not run; tests/system/test_doctor.py has a machine with it",
    ),
    Case(
        "INOTIFY",
        "user.max_inotify_instances is 0",
        USER,
        "sysctl -qw user.max_inotify_instances=0",
        repair=COMMANDS,
    ),
    Case("INOTIFY", "user.max_inotify_watches is 0", USER, "sysctl -qw user.max_inotify_watches=0", repair=COMMANDS),
    Case(
        "KEYRING",
        "the user's keys fill the quota",
        ROOT,
        wrap=[sys.executable, "-c", _FILL],
        kept="the setting is the whole machine's; the test frees the keys",
    ),
)
