"""Measurement of the programs that a benchmark compares."""

from __future__ import annotations

import json
import statistics

import pytest

from tests.lib.figures import MEASURE, ROUNDS


@pytest.fixture
def medians(user):
    """Return a function that measures steps of `account` and returns, by their names, the medians of their figures."""

    def measure(steps, prefix=(), account=user, rounds=ROUNDS, **options):
        task = json.dumps({"rounds": rounds, "steps": steps})
        words = [*prefix, "/usr/bin/python3", "-I", MEASURE]
        done = account.run(words, input=task, timeout=500, check=True, **options)
        return {
            name: tuple(map(statistics.median, zip(*figures, strict=True)))
            for name, figures in json.loads(done.stdout).items()
        }

    return measure
