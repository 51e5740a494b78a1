"""The fixtures of these tests are those of fixtures.py."""

from tests.user.fixtures import box, either, every, net_rootless, net_user, netbox

__all__ = ["box", "either", "every", "net_rootless", "net_user", "netbox"]
