"""Networks that several containers of a user share: `rootless network`, their members, and the clean-up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from tests.lib.containers import Rootless, await_end, until
from tests.lib.netbox import ECHO, FETCH, HOST, HTTP, OUTSIDE, OUTSIDE6, helpers, make_net_bundle, running
from tests.lib.traced import killed_at, moments

NETWORK = ("--network", "backend")


@pytest.fixture
def rootless(net_rootless):
    net_rootless("network", "create", "backend", check=True)
    return net_rootless


@pytest.fixture
def members(rootless):
    """Two containers with servers on the network, `one` and `two`."""
    with running(rootless, *NETWORK, name="one"), running(rootless, *NETWORK, "-p", f"7001:{ECHO}", name="two"):
        yield rootless


def fetch(rootless, container, address):
    """Return the reply of an HTTP server to a container: the container's address."""
    done = rootless("exec", container, "sh", "-c", f"{FETCH} http://{address}:{HTTP}")
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def namespaces(user):
    """Return the network namespaces of the user's and of root's processes, except the host's own."""
    own = os.stat("/proc/self/ns/net").st_ino
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and entry.stat().st_uid in (user.uid, 0):
                found.add((entry / "ns/net").stat().st_ino)
    return found - {own}


def files(rootless):
    """Return the paths in the state directory, without the cached Plans of `exec`."""
    found = {str(path.relative_to(rootless.root)) for path in rootless.root.rglob("*") if "exec." not in path.name}
    return found - {"@networks"}


# --- create, ls, inspect, rm ------------------------------------------------------------------------------------------


