"""Read linux.seccomp into plain data, without libseccomp and independently of the machine: config-linux.md "Seccomp".

Where the specification leaves a choice, rootless does what users of runc and crun expect:

* Without `flags`, SECCOMP_FILTER_FLAG_SPEC_ALLOW is set; an empty list means no flag.
* A rule that lists one argument several times matches if any of its conditions holds; otherwise all must hold.
* If the default action returns an errno, system calls newer than every one that the profile names return ENOSYS
  (`SeccompFilter.newer_are_unknown`), as in runc but not in crun. Programs probe for a new system call and fall back
  only on ENOSYS, so EPERM from a profile older than the image's C library would break them. Docker's and containerd's
  profiles return EPERM; podman's returns ENOSYS itself. A default action that kills, traps or traces applies to newer
  system calls too (runc returns ENOSYS there as well).

`SCMP_ACT_NOTIFY` needs a seccomp agent that listens at listenerPath, or at the socket that the annotation
run.oci.seccomp.receiver names (crun).
"""

from __future__ import annotations

import errno

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Condition = tuple[int, int, int, int]
    """Argument index, libseccomp's number of the operator, first datum, second datum."""

# Return values of a filter (seccomp(2)); the low 16 bits are an errno or a message for the tracer.
ERRNO = 0x0005_0000
TRACE = 0x7FF0_0000
NOTIFY = 0x7FC0_0000
ALLOW = 0x7FFF_0000
_DATA = 0xFFFF
ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x8000_0000,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_ALLOW": ALLOW,
}
_LARGEST_DATA = {ERRNO: 4095, TRACE: _DATA}  # The kernel's MAX_ERRNO; libseccomp refuses larger ones.

OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ARGUMENTS = 6

LISTENER_PLACE = "linux.seccomp.listenerPath"
SPEC_ALLOW = 4
_FLAG_NEW_LISTENER = 8
_FLAG_WAIT_KILLABLE = 32
RECEIVER = "run.oci.seccomp.receiver"
KNOWS_ALL = "run.oci.seccomp_fail_unknown_syscall"
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # The executor has one thread: nothing to synchronise.
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": _FLAG_WAIT_KILLABLE,
}

NATIVE = {  # uname -m, if libseccomp has another name
    "i386": "x86",
    "i486": "x86",
    "i586": "x86",
    "i686": "x86",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
}

_DONE = {  # Completes "12 syscalls …" in summary().
    0: "kill the thread",
    0x8000_0000: "kill the process",
    0x0003_0000: "raise SIGSYS",
    NOTIFY: "left to a listener",
    0x7FFC_0000: "allowed and logged",
    ALLOW: "allowed",
}


class Rule:
    """A rule: system calls, conditions and an action.

    Attributes:
        action: the kernel's 32-bit return value, errno included.
        names: names of system calls; libseccomp knows which of them exist.
        alternatives: the rule applies if every condition of any alternative holds; ``((),)`` always applies.
        where: place in config.json.
    """

    __slots__ = ("action", "alternatives", "names", "where")

    def __init__(
        self, action: int, names: tuple[str, ...], alternatives: tuple[tuple[Condition, ...], ...], where: str
    ) -> None:
        self.action = action
        self.names = names
        self.alternatives = alternatives
        self.where = where


