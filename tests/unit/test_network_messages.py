"""Messages of pyroute2 without its other modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import sys
FIRST
from rootless.network import interfaces, messages
before = sorted(name for name in sys.modules if name.startswith("pyroute2"))
message = messages.ifinfmsg()
message.update({"index": 7})
message["attrs"] = [["IFLA_IFNAME", "eth0"], ["IFLA_ADDRESS", "02:00:0a:59:00:04"]]
message["header"] = {"type": messages.RTM_NEWLINK, "flags": 1, "sequence_number": 1}
message.encode()
assert b"eth0" in message.data and b"\\x02\\x00\\x0a\\x59\\x00\\x04" in message.data
print(len(before), "asyncio" in sys.modules)
from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError
with IPRoute() as route:
    assert route.link_lookup(ifname="lo") == [1]
"""


@pytest.mark.parametrize("first", ["", "import pyroute2"])
def test_the_messages_come_without_the_rest_and_do_it_no_harm(first):
    script = ASK.replace("FIRST", first)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout == "0 False\n") is not bool(first)
