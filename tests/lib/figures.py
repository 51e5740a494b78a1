"""The results of benchmarks, as a table and sentences at the end of the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PEERS = ("runc", "crun")
ROUNDS = int(os.environ.get("ROOTLESS_BENCH_ROUNDS", "7"))
"""The number of times that each step is measured."""
MEASURE = Path(__file__).with_name("measure.py")
"""The program that measures; it is also copied into virtual machines."""
FIGURE = "figure"
"""The property of a test's report that is a line of the table, or a sentence."""


@pytest.fixture
def figure(request):
    """Return a function that records a comparison: its name, and (CPU, wall) in milliseconds by runtime."""

    def record(name, found):
        cells = []
        for ours, *theirs in zip(*(found.get(runtime, (None, None)) for runtime in ("rootless", *PEERS)), strict=True):
            cells += [f"{ours:.1f}", *(f"/ {their:.1f} = {ours / their:.2f}" if their else "" for their in theirs)]
        request.node.user_properties.append((FIGURE, f"| {name} | {' | '.join(cells)} |"))

    return record


@pytest.fixture
def note(request):
    """Return a function that records a sentence."""
    return lambda sentence: request.node.user_properties.append((FIGURE, sentence))


def pytest_terminal_summary(terminalreporter):
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    calls = [report for report in reports if getattr(report, "when", "") == "call"]
    figures = [value for report in calls for name, value in report.user_properties if name == FIGURE]
    if not figures:
        return
    terminalreporter.section("figures: medians in milliseconds; rootless / the other's = ratio")
    heads = [f"{what}{peer}" for what in ("CPU", "wall") for peer in ("", *(f" / {peer}'s" for peer in PEERS))]
    terminalreporter.line(f"| | {' | '.join(heads)} |\n|{' --- |' * (1 + len(heads))}")
    for line in sorted(figures, key=lambda line: not line.startswith("|")):
        terminalreporter.line(line)
