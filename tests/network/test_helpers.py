"""slirp4netns and pasta that are missing or fail, and the clean-up when a container or a helper ends."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.lib.containers import await_end, until
from tests.lib.netbox import ECHO, FETCH, HOST, HTTP, OUTSIDE, helpers, make_net_bundle, running
from tests.lib.states import undo_notes
from tests.lib.traced import killed_at, moments

BOTH = ("slirp4netns", "pasta")
DIES = "#!/bin/sh\necho chatter >&2\necho no tap for you >&2\nexit 1\n"
HANGS = "#!/bin/sh\nexec sleep 1000\n"
NO_INTERPRETER = "#!/no/such/interpreter\n"
LOOK = f"{FETCH} --connect-timeout 2 http://{OUTSIDE}:{HTTP} || echo none; cat /etc/resolv.conf /etc/hosts"
LOOPBACK = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
ALONE = f"none\n{LOOPBACK}127.0.1.1 bundle\n"
"""The output of LOOK in a container that has only its loopback."""


@pytest.fixture
def replace(netbox, need, tmp_path):
    """Return a function that replaces programs of the host with a script, or with a file that cannot be executed."""

    def replace_programs(*names, script=""):
        for name in names:
            file = tmp_path / name
            file.write_text(script)
            file.chmod(0o755 if script else 0o644)
            place = need(name)
            assert netbox.on_host("mount", "--bind", file, place).wait() == 0
            replaced.append(place)

    replaced = []
    yield replace_programs
    for place in replaced:
        netbox.on_host("umount", place).wait()


@pytest.fixture
def look(net_rootless, net_user):
    """Return a function that runs LOOK in a container and returns the status, the output and the messages of `run`."""

    def look_around(*flags):
        bundle = make_net_bundle(net_user, "sh", "-uc", f"({LOOK}) 2>/dev/null")
        done = net_rootless("run", *flags, bundle)
        assert not net_rootless.list()
        assert not left(net_rootless)
        until(lambda: not helpers(), "the end of the helpers")
        return done.returncode, done.stdout, done.stderr

    return look_around


def left(rootless):
    """Return the contents of the state directory."""
    return list(rootless.root.iterdir()) if rootless.root.exists() else []


def state_with(rootless, *flags):
    """Return the data about the network of a container that is created with these flags."""
    bundle = make_net_bundle(rootless.user, "true", name="told")
    rootless.create("told", bundle, *flags)
    told = rootless.state("told")["network"]
    rootless("delete", "--force", "told", check=True)
    return told


# --- Missing ----------------------------------------------------------------------------------------------------------


def test_missing_helpers_leave_only_loopback_and_a_warning(replace, look, net_rootless):
    replace(*BOTH)
    status, seen, said = look()
    assert (status, seen) == (0, "none\n# the image's own\n# the image's own\n")
    assert said == (
        "rootless: warning: the container has its loopback only: neither pasta nor slirp4netns is installed; "
        "fix: install passt\n"
    )
    assert state_with(net_rootless, "--network", "auto")["mode"] == "none"


@pytest.mark.parametrize("name", BOTH)
def test_a_missing_requested_helper_is_an_error(replace, look, name):
    replace(name)
    status, seen, said = look("--network", name)
    assert (status, seen) == (1, "")
    assert said.startswith(f"rootless: --network {name}: {name} is not installed; fix: install ")


@pytest.mark.parametrize("flags", [(), ("-p", "7001:80")])
@pytest.mark.parametrize(
    ("missing", "other", "why"),
    [("slirp4netns", "pasta", "it shields the host best"), ("pasta", "slirp4netns", "pasta is not installed")],
)
def test_auto_uses_the_installed_helper(replace, look, net_rootless, missing, other, why, flags):  # noqa: PLR0917
    replace(missing)
    status, seen, said = look(*flags)
    assert (status, said) == (0, "")
    assert seen.startswith(HOST)
    told = state_with(net_rootless, "--network", "auto", *flags)
    assert (told["mode"], told["reason"]) == (other, why)


FLAWED = "is open to CVE-"


@pytest.fixture
def flawed(netbox):
    """Replace the host's libslirp with one that reports a vulnerable version, such as 0.8.0."""
    copy = netbox.write_libslirp(b"0")
    assert netbox.on_host("mount", "--bind", copy, netbox.libslirp).wait() == 0
    yield
    netbox.on_host("umount", "--lazy", netbox.libslirp).wait()


