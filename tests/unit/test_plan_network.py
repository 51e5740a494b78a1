"""Networks: the mode, the command line of the helper, ports, names and shared networks."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.host.host_network import HostNetwork
from rootless.host.running import Running
from rootless.linux import CLONE_FLAGS
from rootless.plan import ops
from rootless.plan.context import UNSUPPORTED
from rootless.plan.network import resolv_conf
from rootless.plan.network.helpers import MTU, command, libslirp_flaws, pasta_date
from rootless.plan.network.holder_plan import container_holder, shared_holder
from rootless.plan.network.ports import Port, from_data, published
from rootless.plan.network.resolv_conf import Names, added, hosts, hosts_of_host, resolver, servers
from rootless.plan.network.shared import Shared
from tests.unit.planning import ROOT, SINGLE, base_config, chosen, joining, plan_for, refused, without_namespace

BOTH = {"slirp4netns": "/bin/slirp4netns", "pasta": "/bin/pasta"}
STUB = ("nameserver 127.0.0.53", "options edns0 trust-ad", "search example.test")
NO_TUN = "/dev/net/tun: permission denied"
OPEN_TUN = (
    """run, as root: echo 'KERNEL=="tun", MODE="0666"' | tee /etc/udev/rules.d/90-rootless-tun.rules """
    "&& chmod 666 /dev/net/tun"
)


def host(*programs, **known):
    """Return a host with these helpers."""
    return HostNetwork(
        {name: BOTH[name] for name in programs},
        **{"resolver": STUB, "hosts": "127.0.0.1 localhost\n", "libslirp": "4.9.6"} | known,
    )


ANY = host("slirp4netns", "pasta")


def network_of(network, *, config=None, on=ANY, facts=None, **options):
    """Return the Network for --network `network`."""
    return plan_for(config, (facts or {}) | {"network": on}, network=network, **options).network


def no(network, *, config=None, on=ANY, facts=None, **options):
    """Return the error for --network `network`."""
    return refused(config, (facts or {}) | {"network": on}, network=network, **options)


def arguments(network, **options):
    """Return the arguments of the Network's only helper."""
    (helper,) = network_of(network, **options).helpers
    return helper.arguments


# --- The mode ---------------------------------------------------------------------------------------------------------


def test_without_network_flag_config_json_decides():
    plan = plan_for()
    assert plan.network is None
    assert not [op for op in chosen(plan, ops.BIND) if op.string("target") in ("/etc/resolv.conf", "/etc/hosts")]


@pytest.mark.parametrize(
    ("programs", "publish", "helpers", "why"),
    [
        (("slirp4netns", "pasta"), (), ["pasta", "slirp4netns"], "it shields the host best"),
        (("slirp4netns", "pasta"), ("80:80",), ["pasta", "slirp4netns"], "it shields the host best"),
        (("pasta",), (), ["pasta"], "it shields the host best"),
        (("slirp4netns",), ("80:80",), ["slirp4netns"], "pasta is not installed"),
    ],
)
def test_the_rule_of_auto(programs, publish, helpers, why):
    network = network_of("auto", on=host(*programs), publish=publish)
    assert [each.name for each in network.helpers] == helpers
    assert (network.mode, network.why, network.required) == (helpers[0], why, False)
    assert str(network) == f"{helpers[0]}: {why}"


@pytest.mark.parametrize(
    "config", [without_namespace("pid"), joining(pid="/proc/1/ns/pid"), joining(user="/proc/1/ns/user")]
)
def test_auto_avoids_slirp4netns_that_the_container_could_inspect(config):
    assert [each.name for each in network_of("auto", config=config).helpers] == ["pasta"]
    network = network_of("auto", config=config, on=host("slirp4netns"))
    why = "pasta is not installed, and the container could inspect slirp4netns"
    assert (network.mode, network.helpers, network.why) == ("none", [], why)


FLAWED = "libslirp {} is open to {}, unless your distribution has patched it"


@pytest.mark.parametrize(
    ("version", "flaws"),
    [
        ("4.8.0", FLAWED.format("4.8.0", "CVE-2026-9539, CVE-2026-95507, CVE-2026-95508, CVE-2026-120830")),
        ("4.9.2", FLAWED.format("4.9.2", "CVE-2026-95507, CVE-2026-95508, CVE-2026-120830")),
        ("4.9.5", FLAWED.format("4.9.5", "CVE-2026-120830")),
        ("4.9.6", ""),
        ("4.10.0", ""),
        ("", "the version of its libslirp is unknown"),
    ],
)
def test_auto_avoids_slirp4netns_with_known_vulnerabilities(version, flaws):
    assert libslirp_flaws(version) == flaws
    network = network_of("auto", on=host("slirp4netns", libslirp=version))
    assert network.mode == ("none" if flaws else "slirp4netns")
    assert network.why == "pasta is not installed" + (f", and {flaws}" if flaws else "")


