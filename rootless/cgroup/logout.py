"""Whether a process goes when its user logs out: logind.conf(5) "KillUserProcesses", loginctl(1) "enable-linger"."""

from __future__ import annotations

from rootless import paths
from rootless.host.subids import login_name

LINGER = "/var/lib/systemd/linger"
SYSTEM_BUS = "/run/dbus/system_bus_socket"
_LOGIND = "org.freedesktop.login1"


def ends_with_session(cgroup: str) -> tuple[str, str] | None:
    """Return why what is in a cgroup ends when its user logs out, and what can be done; None when it does not.

    Args:
        cgroup: its path, as /proc/PID/cgroup has it.
    """
    for unit in cgroup.split("/"):
        if unit.startswith("user@") and unit.endswith(".service"):
            uid = unit[len("user@") : -len(".service")]
            if uid.isdecimal() and paths.exists(f"{LINGER}/{login_name(int(uid))}"):
                return None
            return "the user's systemd ends with the last session, and the container with it", "loginctl enable-linger"
        if unit.startswith("session-") and unit.endswith(".scope"):
            if not _sessions_are_killed():
                return None
            return (
                "logind is set to end all processes of a session (KillUserProcesses), and this is one",
                "loginctl enable-linger, and run it with --systemd-cgroup",
            )
    return None


def _sessions_are_killed() -> bool:
    """Ask logind; without it, sessions are not killed."""
    from rootless.cgroup.dbus import Connection, DBusError

    paths.noted(paths.UNKNOWN, "logind")
    try:
        connection = Connection(SYSTEM_BUS)
    except OSError:
        return False
    try:
        bus, get = "org.freedesktop.DBus", "org.freedesktop.DBus.Properties"
        connection.send(bus, "/org/freedesktop/DBus", bus, "Hello", "")
        words = (f"{_LOGIND}.Manager", "KillUserProcesses")
        asked = connection.send(_LOGIND, "/org/freedesktop/login1", get, "Get", "ss", *words)
        return connection.reply(asked) == [True]
    except (OSError, DBusError):
        return False
    finally:
        connection.close()
