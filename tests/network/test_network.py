"""Networks of single containers: addresses, names, connections to the outside, and published ports."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess

import pytest

from tests.lib.containers import Reader, Rootless, until
from tests.lib.netbox import (
    ECHO,
    FETCH,
    HOST,
    HOST6,
    HTTP,
    IMAGE,
    OUTSIDE,
    OUTSIDE6,
    helpers,
    make_net_bundle,
    running,
)

HELPERS = ("slirp4netns", "pasta")
UDP = socket.SOCK_DGRAM
ADDRESSES = "ip -json address; ip -json route; ip -6 -json route; cat /etc/resolv.conf; echo; cat /etc/hosts"
PUBLISHED = 7001
RANGE = range(7100, 7105)
CLIENT = """
import socket, sys
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    for address in sys.argv[2:]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, kind) as asking:
            asking.settimeout(20)
            asking.connect((address, int(sys.argv[1])))
            asking.sendall(b"hello\\n")
            print(asking.recv(1000).decode().strip())
"""
"""Sends a line to echo servers outside, over TCP and UDP, and prints the replies."""


@pytest.fixture
def run(net_rootless, net_user):
    """Return a function that runs a shell script in a container, with flags of `run`, and returns its output."""

    def run_script(script, *flags, **linux):
        bundle = make_net_bundle(net_user, "sh", "-euc", script, **linux)
        done = net_rootless("run", *flags, bundle)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    return run_script


@pytest.fixture(scope="module", params=HELPERS)
def served(request, netbox, module_user, rootless_command):
    """A container with servers on published ports, once per helper; yields its Rootless, whose `helper` is the name."""
    flags = ["-p", f"{PUBLISHED}:{ECHO}", "-p", f"{PUBLISHED}:{ECHO}/udp", "-p", f"127.0.0.1:8080:{HTTP}"]
    flags += ["-p", f"{RANGE[0]}-{RANGE[-1]}:{RANGE[0]}-{RANGE[-1]}", "-p", f"{ECHO}"]
    user = netbox.user(module_user)
    with Rootless(user, rootless_command) as rootless:
        rootless.helper = request.param
        with running(rootless, *flags, "--network", request.param, name=request.param, echo=(ECHO, *RANGE)):
            yield rootless
    until(lambda: not helpers(), "the end of the helpers")


NOTHING = (set(), set(), [IMAGE.strip()], [IMAGE.strip()])
"""The result of seen() in a container without a network."""


def seen(text):
    """Parse the output of ADDRESSES: (addresses, gateways, lines of resolv.conf, lines of hosts)."""
    addresses, routes, routes6, rest = text.split("\n", 3)
    found = {
        f"{each['local']}/{each['prefixlen']}"
        for link in json.loads(addresses)
        for each in link.get("addr_info", ())
        if each["scope"] == "global"
    }
    gateways = {route["gateway"] for route in json.loads(routes) + json.loads(routes6) if route["dst"] == "default"}
    resolver, _, hosts = rest.partition("\n\n")
    return found, gateways, resolver.splitlines(), hosts.splitlines()


# --- From inside ------------------------------------------------------------------------------------------------------

OWN = {
    "slirp4netns": ({"10.0.2.100/24", "fd00::100/64"}, {"10.0.2.2", "fd00::2"}, "10.0.2.3"),
    "pasta": ({f"{HOST}/24", f"{HOST6}/64"}, {OUTSIDE, OUTSIDE6}, "169.254.1.1"),
    "slirp4netns:cidr=10.41.0.0/24,enable_ipv6=false": ({"10.41.0.100/24"}, {"10.41.0.2"}, "10.41.0.3"),
}
OWN["auto"] = OWN["pasta"]


@pytest.mark.parametrize("mode", OWN)
def test_a_container_has_its_own_addresses_routes_and_resolver(run, mode):
    expected, gateways, server = OWN[mode]
    found = seen(run(ADDRESSES, "--network", mode))
    assert found[:2] == (expected, gateways)
    assert found[2] == [f"nameserver {server}", "search example.test", "options edns0"]
    own = [address.partition("/")[0] for address in expected]
    assert sorted(found[3]) == sorted(
        ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", *(f"{address} bundle" for address in own)]
    )


def test_network_none_has_only_loopback_and_the_images_files(run):
    found = seen(run(ADDRESSES, "--network", "none"))
    assert found == NOTHING


def test_network_host_shows_the_hosts_addresses_and_names(run):
    found = seen(
        run(
            f"{ADDRESSES}; {FETCH} 127.0.0.1:{HTTP} >/tmp/own; grep -x 127.0.0.1 /tmp/own >/dev/null",
            "--network",
            "host",
        )
    )
    assert found[:2] == ({f"{HOST}/24", f"{HOST6}/64"}, {OUTSIDE, OUTSIDE6})
    assert found[2] == ["nameserver 127.0.0.53", "search example.test", "options edns0"]
    assert "192.0.2.99 known-to-the-host" in found[3]


@pytest.mark.parametrize("mode", HELPERS)
def test_a_container_reaches_outside_servers_over_tcp_and_udp(run, mode):
    words = f"{ECHO} {OUTSIDE} {OUTSIDE6}"
    assert (
        run(f"python3 -c '{CLIENT}' {words}", "--network", mode).splitlines()
        == [
            f"{HOST} hello",
            f"{HOST6} hello",
        ]
        * 2
    )


@pytest.mark.parametrize("mode", HELPERS)
def test_names_are_resolved_by_the_hosts_resolver(run, mode):
    script = f"getent ahosts outside.test; {FETCH} http://outside.test:{HTTP}/bytes/100000 | wc -c; getent hosts bundle"
    lines = run(script, "--network", mode).splitlines()
    assert {line.split()[0] for line in lines if "STREAM" in line} == {OUTSIDE, OUTSIDE6}
    assert "100000" in lines
    assert lines[-1].split()[1] == "bundle"


@pytest.mark.parametrize("mode", HELPERS)
def test_a_container_can_ping_outside_hosts(run, mode):
    seen_pings = run(f"ping -c 1 -W 20 {OUTSIDE}; ping -c 1 -W 20 outside.test", "--network", mode)
    assert seen_pings.count(" 0% packet loss") == 2


def test_dns_flags_reach_resolv_conf_and_hosts(run):
    flags = ["--network", "slirp4netns", "--dns", OUTSIDE, "--dns-search", "test", "--add-host", "db:192.0.2.1"]
    lines = run("cat /etc/resolv.conf; getent hosts other db; cat /etc/hosts", *flags).splitlines()
    assert lines[:2] == [f"nameserver {OUTSIDE}", "search test"]
    assert [line.split() for line in lines[2:4]] == [["192.0.2.7", "other.test"], ["192.0.2.1", "db"]]


def test_name_flags_apply_to_network_none(run):
    flags = ["--network", "none", "--add-host", "db:192.0.2.1", "--dns-search", "test"]
    lines = run("cat /etc/resolv.conf; getent hosts db bundle", *flags).splitlines()
    assert lines[0] == "search test"
    assert [line.split() for line in lines[1:] if line] == [["192.0.2.1", "db"], ["127.0.1.1", "bundle"]]


@pytest.mark.parametrize("mode", ["slirp4netns", "pasta", "host", "none"])
def test_hosts_and_resolv_conf_of_the_bundle_are_unchanged(run, net_user, mode):
    script = "for name in hosts resolv.conf; do (echo mine >>/etc/$name) 2>/dev/null || true; done"
    run(script, "--network", mode, "--dns", OUTSIDE)
    etc = net_user.tmp / "bundle/rootfs/etc"
    assert {(etc / name).read_text() for name in ("hosts", "resolv.conf")} == {IMAGE}
    assert {path.name for path in etc.iterdir()} == {"hosts", "nsswitch.conf", "passwd", "resolv.conf"}


def test_a_read_only_root_gets_a_resolv_conf(net_rootless, net_user):
    bundle = make_net_bundle(net_user, "cat", "/etc/resolv.conf")
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["readonly"] = True
    (bundle / "config.json").write_text(json.dumps(config))
    assert "nameserver 169.254.1.1" in net_rootless("run", bundle, check=True).stdout


@pytest.mark.parametrize("readonly", [False, True])
def test_dangling_resolv_conf_and_missing_hosts_are_provided(net_rootless, net_user, readonly):
    """Debian's resolv.conf is such a symlink where systemd-resolved is installed."""
    bundle = make_net_bundle(net_user, "getent", "hosts", "other.test", "bundle")
    etc = bundle / "rootfs/etc"
    (etc / "resolv.conf").unlink()
    (etc / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (etc / "hosts").unlink()
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["readonly"] = readonly
    (bundle / "config.json").write_text(json.dumps(config))
    lines = [line.split() for line in net_rootless("run", bundle, check=True).stdout.splitlines()]
    assert lines == [["192.0.2.7", "other.test"], [HOST6, "bundle"]]
    places = (etc / "hosts", bundle / "rootfs/run/systemd/resolve/stub-resolv.conf")
    assert [place.read_text() for place in places] == ["", ""], "empty mount points"


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        ("slirp4netns:mtu=1500,outbound_addr=uplink", "1500"),
        (f"slirp4netns:outbound_addr={HOST}", "65520"),
        ("pasta:--mtu,1500,--ipv4-only", "1500"),
        ("pasta:-a,10.9.9.9,-n,24,-g,10.9.9.1", "65520"),
    ],
)
def test_options_are_passed_to_the_helpers(run, mode, shown):
    script = f"cat /sys/class/net/[tu]*/mtu; {FETCH} http://{OUTSIDE}:{HTTP}; ip -4 address"
    mtu, _, rest = run(script, "--network", mode).partition("\n")
    assert mtu == shown
    assert rest.startswith(HOST)
    assert ("10.9.9.9/24" in rest) == ("10.9.9.9" in mode)


