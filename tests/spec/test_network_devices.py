"""config-linux.md "Network Devices": network interfaces that move into the container.

An ordinary user may move interfaces of a network namespace that a user namespace of that user owns, as under
rootlesskit or `podman unshare --rootless-netns`; here unshare(1) creates one for each test.
"""

from __future__ import annotations

import json

import pytest

from tests.lib.boxes import Box, as_real_root, config_with_maps
from tests.lib.bundles import base_config
from tests.lib.oracles import IGNORED, assert_refused, differs

PAIR = """
ip link set lo up
ip link add out0 type veth peer name other0
ip link set out0 address 02:00:00:00:00:07 mtu 1400
"""
ADDRESSES = """
ip address add 10.99.0.1/24 broadcast + dev out0
ip address add 10.98.0.1 peer 10.98.0.2 dev out0
ip address add 10.97.0.1/24 scope link dev out0
ip address add fd00:99::1/64 dev out0 nodad
ip address add 10.96.0.1/24 valid_lft 600 preferred_lft 600 dev out0
"""


class Nest:
    """The command of a box, called in new user and network namespaces, between two shell scripts."""

    def __init__(self, box, before, after="", *, user=True):
        words = ["unshare", "--user", "--map-root-user", "--map-auto", "--net"] if user else ["unshare", "--net"]
        script = f'{before}\n"$@" || status=$?\n{after}\nexit ${{status:-0}}'
        self.box = box
        box.command = [*words, "sh", "-euc", script, "sh", *box.command]

    def run(self, devices, *script, config=None, **options):
        """Run a container with these netDevices."""
        config = config or base_config()
        config["linux"]["netDevices"] = devices
        return self.box.run(config, *script, **options)


@pytest.fixture
def links(need):
    """Programs with which the tests create and list interfaces."""
    need("ip")
    need("unshare")


pytestmark = pytest.mark.usefixtures("links")

INSIDE = """
cd /sys/class/net
for link in *; do echo link $link $(cat $link/address $link/mtu) $(($(cat $link/flags) & 1)); done
"""


def seen(done):
    """Return {name: (MAC address, MTU, up)} of the interfaces in the container."""
    assert done.returncode == 0, done.stderr
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("link ")]
    return {name: (address, int(mtu), up == "1") for name, address, mtu, up in found}


@pytest.mark.spec("linux.netDevices", "linux.netDevices.name")
@pytest.mark.parametrize(("asked", "name"), [({}, "out0"), ({"name": "inside"}, "inside"), ({"name": "eth%d"}, "eth0")])
def test_interface_moves(box, asked, name):
    """It keeps its properties, is up, and has left the host."""
    done = Nest(box, PAIR, "ip -json link").run({"out0": asked}, INSIDE)
    inside = seen(done)
    assert inside.keys() == {"lo", name}
    assert inside[name] == ("02:00:00:00:00:07", 1400, True)
    outside = json.loads(done.stdout.splitlines()[-1])
    # a veth interface ends with the container's namespace, and its peer too
    assert "out0" not in {link["ifname"] for link in outside}


def test_addresses_are_kept(box):
    """Permanent addresses of global scope are kept, of both families; link-local and temporary ones are not."""
    script = (
        "awk '/32 host LOCAL/ { print last } { last = $2 }' /proc/net/fib_trie",
        "awk '{ print $1, $3, $6 }' /proc/net/if_inet6",
    )
    done = Nest(box, PAIR + ADDRESSES + "ip link set out0 up\n").run({"out0": {"name": "eth0"}}, *script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line for line in lines if line.startswith("10.")} == {"10.99.0.1", "10.98.0.1"}
    assert "fd000099000000000000000000000001 40 eth0" in lines


def test_the_network_works(box):
    """The container reaches a server outside from the address that moved."""
    before = (
        PAIR + "ip address add 10.99.0.1/24 dev out0; ip address add 10.99.0.2/24 dev other0; ip link set other0 up\n"
    )
    config = base_config()
    for name in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][name] = ["CAP_NET_RAW"]
    done = Nest(box, before).run({"out0": {}}, "ping -c 1 -W 10 10.99.0.2 >/dev/null && echo answered", config=config)
    assert done.stdout == "answered\n", done.stderr


def test_several_interfaces(box):
    before = PAIR + "ip link add out1 type veth peer name other1\n"
    inside = seen(Nest(box, before).run({"out0": {"name": "out1"}, "out1": {"name": "out0"}}, INSIDE))
    assert inside.keys() == {"lo", "out0", "out1"}
    assert inside["out1"][0] == "02:00:00:00:00:07"