def test_requested_slirp4netns_shows_its_vulnerabilities():
    network = network_of("slirp4netns", on=host("slirp4netns", libslirp="4.8.0"))
    assert network.mode == "slirp4netns"
    assert any("CVE-2026-9539" in line for line in network.details())
    assert not any("CVE" in line for line in network_of("slirp4netns").details())
    pasta = network_of("pasta", on=host("pasta", "slirp4netns", libslirp="4.8.0"))
    assert not any("CVE" in line for line in pasta.details())


@pytest.mark.parametrize(
    ("said", "date"),
    [
        ("pasta 0.0~git20250503.587980c-2+deb13u1\nCopyright Red Hat", 20250503),
        ("pasta 2024_08_21.1d6142f", 20240821),
        ("pasta 0^20240220.g1e6f92b", 20240220),
        ("", 0),
    ],
)
def test_the_date_of_a_pasta(said, date):
    assert pasta_date(said) == date


def test_slirp4netns_does_not_enter_a_joined_user_namespace():
    error = no("slirp4netns", config=joining(user="/proc/1/ns/user"))
    assert (error.code, error.fix) == ("RL-NETWORK", "use pasta")


@pytest.mark.parametrize(
    ("on", "missing", "fix"),
    [
        (host(), "neither pasta nor slirp4netns is installed", "install passt"),
        (
            host("pasta", tun=NO_TUN),
            NO_TUN,
            "run, as root: echo tun | tee /etc/modules-load.d/rootless-tun.conf && modprobe tun",
        ),
        (
            host("pasta", tun=NO_TUN, tun_is_closed=True),
            NO_TUN,
            OPEN_TUN,
        ),
    ],
)
def test_auto_without_a_helper_is_loopback_and_a_note(on, missing, fix):
    plan = plan_for(facts={"network": on}, network="auto")
    assert (plan.network.mode, plan.network.why, plan.network.helpers) == ("none", missing, [])
    (note,) = [note for note in plan.notes if note.kind == UNSUPPORTED and "loopback" in note.text]
    assert (note.text, note.fix) == (f"the container has its loopback only: {missing}", fix)


@pytest.mark.parametrize(
    ("config", "mode"), [(joining(network="/run/netns/x"), "none"), (without_namespace("network"), "host")]
)
def test_auto_respects_the_namespaces_of_config_json(config, mode):
    network = network_of("auto", config=config)
    assert (network.mode, network.helpers) == (mode, [])


@pytest.mark.parametrize("name", ["slirp4netns", "pasta"])
def test_requested_helper_is_required(name):
    network = network_of(name)
    assert (network.mode, [each.name for each in network.helpers], network.required) == (name, [name], True)
    error = no(name, on=host())
    assert (error.code, error.cause) == ("RL-NETWORK", f"{name} is not installed")
    assert "--network auto" in error.fix
    assert no(name, on=host(name, tun=NO_TUN)).cause == NO_TUN


@pytest.mark.parametrize("mode", ["none", "slirp4netns", "pasta", "backend"])
def test_a_namespace_is_added_where_config_json_shares_the_hosts(mode):
    shared = Shared("backend", "10.89.0.0/24")
    plan = plan_for(without_namespace("network"), {"network": ANY}, network=mode, shared=shared)
    assert f"a network namespace is added: --network {mode}" in [note.text for note in plan.notes]
    error = no(mode, config=joining(network="/run/netns/x"), shared=shared)
    assert "/run/netns/x" in error.cause
    assert "linux.namespaces[" in error.cause


@pytest.mark.parametrize("config", [base_config(), joining(network="/run/netns/x")])
def test_host_network_has_no_new_namespace(config):
    plan = plan_for(config, {"network": ANY}, network="host")
    assert plan.network.mode == "host"
    assert "no network namespace is created: --network host" in [note.text for note in plan.notes]
    assert not any(op.string("path") == "/run/netns/x" for op in chosen(plan, ops.JOIN))
    assert not any(op.number("namespaces") & CLONE_FLAGS["network"] for op in chosen(plan, ops.UNSHARE))


def test_the_network_of_another_container_is_joined_with_its_user_namespace():
    peer = Running(42, ("user", "network", "mount"))
    plan = plan_for(facts={"network": ANY}, network="container:web", peer=peer)
    assert (plan.network.mode, plan.network.of) == ("container", "web")
    assert {op.string("path") for op in chosen(plan, ops.JOIN)} == {"/proc/42/ns/user", "/proc/42/ns/net"}
    assert str(plan.network) == "container web: asked for"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"userns": "keep-id"}, "so --userns keep-id has no effect"),
        ({"add_host": ("a:192.0.2.1",)}, "--add-host, --dns and --dns-search have no effect on the network of another"),
        ({"dns": ("192.0.2.1",)}, "network of another container, web"),
        ({"dns_search": ("example.test",)}, "network of another container, web"),
    ],
)
def test_joined_network_refuses_network_flags(options, said):
    error = no("container:web", peer=Running(42, ("user", "network")), **options)
    assert error.code == "RL-NETWORK"
    assert said in error.cause


