"""Facts about this host and the calling process, for planning."""

from __future__ import annotations

import posix

from rootless import paths, procfs
from rootless.files import fixed_text, text_of
from rootless.host import subids
from rootless.lazy import lazy
from rootless.linux import CAP_SYS_ADMIN
from rootless.procfs import ALL_IDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootless.host.delegation import Cgroups, user_manager
    from rootless.host.delegation import read as read_cgroups
    from rootless.host.host_network import HostNetwork
    from rootless.host.host_network import read as read_network
    from rootless.host.subids import Range
    from rootless.procfs import IdMap
else:
    read_cgroups = lazy("rootless.host.delegation", "read")
    user_manager = lazy("rootless.host.delegation", "user_manager")
    read_network = lazy("rootless.host.host_network", "read")

_TYPE, _BLOCK = 0o170000, 0o060000
"""S_IFMT and S_IFBLK of st_mode, inode(7)."""
_ESCAPED = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\043": "#", "\\134": "\\"}
"""In the names of mount points, proc_pid_mounts(5); the backslash comes last."""
ID_SERVICE = "/run/systemd/io.systemd.NamespaceResource"
"""The socket of systemd-nsresourced.service(8); only root creates files there."""
KERNEL = "kernel"
"""Note of the release and the machine of uname(2) (paths.noted)."""
NICE = "nice"
"""Note of this process's nice value."""


class Account:
    """A user: `comment` and `home` as in passwd(5), and `group`, the name of the effective group, or its number."""

    __slots__ = ("comment", "group", "home")

    def __init__(self, comment: str, home: str, group: str) -> None:
        self.comment = comment
        self.home = home
        self.group = group


class Facts:
    """Facts about a host and a caller.

    Attributes:
        uid, gid: effective ids of the caller.
        user: the caller's login name, or the uid in decimal where the system has no name for it.
        account: more about the caller in the system's passwd and group files.
        kernel: (major, minor) of the running kernel.
        machine: the machine as in uname(2), such as ``x86_64``.
        uid_map, gid_map: the ID maps of the caller's user namespace.
        setgroups_denied: setgroups(2) is denied in the caller's user namespace.
        capabilities: the caller's effective set, as a bit mask.
        bounding: the caller's bounding set, as a bit mask.
        last_capability: the highest capability number that the kernel knows.
        subuids, subgids: subordinate ranges as (first, count); empty if the caller has or needs none.
        free_range: the first of 65536 free subordinate ids, which a fix suggests to a user without any.
        local_user: /etc/passwd has the caller, whom usermod(8) can then change.
        subid_service: nsswitch.conf names another source of subordinate ids than the files.
        id_programs: paths of newuidmap and newgidmap; empty unless both are installed.
        unified_cgroup: /sys/fs/cgroup is a pure cgroup v2 tree.
        hard_limits: hard resource limit by RLIMIT number; -1 is unlimited.
        oom_score_adj: the caller's value.
        nice: the caller's value.
        apparmor, selinux: the kernel has the security module, and it is enabled.
        resctrl: the mount point of the resctrl file system; empty if it is not mounted.
        cgroups: the caller's cgroup and what is delegated to the caller; None for nothing.
        user_manager: the runtime directory of the user whose systemd manager creates units; empty without one.
        network: the helpers and settings of the host's network.
        id_service: the socket at which systemd gives IDs to new user namespaces; empty without it, and in a user
            namespace, where its IDs do not exist.
        squashfuse: path of the program that serves images by FUSE; empty without one or without access to FUSE.
        device_path: a function of a path, a type (S_IFCHR or S_IFBLK), a major and a minor number. It returns the path
            of the device on the host: the given path if it is that device, or else the kernel's name in /dev.
        mount_flags: a function of a path. It returns ST_RDONLY, ST_NOSUID, ST_NODEV and ST_NOEXEC of the path's mount
            (statvfs(3)); mount_setattr(2) has the same bits.
        state_mounts: a function of a directory. It returns the mount points of proc and sysfs outside the directory.
    """

    def __init__(self, **known: object) -> None:
        """Describe an ordinary user on an ordinary host, with the attributes `known` instead of the defaults."""
        self.uid = 1000
        self.gid = 1000
        self.user = "user"
        self.account = Account("A User", "/home/user", "group")
        self.kernel = (6, 1)
        self.machine = "x86_64"
        self.uid_map: tuple[IdMap, ...] = (ALL_IDS,)
        self.gid_map: tuple[IdMap, ...] = (ALL_IDS,)
        self.setgroups_denied = False
        self.capabilities = 0
        self.bounding = (1 << 41) - 1
        self.last_capability = 40
        self.subuids: tuple[Range, ...] = ((100000, 65536),)
        self.subgids: tuple[Range, ...] = ((100000, 65536),)
        self.free_range = 100000
        self.local_user = True
        self.subid_service = False
        self.id_programs: tuple[str, str] | tuple[()] = ("/usr/bin/newuidmap", "/usr/bin/newgidmap")
        self.unified_cgroup = True
        self.hard_limits: dict[int, int] = {}
        self.oom_score_adj = 0
        self.nice = 0
        self.apparmor = False
        self.selinux = False
        self.resctrl = ""
        self.cgroups: Cgroups | None = None
        self.user_manager = ""
        self.network: HostNetwork | None = None
        self.id_service = ""
        self.squashfuse = "/usr/bin/squashfuse_ll"
        self.device_path: Callable[[str, int, int, int], str] = lambda path, *_: path
        self.mount_flags: Callable[[str], int] = lambda _: 0
        self.state_mounts: Callable[[str], Sequence[str]] = lambda _: ("/proc", "/sys")
        for name, value in known.items():
            if not hasattr(self, name):
                raise AttributeError(name)
            setattr(self, name, value)

    def __getattr__(self, name: str) -> object:
        """Read a rarely needed fact at its first use; read() leaves those out."""
        if name not in _RARE:
            raise AttributeError(name)
        fact = _RARE[name](self)
        setattr(self, name, fact)
        return fact

    @property
    def privileged(self) -> bool:
        """Whether the caller may create namespaces and mounts without a new user namespace (CAP_SYS_ADMIN)."""
        return self.has(CAP_SYS_ADMIN)

    @property
    def nested(self) -> bool:
        """Whether the caller is in a user namespace already (rootless podman, rootlesskit, unshare -Ur)."""
        return self.uid_map != (ALL_IDS,)

    def has(self, capability: int) -> bool:
        """Whether the caller has `capability` in its own user namespace."""
        return bool(self.capabilities >> capability & 1)

    def may(self, capability: int) -> bool:
        """Whether the caller has `capability` over the whole host."""
        return not self.nested and self.has(capability)