# --- Callers and user namespaces --------------------------------------------------------------------------------------

USE = f"{FETCH} http://outside.test:{HTTP}/bytes/9; ping -c 1 -W 20 {OUTSIDE} | grep -o ' 0% packet loss'"
USED = "xxxxxxxxx 0% packet loss\n"


@pytest.mark.parametrize("userns", ["keep-id", "root", "single"])
@pytest.mark.parametrize("mode", HELPERS)
def test_network_works_in_every_userns_mode(run, mode, userns):
    words = ("--userns", userns, "--fake-chown=false", "--network", mode, "-p", f"7900:{ECHO}")
    assert run(USE, *words) == USED


@pytest.mark.parametrize("mode", [*HELPERS, "backend"])
def test_network_works_when_rootless_runs_in_a_user_namespace(net_rootless, net_user, mode):
    """rootless is root there and needs no user namespace of its own."""
    bundle = make_net_bundle(net_user, "sh", "-uc", USE)
    inside = ["unshare", "--map-root-user", "--map-auto", "--mount"]
    net_user.run([*inside, *net_rootless.argv("network", "create", "backend")], check=True)
    done = net_user.run([*inside, *net_rootless.argv("run", "--network", mode, "-p", f"7900:{ECHO}", bundle)])
    assert (done.returncode, done.stdout, done.stderr) == (0, USED, "")


