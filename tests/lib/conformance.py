"""A pytest plugin that makes docs/conformance.md from the results of tests that are marked with the specification.

`@pytest.mark.spec(PROPERTY, …)` names the properties (tests/lib/specification.py) that a test sets and observes, with
`refused="why"` if the test observes a clear error, and `untested="why"` if the test machine cannot show the effect.
`@pytest.mark.differs(RUNTIME, "the sentence of the specification: the actual behaviour")` means that the test must fail
with that runtime.

With ROOTLESS_WRITE_TABLE the plugin writes the table. Otherwise it compares the table with a run of all marked tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

import pytest

from tests.lib.specification import DOCUMENTS, PROPERTIES, RUNTIMES, VERSION

TESTS = Path(__file__).resolve().parents[1]
TABLE = Path("docs/conformance.md")
WRITE = "ROOTLESS_WRITE_TABLE=1 tests/run"
UNTESTED = "not tested here"
COMMAND = "rootless_command"
"""The parameter of tests that run twice (tests/conftest.py), which makes no difference to another runtime."""
RESULT = "conformance"
"""The property of a report: a name, a runtime, a word of the table and its reason; or None if the test has failed."""
HEAD = f"""# Conformance to the runtime specification

How each runtime implements every property of the OCI runtime specification {VERSION} when an ordinary user calls it, on
the machine of the tests. The results of the tests (`@pytest.mark.spec` in `tests/`) generate this file. A complete run
fails if its results differ, and `{WRITE}` writes the file again.

- **yes**: the test sets the property and observes its effect inside the container
- **partly**: a part of it works; the notes name the rest
- **refused**: a clear error before anything runs; the note gives the reason
- **no**: it does not work; the note cites the specification
- **{UNTESTED}**: the machine of the tests cannot show it; the note gives the reason