def test_root_may_map_ids_on_another_containers_network():
    assert network_of("container:web", peer=Running(42, ("network",)), userns="keep-id").mode == "container"


@pytest.mark.parametrize(
    ("mode", "options", "why"),
    [
        ("host", {}, "its ports are the host's"),
        ("none", {}, "its loopback only"),
        ("container:web", {"peer": Running(42, ("user", "network"))}, "those of its container"),
        ("auto", {"on": host()}, "neither pasta nor slirp4netns is installed"),
        ("auto", {"config": without_namespace("network")}, "config.json asks for no network namespace"),
    ],
)
def test_ports_without_a_helper_are_refused(mode, options, why):
    error = no(mode, publish=("8080:80",), **options)
    assert error.code == "RL-PUBLISH"
    assert why in error.cause


def test_slirp4netns_publishes_no_port_on_an_address_of_ipv6():
    publish = ("[::1]:8080:80",)
    error = no("slirp4netns", publish=publish)
    assert (error.code, error.fix) == ("RL-PUBLISH", "use --network pasta")
    assert no("auto", on=host("slirp4netns"), publish=publish).code == "RL-PUBLISH"
    assert no("backend", publish=publish, shared=Shared("backend", "10.89.0.0/24")).fix == "name an IPv4 address"
    assert [each.name for each in network_of("auto", publish=publish).helpers] == ["pasta"]


@pytest.mark.parametrize(
    ("mode", "publish", "told"),
    [
        ("slirp4netns", "8080:80", True),
        ("slirp4netns", "127.0.0.1:8080:80", False),
        ("backend", "8080:80", True),
        ("auto", "8080:80", False),
        ("pasta", "8080:80", False),
    ],
)
def test_addresses_where_slirp4netns_publishes_are_reported(mode, publish, told):
    plan = plan_for(None, {"network": ANY}, network=mode, publish=(publish,), shared=Shared("backend", "10.89.0.0/24"))
    assert any("IPv4 addresses only" in note.text for note in plan.notes) == told


def test_host_gateway_needs_the_hosts_loopback():
    error = no("slirp4netns", add_host=("db:host-gateway",))
    assert error.code == "RL-NAMES"
    assert "allow_host_loopback=true" in error.fix
    opened = ("slirp4netns:allow_host_loopback=true", "pasta:--map-host-loopback,192.0.2.5", "host")
    for mode in opened:
        assert network_of(mode, add_host=("db:host-gateway",))
    assert no("pasta:--map-host-loopback=none", add_host=("db:host-gateway",)).code == "RL-NAMES"


def test_explain_describes_the_network():
    network = network_of("auto", publish=("127.0.0.1:8080:80/udp",))
    assert network.state() == {"mode": "pasta", "reason": "it shields the host best"}
    first, second, port = network.details()
    assert first.startswith("served by /bin/pasta ")
    assert second.startswith("or, if that fails, by /bin/slirp4netns ")
    assert port == "publish 80/udp -> 127.0.0.1:8080"


# --- The helpers' options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", [f"--mtu={MTU}", "--disable-host-loopback", "--enable-ipv6"]),
        ("mtu=1500", ["--mtu=1500", "--disable-host-loopback", "--enable-ipv6"]),
        ("allow_host_loopback=true,enable_ipv6=false", [f"--mtu={MTU}"]),
        (
            "cidr=10.41.0.0/24,outbound_addr=uplink,outbound_addr6=2001:db8::2,port_handler=slirp4netns",
            [
                f"--mtu={MTU}",
                "--cidr=10.41.0.0/24",
                "--disable-host-loopback",
                "--enable-ipv6",
                "--outbound-addr=uplink",
                "--outbound-addr6=2001:db8::2",
            ],
        ),
    ],
)
def test_slirp4netns_gets_the_arguments_of_podman(options, told):
    assert arguments(f"slirp4netns:{options}") == told


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ("mtu", "each with =VALUE"),
        ("speed=9", "write one of allow_host_loopback, cidr"),
        ("mtu=0", f"a number of bytes up to {MTU + 1}"),
        (f"mtu={MTU + 2}", f"up to {MTU + 1}"),
        ("mtu=1e3", "a number of bytes"),
        ("mtu=\u0663", "a number of bytes"),
        ("allow_host_loopback=yes", "write true or false"),
        ("cidr=10.0.2.7/24", "write a network such as 10.0.2.0/24"),
        ("cidr=fd00::/64", "write a network such as 10.0.2.0/24"),
        ("cidr=10.0.2.0/26", "128 addresses or more"),
        ("cidr=0.0.0.0/0", "128 addresses or more"),
        ("port_handler=rootlesskit", "only slirp4netns is supported"),
        ("mtu=1500,,", "each with =VALUE"),
    ],
)
def test_wrong_options_of_slirp4netns(options, fix):
    error = no(f"slirp4netns:{options}")
    assert error.code == "RL-NETWORK"
    assert fix in error.fix
    assert error.what.startswith("--network slirp4netns:")