@pytest.mark.parametrize("mode", [*HELPERS, "backend"])
def test_network_works_when_root_calls(net_user, netbox, rootless_command, tmp_path, mode):
    bundle = make_net_bundle(net_user, "sh", "-uc", f"{FETCH} http://outside.test:{HTTP}/bytes/9")
    rootless = [rootless_command, "--root", net_user.tmp / "root"]
    env = net_user.env | {"XDG_CONFIG_HOME": str(tmp_path)}
    options = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    assert netbox.on_host(*rootless, "network", "create", "backend", **options).communicate()[0] == "backend\n"
    with netbox.on_host(*rootless, "run", "--network", mode, "-p", f"7900:{ECHO}", bundle, **options) as process:
        assert process.communicate()[0] == "x" * 9
    until(lambda: not helpers(), "the end of the helpers")


# --- The host's loopback ----------------------------------------------------------------------------------------------

TRY = f"{FETCH} --connect-timeout 1 http://%s:{HTTP} || echo closed"


@pytest.mark.parametrize("mode", HELPERS)
def test_the_hosts_loopback_is_unreachable_by_default(run, mode):
    gateways = {"slirp4netns": ["10.0.2.2", "[fd00::2]"], "pasta": ["169.254.1.1"]}[mode]
    for address in ("127.0.0.1", "[::1]", *gateways):
        assert run(f"({TRY % address}) 2>&1", "--network", mode).endswith("\nclosed\n")


@pytest.mark.parametrize(
    ("mode", "address"),
    [
        ("slirp4netns:allow_host_loopback=true", "10.0.2.2"),
        ("slirp4netns:allow_host_loopback=true", "host.containers.internal"),
        ("pasta:--map-gw", OUTSIDE),
        ("pasta:--map-host-loopback,192.0.2.5", "host.docker.internal"),
        ("pasta:-T,8000", "127.0.0.1"),
    ],
)
def test_the_hosts_loopback_is_reachable_on_request(run, mode, address):
    assert run(TRY % address, "--network", mode) == "127.0.0.1"


