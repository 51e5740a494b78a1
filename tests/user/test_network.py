"""Containers and the networks that they get: what is seen from inside, and what comes through."""

from __future__ import annotations

import pytest

from tests.user.containers import Rootless
from tests.user.netbox import HTTP, OUTSIDE, OUTSIDE6, helpers, make_net_bundle


@pytest.fixture
def rootless(net_user, rootless_command):
    with Rootless(net_user, rootless_command) as rootless:
        yield rootless
    assert not helpers()


@pytest.fixture
def run(rootless, net_user):
    """Return a function that runs a shell script in a container, with flags of `run`, and returns its output."""

    def run_script(script, *flags):
        bundle = make_net_bundle(net_user, "sh", "-euc", script)
        done = rootless("run", *flags, bundle)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    return run_script


@pytest.mark.parametrize("mode", ["auto", "slirp4netns", "pasta"])
@pytest.mark.parametrize("address", [OUTSIDE, f"[{OUTSIDE6}]", "outside.test"])
def test_a_container_reaches_the_outside(run, mode, address):
    seen = run(f"curl -sS --max-time 20 http://{address}:{HTTP}/bytes/100000 | wc -c", "--network", mode)
    assert seen == "100000\n"