@pytest.mark.usefixtures("flawed")
@pytest.mark.parametrize("flags", [(), ("-p", "7001:80")])
@pytest.mark.parametrize("script", ["", DIES])
def test_auto_avoids_slirp4netns_with_known_vulnerabilities(replace, look, script, flags):
    replace("pasta", script=script)
    status, seen, said = look(*flags)
    assert (status, seen != "") == ((1, False) if flags else (0, True))
    assert HOST not in seen
    assert flags or FLAWED in said
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("flawed")
def test_requested_vulnerable_slirp4netns_is_used_with_a_warning(look):
    status, seen, said = look("--network", "slirp4netns")
    assert (status, seen.startswith(HOST)) == (0, True)
    assert said.startswith("rootless: warning: slirp4netns: libslirp 0.")
    assert FLAWED in said
    assert said.endswith("; fix: use --network pasta, or update libslirp\n")


@pytest.mark.usefixtures("flawed")
def test_network_create_and_explain_report_vulnerable_slirp4netns(net_rootless, net_user):
    assert FLAWED in net_rootless("network", "create", "backend", check=True).stderr
    bundle = make_net_bundle(net_user, "true")
    explained = net_rootless("explain", "--network", "backend", bundle, check=True).stdout
    assert "\n           slirp4netns: libslirp 0." in explained
    assert FLAWED in explained


