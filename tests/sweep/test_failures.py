"""Any call of the executor or of `rootless` fails: there is one clear error line or no effect, and nothing is left."""

from __future__ import annotations

import errno

import pytest

from rootless.plan import ops
from tests.lib.sweep import CONTAINER, FIRST_STAGE, HARMLESS, ONCE_MORE, WHOLE, Case
from tests.lib.sweep_lives import OWN, all_right, came, is_clear, rare_sweep, sweep, tracer

__all__ = ["rare_sweep", "sweep", "tracer"]  # fixtures

CODES = {"COMMAND": "EXEC-NOT-FOUND"}
CANNOT_FAIL = {
    "KEYRING", "NO-KEYS", "PASS-NAMESPACES", "READY", "STDIO-OWNER", "UNNAMED-KEYRING",
    "WAIT-START",
}  # fmt: skip
"""Operations that cannot be refused, that the container does not need, or that replace others; and one that only
`explain` plans, which adds a network."""


def test_each_operation_of_the_executor_reports_its_failure(sweep):
    swept = sweep("create")
    failed = set()

    def tells(outcome):
        failed.update(record["code"] for record in outcome.log if "code" in record)
        silent = outcome.last != 1 and "Input/output error" not in str(outcome.log)
        excused = outcome.case.moment.name in HARMLESS.keys() | ONCE_MORE.keys()
        return ["no error is reported"] if silent and not excused else came(outcome)

    executor = FIRST_STAGE + CONTAINER
    moments = swept.moments(executor, without=HARMLESS)
    moments += [moment for moment in swept.kinds(executor) if moment.name in HARMLESS]
    all_right(swept.run_all([Case(moment) for moment in moments], tells, least=250))
    executors = {kind.name for kind in ops.KINDS if kind.by == ops.EXECUTOR}
    kinds = {each["op"].upper().replace("_", "-") for each in swept.plan() if each["op"] in executors}
    assert {kind for kind in kinds if f"RL-{CODES.get(kind, kind)}" not in failed} == CANNOT_FAIL


REFUSALS = {
    "bind": [errno.ENOMEM],
    "clone3": [errno.ENOMEM, errno.EAGAIN],
    "connect": [errno.EAGAIN],
    "execve": [errno.EACCES, errno.ENOENT],
    "fcntl": [errno.EIO],
    "flock": [errno.ENOLCK],
    "getdents64": [errno.EIO, errno.ENOMEM],
    "ioctl": [errno.EIO],
    "linkat": [errno.ENOSPC, errno.EIO],
    "listen": [errno.ENOMEM],
    "memfd_create": [errno.EMFILE, errno.ENOMEM],
    "mkdir": [errno.ENOSPC, errno.EIO],
    "newfstatat": [errno.EIO, errno.ENOMEM],
    "openat": [errno.EMFILE, errno.ENOMEM, errno.EIO],
    "pidfd_open": [errno.EMFILE, errno.ENOMEM],
    "pidfd_send_signal": [errno.ENOMEM],
    "pipe2": [errno.EMFILE],
    "poll": [errno.ENOMEM],
    "read": [errno.EIO, errno.ENOMEM],
    "recvmsg": [errno.ENOMEM],
    "renameat": [errno.ENOSPC, errno.EIO],
    "rmdir": [errno.EIO],
    "sendfile": [errno.ENOMEM],
    "signalfd4": [errno.EMFILE],
    "socket": [errno.EMFILE],
    "socketpair": [errno.EMFILE],
    "unlinkat": [errno.EIO],
    "write": [errno.ENOSPC, errno.EIO],
}
"""Errors for missing resources, by system call. Only the first of each list is tried, unless the sweep is full."""


@pytest.mark.parametrize(
    ("life", "role", "since", "least"),
    [
        ("create", "0", OWN, 90),
        ("create", "1", OWN, 12),
        ("create", "2", OWN, 18),
        ("kill", "2", OWN, 9),
        ("run", "0", "socketpair", 70),  # earlier calls are those of create
        ("run attended", "0", "pidfd_open", 8),
        ("run -d", "0", "linkat", 9),
        ("exec", "2", OWN, 50),
        ("look", "1", OWN, 7),
        ("look", "2", OWN, 7),
    ],
)
def test_a_failed_call_of_rootless_is_reported_or_harmless(sweep, life, role, since, least):
    swept = sweep(life)
    moments = [moment for moment in swept.moments(role, since=since) if moment.name in REFUSALS]
    all_errors = [(moment, REFUSALS[moment.name]) for moment in moments]
    cases = [Case(moment, "", error) for moment, errors in all_errors for error in (errors if WHOLE else errors[:1])]
    all_right(swept.run_all(cases, is_clear, least=least))


@pytest.mark.parametrize("life", ["rare", "network", "shared network"])
def test_a_failed_call_for_a_rare_feature_is_reported_or_harmless(rare_sweep, life):
    swept = rare_sweep(life)
    moments = [moment for moment in swept.kinds("0", since="clone3") if moment.name in REFUSALS]
    cases = [Case(moment, "", REFUSALS[moment.name][0]) for moment in moments]
    all_right(swept.run_all(cases, is_clear, least=15, missed=8))