def read(*, subordinate: bool = True) -> Facts:
    """Read the facts. It changes nothing, and a file that may not be read counts as missing.

    Args:
        subordinate: read the caller's login name and subordinate ids too, which only a new user namespace needs.

    Raises:
        OSError: out of descriptors or memory, or an I/O error.
    """
    capabilities, bounding = procfs.own_capabilities()
    uid_map, gid_map = procfs.id_maps("self")
    uname = posix.uname()
    paths.noted(KERNEL, uname.release, uname.machine)
    nice = posix.getpriority(posix.PRIO_PROCESS, 0)
    paths.noted(NICE, nice)
    facts = Facts(
        uid=posix.geteuid(),
        gid=posix.getegid(),
        kernel=kernel_version(uname.release),
        machine=uname.machine,
        uid_map=uid_map,
        gid_map=gid_map,
        capabilities=capabilities,
        bounding=bounding,
        last_capability=int(fixed_text("/proc/sys/kernel/cap_last_cap") or 40),
        unified_cgroup=paths.exists("/sys/fs/cgroup/cgroup.controllers"),
        hard_limits=procfs.hard_limits("self"),
        oom_score_adj=int(text_of("/proc/self/oom_score_adj") or 0),
        nice=nice,
        subuids=(),
        subgids=(),
        id_programs=(),
    )
    for name in _RARE:
        delattr(facts, name)
    facts.setgroups_denied = facts.nested and procfs.denies_setgroups("self")
    facts.user = "root" if facts.uid == 0 else str(facts.uid)
    if subordinate and not facts.privileged:
        facts.user = subids.login_name(facts.uid)
        facts.subuids, facts.subgids = subids.ranges(facts.user, facts.uid)
        facts.id_programs = subids.programs()
        if not (facts.subuids and facts.subgids):
            facts.free_range = subids.offer()
            facts.local_user = subids.is_local(facts.user)
            facts.subid_service = subids.has_name_service()
    return facts