class SeccompFilter:
    """A whole filter.

    Attributes:
        default: the kernel's 32-bit return value if no rule matches, errno included.
        native: libseccomp's name of the host's architecture, which the filter always includes.
        architectures: libseccomp's names of the architectures in config.json, in order, each once.
        flags: for seccomp(2), SECCOMP_SET_MODE_FILTER.
        listener: if a rule notifies, the `path` of the agent's socket and `metadata` for the agent; otherwise empty.
        rules: in the order of config.json, including those with the same action as the default.
        knows_all: a name that libseccomp does not know is an error (crun's annotation KNOWS_ALL).
        unlisted: the kernel's 32-bit return value for calls of all other architectures; the default ends the thread.
    """

    __slots__ = ("architectures", "default", "flags", "knows_all", "listener", "native", "rules", "unlisted")

    def __init__(
        self, default: int, native: str, architectures: tuple[str, ...], flags: int, rules: tuple[Rule, ...]
    ) -> None:
        self.default = default
        self.native = native
        self.architectures = architectures
        self.flags = flags
        self.rules = rules
        self.listener: dict[str, str] = {}
        self.knows_all = False
        self.unlisted = 0

    @property
    def hook_flags(self) -> int:
        """The flags where nobody answers notifications yet: what would wait for an answer gets ENOSYS."""
        return self.flags & ~(_FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE)

    @property
    def newer_are_unknown(self) -> bool:
        """Whether system calls newer than every one that the rules name return ENOSYS."""
        return self.default & ~_DATA == ERRNO and self.default & _DATA != errno.ENOSYS

    def key(self) -> bytes:
        """Return a cache key: filters with equal keys compile to the same program on this host."""
        rules = [(rule.action, rule.names, rule.alternatives) for rule in self.rules]
        return repr((self.default, self.native, self.architectures, self.unlisted, rules)).encode()

    def __str__(self) -> str:
        """Return summary()."""
        return self.summary()

    def summary(self) -> str:
        """Return one line for people, such as ``default: errno 38 (ENOSYS); 412 syscalls allowed; …``."""
        # In libseccomp a rule without conditions overrides those with conditions, and the first of them wins.
        always: dict[str, int] = {}
        by_argument: set[str] = set()
        for rule in self.rules:
            if rule.action == self.default:
                continue
            if rule.alternatives == ((),):
                for name in rule.names:
                    always.setdefault(name, rule.action)
            else:
                by_argument.update(rule.names)
        numbers = {ALLOW: 0}
        for action in always.values():
            numbers[action] = numbers.get(action, 0) + 1
        counts = [(number, _done(action)) for action, number in numbers.items() if number]
        if by_argument := by_argument.difference(always):
            counts.append((len(by_argument), "by argument"))
        parts = ["default: " + _default(self.default)]
        if counts:
            noun = " syscall " if counts[0][0] == 1 else " syscalls "
            parts.append(", ".join(f"{count}{noun if not i else ' '}{done}" for i, (count, done) in enumerate(counts)))
        if self.newer_are_unknown:
            parts.append(f"newer syscalls errno {errno.ENOSYS} (ENOSYS)")
        others = [name for name in self.architectures if name != self.native]
        parts.append("architectures " + " ".join([self.native, *others]))
        return "; ".join(parts)


def filter_of(seccomp: dict[str, Any], host_arch: str, receiver: str = "") -> SeccompFilter:
    """Return the filter for linux.seccomp.

    Args:
        seccomp: the object, whose types are already checked.
        host_arch: uname(2)'s name of the machine.
        receiver: the path of the agent's socket if the object has no listenerPath.

    Raises:
        RootlessError: `RL-CONFIG`: the object breaks the specification.
    """
    where = "linux.seccomp"
    if seccomp.get("listenerMetadata") and not seccomp.get("listenerPath"):
        raise _wrong("listenerMetadata without listenerPath", where + ".listenerMetadata")
    default = _action(seccomp, "defaultAction", "defaultErrnoRet", where)
    flags = _flags(seccomp.get("flags"), where + ".flags")
    listed: dict[str, None] = {}
    for i, name in enumerate(seccomp.get("architectures") or ()):
        if not name.startswith("SCMP_ARCH_"):
            cause = f'unknown architecture "{name}", expected one such as SCMP_ARCH_X86_64'
            raise _wrong(cause, f"{where}.architectures[{i}]")
        listed[name.removeprefix("SCMP_ARCH_").lower()] = None
    rules = tuple(_rule(rule, f"{where}.syscalls[{i}]") for i, rule in enumerate(seccomp.get("syscalls") or ()))
    wanted = SeccompFilter(default, NATIVE.get(host_arch, host_arch), tuple(listed), flags, rules)
    _listen(wanted, seccomp.get("listenerPath") or receiver, seccomp.get("listenerMetadata") or "")
    return wanted


