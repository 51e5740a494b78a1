"""config.md "POSIX process", rlimits: each property set, and observed from inside."""

from __future__ import annotations

import resource

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config

UNLIMITED = 2**64 - 1


SHOWN = {
    # in the order of their numbers
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_STACK": "Max stack size",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_RSS": "Max resident set",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_AS": "Max address space",
    "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_SIGPENDING": "Max pending signals",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_RTTIME": "Max realtime timeout",
}


def limits(lines):
    """Return {name: (soft, hard)} of /proc/PID/limits."""
    return {
        name: tuple(line[26:].split()[:2])
        for line in lines
        for name, title in SHOWN.items()
        if line.startswith(title + " ")
    }


def hard_limit(name):
    return resource.getrlimit(list(SHOWN).index(name))[1] % 2**64


@pytest.mark.spec("process.rlimits")
def test_every_limit(either):
    config = config_with_maps(either.user)
    wanted = {}
    for name in SHOWN:
        hard = min(hard_limit(name), 2**31)
        soft = hard - hard // 4
        wanted[name] = (str(soft), str(hard))
        config["process"].setdefault("rlimits", []).append({"type": name, "soft": soft, "hard": hard})
    assert limits(either.lines(config, "cat /proc/self/limits")) == wanted


def test_unlimited_limit(either):
    names = [name for name in SHOWN if hard_limit(name) == UNLIMITED]
    assert names
    config = config_with_maps(either.user)
    config["process"]["rlimits"] = [{"type": name, "soft": UNLIMITED, "hard": UNLIMITED} for name in names]
    shown = limits(either.lines(config, "cat /proc/self/limits"))
    assert {name: shown[name] for name in names} == dict.fromkeys(names, ("unlimited", "unlimited"))


def test_low_limits_hit_the_program_and_not_its_set_up(box):
    config = base_config()
    low = {"RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 4, "RLIMIT_MEMLOCK": 0, "RLIMIT_SIGPENDING": 0, "RLIMIT_MSGQUEUE": 0}
    config["process"]["rlimits"] = [{"type": name, "soft": value, "hard": value} for name, value in low.items()]
    shown = limits(box.lines(config, "cat /proc/self/limits"))
    assert {name: shown[name] for name in low} == {name: (str(value),) * 2 for name, value in low.items()}


def test_a_limit_above_the_callers_own_is_lowered(box):
    config = base_config()
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 500, "hard": 2**40}]
    box.command[:0] = ["prlimit", "--nofile=300:400"]
    done = box.run(config, "cat /proc/self/limits", check=True)
    assert limits(done.stdout.splitlines())["RLIMIT_NOFILE"] == ("400", "400")
    assert done.stderr == (
        "rootless: warning: RLIMIT_NOFILE is 400, the caller's own hard limit: only root may raise it to 1099511627776 "
        "(config.json: process.rlimits[0])\n"
    )