def test_add_host_accepts_host_gateway(run):
    flags = ["--network", "slirp4netns:allow_host_loopback=true", "--add-host", "dev:host-gateway"]
    assert run(TRY % "dev", *flags) == "127.0.0.1"


# --- From the outside -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, UDP])
def test_published_ports_see_the_clients_address(served, netbox, kind):
    assert netbox.ask(HOST, PUBLISHED, kind=kind) == f"{OUTSIDE} hello"
    assert netbox.ask(HOST, PUBLISHED, kind=kind, inside=True).endswith(" hello")


def test_the_host_reaches_published_ports_over_its_loopback(served, netbox):
    source = {"slirp4netns": "10.0.2.2", "pasta": HOST}[served.helper]
    assert netbox.ask("127.0.0.1", PUBLISHED, inside=True) == f"{source} hello"
    if served.helper == "pasta":
        assert netbox.ask("127.0.0.1", PUBLISHED, kind=UDP, inside=True) == f"{source} hello"


def test_only_pasta_publishes_ports_over_ipv6(served, netbox):
    if served.helper == "pasta":
        assert netbox.ask(HOST6, PUBLISHED) == f"{OUTSIDE6} hello"
        assert netbox.ask(HOST6, PUBLISHED, kind=UDP) == f"{OUTSIDE6} hello"
        assert netbox.ask("::1", PUBLISHED, inside=True).endswith(" hello")
    else:
        with pytest.raises(ConnectionRefusedError):
            netbox.ask(HOST6, PUBLISHED)


def test_ports_are_published_on_ipv6_addresses_and_by_pasta_options(net_rootless, netbox):
    flags = ["-p", f"[::1]:7901:{ECHO}", "-p", f"[{HOST6}]:7902:{ECHO}"]
    with running(net_rootless, *flags):
        assert netbox.ask("::1", 7901, inside=True).endswith(" hello")
        assert netbox.ask(HOST6, 7902) == f"{OUTSIDE6} hello"
        for address in (HOST6, HOST):
            with pytest.raises(ConnectionRefusedError):
                netbox.ask(address, 7901)
        ports = [f"{ECHO}/tcp -> [::1]:7901", f"{ECHO}/tcp -> [{HOST6}]:7902"]
        assert net_rootless("port", "served").stdout.splitlines() == ports
    with running(net_rootless, "--network", f"pasta:-t,7900:{ECHO}"):
        assert netbox.ask(HOST, 7900) == f"{OUTSIDE} hello"


def test_a_port_on_one_address_is_closed_on_others(served, netbox):
    with netbox.open_socket(inside=True) as asking:
        asking.connect(("127.0.0.1", 8080))
        asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert Reader(asking).line() == "HTTP/1.0 200 OK"
    with pytest.raises(ConnectionRefusedError):
        netbox.ask(HOST, 8080)


def test_a_range_of_ports_is_published(served, netbox):
    assert [netbox.ask(HOST, port, f"{port}").split()[1] for port in RANGE] == [f"{port}" for port in RANGE]
    with pytest.raises(ConnectionRefusedError):
        netbox.ask(HOST, RANGE[-1] + 1)


def test_published_port_serves_a_hundred_connections_at_once(served, netbox):
    with contextlib.ExitStack() as opened:
        made = [opened.enter_context(netbox.open_socket()) for _ in range(100)]
        for each in made:
            each.connect((HOST, PUBLISHED))
        for number, each in enumerate(made):
            each.sendall(f"{number}\n".encode())
        answers = [Reader(each).line().split()[1] for each in made]
    assert answers == [f"{number}" for number in range(100)]


def test_large_transfers_are_complete_in_both_directions(served, netbox):
    sent = os.urandom(1 << 20).hex().encode() + b"\n"
    with netbox.open_socket() as asking:
        asking.connect((HOST, PUBLISHED))
        asking.sendall(sent)
        asking.shutdown(socket.SHUT_WR)
        with asking.makefile("rb") as answer:
            assert answer.read() == f"{OUTSIDE} ".encode() + sent
    fetched = served("exec", served.helper, "sh", "-c", f"{FETCH} http://{OUTSIDE}:{HTTP}/bytes/6000000 | wc -c")
    assert fetched.stdout == "6000000\n"