def _listen(wanted: SeccompFilter, path: str, metadata: str) -> None:
    asking = next((rule for rule in wanted.rules if rule.action == NOTIFY), None)
    if not asking:
        wanted.flags &= ~_FLAG_WAIT_KILLABLE  # the kernel refuses it (EINVAL) on a filter without a listener
        return
    if not path.startswith("/"):
        raise RootlessError(
            "seccomp filter",
            cause="SCMP_ACT_NOTIFY needs the absolute path of a socket in linux.seccomp.listenerPath",
            where=f"{asking.where}.action",
            fix="write the path of the seccomp agent's socket, or choose another action",
            code="RL-CONFIG",
        )
    wanted.flags |= _FLAG_NEW_LISTENER
    wanted.listener = {"path": path, "metadata": metadata}


def _flags(names: Iterable[str] | None, where: str) -> int:
    if names is None:
        return SPEC_ALLOW
    flags = 0
    for i, name in enumerate(names):
        flags |= _named(name, FLAGS, "flag", f"{where}[{i}]")
    return flags


def _rule(rule: dict[str, Any], where: str) -> Rule:
    conditions = []
    for j, argument in enumerate(rule.get("args") or ()):
        place = f"{where}.args[{j}]"
        index = argument["index"]
        if not 0 <= index < _ARGUMENTS:
            raise _wrong(f"argument {index}, expected 0 to {_ARGUMENTS - 1}", place + ".index")
        operator = _named(argument["op"], OPERATORS, "operator", place + ".op")
        # SCMP_CMP_MASKED_EQ: `value` is the mask, `valueTwo` the expected value of the masked argument.
        conditions.append((index, operator, argument["value"], argument.get("valueTwo") or 0))
    alternatives: tuple[tuple[Condition, ...], ...] = (tuple(conditions),)
    if len({condition[0] for condition in conditions}) < len(conditions):
        alternatives = tuple((condition,) for condition in conditions)
    return Rule(_action(rule, "action", "errnoRet", where), tuple(rule["names"]), alternatives, where)


def _action(holder: dict[str, Any], key: str, data_key: str, where: str) -> int:
    name = holder[key]
    if name == "SCMP_ACT_NOTIFY" and key == "defaultAction":
        raise _wrong("SCMP_ACT_NOTIFY cannot be the default action", f"{where}.{key}")
    action = _named(name, ACTIONS, "action", f"{where}.{key}")
    data = holder.get(data_key)
    largest = _LARGEST_DATA.get(action)
    if largest is None:
        if data is not None:
            raise _wrong(f"{name} takes no errno", f"{where}.{data_key}")
        return action
    if data is None:
        data = errno.EPERM
    if not 0 <= data <= largest:
        raise _wrong(f"errno {data}, expected 0 to {largest}", f"{where}.{data_key}")
    return action | int(data)


def _named(name: str, table: dict[str, int], kind: str, where: str) -> int:
    value = table.get(name)
    if value is None:
        raise _wrong(f'unknown {kind} "{name}", expected one of ' + ", ".join(table), where)
    return value


def _wrong(cause: str, where: str) -> RootlessError:
    return RootlessError("seccomp filter", cause=cause, where=where, code="RL-CONFIG")


def _errno_name(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")


def _done(action: int) -> str:
    kind, data = action & ~_DATA, action & _DATA
    if kind == ERRNO:
        return "refused with " + _errno_name(data) if data else "skipped as if they had succeeded"
    if kind == TRACE:
        return f"left to a tracer ({data})"
    return _DONE[action]


def _default(action: int) -> str:
    kind, data = action & ~_DATA, action & _DATA
    if kind == ERRNO:
        name = errno.errorcode.get(data)
        return f"errno {data} ({name})" if name else f"errno {data}"
    return _done(action)
