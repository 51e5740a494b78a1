"""config.md "Linux Process", oomScoreAdj: each property set, and observed from inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import base_config


@pytest.mark.spec("process.oomScoreAdj")
@pytest.mark.parametrize("more", [0, 1, 300])
def test_oom_score_adj(either, more):
    own_score = int(Path("/proc/self/oom_score_adj").read_text())
    config = config_with_maps(either.user)
    config["process"]["oomScoreAdj"] = own_score + more
    assert (
        either.lines(config, "cat /proc/self/oom_score_adj; sh -c 'cat /proc/$$/oom_score_adj'")
        == [str(own_score + more)] * 2
    )


def test_an_oom_score_below_the_callers_own_stays(box):
    """To lower it needs CAP_SYS_RESOURCE over the host: runc fails (podman adjusts the value before)."""
    config = base_config()
    config["process"]["oomScoreAdj"] = -500
    box.command[:0] = ["choom", "--adjust", "200", "--"]
    done = box.run(config, "cat /proc/self/oom_score_adj", check=True)
    assert done.stdout == "200\n"
    assert done.stderr == (
        "rootless: warning: write -500 to /proc/self/oom_score_adj: write: Permission denied: "
        "the caller's value stays, which only root may lower (config.json: process.oomScoreAdj)\n"
    )


def test_an_oom_score_that_the_caller_has_raised_is_lowered(either):
    """As containerd's shims do: the kernel lets an unprivileged process return to its previous value, proc(5)."""
    config = config_with_maps(either.user)
    config["process"]["oomScoreAdj"] = 100
    either.command[:0] = ["choom", "--adjust", "200", "--"]
    assert either.lines(config, "cat /proc/self/oom_score_adj") == ["100"]


def test_without_an_oom_score_it_is_the_callers(either):
    either.command[:0] = ["choom", "--adjust", "123", "--"]
    assert either.lines(config_with_maps(either.user), "cat /proc/self/oom_score_adj") == ["123"]
