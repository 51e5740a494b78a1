"""SIGTERM, SIGINT and SIGHUP at any moment: the verb ends with 128+n, or as without, and nothing stays behind."""

from __future__ import annotations

import itertools
import signal

import pytest

from tests.user.sweep import ENDED_WELL, WITHOUT_EFFECT, Case
from tests.user.sweep_lives import OWN, all_right, came, sweep, tracer

__all__ = ["sweep", "tracer"]  # fixtures

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAITS = {"read", "poll", "getdents64"}
"""They change nothing, and are where a verb spends its time."""


@pytest.mark.parametrize(
    ("life", "verb", "least"),
    [
        ("create", "0", 80),
        ("create", "1", 14),
        ("create", "2", 20),
        ("kill", "2", 8),
        ("run", "0", 90),
        ("run -d", "0", 80),
        ("exec", "2", 50),
        ("look", "2", 8),
    ],
)
def test_a_signal_at_any_moment(sweep, life, verb, least):
    swept = sweep(life)
    moments = swept.moments(verb, since=OWN, without=WITHOUT_EFFECT - WAITS)
    cases = [Case(moment, signal=number) for moment, number in zip(moments, itertools.cycle(SIGNALS), strict=False)]
    all_right(swept.run_all(cases, _ends, least=least))


def _ends(outcome):
    """Return what is wrong: until the verb has asked for signals they end it as any program."""
    number = outcome.case.signal
    if outcome.last in (0, ENDED_WELL, 128 + number, -number) and not outcome.complaint:
        return came(outcome)
    return ["that is neither the end by a signal nor the usual result"]
