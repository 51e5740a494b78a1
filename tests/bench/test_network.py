"""How soon a container has a network and how fast it is, compared with podman and the same helper."""

from __future__ import annotations

import json
import statistics
import subprocess

import pytest

from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import PATIENCE, Reader
from tests.lib.engines import IMAGE, make_image, opened_podman
from tests.lib.figures import ROUNDS
from tests.lib.netbox import ECHO, OUTSIDE, make_net_bundle

ASK = ("sh", "-c", f"echo hello | nc {OUTSIDE} {ECHO}")
SECONDS = 1
"""How long each transfer lasts."""
SENDINGS = max(3, ROUNDS // 2)


class Rivals:
    """rootless and podman on one host, with the same helper; runc makes podman's containers.

    Attributes:
        user: the account that runs both.
        env: the environment that podman requires.
        ours, podmans: the first words of `run`.
    """

    def __init__(self, user, rootless_command, podman, helper):
        self.user = user
        self.env = podman.env
        self.ours = [rootless_command, "--root", str(user.tmp / "state"), "run", "--network", helper]
        self.podmans = podman.argv("run", "--rm", "--network", helper)


@pytest.fixture(params=["slirp4netns", "pasta"])
def rivals(request, net_user, rootless_command, need):
    need(request.param)
    with opened_podman(net_user, make_image(net_user.tmp), need("podman")) as podman:
        podman.command = podman.under(need("runc"))
        yield Rivals(net_user, rootless_command, podman, request.param)
    podman.remove_stores()


@pytest.fixture
def compare(request, note):
    """Return a function that records two figures with the name of the helper."""
    helper = request.node.callspec.params["rivals"]

    def record(what, unit, ours, theirs):
        note(f"{helper}, {what}: {ours:.3g} {unit}, podman {theirs:.3g}: {ours / theirs:.2f}")

    return record


def test_duration_until_the_network_is_usable(rivals, medians, compare):
    """From the command to the first byte of an outside server's reply, and to the end, which follows at once."""
    bundle = str(make_bundle(rivals.user, base_config(*ASK)))
    commands = {"ours": [*rivals.ours, bundle], "podman's": [*rivals.podmans, IMAGE, *ASK]}
    steps = [{"name": name, "argv": argv, "speaks": True, "orphans": True} for name, argv in commands.items()]
    found = medians(steps, account=rivals.user, env=rivals.env)
    for place, what in ((2, "until the network is usable"), (1, "the whole `run`"), (0, "CPU of the whole `run`")):
        compare(what, "ms", *(figures[place] for figures in found.values()))


def test_tcp_throughput_of_a_container(rivals, netbox, need, compare):
    """Sent to and received from a server outside."""
    iperf = need("iperf3")
    bundle = make_net_bundle(rivals.user)
    theirs = [*rivals.podmans, "--volume", "/usr:/usr:ro", "--rootfs", bundle / "rootfs"]
    # in its own session, since the scheduler groups processes by session, differently for the two commands
    options = {"stdout": subprocess.PIPE, "text": False, "start_new_session": True}
    server = netbox.outside(iperf, "--server", "--forceflush", **options)
    try:
        said = Reader(server.stdout)
        while "listening" not in said.line():
            pass
        for direction, flags in (("sent", ()), ("received", ("--reverse",))):
            words = [iperf, "--client", OUTSIDE, "--time", str(SECONDS), "--json", *flags]
            config = json.loads((bundle / "config.json").read_text())
            config["process"]["args"] = words
            write_config(bundle, config)
            rates = [(rate(rivals, [*rivals.ours, bundle]), rate(rivals, [*theirs, *words])) for _ in range(SENDINGS)]
            compare(f"{direction} by the container", "Gbit/s", *map(statistics.median, zip(*rates, strict=True)))
    finally:
        server.terminate()
        server.wait(PATIENCE)
        server.stdout.close()


def rate(rivals, argv):
    """Return the rate that iperf3 has received, in Gbit/s."""
    done = rivals.user.run(argv, env=rivals.env, check=True)
    return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9
