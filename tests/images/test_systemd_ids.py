"""`--userns systemd` with a service that grants IDs, refuses, lies or stays silent; tests/system has systemd itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lib import nsresourced
from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import make_rootfs, own
from tests.lib.squashfs import entry, make_image

SOCKET = "/run/systemd/io.systemd.NamespaceResource"
SERVE = """
mount -t tmpfs none /run
mkdir /run/systemd /run/user
install -d -o "$1" -g "$1" -m 700 "/run/user/$1"
shift
exec "$@"
"""


class Host:
    """A host with a service that gives IDs, for a user without subordinate IDs."""

    def __init__(self, user, command, image):
        self.user = user
        self.image = image
        self._command = command
        self._service = None

    def serve(self, kind):
        """Start the service, which answers as tests/lib/nsresourced.py defines `kind`."""
        serve = [sys.executable, CHECKOUT / "tests/lib/nsresourced.py", SOCKET, kind]
        words = ["unshare", "--mount", "sh", "-euc", SERVE, "sh", str(self.user.uid), *map(str, serve)]
        self._service = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._service.stdout.readline() == "listens\n"

    def rootless(self, *words, **options):
        """Run a command as the user where the service listens."""
        user = self.user
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]
        enter = ["nsenter", f"--target={self._service.pid}", "--mount", f"--wdns={user.tmp}", *become]
        return subprocess.run(
            [*enter, self._command, *map(str, words)],
            env=user.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def run(self, *words, flags=()):
        """Run a command in a container of the image."""
        return self.rootless("run", "--network", "none", "--userns", "systemd", *flags, self.image, *words)

    def stop(self):
        if self._service:
            self._service.kill()
            self._service.communicate()


@pytest.fixture
def host(single_user, rootless_command, need, require_root):
    for program in ("sqfstar", "squashfuse_ll"):
        need(program)
    tree = make_rootfs(single_user.tmp / "tree")
    image = make_image(single_user.tmp / "i.sqsh", entry("of-33", uid=33, gid=44, data=b"text"), tree=tree)
    own(single_user, image)
    host = Host(single_user, rootless_command, image)
    yield host
    host.stop()


def lines(done):
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_an_image_has_all_its_owners_and_packages_get_theirs(host):
    host.serve(nsresourced.GRANT)
    script = """
        cat /proc/self/uid_map /proc/self/gid_map
        touch /new; chown 7:8 /new; stat -c %u:%g /of-33 /new
        mkdir /d; chown www-data /d; su -s /bin/sh www-data -c "touch /d/f"; stat -c %u /d/f
    """
    *maps, owner, given, other = lines(host.run("sh", "-c", script))
    assert [line.split() for line in maps] == [["0", str(nsresourced.START), "65536"]] * 2
    assert [owner, given, other] == ["33:44", "7:8", "33"]


def test_all_verbs_work_on_such_a_container(host):
    host.serve(nsresourced.GRANT)
    rootless = host.rootless
    flags = ("--network", "none", "--userns", "systemd", "--name", "c1")
    assert lines(rootless("run", "-d", *flags, host.image, "sh", "-c", "echo out >/dev/stdout; sleep 600")) == ["c1"]
    assert lines(rootless("exec", "c1", "sh", "-c", "id -u; stat -c %u /of-33")) == ["0", "33"]
    for _ in range(4):  # the front door repeats what has been planned before
        assert lines(rootless("exec", "--user", "33", "c1", "id", "-u")) == ["33"]
    assert lines(rootless("cp", "c1:/of-33", host.user.tmp / "copy")) == []
    assert (host.user.tmp / "copy").read_text() == "text"
    assert lines(rootless("logs", "c1")) == ["out"], "the program may open its stream again"
    assert lines(rootless("stop", "-t", "0", "c1")) == ["c1"]
    assert lines(rootless("delete", "c1")) == []
    assert lines(rootless("list", "--quiet")) == []


def test_files_of_the_caller_belong_to_nobody_and_are_read_only(host):
    private = host.user.tmp / "private"
    (private / "volume").mkdir(parents=True)
    (private / "volume/mine").write_text("mine")
    own(host.user, private)
    private.chmod(0o700)
    (private / "volume").chmod(0o777)
    host.serve(nsresourced.GRANT)
    script = "stat -c %u:%g /v/mine; cat /v/mine; touch /v/new || true"
    done = host.run("sh", "-c", script, flags=["-v", f"{private}/volume:/v"])
    assert done.stdout.splitlines() == ["65534:65534", "mine"]
    told, refused = done.stderr.splitlines()
    assert told.startswith("rootless: warning: your files in /v are read-only and belong to nobody: the container")
    assert "Read-only file system" in refused
    assert not (private / "volume/new").exists()


def test_a_replayed_plan_asks_again(host):
    host.serve(nsresourced.GRANT)
    flags = ("--network", "none", "--userns", "systemd")
    done = host.rootless("explain", "--json", *flags, host.image, "cat", "/proc/self/uid_map")
    plan = host.user.tmp / "plan.json"
    plan.write_text(done.stdout)
    own(host.user, plan)
    assert lines(host.rootless("run", "--plan", plan, "c1"))[0].split() == ["0", str(nsresourced.START), "65536"]


# --- A service that refuses, or is hostile; tests/unit/test_allocate_ids.py has more --------------------------------


def test_a_refusal_leaves_nothing(host):
    host.serve(f"{nsresourced.NAME}.UserNamespaceInterfaceNotSupported")
    done = host.run("true")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: systemd-nsresourced gives no IDs: the kernel does not let systemd")
    assert done.stderr.count("\n") == 1
    assert lines(host.rootless("list", "--quiet")) == []


def test_descriptors_of_the_service_reach_nobody(host):
    host.serve(nsresourced.DESCRIPTORS)
    assert lines(host.run("ls", "/proc/self/fd")) == ["0", "1", "2", "3"]