@pytest.mark.parametrize(
    ("options", "addresses", "gateway", "dns"),
    [
        ("", ["10.0.2.100", "fd00::100"], "", "10.0.2.3"),
        ("allow_host_loopback=true", ["10.0.2.100", "fd00::100"], "10.0.2.2", "10.0.2.3"),
        ("cidr=192.168.4.128/25,enable_ipv6=false", ["192.168.4.228"], "", "192.168.4.131"),
    ],
)
def test_the_addresses_of_slirp4netns(options, addresses, gateway, dns):
    (helper,) = network_of(f"slirp4netns:{options}").helpers
    assert (helper.addresses, helper.gateway, helper.dns) == (addresses, gateway, dns)
    assert helper.ipv6 == (len(addresses) > 1)


def test_slirp4netns_has_no_ipv6_where_the_host_has_none():
    assert "--enable-ipv6" not in arguments("slirp4netns", on=host("slirp4netns", ipv6=False))


DNS_FORWARD = ["--dns-forward", "169.254.1.1"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", ["--no-map-gw", "-T", "none", "-U", "none", *DNS_FORWARD]),
        ("-T,5432", ["-T", "5432", "--no-map-gw", "-U", "none", *DNS_FORWARD]),
        ("--map-gw,--udp-ns,auto", ["--udp-ns", "auto", "-T", "none", *DNS_FORWARD]),
        (
            "--map-host-loopback,192.0.2.5",
            ["--map-host-loopback", "192.0.2.5", "-T", "none", "-U", "none", *DNS_FORWARD],
        ),
        ("--dns-forward,192.0.2.1", ["--dns-forward", "192.0.2.1", "--no-map-gw", "-T", "none", "-U", "none"]),
        ("--dns-forward=192.0.2.1", ["--dns-forward=192.0.2.1", "--no-map-gw", "-T", "none", "-U", "none"]),
        (
            "-I,eth5,-a,10.0.2.1",
            ["-I", "eth5", "-a", "10.0.2.1", "--no-map-gw", "-T", "none", "-U", "none", *DNS_FORWARD],
        ),
    ],
)
def test_pasta_gets_the_given_options_and_podmans_defaults(options, told):
    assert arguments(f"pasta:{options}") == told


SLIRP_WORDS = (
    f"/bin/slirp4netns --mtu={MTU} --disable-host-loopback --enable-seccomp --ready-fd={{ready}} --exit-fd={{end}}"
)
PASTA_WORDS = "/bin/pasta --foreground --no-netns-quit --config-net --quiet --dns-forward 192.0.2.1"


@pytest.mark.parametrize(
    ("network", "known", "first", "rest"),
    [
        (
            "slirp4netns:enable_ipv6=false",
            {"publish": ("8080:80",)},
            SLIRP_WORDS,
            "--enable-sandbox --configure --api-socket=network.sock {holder} tap0",
        ),
        ("slirp4netns:enable_ipv6=false", {}, SLIRP_WORDS, "--enable-sandbox --configure {holder} tap0"),
        (
            "pasta:--dns-forward,192.0.2.1,--no-map-gw,-T,none,-U,none",
            {"publish": ("8080:80", "127.0.0.1:53:53/udp")},
            f"{PASTA_WORDS} --no-map-gw -T none -U none --pid=/proc/self/fd/2 -t 8080:80 -u 127.0.0.1/53:53",
            "--userns=/proc/{launcher}/fd/{user} --netns=/proc/self/fd/0",
        ),
        (
            "pasta:--dns-forward,192.0.2.1,-t,auto",
            {"facts": ROOT},
            f"{PASTA_WORDS} -t auto --no-map-gw -T none -U none --pid=/proc/self/fd/2",
            "-u none --runas 0:0 --netns-only --netns=/proc/self/fd/0",
        ),
    ],
)
def test_the_whole_command_line_is_planned(network, known, first, rest):
    planned = network_of(network, **known)
    assert [command(each, planned) for each in planned.served_by()] == [f"{first} {rest}".split()]


@pytest.mark.parametrize("options", ["--dns-forward,192.0.2.1", "--dns-forward=192.0.2.1"])
def test_the_name_server_of_pasta_options_is_the_containers(options):
    (helper,) = network_of(f"pasta:{options}").helpers
    assert helper.dns == "192.0.2.1"


def test_pasta_forwards_to_a_server_of_its_own_family_only():
    for resolver_lines in ((), ("nameserver fd00::53", "nameserver 192.0.2.1")):
        assert "--dns-forward" not in arguments("pasta", on=host("pasta", resolver=resolver_lines))


# --- Dependence on ids ------------------------------------------------------------------------------------------------


