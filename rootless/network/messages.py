"""The messages of rtnetlink(7) as pyroute2 has them, without the rest of pyroute2.

Its `__init__` imports all of it, for 0.2 s of CPU, which who joins a network would wait for; the messages take 0.04.
They are imported below a package without that, and everything is as it was when this is done: a later `import pyroute2`
gets the whole.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import PathFinder  # what importlib.machinery has; that takes 4 ms
from types import ModuleType

_PACKAGE = "pyroute2"


_spec = None if _PACKAGE in sys.modules else PathFinder.find_spec(_PACKAGE)
if _spec:
    _bare = ModuleType(_PACKAGE)
    _bare.__path__ = list(_spec.submodule_search_locations or ())
    sys.modules[_PACKAGE] = _bare
try:
    from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg
finally:
    for _name in [each for each in sys.modules if _spec and f"{each}.".startswith(f"{_PACKAGE}.")]:
        del sys.modules[_name]

__all__ = ["RTM_NEWADDR", "RTM_NEWLINK", "RTM_NEWROUTE", "ifaddrmsg", "ifinfmsg", "rtmsg"]