def kernel_version(release: str) -> tuple[int, int]:
    """Return (major, minor) of a release such as ``6.1.0-18-amd64``."""
    major, _, rest = release.partition(".")
    minor = ""
    for character in rest:
        if not character.isdigit():
            break
        minor += character
    return int(major), int(minor or 0)


def _account(facts: Facts) -> Account:
    user, group = (_fields(file, number) for file, number in (("/etc/passwd", facts.uid), ("/etc/group", facts.gid)))
    if not (user and group):
        import grp
        import pwd

        paths.noted(paths.UNKNOWN, "name service")
        try:
            user = user or list(map(str, pwd.getpwuid(facts.uid)))
        except KeyError:
            user = [""] * 7
        try:
            group = group or [grp.getgrgid(facts.gid).gr_name]
        except KeyError:
            group = [str(facts.gid)]
    return Account(user[4], user[5], group[0])


def _fields(file: str, number: int) -> list[str]:
    """Return the line about a number in a passwd(5) or group(5) file, split into its fields; nothing without one."""
    lines = [f"{line}::::::".split(":") for line in text_of(file).splitlines()]
    return next((fields for fields in lines if fields[2] == str(number)), [])


def _apparmor(_: Facts) -> bool:
    return text_of("/sys/module/apparmor/parameters/enabled") == "Y"


def _selinux(_: Facts) -> bool:
    return paths.exists("/sys/fs/selinux/enforce")


def _resctrl(_: Facts) -> str:
    mounts = [line.split(" ") for line in text_of("/proc/self/mounts").splitlines()]
    return next((point for _, point, kind, *_ in mounts if kind == "resctrl"), "")


def _cgroups(_: Facts) -> Cgroups:
    return read_cgroups()


def _user_manager(facts: Facts) -> str:
    return user_manager(facts.uid, facts.uid_map)


def _device_path(_: Facts) -> Callable[[str, int, int, int], str]:
    def find(path: str, kind: int, major: int, minor: int) -> str:
        try:
            status = paths.status(path)
            if status.st_rdev == posix.makedev(major, minor) and status.st_mode & _TYPE == kind:
                return path
        except (OSError, OverflowError):
            pass
        events = text_of(f"/sys/dev/{'block' if kind == _BLOCK else 'char'}/{major}:{minor}/uevent").splitlines()
        return next((f"/dev/{line.removeprefix('DEVNAME=')}" for line in events if line.startswith("DEVNAME=")), path)

    return find


def _network(_: Facts) -> HostNetwork:
    return read_network()


def _id_service(facts: Facts) -> str:
    return ID_SERVICE if not facts.nested and paths.allows(ID_SERVICE, posix.W_OK) else ""


def _squashfuse(_: Facts) -> str:
    return subids.find_program("squashfuse_ll") if paths.allows("/dev/fuse", posix.R_OK | posix.W_OK) else ""


def _mount_flags(_: Facts) -> Callable[[str], int]:
    def read_flags(path: str) -> int:
        try:
            return paths.mount_flags(path)
        except OSError:
            return 0

    return read_flags


def _state_mounts(_: Facts) -> Callable[[str], Sequence[str]]:
    def find(directory: str) -> list[str]:
        root = paths.resolved(directory).rstrip("/")
        found: dict[str, None] = {}
        paths.noted(paths.UNKNOWN, "mounts")
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, point, kind, *_ = line.split(" ")
                for code, character in _ESCAPED.items():
                    point = point.replace(code, character)
                if kind in ("proc", "sysfs") and not (point + "/").startswith(root + "/"):
                    found[point] = None
        return list(found)

    return find


_RARE: dict[str, Callable[[Facts], object]] = {
    "account": _account,
    "apparmor": _apparmor,
    "selinux": _selinux,
    "resctrl": _resctrl,
    "cgroups": _cgroups,
    "user_manager": _user_manager,
    "network": _network,
    "device_path": _device_path,
    "id_service": _id_service,
    "squashfuse": _squashfuse,
    "mount_flags": _mount_flags,
    "state_mounts": _state_mounts,
}
