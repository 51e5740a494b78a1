"""Each condition of a host: the test breaks it, `doctor` and a launch name it, and the fix makes both succeed.

tests/lib/host_conditions.py has the cases; docs/doctor.md is made from them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lib.broken_host import BrokenHost
from tests.lib.bundles import make_bundle
from tests.lib.containers import until
from tests.lib.host_conditions import CASES, COMMANDS, FAILS, RUNS


@pytest.mark.usefixtures("require_root")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_condition_is_found_and_its_fix_works(case, user, rootless_command):
    for setting in re.findall(r"sysctl -qw ([\w.]+)=", case.script):
        if not Path("/proc/sys", *setting.split(".")).exists():
            pytest.skip(f"needs a kernel with {setting}")
    bundle = make_bundle(user)
    run = ("--root", user.tmp / "state", "run", "--bundle", bundle, "c1")
    with BrokenHost(
        user, rootless_command, case.kind, case.script, outer=case.outer, wrap=case.wrap, env=case.env
    ) as host:
        found = host.problems()
        assert case.code in found, found
        assert case.code == "RL-HOST-HOME-OWNERS" or "RL-HOST-HOME-OWNERS" not in found
        problem = found[case.code]
        launched = host(*run)
        if case.launch == FAILS:
            assert launched.returncode == 1, launched
            error = launched.stderr.splitlines()[-1]
            assert problem["evidence"] in error
            assert error.count(re.split("; |, and ", problem["evidence"])[0]) == 1
            assert error.endswith(f"; fix: {problem['fix']}")
        else:
            assert launched.returncode == 0, launched
            assert case.launch == RUNS or "only your own id exists in the container" in launched.stderr
            if case.code == "RL-HOST-SUBIDS":
                assert all(command in launched.stderr for command in problem["commands"] or ["ipa subid-generate"])
        if case.repair == COMMANDS:
            assert problem["root"]
            host.as_root("\n".join(problem["commands"]))
        elif case.repair:
            host.as_root(case.repair)
        else:
            host.outer, host.wrap, host.env = (), (), {}
        if case.code == "RL-HOST-KEYRING":
            until(lambda: case.code not in host.problems(), "the kernel frees the keys of processes that have ended")
        assert case.code not in host.problems()
        launched = host(*run)
        assert launched.returncode == 0, launched
        assert problem["evidence"] not in launched.stderr
