"""System calls that only seem to succeed, in a container that has a single ID: `--fake-chown`.

Package managers give files to many owners and change their own user. With one ID the kernel refuses both. Installed
files work nevertheless with a single owner, so a seccomp filter answers these calls with success and does nothing
("zero consistency"). Source: arXiv 2405.06085.

* It is loaded before the filter of config.json. Of filters that return an errno, the one that was loaded last counts,
  and stricter actions precede an errno (seccomp(2)): what config.json denies stays denied.
* Calls that config.json leaves to an agent or a tracer are left out: an errno precedes those actions.
* A device node is not made. Everything else that mknod(2) makes is, also the device 0:0: overlayfs takes it for a
  whiteout, and the kernel lets everybody make it.
* apt checks the ids of its downloads' user, which stay as they are: a setting for the container alone has it do without
  that user.
* capset(2), setfsuid(2) and setfsgid(2) are left out. They work with one ID, and a program that only seemed to drop a
  capability would keep it.
"""

from __future__ import annotations

from rootless.plan import ops
from rootless.plan.ops import Op
from rootless.plan.process.seccomp import ALLOW, ERRNO, NATIVE, NOTIFY, SPEC_ALLOW, TRACE, Rule, SeccompFilter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.process.seccomp import Condition

_SUCCESS = ERRNO | 0
_OWNERS = ("chown", "chown32", "lchown", "lchown32", "fchown", "fchown32", "fchownat")
_IDS = tuple([
    name + width
    for name in ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups")
    for width in ("", "32")
])  # fmt: skip
_FILE_TYPE, _CHARACTER, _BLOCK = 0o170000, 0o020000, 0o060000
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_APT = 'APT::Sandbox::User "root"; // the container has a single ID'
_COMPATIBLE = {"x86_64": ("x86", "x32"), "aarch64": ("arm",), "s390x": ("s390",), "riscv64": ()}
"""Further architectures of programs that the kernel of one can execute, as libseccomp names them.

Programs of others run too; their changes of owner fail.
"""


def filter_beside(profile: SeccompFilter | None, machine: str) -> SeccompFilter:
    """Return the filter for a container whose config.json has `profile`, on a host of this uname(2) machine."""
    left = _left_out(profile) if profile else frozenset()
    native = NATIVE.get(machine, machine)
    rules = (
        Rule(_SUCCESS, tuple([name for name in _OWNERS + _IDS if name not in left]), ((),), ""),
        *[
            Rule(_SUCCESS, (name,), _devices(mode), "")
            for name, mode in (("mknod", 1), ("mknodat", 2))
            if name not in left
        ],
    )
    pretence = SeccompFilter(ALLOW, native, _COMPATIBLE.get(native, ()), SPEC_ALLOW, rules)
    pretence.unlisted = ALLOW
    return pretence


def apt_settings() -> list[Op]:
    """Return the operation that lets apt download as root."""
    return [Op(ops.TEXT_FILE, "/etc/apt/apt.conf.d", "99rootless", _APT, on_error=ops.IGNORE)]


def _devices(mode: int) -> tuple[tuple[Condition, ...], ...]:
    """Return the conditions for device nodes; `mode` is the index of that argument, which the device follows."""
    return (
        ((mode, _MASKED_EQUAL, _FILE_TYPE, _CHARACTER), (mode + 1, _NOT_EQUAL, 0, 0)),
        ((mode, _MASKED_EQUAL, _FILE_TYPE, _BLOCK),),
    )


def _left_out(profile: SeccompFilter) -> frozenset[str]:
    """Return the calls that may reach an agent or a tracer."""
    asks = {name for rule in profile.rules if rule.action & ~0xFFFF in (NOTIFY, TRACE) for name in rule.names}
    if profile.default & ~0xFFFF == TRACE:
        always = {name for rule in profile.rules if rule.alternatives == ((),) for name in rule.names}
        asks.update({*_OWNERS, *_IDS, "mknod", "mknodat"} - always)
    return frozenset(asks)
