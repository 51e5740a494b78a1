"""`explain --json` and `run --plan`: a Plan as data that runs again."""

from __future__ import annotations

import json

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.cgroup2 import cgroup2
from tests.lib.cgroup_containers import bundle_for, runs

__all__ = ["cgroup2", "runs"]  # fixtures


def plan_of(rootless, bundle, *flags):
    """Write the Plan of a bundle to a file, and return both its path and its data."""
    done = rootless("explain", "--json", *flags, "--bundle", bundle)
    assert done.returncode == 0, done
    path = rootless.user.tmp / "plan.json"
    path.write_text(done.stdout)
    return path, json.loads(done.stdout)


@pytest.mark.parametrize("flags", [(), ("--network", "none"), ("--userns", "keep-id")])
def test_plan_runs_again(user, rootless, flags):
    bundle = make_bundle(user, base_config("sh", "-c", "id -u; cat /proc/sys/kernel/hostname"))
    path, _ = plan_of(rootless, bundle, *flags)
    ran = rootless("run", *flags, "--bundle", bundle, "c1")
    again = rootless("run", "--plan", path, "c1")
    assert (again.returncode, again.stdout) == (ran.returncode, ran.stdout)
    assert rootless("list", "-q").stdout == ""


def test_edited_plan_runs_as_edited(user, rootless):
    path, data = plan_of(rootless, make_bundle(user, base_config("echo", "one")))
    (program,) = [each for each in data["operations"] if each["op"] == "exec"]
    program["args"][1] = "two"
    path.write_text(json.dumps(data))
    assert rootless("run", "--plan", path, "c1").stdout == "two\n"


def test_plan_with_a_seccomp_filter_and_hooks(user, rootless):
    config = base_config("true")
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}  # fmt: skip
    mark = user.tmp / "mark"
    config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo ran >>{mark}"]}]}
    path, _ = plan_of(rootless, make_bundle(user, config))
    assert rootless("run", "--plan", path, "c1").returncode == 0
    assert mark.read_text() == "ran\n"


def test_plan_with_a_cgroup_and_limits(runs, user):
    def limit(config):
        config["linux"]["resources"] = {"unified": {"cgroup.max.depth": "3"}}

    path, data = plan_of(runs, bundle_for(user, "true", change=limit))
    assert [each["op"] for each in data["operations"]].count("make_cgroup") == 1
    done = runs("run", "--plan", path, "c1")
    assert (done.returncode, done.stderr) == (0, "")


def test_plan_with_a_network(user, rootless, need):
    need("pasta")
    path, data = plan_of(rootless, make_bundle(user, base_config("true")), "--network", "pasta")
    assert [each["op"] for each in data["operations"]].count("begin_network") == 1
    assert rootless("run", "--plan", path, "c1").returncode == 0


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "JSON"),
        ("[]", "does not hold a Plan"),
        ('{"format": 1, "id": "x", "operations": [], "notes": ' + "[" * 5000 + "]" * 5000 + "}", ""),
        ("{}", "does not hold a Plan"),
        ('{"format": 99}', "its format is 99"),
        ('{"format": 1, "id": "x", "notes": [], "operations": [{"op": "fly"}]}', "does not hold a Plan"),
        ('{"format": 1, "id": "x", "notes": [], "operations": [{"op": "claim"}]}', "does not hold a Plan"),
    ],
)
def test_malformed_plan_file_is_refused(user, rootless, text, cause):
    path = user.tmp / "plan.json"
    path.write_text(text)
    done = rootless("run", "--plan", path, "c1")
    assert (done.returncode, done.stdout) == (1, "")
    assert cause in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert rootless("list", "-q").stdout == ""


@pytest.mark.parametrize("kind", ["claim", "spawn", "begin_id_maps", "record", "begin_network", "wait_start", ""])
def test_inconsistent_plan_is_undone(user, rootless, kind):
    """An operation that another one needs is removed, or all are; earlier operations are undone."""
    path, data = plan_of(rootless, make_bundle(user, base_config("true")))
    data["operations"] = [each for each in data["operations"] if kind and each["op"] != kind]
    path.write_text(json.dumps(data))
    done = rootless("run", "--plan", path, "c1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rootless: --plan {path}: its operations do not fit together (")
    assert list(rootless.root.glob("*")) == []


def test_plan_with_a_wrong_operand(user, rootless):
    path, data = plan_of(rootless, make_bundle(user, base_config("true")))
    for each in data["operations"]:
        if each["op"] == "umask":
            each["mask"] = None
    path.write_text(json.dumps(data))
    done = rootless("run", "--plan", path, "c1")
    assert (done.returncode, "its operations do not fit together (" in done.stderr) == (1, True), done.stderr
    assert list(rootless.root.glob("*")) == []


def test_missing_file(rootless):
    done = rootless("run", "--plan", "/nonexistent/plan.json", "c1")
    assert "--plan /nonexistent/plan.json: no such file or directory" in done.stderr
