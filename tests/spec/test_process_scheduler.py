"""config.md "Linux Process": scheduler, ioPriority and execCPUAffinity, observed from inside."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.lib.boxes import BEGUN, SHORT, add_probe, as_real_root, config_with_maps
from tests.lib.bundles import base_config
from tests.lib.live import Live
from tests.lib.oracles import IGNORED, assert_refused, differs

STAT = "read line < /proc/self/stat; echo ${line##*) }"
NICE, PRIORITY, POLICY = 16, 37, 38
"""Indexes of fields of /proc/PID/stat after the name; proc(5)."""

NUMBERS = {"SCHED_OTHER": 0, "SCHED_BATCH": 3}


def scheduled(**scheduler):
    config = base_config()
    config["process"]["scheduler"] = scheduler
    return config


def seen(box, config, **options):
    """Return the program's policy, nice value and static priority, as seen inside."""
    fields = box.lines(config, STAT, **options)[0].split()
    return int(fields[POLICY]), int(fields[NICE]), int(fields[PRIORITY])


# --- The scheduler ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "nice"), [("SCHED_OTHER", 0), ("SCHED_OTHER", 7), ("SCHED_BATCH", 7)])
def test_ordinary_policies(box, policy, nice):
    assert seen(box, scheduled(policy=policy, nice=nice)) == (NUMBERS[policy], nice, 0)


def test_idle_ignores_nice(box):
    assert seen(box, scheduled(policy="SCHED_IDLE")) == (5, 0, 0)
    done = box.run(scheduled(policy="SCHED_IDLE", nice=7), "echo ran", check=True)
    assert done.stderr == (
        "rootless: warning: nice has no effect under SCHED_IDLE (config.json: process.scheduler.nice)\n"
    )


def test_without_a_scheduler_it_is_the_callers(box):
    plain, command = base_config(), box.command
    assert seen(box, plain) == (0, 0, 0)
    box.command = ["nice", "-n", "3", *command]
    assert seen(box, plain) == (0, 3, 0)


def test_children_inherit_the_scheduler(box):
    lines = box.lines(scheduled(policy="SCHED_BATCH", nice=2), BEGUN.format(STAT))
    assert (lines[0].split()[POLICY], lines[0].split()[NICE]) == ("3", "2")


def test_callers_nice_value_stays_unless_config_sets_it(box):
    """A nice value of the caller is no reason to fail, with or without a scheduler."""
    command = box.command
    box.command = ["nice", "-n", "7", *command]
    assert seen(box, scheduled(policy="SCHED_BATCH")) == (3, 7, 0)
    assert seen(box, scheduled(policy="SCHED_BATCH", nice=9)) == (3, 9, 0)
    done = box.run(scheduled(policy="SCHED_BATCH", nice=0), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: schedule the program by SCHED_BATCH, nice 0: sched_setattr: Operation not permitted "
        "(config.json: process.scheduler); fix: choose "
    )


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "SCHED_FIFO", "priority": 10},
        {"policy": "SCHED_RR", "priority": 1},
        {"policy": "SCHED_DEADLINE", "runtime": 10**7, "deadline": 10**8, "period": 10**9},
        {"policy": "SCHED_OTHER", "nice": -5},
    ],
)
def test_privileged_scheduler_is_refused(box, scheduler):
    done = box.run(scheduled(**scheduler), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rootless: schedule the program by {scheduler['policy']}, ")
    assert "sched_setattr: Operation not permitted (config.json: process.scheduler); fix: " in done.stderr
    assert "RLIMIT_RTPRIO" in done.stderr


def test_contradictory_scheduler_is_refused(box):
    done = box.run(scheduled(policy="SCHED_OTHER", priority=4), "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "sched_setattr: Invalid argument (config.json: process.scheduler); fix: give a real-time" in done.stderr


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"policy": "SCHED_FIFO", "priority": 10}, (1, 0, 10)),
        ({"policy": "SCHED_RR", "priority": 3}, (2, 0, 3)),
        ({"policy": "SCHED_OTHER", "nice": -5}, (0, -5, 0)),
    ],
)
def test_root_may_set_real_time_policies(box, require_root, scheduler, expected):
    """The executor uses CAP_SYS_NICE before it drops it: the program does not have it."""
    if scheduler["policy"] != "SCHED_OTHER" and subprocess.run(["chrt", "-f", "1", "true"], check=False).returncode:
        pytest.skip("root may not use real-time policies here")
    assert seen(as_real_root(box), scheduled(**scheduler)) == expected


def test_reset_on_fork_flag(box, require_root):
    """SCHED_FLAG_RESET_ON_FORK: children of the program do not inherit its priority."""
    config = scheduled(policy="SCHED_OTHER", nice=-5, flags=["SCHED_FLAG_RESET_ON_FORK"])
    lines = as_real_root(box).lines(config, STAT, BEGUN.format(STAT))
    assert [line.split()[NICE] for line in lines] == ["-5", "0"]


# --- I/O priority -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ({"class": "IOPRIO_CLASS_BE", "priority": 7}, 2 << 13 | 7),
        ({"class": "IOPRIO_CLASS_BE", "priority": 0}, 2 << 13),
        ({"class": "IOPRIO_CLASS_BE"}, 2 << 13),
        ({"class": "IOPRIO_CLASS_IDLE", "priority": 4}, 3 << 13 | 4),
    ],
)
def test_io_priority(box, need, asked, value):
    add_probe(box, need)
    config = base_config()
    config["process"]["ioPriority"] = asked
    assert box.lines(config, "probe call ioprio_get 1 0", BEGUN.format("probe call ioprio_get 1 0")) == [str(value)] * 2