def test_a_container_with_a_user_namespace_of_its_own(box):
    config = base_config()
    config["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 0, "size": 1000}]
    config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
    assert seen(Nest(box, PAIR).run({"out0": {}}, INSIDE, config=config))["out0"][2]


def test_a_network_that_is_joined(box):
    """Its other interfaces do not change."""
    before = (
        PAIR
        + """
    unshare --net sleep 60 & joined=$!
    while [ "$(readlink /proc/$joined/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
    nsenter --net=/proc/$joined/ns/net ip link add taken type veth peer name other9
    ln -sf /proc/$joined/ns/net netns
    """
    )
    config = base_config()
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = str(box.user.tmp / "netns")
    nest = Nest(box, before, "kill $joined")
    assert seen(nest.run({"out0": {"name": "new"}}, INSIDE, config=config)).keys() == {"lo", "new", "taken", "other9"}
    done = nest.run({"out0": {"name": "taken"}}, INSIDE, config=config)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: cannot move the network interface out0: File exists (config.json: linux.netDevices.out0); fix: "
        "give it "
    )


@pytest.mark.parametrize(
    ("devices", "name", "cause"),
    [
        ({"nothing": {}}, "nothing", "No such device"),
        ({"lo": {"name": "loop"}}, "lo", "Invalid argument"),
        ({"out0": {}, "nothing": {}}, "nothing", "No such device"),
        ({"out0": {"name": "lo"}}, "out0", "File exists"),
    ],
)
def test_immovable_interface_is_refused(box, devices, name, cause):
    """Nothing of the container is left, and the other interfaces have not moved."""
    done = Nest(box, PAIR, "ip -json link").run(devices, "echo ran")
    assert done.returncode == 1
    found = {link["ifname"] for link in json.loads(done.stdout)}
    assert found >= {"lo", "out0", "other0"}
    assert f"rootless: cannot move the network interface {name}: " in done.stderr
    assert f"{cause} (config.json: linux.netDevices.{name}); fix: " in done.stderr
    assert not list((box.user.runtime_dir / "rootless").glob(box.name))


def test_user_without_privileges_over_the_interface(box):
    config = base_config()
    config["linux"]["netDevices"] = {"lo": {}}
    done = box.run(config, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "rootless: cannot move the network interface lo: only root of its network namespace may move it "
        "(config.json: linux.netDevices.lo); fix: let root run it, or create the interface in a network "
    )


def test_user_namespace_gives_no_privileges_over_host_interfaces(box, require_root):
    """As under `podman unshare`: root, but not of the network namespace."""
    nest = Nest(box, "")
    words = box.command
    # root creates the interface, in a network namespace that the user enters but does not own
    user = ["setpriv", f"--reuid={box.user.uid}", f"--regid={box.user.gid}", "--clear-groups", *words]
    user.remove("--net")
    box.command = ["unshare", "--net", "sh", "-euc", PAIR + 'exec "$@"', "sh", *user]
    done = nest.run({"out0": {}}, "echo ran", user=0, group=0)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot move the network interface out0: " in done.stderr
    assert "Operation not permitted (config.json: linux.netDevices.out0); fix: let root run it" in done.stderr


def test_a_container_that_shares_the_network(box):
    config = base_config()
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
    done = Nest(box, PAIR).run({"out0": {}}, "echo ran", config=config)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the container shares the host's network (config.json: linux.netDevices.out0)" in done.stderr


def test_real_root(user, rootless_command, require_root):
    box = as_real_root(Box(user, [rootless_command]))
    assert seen(Nest(box, PAIR + ADDRESSES, user=False).run({"out0": {"name": "eth0"}}, INSIDE))["eth0"][2]


LINK_OF_THE_HOST = "a network interface of the host, which only the host's root can move"


LINK_NAMES = '"A set of network devices that MUST be made available in the container": '


@differs("runc", LINK_NAMES + IGNORED)
@differs("crun", LINK_NAMES + IGNORED)
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({}, marks=pytest.mark.spec("linux.netDevices", refused=LINK_OF_THE_HOST)),
        pytest.param({"name": "new"}, marks=pytest.mark.spec("linux.netDevices.name", refused=LINK_OF_THE_HOST)),
    ],
)
def test_interface_of_the_host(either, asked):
    config = config_with_maps(either.user)
    config["linux"]["netDevices"] = {"lo": asked}
    assert_refused(either, config, "lo")
