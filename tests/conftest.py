"""Fixtures for all tests: the two ordinary users and the installed command; and rules for skips."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.lib import figures, workers
from tests.lib import netbox as networks
from tests.lib.accounts import PROVIDED, RUN, account
from tests.lib.conformance import Conformance
from tests.lib.fixtures import box, either, every, net_rootless, net_user, netbox, rootless, trixie

__all__ = ["box", "either", "every", "net_rootless", "net_user", "netbox", "rootless", "trixie"]

# Before any file of tests imports gRPC: its handlers for fork(2) write to the standard error of every program that the
# tests start, start threads in Python children, and abort those that have closed its descriptors.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

ON_CI = os.environ.get("CI", "") not in ("", "false", "0")
NONE_SKIPPED = ("cluster", "engines", "system")
"""Directories of tests that must not be skipped on CI: the documents name each engine as tested."""
BOTH_WAYS = ("verbs", "spec", "network", "images")
"""Directories of tests that CI runs with the front door and with Python alone: what users see of containers."""
FRONT_DOORS = (
    "test_attend.py", "test_cached_create.py", "test_cached_image.py", "test_cached_plan.py", "test_cached_terminal.py",
    "test_doctor_conditions.py", "test_exec_record.py", "test_front_door.py", "test_imports.py", "test_start_up.py",
    "test_upgrade.py",
)  # fmt: skip
"""Files of tests/verbs about the front door, the start of the command, or what Python does in either case."""
EXCEPTIONS: dict[str, str] = {}
"""Exceptions by test id, with the reason why the CI machine cannot run them."""


def pytest_configure(config):
    """Reset ignored signals, because nohup or a shell's `&` ignores some and programs would inherit that."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    config.pluginmanager.register(Conformance(config), "conformance")
    config.pluginmanager.register(figures, "figures")
    config.pluginmanager.register(workers, "workers")


@pytest.fixture(scope="module", autouse=True)
def helpers_of_fixtures():
    """Except the networks of daemons that run for the whole session from what a file's tests see of their own."""
    networks.earlier.clear()
    networks.earlier.update(networks.helpers())


@pytest.fixture
def user(request):
    """An ordinary user with a range of subordinate ids."""
    yield from account(0, request)


@pytest.fixture(scope="module")
def module_user(request, rootless_command):
    """The same user, with a directory for all tests of a module; for those of each command, if there are two."""
    yield from account(0, request)


@pytest.fixture
def single_user(request):
    """An ordinary user without subordinate ids."""
    if os.geteuid() != 0:
        pytest.skip("needs root: runs as another user")
    yield from account(1, request)


@pytest.fixture(scope="session")
def rootless_command(request):
    """The path of the `rootless` command, installed as by install.sh: the front door, or Python's script alone."""
    if not RUN:
        pytest.skip("needs the installed command: start the tests with tests/run")
    return f"{RUN}/bin/{getattr(request, 'param', 'rootless')}"


def pytest_generate_tests(metafunc):
    """On CI, run the tests of these folders with the front door and without it."""
    place = metafunc.definition.path
    is_of_both = place.parent.name in BOTH_WAYS and place.name not in FRONT_DOORS
    if ON_CI and is_of_both and "rootless_command" in metafunc.fixturenames:
        metafunc.parametrize("rootless_command", ["rootless", "rootless.py"], indirect=True, scope="session")


@pytest.fixture
def require_root():
    """Skip the test unless root runs the tests."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def need():
    """Return a function that returns the path of a program, or skips the test if it is not installed."""

    def find(program: str) -> str:
        return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") or pytest.skip(
            f"needs {program}, {PROVIDED}"
        )

    return find


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """On CI, make a forbidden skip a failure."""
    report = yield
    if ON_CI and report.skipped and not hasattr(report, "wasxfail") and is_wanted(item.nodeid, _reason(report)):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {_reason(report)}"
    return report


def is_wanted(test: str, reason: str) -> bool:
    """Whether a test must run on CI: it is in one of these directories, or tests/run provides what is missing."""
    return PROVIDED in reason or (workers.folder_of(test) in NONE_SKIPPED and test not in EXCEPTIONS)


def _reason(report):
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter):
    """Print every skipped test with the reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("skipped")
    for report in skipped:
        terminalreporter.line(f"{report.nodeid}: {_reason(report)}")