def test_the_namespace_belongs_to_the_containers_user_namespace():
    network = network_of("slirp4netns")
    assert network.owned
    assert network.sandbox
    assert not network_of("slirp4netns", facts=ROOT).owned


def test_auto_takes_no_slirp4netns_without_a_sandbox():
    config = base_config()
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    alone = {"config": config, "facts": SINGLE}
    assert [each.name for each in network_of("auto", **alone).helpers] == ["pasta"]
    network = network_of("auto", on=host("slirp4netns"), **alone)
    why = "pasta is not installed, and the sandbox of slirp4netns needs a container with uid and gid 0"
    assert (network.mode, network.helpers, network.why) == ("none", [], why)
    error = no("auto", on=host("slirp4netns"), publish=("8080:80",), **alone)
    assert (error.code, error.cause) == ("RL-PUBLISH", why)
    assert [each.name for each in network_of("slirp4netns", **alone).helpers] == ["slirp4netns"]


def test_sandbox_of_slirp4netns_needs_uid_and_gid_0():
    config = base_config()
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert not network_of("slirp4netns", config=config, facts=SINGLE).sandbox
    assert network_of("slirp4netns", config=config).sandbox


@pytest.mark.parametrize(
    ("facts", "userns", "groups"),
    [
        ({}, "", "0 65536"),
        (SINGLE, "", "0 0"),
        # 1000 inside is 1000 of the host, where 0 is 100000
        ({}, "keep-id", "1000 65536"),
        (ROOT, "", f"0 {2**31 - 1}"),
    ],
)
def test_every_group_may_ping(facts, userns, groups):
    assert network_of("pasta", facts=facts, userns=userns).sysctls["net.ipv4.ping_group_range"] == groups


def test_sysctls_of_config_json_take_precedence():
    config = base_config()
    config["linux"]["sysctl"] = {"net.ipv4.ping_group_range": "1 0"}
    sysctls = network_of("pasta", config=config).sysctls
    assert "net.ipv4.ping_group_range" not in sysctls
    assert sysctls["net.ipv6.conf.all.accept_dad"] == "0"


@pytest.mark.parametrize("mode", ["none", "host"])
def test_no_sysctls_without_a_helper(mode):
    assert not network_of(mode).sysctls


# --- Files ------------------------------------------------------------------------------------------------------------


def bound(mode, config=None, *, files="/state/c1", **options):
    """Return the targets of bind mounts from the container's network directory, with their on_error."""
    plan = plan_for(config, {"network": ANY}, network=mode, network_files=files, **options)
    sources = [op for op in chosen(plan, ops.BIND) if op.string("source").startswith("/state/")]
    return {op.string("target"): op for op in sources}


@pytest.mark.parametrize("mode", ["auto", "host", "slirp4netns", "pasta", "backend", "container:web"])
def test_resolv_conf_and_hosts_cover_the_images(mode):
    binds = bound(mode, shared=Shared("backend", "10.89.0.0/24"), peer=Running(42, ("user", "network")))
    assert {target: op.string("source") for target, op in binds.items()} == {
        "/etc/resolv.conf": "/state/c1/resolv.conf",
        "/etc/hosts": "/state/c1/hosts",
    }


@pytest.mark.parametrize("mode", ["auto", "host", "container:web"])
def test_only_files_in_the_containers_directory_are_written(mode):
    for directory, written in (("/state/c1", True), ("/state/web", False), ("", False)):
        plan = plan_for(
            None, {"network": ANY}, network=mode, network_files=directory, peer=Running(42, ("user", "network"))
        )
        assert bool(plan.first(ops.WRITE_NAMES)) == written
        assert ("files" in plan.first(ops.RECORD).value("about")["network"]) == written


def test_image_without_place_for_the_files_keeps_its_own():
    for op in bound("auto").values():
        assert (op.on_error, op.alternatives) == (ops.ELSE, 0)


def test_loopback_only_keeps_the_images_files_without_flags():
    assert not bound("none")
    assert bound("none", add_host=("db:192.0.2.1",))
    assert bound("none", dns=("192.0.2.1",))


def test_mounts_of_config_json_replace_the_default_ones():
    config = base_config()
    config["mounts"].append({"destination": "/etc/hosts/", "type": "bind", "source": "/x", "options": ["bind"]})
    assert set(bound("auto", config)) == {"/etc/resolv.conf"}
    config["mounts"].append({"destination": "/etc", "type": "bind", "source": "/x", "options": ["bind"]})
    assert not bound("auto", config)


# --- Ports ------------------------------------------------------------------------------------------------------------