def test_networks_are_created_listed_inspected_and_removed(net_rootless):
    rootless = net_rootless
    assert rootless("network", "ls").stdout.split() == ["NAME", "SUBNET", "CONTAINERS"]
    assert rootless("network", "create", "one", check=True).stdout == "one\n"
    assert rootless("network", "create", "--subnet", "192.168.7.0/25", "two", check=True).stdout == "two\n"
    rows = [line.split() for line in rootless("network", "ls").stdout.splitlines()]
    assert rows[1:] == [["one", "10.89.0.0/24"], ["two", "192.168.7.0/25"]]
    assert rootless("network", "ls", "-q").stdout == "one\ntwo\n"
    told = json.loads(rootless("network", "inspect", "two", check=True).stdout)
    assert told == {
        "name": "two",
        "subnet": "192.168.7.0/25",
        "gateway": "192.168.7.2",
        "dns": "192.168.7.3",
        "containers": {},
    }
    assert json.loads(rootless("network", "ls", "--format", "json").stdout)[1] == told
    assert rootless("network", "rm", "one", check=True).stdout == ""
    assert rootless("network", "ls", "-q").stdout == "two\n"
    assert not helpers()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "backend"], "network backend: it exists; fix: rootless network rm backend"),
        (["create", "pasta"], "--network uses that word for something else"),
        (["create", "a/b"], "network 'a/b': invalid name; fix: use letters"),
        (["create", ".."], "invalid name"),
        (["create", "--subnet", "10.89.0.0/24", "other"], "it overlaps 10.89.0.0/24 of network backend"),
        (["create", "--subnet", "10.1.0.0/26", "other"], "slirp4netns needs 128 addresses"),
        (["create", "--subnet", "10.1.0.1/24", "other"], "write it as 10.89.1.0/24"),
        (["create"], "it needs the name of a network"),
        (["ls", "backend"], "it takes no name"),
        (["inspect", "other"], "there is no such network; yours: backend"),
        (["rm", "other"], "there is no such network; yours: backend"),
        (["rm", "a/b"], "there is no such network; yours: backend; fix: use auto"),
    ],
)
def test_invalid_network_commands_are_refused(rootless, words, said):
    done = rootless("network", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert rootless("network", "ls", "-q").stdout == "backend\n"


def test_default_subnet_avoids_routes_of_the_host(net_rootless, netbox):
    assert netbox.on_host("ip", "route", "add", "10.89.0.0/23", "via", OUTSIDE).wait() == 0
    try:
        net_rootless("network", "create", "one", check=True)
    finally:
        netbox.on_host("ip", "route", "del", "10.89.0.0/23").wait()
    assert "10.89.2.0/24" in net_rootless("network", "ls").stdout


# --- Members ----------------------------------------------------------------------------------------------------------


def test_members_resolve_each_other_and_reach_the_outside(members, netbox):
    assert fetch(members, "one", "two") in ("10.89.0.4", "fd00::4")
    assert fetch(members, "two", "one") in ("10.89.0.5", "fd00::5")
    assert fetch(members, "two", "10.89.0.4") == "10.89.0.5"
    assert fetch(members, "one", "[fd00::5]") == "fd00::4"
    assert fetch(members, "one", "one") in ("10.89.0.4", "fd00::4")
    for address in (OUTSIDE, f"[{OUTSIDE6}]", "outside.test"):
        assert fetch(members, "one", address)
    assert netbox.ask(HOST, 7001) == f"{OUTSIDE} hello"
    with pytest.raises(OSError, match=r"refused|unreachable"):
        netbox.ask("10.89.0.4", ECHO)


def test_published_port_of_a_member_serves_a_hundred_connections(members, netbox):
    with contextlib.ExitStack() as opened:
        made = [opened.enter_context(netbox.open_socket()) for _ in range(100)]
        for each in made:
            each.connect((HOST, 7001))
        for number, each in enumerate(made):
            each.sendall(f"{number}\n".encode())
        answers = [opened.enter_context(each.makefile()).readline().split()[1] for each in made]
    assert answers == [f"{number}" for number in range(100)]


def test_members_reach_each_other_over_udp(members):
    script = f"echo hello | nc.openbsd -u -w 1 two {ECHO}"
    assert members("exec", "one", "sh", "-c", script).stdout.split()[1] == "hello"


def test_state_port_list_and_network_ls_show_a_member(members):
    told = members.state("two")["network"]
    assert (told["mode"], told["of"], told["addresses"]) == ("shared", "backend", ["10.89.0.5", "fd00::5"])
    assert members("port", "two").stdout == f"{ECHO}/tcp -> 0.0.0.0:7001\n"
    assert members("network", "ls").stdout.splitlines()[1].split() == ["backend", "10.89.0.0/24", "one", "two"]
    (row,) = [line for line in members("list").stdout.splitlines() if line.startswith("two ")]
    assert row.split()[-4:] == ["shared", "backend", "10.89.0.5", "fd00::5"]
    done = members("network", "rm", "backend")
    assert "still in use by one, two; fix: delete these containers first" in done.stderr


def test_networks_are_isolated_from_each_other(members):
    members("network", "create", "other", check=True)
    with running(members, "--network", "other", name="three"):
        assert members.state("three")["network"]["addresses"][0] == "10.89.1.4"
        script = f"{FETCH} --connect-timeout 1 http://10.89.0.4:{HTTP} || {FETCH} http://one:{HTTP}"
        done = members("exec", "three", "sh", "-c", script)
        assert done.returncode == 6, "the name cannot be resolved"
        assert done.stdout == ""


def test_another_user_cannot_join_a_network(members, netbox, single_user, rootless_command):
    """Neither through the state directory, if --root names it, nor through a network of the same name."""
    other = netbox.user(single_user)
    with Rootless(other, rootless_command) as others:
        bundle = make_net_bundle(
            other, "sh", "-c", f"{FETCH} --connect-timeout 1 http://10.89.0.4:{HTTP}; cat /etc/hosts"
        )
        assert "there is no such network; yours: none yet" in others("run", *NETWORK, bundle).stderr
        others("network", "create", "backend", check=True)
        done = others("run", *NETWORK, bundle)
        assert "curl: (7)" in done.stderr
        assert " two" not in done.stdout
        words = [rootless_command, "--root", members.root, "run", *NETWORK, bundle]
        done = other.run(words)
        assert done.returncode == 1
        assert "it belongs to another user" in done.stderr
        joining = [rootless_command, "--root", members.root, "run", "--network", "container:one", bundle]
        assert other.run(joining).returncode == 1
    assert members("network", "ls").stdout.split()[-2:] == ["one", "two"]


def test_shared_networks_work_without_subordinate_ids(netbox, single_user, rootless_command):
    with Rootless(netbox.user(single_user), rootless_command) as rootless:
        rootless("network", "create", "backend", check=True)
        with running(rootless, *NETWORK, name="one"), running(rootless, *NETWORK, name="two"):
            assert fetch(rootless, "one", "two") in ("10.89.0.4", "fd00::4")
    until(lambda: not helpers(), "the end of the helpers")


# --- The end of members and helpers -----------------------------------------------------------------------------------


def test_a_network_survives_the_death_of_its_first_member(rootless, netbox):
    """The network was created for the first member and outlives it."""
    with running(rootless, *NETWORK, name="two"):
        with running(rootless, *NETWORK, "-p", f"7001:{ECHO}", name="one") as process:
            os.kill(process.pid, signal.SIGKILL)  # of `rootless run`
            process.wait()
            assert netbox.ask(HOST, 7001)
            os.kill(rootless.pid("one"), signal.SIGKILL)
            until(lambda: rootless.status("one") == "stopped", "the end of the container")
            assert fetch(rootless, "two", "outside.test")
            with running(rootless, *NETWORK, name="three"):
                assert fetch(rootless, "three", "two")
                assert json.loads(rootless("network", "inspect", "backend").stdout)["containers"].keys() == {
                    "two",
                    "three",
                }
        assert fetch(rootless, "two", "outside.test")
        with pytest.raises(ConnectionRefusedError):
            netbox.ask(HOST, 7001)
    until(lambda: not helpers(), "the end of the helpers")
    assert not files(rootless)


def test_a_network_ends_with_its_last_member(members, net_user):
    before = namespaces(net_user)
    members("delete", "--force", "one", check=True)
    members("delete", "--force", "two", check=True)
    until(lambda: not helpers(), "the end of the helpers")
    assert not files(members)
    assert len(namespaces(net_user)) <= len(before) - 3, "two of containers, one of the network"
    members("network", "rm", "backend", check=True)
    assert not list((net_user.tmp / "config/rootless/networks").iterdir())


def serving(rootless):
    """Return the PIDs of the network's own holder and helper."""
    state = json.loads((rootless.root / "@networks/backend/state.json").read_text())
    return {"holder": state["keeper"][0], "helper": state["helper"][0]}


@pytest.mark.parametrize("victim", ["holder", "helper"])
def test_members_survive_the_death_of_the_networks_helper_or_holder(rootless, victim):
    """Later members get a working network, and nothing is left."""
    with running(rootless, *NETWORK, name="one"):
        process = serving(rootless)[victim]
        os.kill(process, signal.SIGKILL)
        await_end(process)
        assert rootless.status("one") == "running"
    with running(rootless, *NETWORK, name="two"):
        assert fetch(rootless, "two", "outside.test")
    until(lambda: not helpers(), "the end of the helpers")
    assert not files(rootless)


def test_members_survive_the_death_of_all_helpers(members):
    for process in helpers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert [members.status(each) for each in ("one", "two")] == ["running", "running"]
    members("delete", "--force", "one", check=True)
    members("delete", "--force", "two", check=True)
    assert not files(members)
    with running(members, *NETWORK, name="three"):
        assert fetch(members, "three", "outside.test")


def test_a_network_can_be_removed_after_all_its_processes_are_killed(rootless, net_user):
    bundle = make_net_bundle(net_user, "sleep", "1000")
    for name in ("one", "two"):
        rootless.create(name, bundle, *NETWORK)
    processes = helpers()  # including the containers' first processes, which wait for `start`
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it may have ended with another one
            os.kill(process, signal.SIGKILL)
    for process in processes:
        await_end(process)
    rootless("network", "rm", "backend", check=True)
    assert not {name for name in files(rootless) if name.startswith("@")}
    assert not list((net_user.tmp / "config/rootless/networks").iterdir())
    assert [rootless.status(each) for each in ("one", "two")] == ["stopped", "stopped"]


CHANGES = {
    *(
        "clone",
        "clone3",
        "connect",
        "flock",
        "mkdirat",
        "pipe2",
        "recvmsg",
        "rename",
        "sendmsg",
        "sendto",
        "socketpair",
    ),
    *("unlink", "vfork", "wait4", "write"),
}
"""System calls that create parts of a network, between which rootless is killed."""


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_kill_while_joining_a_network_leaves_nothing(rootless, net_user, need, first):
    """Killed at moments between the first change and the end; other and later members are unaffected."""
    strace = need("strace")
    bundle = make_net_bundle(net_user, "sleep", "1000", name="killed")
    words = rootless.argv("create", *NETWORK, "-p", "7001:80", "--bundle", bundle, "killed")
    with contextlib.nullcontext() if first else running(rootless, *NETWORK, name="other"):
        before = helpers().keys(), files(rootless)
        killed = 0
        for moment in moments(net_user, strace, words, count=16, since="resolv.conf", names=CHANGES):
            rootless("delete", "--force", "killed")
            killed += killed_at(net_user, strace, words, moment)
            done = rootless("delete", "--force", "killed")
            assert (done.returncode, done.stderr) == (0, ""), moment
            until(lambda: helpers().keys() <= before[0], f"nothing is left of {moment}")
            left = {name for name in files(rootless) - before[1] if not name.startswith("@networks/backend")}
            assert not left, moment
            if not first:
                assert fetch(rootless, "other", "outside.test")
        assert killed >= 12
        with running(rootless, *NETWORK, "-p", f"7001:{ECHO}", name="next"):
            assert fetch(rootless, "next", "outside.test")
            assert first or fetch(rootless, "next", "other")
    assert not files(rootless)
