"""The figures of the benchmarks, as a table at the end of the run."""

from __future__ import annotations

import pytest

FIGURES = pytest.StashKey[list]()


@pytest.fixture
def figure(request):
    """Return a function that records a comparison: its name, our (CPU, wall) in ms, the other runtime, that one's."""

    def record(name, ours, peer, theirs):
        cpu, wall = (f"{our:.1f} / {their:.1f} = {our / their:.2f}" for our, their in zip(ours, theirs, strict=True))
        _stashed(request.config).append(f"| {name} | {peer} | {cpu} | {wall} |")

    return record


@pytest.fixture
def note(request):
    """Return a function that records a sentence."""
    return lambda sentence: _stashed(request.config).append(sentence)


def _stashed(config):
    return config.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(terminalreporter, config):
    figures = _stashed(config)
    if not figures:
        return
    terminalreporter.section("figures: rootless / the other = ratio, medians in milliseconds")
    terminalreporter.line("| | the other | CPU | wall |\n| --- | --- | --- | --- |")
    for line in sorted(figures, key=lambda line: not line.startswith("|")):
        terminalreporter.line(line)