def test_realtime_io_needs_privileges(box, need, require_root):
    add_probe(box, need)
    config = base_config()
    config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_RT", "priority": 2}
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: set the I/O priority to IOPRIO_CLASS_RT, level 2: ioprio_set: Operation not permitted "
        "(config.json: process.ioPriority); fix: choose IOPRIO_CLASS_BE"
    )
    assert as_real_root(box).lines(config, "probe call ioprio_get 1 0") == [str(1 << 13 | 2)]


# --- Memory policy ----------------------------------------------------------------------------------------------------


# --- Together ---------------------------------------------------------------------------------------------------------


def everything():
    config = scheduled(policy="SCHED_BATCH", nice=4)
    config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    config["linux"]["personality"] = {"domain": "LINUX"}
    return config


def test_seccomp_filter_does_not_block_scheduling_calls(box):
    config = everything()
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["sched_setattr", "ioprio_set", "set_mempolicy", "personality"],
                "action": "SCMP_ACT_KILL_PROCESS",
            }
        ],
    }
    assert seen(box, config) == (3, 4, 0)


def test_exec_uses_the_scheduler_of_its_process(box):
    config = everything()
    box.create(config, "sleep 60", name="live")
    box.user.run([*box.command, "start", "live"], timeout=SHORT, check=True)
    exec_words = [*box.command, "exec", "live", "sh", "-c", STAT]
    fields = box.user.run(exec_words, timeout=SHORT, check=True).stdout.split()
    assert fields[POLICY] == "3"


def test_empty_scheduling_objects(box):
    config = base_config()
    config["process"] |= {"scheduler": None, "ioPriority": None, "apparmorProfile": "", "selinuxLabel": ""}
    config["linux"] |= {"memoryPolicy": None, "personality": None, "intelRdt": None, "netDevices": {}}
    config["linux"]["mountLabel"] = ""
    config["vm"] = {}
    assert seen(box, config) == (0, 0, 0)


STAT_FIELDS = "read line < /proc/self/stat; echo ${line##*) }"


SCHEDULER = '"specifies the scheduling policy … for the process": ' + IGNORED


PRIVILEGED = "the kernel lets only root of the host have it (EPERM)"


def policy_and_nice(box, **scheduler):
    config = config_with_maps(box.user)
    config["process"]["scheduler"] = scheduler
    return config


@differs("runc", SCHEDULER)
@pytest.mark.parametrize(
    ("scheduler", "wanted"),
    [
        pytest.param({"policy": "SCHED_BATCH"}, (3, 0), marks=pytest.mark.spec("process.scheduler.policy")),
        pytest.param({"policy": "SCHED_OTHER", "nice": 7}, (0, 7), marks=pytest.mark.spec("process.scheduler.nice")),
    ],
)
def test_scheduler(either, scheduler, wanted):
    fields = either.lines(policy_and_nice(either, **scheduler), STAT_FIELDS)[0].split()
    assert (int(fields[POLICY]), int(fields[NICE])) == wanted


@differs("runc", SCHEDULER)
@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(
            {"policy": "SCHED_FIFO", "priority": 10},
            marks=pytest.mark.spec("process.scheduler.priority", refused=PRIVILEGED),
        ),
        pytest.param(
            {"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            marks=pytest.mark.spec("process.scheduler.flags", refused=PRIVILEGED),
        ),
        pytest.param(
            {"policy": "SCHED_DEADLINE", "runtime": 10**7, "deadline": 10**8, "period": 10**9},
            marks=pytest.mark.spec(
                *(f"process.scheduler.{name}" for name in ("runtime", "deadline", "period")), refused=PRIVILEGED
            ),
        ),
    ],
)
def test_scheduler_that_needs_privileges(either, scheduler):
    assert_refused(either, policy_and_nice(either, **scheduler), "sched_setattr", "sched_setscheduler")


@differs("runc", '"configures the I/O priority settings for the container\'s processes": ' + IGNORED)
@pytest.mark.spec("process.ioPriority.class", "process.ioPriority.priority")
def test_io_priority_of_the_program(either, need):
    add_probe(either, need)
    config = config_with_maps(either.user)
    config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    assert either.lines(config, "probe call ioprio_get 1 0") == [str(2 << 13 | 6)]


AFFINITY = '"specifies CPU affinity used to execute the process": ' + IGNORED


@differs("runc", AFFINITY)
@differs("crun", AFFINITY)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("final", marks=pytest.mark.spec("process.execCPUAffinity.final")),
        pytest.param("initial", marks=pytest.mark.spec("process.execCPUAffinity.initial")),
    ],
)
def test_cpu_affinity(either, name):
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) == 1:
        pytest.skip("needs two CPUs")
    config = config_with_maps(either.user)
    config["process"]["execCPUAffinity"] = {name: str(cpus[-1])}
    live = Live(either, config)
    assert live.lines("grep Cpus_allowed_list /proc/self/status") == [f"Cpus_allowed_list:\t{cpus[-1]}"]


def test_the_affinity_of_later_commands_is_not_that_of_the_first(box):
    config = base_config()
    before = box.lines(config, "grep Cpus_allowed_list /proc/self/status")
    config["process"]["execCPUAffinity"] = {"initial": "0", "final": "0"}
    done = box.run(config, "grep Cpus_allowed_list /proc/self/status", check=True)
    assert (done.stdout.splitlines(), done.stderr) == (before, "")
