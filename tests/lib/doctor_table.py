"""docs/doctor.md and the codes of conditions in docs/errors.md, from the declarations of the checks and their tests."""

from __future__ import annotations

from pathlib import Path

from rootless.doctor.report import CONDITIONS
from tests.lib.host_conditions import CASES, COMMANDS

TABLE = Path("docs/doctor.md")
WRITE = "ROOTLESS_WRITE_TABLE=1 python3 -m pytest tests/unit/test_doctor_table.py"


class Elsewhere:
    """A condition that tests of other files have.

    Attributes:
        how: the way in which it comes about; for a recorded host, why the test machine cannot be one.
        test: the test.
        fixed: how the fix is shown to work, or why it is not.
        recorded: the check gets what such a host answered; otherwise the host is a real one.
    """

    def __init__(self, how, test, fixed, *, recorded=False) -> None:
        self.how = how
        self.test = test
        self.fixed = fixed
        self.recorded = recorded


_UNIT = "tests/unit/test_doctor_host.py::"
_REFUSED = f"{_UNIT}test_a_refused_user_namespace_names_the_setting_and_the_command"
_SYSTEM = "tests/system/test_doctor.py::"
_VERB = "tests/verbs/test_doctor.py::"
_NO_KERNEL = "no: it is another kernel"
ELSEWHERE = {
    f"RL-HOST-{name}": where
    for name, where in {
        "KERNEL": Elsewhere(
            "the machine has one kernel", f"{_UNIT}test_an_old_kernel_is_found", _NO_KERNEL, recorded=True
        ),
        "USERNS-KERNEL": Elsewhere("its kernel has user namespaces", _REFUSED, _NO_KERNEL, recorded=True),
        "USERNS-SYSCTL": Elsewhere(
            "kernel.unprivileged_userns_clone is 0, on a machine with Debian's kernel",
            f"{_SYSTEM}test_unprivileged_user_namespaces_that_are_switched_off",
            "yes, by its commands",
        ),
        "USERNS-APPARMOR": Elsewhere("only Ubuntu's kernels have the setting", _REFUSED, _NO_KERNEL, recorded=True),
        "USERNS-PROFILE": Elsewhere(
            "a profile without the rule, on a machine with AppArmor",
            f"{_SYSTEM}test_apparmor_profile_without_user_namespaces",
            "yes, by its advice",
        ),
        "USERNS": Elsewhere("its kernel is without SELinux", _REFUSED, _NO_KERNEL, recorded=True),
        "FUSE": Elsewhere(
            "every kernel from 4.18 on can",
            f"{_UNIT}test_a_kernel_that_cannot_mount_for_users_is_found",
            _NO_KERNEL,
            recorded=True,
        ),
        "OVERLAY": Elsewhere(
            "every kernel from 5.11 on can",
            f"{_UNIT}test_a_kernel_that_cannot_mount_for_users_is_found",
            _NO_KERNEL,
            recorded=True,
        ),
        "CGROUP": Elsewhere(
            "a cgroup that belongs to root",
            f"{_VERB}test_delegated_cgroup_is_found_and_each_controller_that_it_has_not",
            "yes, by delegating one",
        ),
        "CONTROLLERS": Elsewhere(
            "a delegated cgroup without controllers",
            f"{_VERB}test_delegated_cgroup_is_found_and_each_controller_that_it_has_not",
            "its commands write the file; the machine has no systemd to read it",
        ),
        "LINGER": Elsewhere(
            "a process in the cgroup of a user's systemd",
            f"{_VERB}test_containers_that_end_at_logout_are_found",
            "yes, by the file that loginctl makes",
        ),
        "CDI-SPEC": Elsewhere(
            "a spec without devices",
            "tests/unit/test_cdi.py::test_doctor_names_devices_conflicts_and_broken_specs",
            "no: the vendor's tool writes specs",
        ),
        "CDI-CONFLICT": Elsewhere(
            "two specs of one device",
            "tests/unit/test_cdi.py::test_doctor_names_devices_conflicts_and_broken_specs",
            "no: a person has to choose",
        ),
        "CDI-FILES": Elsewhere(
            "a spec with a hook that was removed",
            "tests/verbs/test_cdi.py::test_a_stale_spec_is_one_line_with_a_fix",
            "no: the vendor's tool writes specs",
        ),
    }.items()
}
"""By code."""

HEAD = f"""# What `rootless doctor` checks

`rootless doctor` tries what containers need: it creates namespaces, writes ID maps, mounts file systems, starts the
helpers of networks and makes files, each in a child process, and leaves nothing behind. It takes less than half a
second, or three seconds more for each program or file server that does not answer. It prints what is missing with the
evidence, the cost and the fix, and then what works.

    rootless doctor                 # for a person
    rootless doctor --json          # the same for programs
    rootless doctor --fix-script    # a shell script of the fixes: those of root, of the user, and by hand

The exit status is 1 if no container can run. The JSON has `user`, `usable`, `problems` (each with `code`, `level`,
`what`, `evidence`, `cost`, `fix`, `commands`, `root`), `works`, `untried` and `devices`. Levels are `essential` (no
container runs), `missing` and `optional`. The script does nothing until it is called with `root` or `user`; read it
first. Optional fixes are comments in it.

When a launch fails because of this host, the same check runs, and the error has its evidence and fix.

## Conditions

The tests generate this table. `tests/verbs/test_doctor_conditions.py` makes each condition come about in namespaces of
its own, looks for it with `doctor` and `rootless run`, applies the fix, and looks again. A test fails if the table is
out of date, and `{WRITE}` writes it.

- **found**: `doctor` finds the condition on a real host. *From a record* means that the machine of the tests cannot be
  such a host, for the reason in the second column, and that the check gets what one has answered.
- **`rootless run`**: its result on such a host. The cell is empty if the launch of a bundle is not concerned.
- **fixed**: `doctor` and `rootless run` succeed after the commands that `doctor` has printed, or after what its advice
  says.

| condition | comes about by | found | `rootless run` | fixed |
| --- | --- | --- | --- | --- |
"""


def table() -> str:
    """Return the text of docs/doctor.md."""
    rows = [row for condition in CONDITIONS for row in _rows(condition)]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(condition):
    name = f"{condition.what} (`{condition.code}`)"
    if where := ELSEWHERE.get(condition.code):
        found = "from a record" if where.recorded else "yes"
        return [(name, where.how, found, "", where.fixed)]
    return [(name, case.how, "yes", case.launch, _fixed(case)) for case in CASES if case.code == condition.code]


def _fixed(case):
    if case.repair == COMMANDS:
        return "yes, by its commands"
    if case.kept:
        return f"yes, after the test has undone it: {case.kept}"
    return "yes, by its advice" if case.repair else "yes, without what surrounds it"


SECTION = "## Conditions of a host"


def codes() -> str:
    """Return the section of docs/errors.md with the codes of conditions."""
    lines = [
        f"{SECTION}\n",
        "`rootless doctor` prints these codes, and [doctor.md](doctor.md) has the evidence and the fix of each.\n",
        "| code | what is missing |",
        "| --- | --- |",
        *(f"| {condition.code} | {condition.what} |" for condition in sorted(CONDITIONS, key=lambda each: each.code)),
    ]
    return "\n".join(lines) + "\n"
