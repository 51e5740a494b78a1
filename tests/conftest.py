"""What the tests share: the two ordinary users, the command as installed, and an account of what was skipped."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests import figures
from tests.conformance import Conformance

CHECKOUT = Path(__file__).resolve().parent.parent
ON_CI = os.environ.get("CI", "") not in ("", "false", "0")
PROVIDED = "provided by CI"
"""In the reason of a skip: tests/run installs it, so on CI its want is a failure."""
NONE_SKIPPED = ("cluster", "engines", "system")
"""Directories of tests none of which is skipped on CI: what they show is what is claimed of each engine by its name."""
EXCEPTIONS: dict[str, str] = {}
"""Tests of those that may be, by their ids, with the reason why the machine of CI cannot run them."""
RUN = os.environ.get("ROOTLESS_TEST_RUN", "")
"""Directory that tests/run made for this run: every component of its path is open to everybody."""


def pytest_configure(config):
    """Let the programs under test begin with every signal at its default: nohup or a shell's `&` ignores some."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    config.pluginmanager.register(Conformance(config), "conformance")
    config.pluginmanager.register(figures, "figures")


class User:
    """An ordinary user: who runs the tests, or, when that is root, one whom tests/run made.

    Attributes:
        name, uid, gid, home, runtime_dir: the account's own.
        tmp: a directory of the user's own for this test, on a path whose components can all be searched by everybody.
        env: the whole environment that the user's programs get.
    """

    def __init__(self, name: str, tmp: Path) -> None:
        entry = pwd.getpwnam(name)
        self.name = name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = Path(entry.pw_dir)
        own = os.environ.get("XDG_RUNTIME_DIR") if os.geteuid() == self.uid else None
        self.runtime_dir = Path(own or f"/run/user/{self.uid}")
        self.tmp = tmp
        self.env = {
            "HOME": entry.pw_dir,
            "USER": name,
            "LOGNAME": name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "XDG_RUNTIME_DIR": str(self.runtime_dir),
            "LC_ALL": "C.UTF-8",
        }

    def popen(self, argv, *, env=None, **options) -> subprocess.Popen:
        """Start `argv` as this user, in `tmp` unless `cwd` says otherwise; `env` is added to the user's own."""
        if os.geteuid() != self.uid:
            options = {"user": self.uid, "group": self.gid, "extra_groups": (), "umask": 0o022} | options
        options = {"cwd": self.tmp, "text": True} | options
        return subprocess.Popen([os.fspath(word) for word in argv], env=self.env | (env or {}), **options)

    def run(self, argv, *, timeout=120, check=False, **options) -> subprocess.CompletedProcess:
        """Run `argv` as this user to its end, with empty input, and return its status and output."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        given = options.pop("input", None)
        options.setdefault("stdin", subprocess.DEVNULL if given is None else subprocess.PIPE)
        with self.popen(argv, **options) as process:
            try:
                out, err = process.communicate(given, timeout=timeout)
            except subprocess.TimeoutExpired as expired:
                state = "runs on" if process.poll() is None else "has ended, what it left behind holds its output"
                process.kill()
                pytest.fail(f"{expired}: it {state}\nstdout: {expired.stdout}\nstderr: {expired.stderr}")
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert not (check and done.returncode), (
            f"{process.args} ended with {done.returncode}\nstdout: {out}\nstderr: {err}"
        )
        return done


@pytest.fixture
def user(request):
    """An ordinary user with a range of subordinate ids."""
    yield from _user(0, request)


@pytest.fixture(scope="module")
def module_user(request):
    """The same user, with a directory for all tests of a module."""
    yield from _user(0, request)


@pytest.fixture
def single_user(request):
    """An ordinary user without subordinate ids."""
    if os.geteuid() != 0:
        pytest.skip("needs root: runs as another user")
    yield from _user(1, request)


def _user(number, request):
    names = os.environ.get("ROOTLESS_TEST_USERS", "").split()
    if os.geteuid() != 0:
        name = pwd.getpwuid(os.geteuid()).pw_name
    elif names:
        name = names[number]
    else:
        pytest.skip("needs an ordinary user: start the tests with tests/run")
    directory = Path(tempfile.mkdtemp(prefix=request.node.name[:20].replace("/", "-"), dir=RUN or None))
    account = User(name, directory)
    os.chown(directory, account.uid, account.gid)
    directory.chmod(0o755)
    yield account
    _remove(directory, account)


def _remove(directory, account):
    """Remove a test's directory; a mount left in it would take what is mounted with it, so that is a failure."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    left = [mount for mount in mounts if mount.startswith(f"{directory}/")]
    for mount in reversed(left):
        subprocess.run(["umount", "--lazy", mount], check=True)
    remove = ["rm", "-rf", directory]
    if subprocess.run(remove, stderr=subprocess.DEVNULL, check=False).returncode:
        # Some of it belongs to the user's subordinate ids.
        account.run(["unshare", "--map-root-user", "--map-auto", *remove], cwd="/", check=True)
    assert not left, f"mounts were left: {left}"


@pytest.fixture(scope="session")
def rootless_command():
    """The path of the `rootless` command, installed as install.sh does it."""
    if not RUN:
        pytest.skip("needs the installed command: start the tests with tests/run")
    return f"{RUN}/bin/rootless"


@pytest.fixture
def require_root():
    """Skip where the tests are not run by root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def need():
    """Return a function that gives the path of a program and skips the test where it is missing."""

    def find(program: str) -> str:
        return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") or pytest.skip(
            f"needs {program}, {PROVIDED}"
        )

    return find


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """On CI, fail what is skipped and should not be."""
    report = yield
    if ON_CI and report.skipped and not hasattr(report, "wasxfail") and is_wanted(item.nodeid, _reason(report)):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {_reason(report)}"
    return report


def is_wanted(test: str, reason: str) -> bool:
    """Whether a test has to run on CI: what is missing is something that tests/run provides, or where it is says so."""
    return PROVIDED in reason or (
        test.removeprefix("tests/").partition("/")[0] in NONE_SKIPPED and test not in EXCEPTIONS
    )


def _reason(report):
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter):
    """Name every test that was skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("skipped")
    for report in skipped:
        terminalreporter.line(f"{report.nodeid}: {_reason(report)}")
