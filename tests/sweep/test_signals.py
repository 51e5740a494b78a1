"""SIGTERM, SIGINT and SIGHUP at any moment: the verb ends with 128+n or its usual status, and nothing is left."""

from __future__ import annotations

import itertools
import signal

import pytest

from tests.lib.sweep import ENDED_WELL, WITHOUT_EFFECT, Case
from tests.lib.sweep_lives import OWN, all_right, came, rare_sweep, sweep, tracer

__all__ = ["rare_sweep", "sweep", "tracer"]  # fixtures

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAITS = {"read", "poll", "getdents64"}
"""System calls that change nothing, in which a verb spends its time."""


@pytest.mark.parametrize(
    ("life", "verb", "since", "least"),
    [
        ("create", "0", OWN, 80),
        ("create", "1", OWN, 14),
        ("create", "2", OWN, 20),
        ("kill", "2", OWN, 8),
        ("run", "0", "socketpair", 60),  # earlier calls are those of create
        ("run attended", "0", "pidfd_open", 8),
        ("run -d", "0", "linkat", 9),
        ("exec", "2", OWN, 50),
        ("look", "2", OWN, 8),
    ],
)
def test_a_signal_ends_the_verb_and_leaves_nothing(sweep, life, verb, since, least):
    swept = sweep(life)
    moments = swept.moments(verb, since=since, without=WITHOUT_EFFECT - WAITS)
    cases = [Case(moment, signal=number) for moment, number in zip(moments, itertools.cycle(SIGNALS), strict=False)]
    all_right(swept.run_all(cases, _ends, least=least))


@pytest.mark.parametrize("life", ["rare", "network", "shared network"])
def test_a_signal_during_a_rare_feature_ends_the_verb(rare_sweep, life):
    swept = rare_sweep(life)
    moments = swept.kinds("0", since="clone3", without=WITHOUT_EFFECT - WAITS)
    cases = [Case(moment, signal=number) for moment, number in zip(moments, itertools.cycle(SIGNALS), strict=False)]
    all_right(swept.run_all(cases, _ends, least=25, missed=8))


def _ends(outcome):
    """Return the errors. Until the verb has asked for signals, they end it like any program."""
    number = outcome.case.signal
    if outcome.last in (0, ENDED_WELL, 128 + number, -number) and not outcome.complaint:
        return came(outcome)
    return ["neither ended by the signal nor with the usual status"]