# --- Failing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("script", "cause"), [(DIES, "chatter; no tap for you"), (NO_INTERPRETER, "no such file or directory")]
)
def test_a_failure_of_a_requested_helper_is_an_error(replace, look, name, script, cause):
    replace(name, script=script)
    status, seen, said = look("--network", name)
    assert (status, seen) == (1, "")
    assert said.startswith(f"rootless: {name} gives the container no network: {cause}; fix: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("failing", "other", "script"), [(*BOTH[::-1], DIES), (*BOTH[::-1], NO_INTERPRETER)])
@pytest.mark.parametrize("flags", [(), ("-p", "7001:80")])
def test_auto_falls_back_to_the_other_helper(replace, look, net_rootless, failing, other, script, flags):  # noqa: PLR0917
    replace(failing, script=script)
    status, seen, said = look(*flags)
    assert (status, said) == (0, "")
    server = {"pasta": "169.254.1.1", "slirp4netns": "10.0.2.3"}[other]
    own = {"pasta": HOST, "slirp4netns": "10.0.2.100"}[other]
    assert seen.startswith(f"{HOST}nameserver {server}\n")
    assert f"\n{own} bundle\n" in seen
    told = state_with(net_rootless, "--network", "auto", *flags)
    assert told["mode"] == other
    assert told["reason"].startswith(f"{failing} gives the container no network: ")
    assert told["addresses"][0] == own


def test_failure_of_both_helpers_leaves_only_loopback_and_a_warning(replace, look, net_rootless):
    replace(*BOTH, script=DIES)
    status, seen, said = look()
    assert (status, seen) == (0, ALONE)
    assert len(said.splitlines()) == 1
    assert said.startswith(
        "rootless: warning: the container has its loopback only: pasta gives the container no network: "
    )
    assert state_with(net_rootless, "--network", "auto")["mode"] == "none"


def test_failure_of_both_helpers_with_published_ports_is_an_error(replace, look):
    replace(*BOTH, script=DIES)
    status, seen, said = look("-p", "7001:80")
    assert (status, seen) == (1, "")
    assert said.startswith("rootless: pasta gives the container no network: chatter; no tap for you; fix: ")


def test_hanging_helper_is_abandoned_after_a_timeout(replace, look):
    replace("pasta", script=HANGS)
    status, seen, said = look()
    assert (status, said) == (0, "")
    assert seen.startswith(f"{HOST}nameserver 10.0.2.3\n")


def test_interrupt_or_kill_while_a_helper_hangs_leaves_nothing(replace, net_rootless, net_user):
    """rootless is interrupted, then killed, while it waits for the helper."""
    replace("slirp4netns", script=HANGS)
    bundle = make_net_bundle(net_user, "true")
    for number in (signal.SIGINT, signal.SIGKILL):
        with net_rootless.popen("run", "--network", "slirp4netns", bundle, stderr=subprocess.PIPE) as process:
            until(lambda: hanging(net_user), "the helper hangs")
            process.send_signal(number)
            process.wait()
        if number == signal.SIGINT:
            assert process.returncode == 128 + number
            assert not hanging(net_user)
            assert not net_rootless.list()
        else:
            net_rootless("delete", "--force", "bundle", check=True)
            for pid in hanging(net_user):
                os.kill(pid, signal.SIGKILL)  # unlike a real helper, it does not watch the descriptor that ends it
    assert not left(net_rootless)


def hanging(user):
    """Return the PIDs of the processes that HANGS starts."""
    found = user.run(["pgrep", "--exact", "--full", "--uid", str(user.uid), "sleep 1000"])
    return [int(pid) for pid in found.stdout.split()]


def test_shared_network_without_slirp4netns_has_no_outside_connection(replace, net_rootless):
    replace("slirp4netns")
    net_rootless("network", "create", "backend", check=True)
    one, two = (running(net_rootless, "--network", "backend", name=name) for name in ("one", "two"))
    with one, two:
        done = net_rootless("exec", "one", "sh", "-c", f"{FETCH} http://two:{HTTP}")
        assert done.stdout in ("10.89.0.4", "fd00::4")
        done = net_rootless("exec", "one", "sh", "-c", f"{FETCH} --connect-timeout 1 http://{OUTSIDE}:{HTTP}")
        assert done.returncode in (7, 28)


def test_failing_slirp4netns_of_a_shared_network_is_an_error(replace, net_rootless, net_user):
    replace("slirp4netns", script=DIES)
    net_rootless("network", "create", "backend", check=True)
    done = net_rootless("run", "--network", "backend", make_net_bundle(net_user, "true"))
    assert done.returncode == 1
    assert "slirp4netns gives" in done.stderr
    assert "no tap for you" in done.stderr
    assert not net_rootless.list()
    until(lambda: not helpers(), "the end of the helpers")


# --- Clean-up ---------------------------------------------------------------------------------------------------------


def processes(rootless):
    """Return the netns holder and the helper of the container `served`."""
    noted = undo_notes(rootless.root / "served")["network"]
    return {"holder": noted["holder"][0], "helper": noted["helper"][0]}


@pytest.mark.parametrize("victim", ["holder", "helper"])
@pytest.mark.parametrize("mode", BOTH)
def test_container_survives_the_death_of_its_helper_or_netns_holder(net_rootless, mode, victim):
    with running(net_rootless, "--network", mode) as process:
        found = processes(net_rootless)
        os.kill(found[victim], signal.SIGKILL)
        await_end(found[victim])
        told = net_rootless.state("served")
        assert told["status"] == "running"
        if victim == "helper":
            assert told["network"] == {"mode": "none", "reason": f"{mode} has ended"}
        assert net_rootless("exec", "served", "sh", "-c", f"{FETCH} http://127.0.0.1:{HTTP}").stdout == "127.0.0.1"
        net_rootless("kill", "served", "KILL", check=True)
        assert process.wait() == 128 + signal.SIGKILL
        until(lambda: not helpers(), "the end of the other process")
    assert not left(net_rootless)


@pytest.mark.parametrize("mode", BOTH)
def test_container_keeps_its_network_after_rootless_run_is_killed(net_rootless, netbox, mode):
    """When the container ends later, its helpers end too, although no rootless process is left."""
    with running(net_rootless, "--network", mode, "-p", f"7001:{ECHO}") as process:
        process.kill()
        process.wait()
        assert netbox.ask(HOST, 7001).endswith(" hello")
        assert net_rootless.status("served") == "running"
        os.kill(net_rootless.pid("served"), signal.SIGKILL)
        until(lambda: not helpers(), "the end of the helpers")
        assert net_rootless.status("served") == "stopped"
    assert not left(net_rootless)


@pytest.mark.parametrize("mode", BOTH)
def test_helpers_end_with_the_containers_program(net_rootless, net_user, mode):
    net_rootless.create("c1", make_net_bundle(net_user, "true"), "--network", mode)
    assert len(helpers()) == 3, "the first process, the netns holder, the helper"
    net_rootless.start("c1")
    until(lambda: not helpers(), "the end of the helpers")
    assert net_rootless.status("c1") == "stopped"


CHANGES = {"clone", "clone3", "connect", "pidfd_open", "pipe2", "poll", "recvmsg", "rename", "vfork", "wait4", "write"}
"""System calls that create parts of a network, between which rootless is killed."""


@pytest.mark.parametrize("mode", BOTH)
def test_kill_during_network_setup_leaves_nothing(net_rootless, net_user, need, mode):
    strace = need("strace")
    bundle = make_net_bundle(net_user, "sleep", "1000")
    words = net_rootless.argv("create", "--network", mode, "-p", "7001:80", "--bundle", bundle, "c1")
    killed = 0
    for moment in moments(net_user, strace, words, count=12, since="resolv.conf", names=CHANGES):
        net_rootless("delete", "--force", "c1")
        killed += killed_at(net_user, strace, words, moment)
        done = net_rootless("delete", "--force", "c1")
        assert (done.returncode, done.stderr) == (0, ""), moment
        until(lambda: not helpers(), f"the end of the helpers after {moment}")
        assert not left(net_rootless), moment
    assert killed >= 9
    with running(net_rootless, "--network", mode, "-p", "7001:80"):
        pass