def ports_of(*texts):
    return [(port.protocol, port.address, port.outside, port.inside) for port in published(texts)]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [("tcp", "", 0, 80)]),
        ("8080:80", [("tcp", "", 8080, 80)]),
        (":80", [("tcp", "", 0, 80)]),
        ("0:80", [("tcp", "", 0, 80)]),
        ("8080:80/UDP", [("udp", "", 8080, 80)]),
        ("127.0.0.1:8080:80", [("tcp", "127.0.0.1", 8080, 80)]),
        ("127.0.0.1::80", [("tcp", "127.0.0.1", 0, 80)]),
        ("[::1]:8080:80/tcp", [("tcp", "::1", 8080, 80)]),
        ("[::1]::80", [("tcp", "::1", 0, 80)]),
        ("[2001:db8::2]:80", [("tcp", "2001:db8::2", 0, 80)]),
        ("9000-9002:80-82", [("tcp", "", 9000, 80), ("tcp", "", 9001, 81), ("tcp", "", 9002, 82)]),
        ("80-81/udp", [("udp", "", 0, 80), ("udp", "", 0, 81)]),
        ("65535:65535", [("tcp", "", 65535, 65535)]),
    ],
)
def test_published_ports(text, ports):
    assert ports_of(text) == ports


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the container port is missing"),
        ("8080:", "the container port is missing"),
        ("1:2:3:4", "the container port is missing"),
        ("::1:8080:80", "the container port is missing"),
        ("http", "'http' is neither a port nor a range"),
        ("0", "'0' is neither a port"),
        ("8080:0", "'0' is neither a port"),
        ("8080:65536", "'65536' is neither a port"),
        ("9999999999:80", "'9999999999' is neither a port"),
        ("-1:80", "'-1' is neither a port"),
        ("80-:80", "'80-' is neither a port"),
        ("\u0668\u0660:80", "is neither a port"),
        ("82-80:82-80", "ends before it begins"),
        ("9000-9001:80", "the two ranges have different lengths"),
        ("9000:80-81", "the two ranges have different lengths"),
        ("80/sctp", "'sctp' is not a protocol"),
        ("80/", "'' is not a protocol"),
        ("host:8080:80", "'host' is not an IP address"),
        ("256.0.0.1:8080:80", "'256.0.0.1' is not an IP address"),
        ("[::1:8080:80", "must be followed by ]:"),
        ("[::1]8080:80", "must be followed by ]:"),
        ("[127.0.0.1]:1:2:3", "the container port is missing"),
    ],
)
def test_invalid_ports_are_refused(text, cause):
    with pytest.raises(RootlessError) as caught:
        published([text])
    assert caught.value.code == "RL-PUBLISH"
    assert cause in caught.value.cause
    assert "[IP:]HOST:CONTAINER" in caught.value.fix


def test_host_port_is_published_once():
    assert ports_of("8080:80", "8080:80/udp", "127.0.0.1:8081:80", "127.0.0.2:8081:81", "80", "80")
    for texts in (["8080:80", "8080:81"], ["8080-8082:80-82", "8082:90"], ["127.0.0.1:1:1", "127.0.0.1:1:2"]):
        with pytest.raises(RootlessError, match="publish"):
            published(texts)


NUMBERS = st.integers(1, 65535)
PORTS = st.builds(
    Port,
    st.sampled_from(["tcp", "udp"]),
    st.one_of(st.just(""), st.ip_addresses().map(str).filter(lambda text: "%" not in text)),
    st.one_of(st.just(0), NUMBERS),
    NUMBERS,
)


@given(port=PORTS)
def test_port_survives_as_data(port):
    address = f"[{port.address}]:" if ":" in port.address else f"{port.address}:" if port.address else ""
    text = f"{address}{port.outside or ''}:{port.inside}/{port.protocol}"
    assert [each.as_data() for each in published([text])] == [port.as_data()]
    assert from_data(port.as_data()).as_data() == port.as_data()


@given(text=st.text("0123456789:[]-/.abtcudp", max_size=20))
@example(text="0100000")
def test_any_text_is_ports_or_an_error(text):
    ports: list[Port] = []
    with contextlib.suppress(RootlessError):
        ports = published([text])
    assert all(0 <= port.outside <= 65535 and 1 <= port.inside <= 65535 for port in ports)


# --- Names ------------------------------------------------------------------------------------------------------------


def said(dns=(), search=(), hosts=(), own=("box", "c1")):
    return Names(dns, search, hosts, own)