"""


def files_with_marks() -> set[Path]:
    """Return the test files that have marked tests."""
    return {path for path in TESTS.rglob("test_*.py") if "pytest.mark.spec(" in path.read_text()}


def rows(table: str) -> dict[str, list[str]]:
    """Return the cells of each property from the text of a table."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {name.strip("`"): cells for name, *cells in lines}


def versions() -> dict[str, str]:
    """Return the first line of each oracle's --version, without a distribution's suffix."""
    found = {}
    for name in RUNTIMES:
        program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program and name != "rootless":
            done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
            found[name] = done.stdout.splitlines()[0].partition("+")[0]
    return found


def runtime_of(item) -> str:
    """Return the runtime of a test: its parameter, or rootless."""
    values = [value for name, value in parameters_of(item).items() if name != COMMAND]
    return next((value for value in values if isinstance(value, str) and value in RUNTIMES), "rootless")


def parameters_of(item) -> dict[str, object]:
    """Return the parameters of a test by name."""
    return item.callspec.params if hasattr(item, "callspec") else {}


def properties_of(item) -> tuple[str, ...]:
    """Return the properties with which a test is marked."""
    return tuple(dict.fromkeys(name for mark in item.iter_markers("spec") for name in mark.args))


class Conformance:
    """The plugin: the marks of the tests, their results, and the table."""

    def __init__(self, config) -> None:
        self._config = config
        self._write = bool(os.environ.get("ROOTLESS_WRITE_TABLE"))
        self._whole = False
        """Whether this run includes all marked tests, and none of them has failed."""
        self._workers: list[bool] = []
        """The same, by worker."""
        self._results: dict[tuple[str, str], set[tuple[str, str]]] = {}
        """By property and runtime: the words of the table, each with its reason."""
        self._differences: list[str] = []

    @cached_property
    def _versions(self) -> dict[str, str]:
        return versions()

    @property
    def _tested(self) -> str:
        return f"Tested with {' and '.join(self._versions.values())}."

    @property
    def _old(self) -> str:
        path = TESTS.parent / TABLE
        return path.read_text() if path.exists() else ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items) -> None:
        """Keep one case of another runtime, and one crun case of each marked test; mark known differences."""
        old = self._old
        seen = set()
        kept = []
        covered = set()
        for item in items:
            names, runtime = properties_of(item), runtime_of(item)
            if runtime != "rootless" and parameters_of(item).get(COMMAND, "rootless") != "rootless":
                continue
            if runtime == "crun" and item.get_closest_marker("oracle") and not item.get_closest_marker("crun"):
                what = (item.path, item.originalname, names)
                if not names or what in seen:
                    continue
                seen.add(what)
            for mark in item.iter_markers("differs"):
                if mark.args[0] == runtime:
                    # another version of an oracle may have fixed it
                    strict = runtime == "rootless" or self._write or self._versions.get(runtime, "?") in old
                    item.add_marker(pytest.mark.xfail(reason=mark.args[1], strict=strict))
            kept.append(item)
            covered.update(names)
        items[:] = kept
        if unknown := covered.difference(PROPERTIES):
            raise pytest.UsageError(f"tests/lib/specification.py knows no {', '.join(sorted(unknown))}")
        self._whole = files_with_marks() <= {item.path for item in items}
        if self._whole and (missing := [name for name in PROPERTIES if name not in covered]):
            raise pytest.UsageError(f"no test is marked with {', '.join(missing)}")

    def pytest_deselected(self, items) -> None:
        """Note that a partial run says nothing about the other tests."""
        self._whole = self._whole and not any(map(properties_of, items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        """Get a worker's answer."""
        self._workers.append(getattr(node, "workeroutput", {}).get(RESULT, False))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        """Add the results of each marked test to its report, which may come from another process."""
        report = yield
        marks = list(item.iter_markers("spec"))
        if report.failed and marks:
            report.user_properties.append((RESULT, None))
        elif report.skipped or report.when == "call":
            for mark in marks:
                found = [(name, runtime_of(item), *self._result(report, mark)) for name in mark.args]
                report.user_properties += [(RESULT, each) for each in found]
        return report

    def pytest_runtest_logreport(self, report) -> None:
        """Record the results; a marked test that has failed says nothing."""
        for kind, result in report.user_properties:
            if kind == RESULT and result:
                name, runtime, *told = result
                self._results.setdefault((name, runtime), set()).add(tuple(told))
            elif kind == RESULT:
                self._whole = False

    @staticmethod
    def _result(report, mark) -> tuple[str, str]:
        if hasattr(report, "wasxfail"):
            return "no", report.wasxfail
        if report.skipped:
            return UNTESTED, report.longrepr[2].removeprefix("Skipped: ")
        for word, reason in (("refused", mark.kwargs.get("refused")), (UNTESTED, mark.kwargs.get("untested"))):
            if reason:
                return word, reason
        return "yes", ""

    def _cell(self, name, runtime, notes) -> str:
        results = self._results.get((name, runtime))
        if not results:
            others = set().union(*(self._results.get((name, other), set()) for other in RUNTIMES))
            results = {each for each in others if each[0] == UNTESTED} or {(UNTESTED, "the test is of rootless alone")}
        told = {each for each in results if each[0] != UNTESTED} or results
        words = {word for word, _ in told}
        word = words.pop() if len(words) == 1 else "partly"
        reasons = sorted({reason for _, reason in told if reason})
        return " ".join([word, *(f"[^{notes.setdefault(reason, len(notes) + 1)}]" for reason in reasons)])

    def _made(self) -> str:
        notes: dict[str, int] = {}
        lines = [HEAD + self._tested + "\n"]
        for document, names in DOCUMENTS.items():
            cells = {name: [self._cell(name, runtime, notes) for runtime in RUNTIMES] for name in names}
            lines += [
                f"## {document}\n",
                f"| property | {' | '.join(RUNTIMES)} |",
                "| --- " * (len(RUNTIMES) + 1) + "|",
            ]
            lines += [*(f"| `{name}` | {' | '.join(each)} |" for name, each in cells.items()), ""]
        lines += [f"[^{number}]: {reason}" for reason, number in notes.items()]
        return "\n".join(lines) + "\n"

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus) -> None:
        """Write the table, or fail if it differs from the results."""
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if hasattr(self._config, "workeroutput"):  # the main process compares
            self._config.workeroutput[RESULT] = self._whole
            return
        self._whole = all(self._workers) if self._workers else self._whole
        if not self._whole or not ended or session.shouldstop or session.shouldfail or not self._results:
            return
        made = self._made()
        if self._write:
            (Path(os.environ.get("ROOTLESS_TEST_CHECKOUT") or TESTS.parent) / TABLE).write_text(made)
            return
        self._differences = self._compared(made)
        if self._differences:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _compared(self, made) -> list[str]:
        """Return the differences between the table and the results.

        Outside CI, properties that only one of the two machines can test are ignored, and so are other versions of the
        oracles.
        """
        on_ci = os.environ.get("CI", "") not in ("", "false", "0")
        if made == self._old or (not on_ci and self._tested not in self._old):
            return []
        old, new = rows(self._old), rows(made)
        pairs = [
            (name, was.split(" [^")[0], now.split(" [^")[0])
            for name in PROPERTIES
            for was, now in zip(old.get(name, [""] * len(RUNTIMES)), new[name], strict=True)
        ]
        found = [
            f"{name}: it says {was}, the tests {now}"
            for name, was, now in pairs
            if was != now and (on_ci or UNTESTED not in (was, now))
        ]
        return found or (["its text is another"] if on_ci else [])

    def pytest_terminal_summary(self, terminalreporter) -> None:
        """Print the differences."""
        for line in self._differences:
            terminalreporter.line(f"FAILED {TABLE}: {line}; fix: {WRITE}")
