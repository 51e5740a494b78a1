"""`doctor`: its outputs, its exit status, and hostile hosts; test_doctor_conditions.py has each condition."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootless.doctor.report import CHECKS, CONDITIONS, Report
from tests.lib.broken_host import ROOT, BrokenHost
from tests.lib.bundles import make_bundle, own
from tests.lib.cgroup2 import UserInView, View, cgroup2

__all__ = ["cgroup2"]  # the fixture

DOCTOR = (sys.executable, "-m", "rootless", "doctor")
WHOLE = "Nothing is missing on this host.\n"


@pytest.fixture
def checkout(pytestconfig):
    return {"cwd": pytestconfig.rootpath}


@pytest.fixture
def whole(need):
    """A host with all features."""
    for program in ("newuidmap", "slirp4netns", "pasta", "squashfuse_ll", "sqfstar", "skopeo"):
        need(program)
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")


def missing(done):
    """Return the output without optional problems, and without what works."""
    return "".join(
        each for each in re.split(r"(?m)^(?=\w)", done.stdout) if not each.startswith(("optional: ", "works: "))
    )


def found(done):
    """Return the codes of the problems in JSON output."""
    return [problem["code"] for problem in json.loads(done.stdout)["problems"]]


# --- Whole hosts --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("whole")
def test_an_ordinary_user_on_a_whole_host_has_no_problem(user, checkout):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = user.run(DOCTOR, **checkout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, missing(done), done.stderr) == (0, WHOLE, "")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 2  # it is 0.3; the time that passes depends on what else this host does


@pytest.mark.usefixtures("whole")
def test_root_of_a_user_namespace_has_no_problem(user, checkout):
    done = user.run(["unshare", "--user", "--map-root-user", *DOCTOR], **checkout)
    assert (done.returncode, missing(done)) == (0, WHOLE)


@pytest.mark.usefixtures("whole", "require_root")
def test_real_root_has_no_problem_where_ordinary_users_have_none():
    assert [str(each) for each in Report().problems if each.level != "optional"] == []


@pytest.mark.usefixtures("whole")
def test_a_user_without_subordinate_ids_gets_the_command(single_user, checkout):
    done = single_user.run(DOCTOR, **checkout)
    assert done.returncode == 0
    assert "missing: subordinate IDs (RL-HOST-SUBIDS)\n" in done.stdout
    assert f"evidence: /etc/subuid and /etc/subgid have no uids and no gids for {single_user.name}\n" in done.stdout
    assert "fix: sudo usermod --add-subuids " in done.stdout
    assert done.stdout.count("missing: ") == 1


# --- Outputs ------------------------------------------------------------------------------------------------------


def test_doctor_verb_prints_the_same(user, rootless_command, checkout):
    done = user.run([rootless_command, "doctor"])
    assert (done.returncode, done.stdout) == (0, user.run(DOCTOR, **checkout).stdout)


def test_json_has_every_check_and_stable_keys(single_user, checkout):
    done = single_user.run([*DOCTOR, "--json"], **checkout)
    report = json.loads(done.stdout)
    assert set(report) == {"user", "usable", "problems", "works", "untried", "devices"}
    assert (report["user"], report["usable"], report["untried"], done.returncode) == (single_user.name, True, [], 0)
    keys = {"code", "level", "what", "evidence", "cost", "fix", "commands", "root"}
    assert all(set(problem) == keys for problem in report["problems"])
    known = {condition.code for condition in CONDITIONS}
    assert {"RL-HOST-SUBIDS"} <= set(found(done)) <= known
    failed = [check for check in CHECKS if known_codes(check) & set(found(done))]
    works = {entry["subject"] for entry in report["works"]}
    assert works == {check.subject for check in CHECKS} - {check.subject for check in failed}


def known_codes(check):
    return {condition.code for condition in check.conditions}


def test_fix_script_separates_root_and_changes_nothing(single_user, checkout, need):
    before = Path("/etc/subuid").read_text()
    done = single_user.run([*DOCTOR, "--fix-script"], **checkout)
    assert done.returncode == 0
    assert Path("/etc/subuid").read_text() == before
    script = single_user.tmp / "fix.sh"
    script.write_text(done.stdout)
    subprocess.run([need("shellcheck"), script], check=True)
    root, _, rest = done.stdout.partition("as_root() {\n")[2].partition("\n}\n")
    assert re.search(
        r"    # RL-HOST-SUBIDS: subordinate IDs\n    #   .* have no uids and no gids for .*\n    usermod --add-sub",
        root,
    )
    assert "sudo" not in done.stdout
    assert "as_user() {\n    echo 'nothing to do'\n}\n" in rest
    assert single_user.run(["sh", script]).returncode == 2
    assert single_user.run(["sh", script, "user"]).stdout == "nothing to do\n"


def test_two_formats_are_refused(user, checkout):
    done = user.run([*DOCTOR, "--json", "--fix-script"], **checkout)
    assert (done.returncode, done.stdout) == (1, "")
    assert "; fix: give one of them\n" in done.stderr


def test_without_user_namespaces_the_status_is_1_and_the_rest_untried(user, rootless_command):
    with BrokenHost(user, rootless_command, "user", "sysctl -qw user.max_user_namespaces=0") as host:
        done = host("doctor")
        assert done.returncode == 1
        assert done.stdout.startswith("missing: a free user namespace (RL-HOST-USERNS-LIMIT)\n    evidence: ")
        assert "not tried: overlayfs: no container can run\n" in done.stdout
        assert host("doctor", "--json").returncode == 1


# --- Conditions that need more than a broken host -----------------------------------------------------------------


@pytest.mark.parametrize(("capability", "enough"), [("cap_setuid", True), ("cap_setgid", False)])
@pytest.mark.usefixtures("require_root")
def test_the_file_capability_of_the_right_kind_is_enough(user, rootless_command, need, capability, enough):
    need("setcap")
    program = "/mnt/scratch/newuidmap"
    script = f"cp -a $(command -v newuidmap) {program}; chmod u-s {program}; setcap {capability}+ep {program}; "
    with BrokenHost(user, rootless_command, ROOT, f"{script} mount --bind {program} $(command -v newuidmap)") as host:
        assert ("RL-HOST-IDMAP-SETUID" not in host.problems()) is enough


def test_delegated_cgroup_is_found_and_each_controller_that_it_has_not(cgroup2, user, rootless_command):
    alone = View(user, delegated=False)
    try:
        before = UserInView(alone, user).run([rootless_command, "doctor", "--json"])
        assert "RL-HOST-CGROUP" in found(before)
    finally:
        alone.close()
    done = UserInView(cgroup2, user).run([rootless_command, "doctor", "--json"])
    assert "RL-HOST-CGROUP" not in found(done)
    has = set((cgroup2.directory / "cgroup.controllers").read_text().split())
    problems = {problem["code"]: problem for problem in json.loads(done.stdout)["problems"]}
    wanted = [name for name in ("cpu", "cpuset", "io", "memory", "pids") if name not in has]
    assert wanted == re.findall(r"\w+", problems["RL-HOST-CONTROLLERS"]["evidence"].partition(" has no ")[2])


def test_containers_that_end_at_logout_are_found(cgroup2, user, rootless_command):
    session = cgroup2.directory / f"user@{user.uid}.service"
    session.mkdir()
    cgroup2.delegate(session)
    prefix = cgroup2.prefix(path=f"{cgroup2.path}/{session.name}")
    doctor = [rootless_command, "doctor", "--json"]
    assert "RL-HOST-LINGER" in found(user.run([*prefix, *doctor], **View.options))
    linger = (
        'mount -t tmpfs tmpfs /var/lib; mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/$0; exec "$@"'
    )
    enabled = ["unshare", "--mount", "sh", "-ec", linger, user.name, *prefix, *doctor]
    assert "RL-HOST-LINGER" not in found(user.run(enabled, **View.options))


@pytest.mark.usefixtures("require_root")
def test_a_home_without_devices_costs_nothing(user, rootless_command):
    mount = "mount -t tmpfs -o nodev,mode=700,uid=$TEST_UID tmpfs $TEST_HOME"
    bundle = make_bundle(user)
    with BrokenHost(user, rootless_command, ROOT, mount) as host:
        host.as_root(f"cp -a {bundle} $TEST_HOME/bundle")
        assert not {code for code in host.problems() if code.startswith("RL-HOST-HOME")}
        done = host("--root", user.tmp / "state", "run", "--bundle", user.home / "bundle", "c1")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("require_root")
def test_program_in_a_home_mounted_noexec_is_an_error_with_the_cause(user, rootless_command):
    mount = "mount -t tmpfs -o noexec,mode=700,uid=$TEST_UID tmpfs $TEST_HOME"
    bundle = make_bundle(user)
    with BrokenHost(user, rootless_command, ROOT, mount) as host:
        host.as_root(f"cp -a {bundle} $TEST_HOME/bundle")
        run = ("--root", user.tmp / "state", "run", "--bundle", user.home / "bundle", "c1")
        done = host(*run)
        assert done.returncode == 1
        assert "on a mount without noexec" in done.stderr
        assert "RL-HOST-HOME-NOEXEC" in host.problems()
        host.as_root("mount -o remount,exec $TEST_HOME")
        assert host(*run).returncode == 0


@pytest.mark.parametrize("own_directory", [True, False])
def test_launch_names_the_directory_that_may_not_be_searched(user, rootless_command, require_root, own_directory):
    closed = user.tmp / "clo sed"
    closed.mkdir()
    if own_directory:
        own(user, closed)
    bundle = make_bundle(user, name="clo sed/bundle")
    closed.chmod(0o600)
    done = user.run([rootless_command, "--root", user.tmp / "state", "run", "--bundle", bundle, "c1"])
    assert done.returncode == 1
    owner = user.uid if own_directory else 0
    assert f": {closed} belongs to uid {owner}, and its mode is 0600; fix: " in done.stderr
    fix = f"chmod u+x '{closed}'" if own_directory else f"have its owner run: chmod o+x '{closed}', or use files"
    assert fix in done.stderr
    closed.chmod(0o701)
    assert user.run([rootless_command, "--root", user.tmp / "state", "run", "--bundle", bundle, "c1"]).returncode == 0


# --- Hosts that would mislead it ----------------------------------------------------------------------------------


_SLOW = 20
"""Seconds; each of these takes 4 at most on a host that is not busy."""
HOSTILE = """
line() { printf '%s\\n' "$1" >>/etc/subuid; printf '%s\\n' "$1" >>/etc/subgid; }
line "$TEST_USER:99999999999999999999:65536"
line "$TEST_USER:-1:65536"
line "$TEST_USER:$(printf '%05000d' 1):2"
line "$TEST_USER:$(printf '\\331\\241'):2"
line "$(printf '\\033[2J\\a'):100000:4294867295"
printf '\\377\\376:\\0:1\\n:::::\\n' >>/etc/subuid
awk 'BEGIN { for (n = 0; n < 20000; n++) print "someone" n ":" 1000000 + n ":1" }' >>/etc/subuid
"""


@pytest.mark.usefixtures("require_root")
def test_hostile_ranges_and_names_are_shown_harmless(user, rootless_command):
    with BrokenHost(user, rootless_command, ROOT, HOSTILE) as host:
        begin = time.monotonic()
        done = host("doctor")
        assert time.monotonic() - begin < _SLOW
        assert done.stderr == ""
        assert "(RL-HOST-SUBIDS-SHARED)" in done.stdout
        assert "\\x1b[2J\\x07 has some" in done.stdout
        assert "\x1b" not in done.stdout
        assert "\x1b" not in host("doctor", "--fix-script").stdout + host("doctor", "--json").stdout


@pytest.mark.parametrize(
    "env",
    [
        {"XDG_DATA_HOME": "/nowhere/\x1b[31m", "XDG_RUNTIME_DIR": "/\x1b[31m"},
        {"XDG_DATA_HOME": "relative", "HOME": "", "XDG_RUNTIME_DIR": "../.."},
        {"HOME": "/proc/self", "XDG_DATA_HOME": "/dev/null/x"},
        {"PATH": ".:/nowhere::", "HOME": "/" + "x" * 5000},
    ],
    ids=["escapes", "relative", "strange", "long"],
)
def test_hostile_variables_are_harmless(user, rootless_command, env):
    for flags in ([], ["--fix-script"]):
        done = user.run([rootless_command, "doctor", *flags], env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout


def test_a_program_that_hangs_is_not_waited_for(user, rootless_command, require_root):
    script = "printf '#!/bin/sh\\nexec sleep 1000\\n' >/mnt/scratch/hangs; chmod 755 /mnt/scratch/hangs; "
    script += "mount --bind /mnt/scratch/hangs $(command -v squashfuse_ll)"
    with BrokenHost(user, rootless_command, ROOT, script) as host:
        begin = time.monotonic()
        assert "RL-HOST-SQUASHFUSE" in host.problems()
        assert time.monotonic() - begin < _SLOW


SILENT = """
exec 5<>/dev/fuse
mount -i -t fuse -o fd=5,rootmode=40700,user_id=$TEST_UID,group_id=0,allow_other silent $TEST_HOME
"""


def test_a_file_server_that_does_not_answer_is_not_waited_for(user, rootless_command, whole, require_root):
    with BrokenHost(user, rootless_command, ROOT, SILENT) as host:
        begin = time.monotonic()
        problem = host.problems()["RL-HOST-HOME"]
        assert time.monotonic() - begin < _SLOW
        assert "Connection timed out" in problem["evidence"]
        assert "file server" in problem["fix"]


@pytest.mark.parametrize(
    ("limit", "reason"), [("ulimit -n 9", "too many open files"), ("ulimit -u 1", "resource temporarily unavailable")]
)
def test_exhausted_limits_are_named(user, rootless_command, limit, reason):
    done = user.run(["bash", "-c", f'{limit}; exec "$@"', "bash", rootless_command, "doctor"])
    assert reason in (done.stdout + done.stderr).lower(), done


@pytest.mark.usefixtures("require_root")  # a caller may have other programs that change these directories
def test_nothing_stays_in_the_directories_that_it_tries(user, rootless_command):
    def files():
        find = ["find", "/tmp", "-maxdepth", "1", "-user", user.name]
        own = subprocess.run(find, capture_output=True, text=True, check=False).stdout  # others remove files meanwhile
        return sorted([*own.splitlines(), *map(str, (*user.home.rglob("*"), *user.runtime_dir.rglob("*")))])

    user.run([rootless_command, "doctor"], check=True)
    before = files()
    user.run([rootless_command, "doctor"], check=True)
    assert files() == before