@pytest.mark.parametrize(
    ("lines", "names_said", "options", "text"),
    [
        (STUB, said(), {}, "nameserver 10.0.2.3\nsearch example.test\noptions edns0 trust-ad\n"),
        (
            ("nameserver 192.0.2.1", "nameserver ::1", "nameserver fd00::1"),
            said(),
            {},
            "nameserver 10.0.2.3\nnameserver 192.0.2.1\nnameserver fd00::1\n",
        ),
        (tuple(f"nameserver 192.0.2.{n}" for n in range(5)), said(), {"forwarder": ""}, None),
        (STUB, said(), {"forwarder": "", "shared": True}, None),
        (STUB, said(dns=("192.0.2.9",)), {}, "nameserver 192.0.2.9\nsearch example.test\n"),
        (STUB, said(search=("a.test", "b.test")), {}, None),
        (STUB, said(search=(".",)), {}, "nameserver 10.0.2.3\noptions edns0 trust-ad\n"),
        (("nameserver 192.0.2.1",), said(), {"forwarder": "", "alone": True}, ""),
        (("nameserver 192.0.2.1",), said(dns=("192.0.2.9",)), {"alone": True}, "nameserver 192.0.2.9\n"),
    ],
)
def test_resolv_conf(lines, names_said, options, text):
    options = {"forwarder": "10.0.2.3"} | options
    expected = {
        "shared": "nameserver 127.0.0.53\nsearch example.test\noptions edns0 trust-ad\n",
        "search": "nameserver 10.0.2.3\nsearch a.test b.test\noptions edns0 trust-ad\n",
        "many": "nameserver 192.0.2.0\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
    }
    if text is None:
        text = expected["shared" if "shared" in options else "search" if names_said.search else "many"]
    assert resolver(names_said, host(resolver=lines), options.pop("forwarder"), **options) == text


LOOPBACK = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


@pytest.mark.parametrize(
    ("names_said", "addresses", "gateway", "text"),
    [
        (said(), ["10.0.2.100", "fd00::100"], "", "10.0.2.100 box c1\nfd00::100 box c1\n"),
        (said(own=("", "c1")), [], "", "127.0.1.1 c1\n"),
        (said(own=("c1", "c1")), ["10.0.2.100"], "", "10.0.2.100 c1\n"),
        (
            said(hosts=(("192.0.2.1", "db"), ("host-gateway", "dev"))),
            ["10.0.2.100"],
            "10.0.2.2",
            "192.0.2.1 db\n10.0.2.100 box c1\n10.0.2.2 dev\n10.0.2.2 host.containers.internal host.docker.internal\n",
        ),
    ],
)
def test_hosts(names_said, addresses, gateway, text):
    assert hosts(names_said, addresses, gateway) == LOOPBACK + text


def test_hosts_names_the_other_members_last():
    assert hosts(said(own=("a\n192.0.2.1 evil.test", "c1")), ["10.89.0.4"], "").endswith("\n10.89.0.4 c1\n")
    assert hosts(said(), ["10.89.0.4"], "").endswith("10.89.0.4 box c1\n")


def test_host_network_keeps_the_hosts_names():
    added_hosts = (("192.0.2.1", "db"), (resolv_conf.HOST_GATEWAY, "dev"))
    text = hosts_of_host(said(hosts=added_hosts), "127.0.0.1 localhost\n192.0.2.99 known\n")
    assert text == "192.0.2.1 db\n127.0.0.1 dev\n127.0.0.1 localhost\n192.0.2.99 known\n"
    assert hosts_of_host(said(), "") == LOOPBACK


def test_added_names():
    texts = ["db:192.0.2.1", "six:2001:db8::1", "six:[2001:db8::1]", "dev:host-gateway"]
    assert added(texts) == [
        ("192.0.2.1", "db"),
        ("2001:db8::1", "six"),
        ("2001:db8::1", "six"),
        ("host-gateway", "dev"),
    ]


@pytest.mark.parametrize("text", ["", "db", "db:", ":192.0.2.1", "db:db2", "a b:192.0.2.1", "a\nb:192.0.2.1", "#:::1"])
def test_invalid_names_are_refused(text):
    with pytest.raises(RootlessError) as caught:
        added([text])
    assert caught.value.code == "RL-NAMES"
    assert "NAME:IP" in caught.value.fix


def test_a_server_is_an_address():
    assert servers(["192.0.2.1", "fd00::1"]) == ["192.0.2.1", "fd00::1"]
    for text in ("", "dns.example.test", "192.0.2.1\nnameserver 192.0.2.2", "192.0.2.1:53"):
        with pytest.raises(RootlessError) as caught:
            servers([text])
        assert caught.value.code == "RL-NAMES"


# --- Shared networks --------------------------------------------------------------------------------------------------


def test_a_shared_network_hands_out_the_lowest_free_number():
    shared = Shared("backend", "10.89.3.0/25")
    assert (shared.gateway, shared.dns) == ("10.89.3.2", "10.89.3.3")
    assert [shared.free_number(taken) for taken in ((), (4,), (4, 5, 7), (5,))] == [4, 5, 6, 4]
    assert shared.addresses(4) == [("10.89.3.4", 25, "10.89.3.2"), ("fd00::4", 64, "fd00::2")]
    assert shared.free_number(range(126)) == 126
    with pytest.raises(RootlessError) as caught:
        shared.free_number(range(127))
    assert (caught.value.code, caught.value.cause) == ("RL-NETWORK", "every address of 10.89.3.0/25 is in use")