def free_port(served):
    """Return the host port that rootless chose."""
    (line,) = [line for line in served("port", served.helper).stdout.splitlines() if line.startswith(f"{ECHO}/tcp")][1:]
    return int(line.rpartition(":")[2])


def test_a_free_host_port_is_chosen(served, netbox):
    port = free_port(served)
    assert port not in (PUBLISHED, 8080, *RANGE)
    assert netbox.ask(HOST, port).endswith(" hello")


def test_port_lists_published_ports(served):
    assert served("port", served.helper).stdout.splitlines() == [
        f"{ECHO}/tcp -> 0.0.0.0:{PUBLISHED}",
        f"{ECHO}/udp -> 0.0.0.0:{PUBLISHED}",
        f"{HTTP}/tcp -> 127.0.0.1:8080",
        *(f"{port}/tcp -> 0.0.0.0:{port}" for port in RANGE),
        f"{ECHO}/tcp -> 0.0.0.0:{free_port(served)}",
    ]


def test_state_and_list_show_the_network(served):
    told = served.state(served.helper)["network"]
    addresses = [address.partition("/")[0] for address in OWN[served.helper][0]]
    assert (told["mode"], told["reason"]) == (served.helper, "asked for")
    assert sorted(told["addresses"]) == sorted(addresses)
    assert [port["hostPort"] for port in told["ports"]][:3] == [PUBLISHED, PUBLISHED, 8080]
    assert "processes" not in told
    head, row = served("list").stdout.splitlines()
    assert head.split()[-1] == "NETWORK"
    assert row.split()[-3] == served.helper
    (listed,) = served.list()
    assert listed["network"] == told


def test_exec_uses_the_containers_network_and_resolver(served):
    done = served("exec", served.helper, "sh", "-c", f"{FETCH} http://outside.test:{HTTP}/")
    assert done.stdout in (HOST, HOST6)


# --- Ports that cannot be published -----------------------------------------------------------------------------------


def refused(rootless, user, *flags):
    """Return the error of a `run` that fails and leaves nothing of the container."""
    done = rootless("run", *flags, make_net_bundle(user, "true", name="refused"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "refused" not in rootless("list", "-q").stdout
    return done.stderr


def test_error_for_a_port_in_use_names_the_container(served):
    error = refused(served, served.user, "-p", f"{PUBLISHED}:80")
    assert f"port {PUBLISHED} of the host is taken by container {served.helper}" in error


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, UDP])
def test_error_for_a_port_in_use_names_the_other_user(net_rootless, net_user, netbox, kind):
    with netbox.open_socket(kind=kind, inside=True) as held:
        held.bind(("127.0.0.1", 7777))
        if kind == socket.SOCK_STREAM:
            held.listen()
        error = refused(net_rootless, net_user, "-p", "7777:80/udp" if kind == UDP else "7777:80")
    assert "port 7777 of the host is taken by a process of user root; fix: use another port" in error


def test_error_for_a_port_in_use_names_the_callers_process(net_rootless, net_user, netbox):
    with net_user.popen(["nc.openbsd", "-6", "-l", "7778"]) as taking:
        try:
            until(lambda: not can_listen(netbox, 7778), "nc listens")
            assert f"taken by process {taking.pid} (nc.openbsd)" in refused(net_rootless, net_user, "-p", "7778:80")
        finally:
            taking.kill()


@pytest.mark.parametrize("mode", [*HELPERS, "backend"])
def test_an_ended_container_releases_its_ports(net_rootless, net_user, netbox, mode):
    net_rootless("network", "create", "backend", check=True)
    net_rootless.create("ended", make_net_bundle(net_user, "true"), "--network", mode, "-p", "7778:80")
    net_rootless.start("ended")
    until(lambda: net_rootless.status("ended") == "stopped" and can_listen(netbox, 7778), "the end of the container")
    with net_user.popen(["nc.openbsd", "-l", "7778"]) as taking:
        try:
            until(lambda: str(taking.pid) in refused(net_rootless, net_user, "-p", "7778:80"), "nc is named")
        finally:
            taking.kill()


def can_listen(netbox, port):
    """Return whether a port of the host is free."""
    with netbox.open_socket(socket.AF_INET6, inside=True) as asking:
        try:
            asking.bind(("::", port))
            asking.listen()
        except OSError:
            return False
        return True


def test_a_privileged_port_is_refused_with_two_fixes(net_rootless, net_user):
    error = refused(net_rootless, net_user, "-p", "80:8000")
    assert "ports below 1024 are for root (net.ipv4.ip_unprivileged_port_start)" in error
    assert "use port 8080, or let root run: sysctl -w net.ipv4.ip_unprivileged_port_start=80" in error


