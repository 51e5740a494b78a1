"""config-linux.md "Offset for Time Namespace": each property set, and observed from inside."""

from __future__ import annotations

import subprocess

import pytest

from tests.lib.boxes import add_probe, config_with_maps
from tests.lib.bundles import base_config
from tests.lib.oracles import differs


@differs("runc", '"sets the offset for Time Namespace": it knows no time namespace')
@pytest.mark.parametrize(
    "clock",
    [
        pytest.param(clock, marks=pytest.mark.spec(f"linux.timeOffsets.{clock}", "linux.namespaces.time"))
        for clock in ("boottime", "monotonic")
    ],
)
def test_each_clock_has_its_offset(either, clock):
    config = config_with_maps(either.user)
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {clock: {"secs": 7 * 86400, "nanosecs": 5}}
    lines = either.lines(config, "cat /proc/self/timens_offsets; cut -d . -f 1 /proc/uptime")
    offsets = {name: (secs, nanosecs) for name, secs, nanosecs in map(str.split, lines[:2])}
    assert offsets.pop(clock) == (str(7 * 86400), "5")
    assert set(offsets.values()) == {("0", "0")}
    assert (int(lines[2]) > 7 * 86400) == (clock == "boottime")


@pytest.mark.parametrize(
    "offsets",
    [
        {},
        {"boottime": {"secs": 86400}},
        {"monotonic": {"secs": 172800, "nanosecs": 999_999_999}, "boottime": {"secs": 604800, "nanosecs": 1}},
        {"monotonic": {"secs": -100}, "boottime": {"secs": -200, "nanosecs": 5}},
    ],
)
def test_time_offsets(box, need, offsets):
    """runc 1.1.15 has no time namespaces."""
    probe = add_probe(box, need)
    config = base_config()
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = offsets
    before = subprocess.run([probe, "clocks"], capture_output=True, text=True, check=True).stdout
    during, uptime = box.lines(config, "probe clocks; cut -d . -f 1 /proc/uptime")
    after = subprocess.run([probe, "clocks"], capture_output=True, text=True, check=True).stdout
    shown = [int(word) for word in during.split()]
    for clock, index in (("monotonic", 0), ("boottime", 1)):
        offset = offsets.get(clock, {}).get("secs", 0)
        low, high = (int(words.split()[index]) + offset for words in (before, after))
        assert low <= shown[index] <= high + 1
    assert shown[1] <= int(uptime) <= shown[1] + 1


def test_time_offsets_need_a_time_namespace(box):
    config = base_config()
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 100}}
    done = box.run(config, "true")
    assert done.returncode == 1
    assert "(config.json: linux.timeOffsets); fix: " in done.stderr


def test_time_offsets_that_the_kernel_refuses(box):
    config = base_config()
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": -(10**9)}}
    done = box.run(config, "true")
    assert done.returncode == 1
    assert "(config.json: linux.timeOffsets)" in done.stderr
    assert "Numerical result out of range" in done.stderr