@given(taken=st.sets(st.integers(4, 126), max_size=122))
def test_no_two_members_have_an_address(taken):
    shared = Shared("backend", "10.89.3.0/25")
    number = shared.free_number(taken)
    own = {address for address, _, _ in shared.addresses(number)}
    assert not own & {address for other in taken for address, _, _ in shared.addresses(other)}
    assert not own & {shared.gateway, shared.dns, "10.89.3.0", "10.89.3.127"}


def test_shared_network_without_slirp4netns_has_no_connection_outside():
    shared = Shared("backend", "10.89.3.0/24")
    assert shared.helper(host("pasta")) is None
    assert shared.helper(host("slirp4netns", tun=NO_TUN)) is None
    helper = shared.helper(ANY)
    assert helper.arguments == [f"--mtu={MTU}", "--cidr=10.89.3.0/24", "--disable-host-loopback", "--enable-ipv6"]


def test_without_slirp4netns_a_member_gets_a_warning_and_publishes_nothing():
    shared = Shared("backend", "10.89.3.0/24")
    plan = plan_for(facts={"network": host("pasta")}, network="backend", shared=shared)
    (note,) = [note for note in plan.notes if "outside" in note.text]
    assert note.text == "network backend has no connection to the outside: slirp4netns is not installed"
    error = no("backend", on=host("pasta"), shared=shared, publish=("80:80",))
    assert (error.code, error.fix) == ("RL-PUBLISH", "install slirp4netns")


def test_a_member_keeps_its_hardware_address():
    assert Shared("backend", "10.89.3.0/24").hardware(4) == "02:00:0a:59:03:04"


def test_member_has_no_helper_of_its_own():
    network = network_of("backend", shared=Shared("backend", "10.89.3.0/24"))
    assert (network.mode, network.helpers, str(network)) == ("shared", [], "shared backend: asked for")
    subnet, served = network.details()
    assert (subnet, served.split()[:3]) == ("10.89.3.0/24 and fd00::/64", ["served", "by", "/bin/slirp4netns"])
    assert network.state() == {"mode": "shared", "reason": "asked for", "of": "backend"}
    assert network.own_maps.uids == ((0, 1000, 1),)


# --- Netns holders ----------------------------------------------------------------------------------------------------


def kinds(operations):
    return [op.kind for op in operations]


def kept(mode, **options):
    """Return the Plan of a container's netns holder; descriptors 7 and 8 are the namespaces."""
    network = network_of(mode, **options)
    return container_holder(network, network.helpers[0] if network.helpers else None, 7, 8)


def test_a_holder_joins_waits_and_ends_with_the_container():
    plan = kept("slirp4netns")
    assert [op.string("path") for op in plan if op.kind is ops.JOIN] == ["/proc/self/fd/7", "/proc/self/fd/8"]
    waits = [ops.DUMPABLE, ops.READY, ops.WAIT_START, ops.NON_DUMPABLE, ops.ADDRESS6, ops.READY, ops.AWAIT_END]
    assert kinds(plan)[-7:] == waits
    assert ops.NETLINK not in kinds(plan)
    assert all(op.on_error == ops.ELSE for op in plan if op.kind is ops.PROC_WRITE)


def test_after_its_first_message_the_holder_of_pasta_sends_none_which_would_kill_pasta():
    assert kinds(kept("pasta"))[-4:] == [ops.READY, ops.WAIT_START, ops.NON_DUMPABLE, ops.AWAIT_END]


JOINS_USER = joining(user="/proc/1/ns/user")


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        *((mode, {}) for mode in ("pasta", "slirp4netns", "backend")),
        *((mode, {"config": without_namespace("pid")}) for mode in ("pasta", "slirp4netns")),
        ("pasta", {"config": JOINS_USER}),
        ("pasta", {"facts": ROOT}),
        ("backend", {"config": JOINS_USER}),
    ],
)
def test_holder_is_not_dumpable_before_it_joins(mode, options):
    plan = kinds(kept(mode, shared=Shared("backend", "10.89.0.0/24"), **options))
    assert plan.index(ops.NON_DUMPABLE) < plan.index(ops.JOIN)
    assert (ops.DUMPABLE in plan) == (mode == "slirp4netns")
    assert plan[::-1].index(ops.NON_DUMPABLE) < plan[::-1].index(ops.WAIT_START)


def test_root_of_the_host_needs_no_user_namespace_to_be_joined():
    plan = kept("pasta", facts=ROOT)
    assert [op.string("path") for op in plan if op.kind is ops.JOIN] == ["/proc/self/fd/8"]


def test_holder_of_a_shared_network_ends_with_the_last_interface():
    plan = shared_holder("m", 7, network_of("backend", shared=Shared("backend", "10.89.3.0/24")).own_maps)
    assert kinds(plan)[:2] == [ops.SPAWN, ops.NEW_USER]
    assert plan[-1].kind is ops.AWAIT_LINKS
    assert plan[-1].strings == ("m", "/proc/self/fd/7")