def test_address_missing_on_the_host_is_reported(net_rootless, net_user):
    assert "the host has no address 192.0.2.77" in refused(net_rootless, net_user, "-p", "192.0.2.77:8080:80")
    assert "the host has no address 2001:db8::77" in refused(net_rootless, net_user, "-p", "[2001:db8::77]:8080:80")


# --- Invalid flags, engines, explain ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--network", "bogus:x=1"], "network bogus:x=1: there is no such network; yours: none yet; fix: use auto"),
        (["--network", "backend"], "there is no such network; yours: none yet; fix: rootless network create backend"),
        (["--network", "pasta:--foo"], "pasta: unrecognized option '--foo'"),
        (["--network", "slirp4netns:mtu=x"], "--network slirp4netns:mtu=x: invalid value"),
        (["--network", "container:nobody"], "container does not exist"),
        (["--network", "host", "-p", "8080:80"], "the container is on the host's network"),
        (["-p", "http"], "--publish http: 'http' is neither a port nor a range of ports"),
        (["--network", "none", "--dns", "x"], "--dns 'x': it is not an IP address"),
    ],
)
def test_invalid_network_flags_are_refused(net_rootless, net_user, flags, said):
    assert said in refused(net_rootless, net_user, *flags)


def test_an_engines_call_gets_no_network(net_rootless, net_user):
    bundle = make_net_bundle(net_user, "sh", "-c", ADDRESSES)
    done = net_rootless("run", "--bundle", bundle, "engine")
    assert seen(done.stdout) == NOTHING
    net_rootless.create("held", bundle)
    assert "network" not in net_rootless.state("held")
    assert "NETWORK" not in net_rootless("list").stdout


def test_an_engine_can_request_a_network(net_rootless, net_user):
    bundle = make_net_bundle(net_user, "sh", "-c", ADDRESSES)
    net_rootless.create("held", bundle, "--network", "slirp4netns")
    assert net_rootless.state("held")["network"]["mode"] == "slirp4netns"
    assert {"slirp4netns", "rootless:init"} <= set(helpers().values())


def test_explain_shows_the_network_and_changes_nothing(net_rootless, net_user):
    bundle, before = make_net_bundle(net_user, "true"), helpers()
    text = net_rootless("explain", "-p", "8080:80", "--add-host", "db:192.0.2.1", bundle, check=True).stdout
    choice = "begin to connect the network, pasta: it shields the host best\n           served by /usr/bin/pasta "
    assert choice in text
    assert "           publish 80/tcp -> 0.0.0.0:8080\n" in text
    data = json.loads(net_rootless("explain", "--json", bundle, check=True).stdout)
    (network,) = [each["network"] for each in data["operations"] if each["op"] == "begin_network"]
    assert (network["mode"], network["why"]) == ("pasta", "it shields the host best")
    assert helpers() == before
    assert not net_rootless.root.exists()


# --- Another container's network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*HELPERS, "none"])
def test_a_container_joins_the_network_of_another(net_rootless, net_user, run, mode):
    with running(net_rootless, "--network", mode):
        script = f"{ADDRESSES}; {FETCH} 127.0.0.1:{HTTP} >/tmp/own; grep -qx 127.0.0.1 /tmp/own"
        joined = run(script, "--network", "container:served")
        assert seen(joined) == seen(net_rootless("exec", "served", "sh", "-c", ADDRESSES).stdout)
        assert seen(joined)[0] == OWN.get(mode, [set()])[0]
        if mode != "none":
            assert run(f"{FETCH} http://outside.test:{HTTP}/bytes/9", "--network", "container:served") == "x" * 9


def test_only_the_network_of_a_running_container_can_be_joined(net_rootless, net_user):
    net_rootless.create("held", make_net_bundle(net_user, "true"))
    done = net_rootless("run", "--network", "container:held", net_user.tmp / "bundle")
    assert "container not running" in done.stderr


def test_a_network_outlives_containers_that_joined_it(net_rootless, net_user, run):
    with running(net_rootless, "--network", "pasta", "-p", f"7900:{ECHO}"):
        before = helpers()
        run("true", "--network", "container:served")
        assert helpers() == before
        assert run(f"{FETCH} http://{OUTSIDE}:{HTTP}/bytes/9", "--network", "container:served") == "x" * 9
