"""Plans for the tests of planning: a bundle, a host and options become one, without the machine."""

from __future__ import annotations

import pytest

from rootless.bundle.check import check
from rootless.bundle.load import Bundle
from rootless.errors import RootlessError
from rootless.host.facts import Facts
from rootless.options import Options
from rootless.plan.compile import compile_plan
from rootless.plan.request import Request
from tests.lib.bundles import base_config

EVERY_CAPABILITY = (1 << 41) - 1

SINGLE = dict(subuids=(), subgids=())
"""What differs for a user without subordinate ids."""

ROOT = dict(uid=0, gid=0, user="root", capabilities=EVERY_CAPABILITY, subuids=(), subgids=(), id_programs=())
"""What differs for root of the host."""

NESTED = ROOT | dict(uid_map=((0, 1000, 1), (1, 100000, 65536)), gid_map=((0, 1000, 1), (1, 100000, 65536)))
"""What differs for root of the user namespace that rootless podman made."""


def plan_for(config=None, facts=None, **options):
    """Return the Plan for a config.json, by default a small one, for a caller who differs from the usual in `facts`."""
    config = base_config() if config is None else config
    check(config)
    asked = Request(Options(container="c1"))
    for name, value in options.items():
        assert hasattr(asked, name)
        setattr(asked, name, value)
    return compile_plan(Bundle("/home/user/bundle", config), Facts(**(facts or {})), asked)


def refused(config=None, facts=None, **options):
    """Return the error that planning ends with."""
    with pytest.raises(RootlessError) as caught:
        plan_for(config, facts, **options)
    return caught.value


def chosen(plan, *kinds):
    """Return the operations of these kinds."""
    return [op for op in plan.ops if op.kind in kinds]


def the(plan, kind):
    """Return the only operation of this kind."""
    (op,) = chosen(plan, kind)
    return op


def notes(plan, kind=None):
    """Return the notes, or those of one kind, as text by place."""
    return {note.where: note.text for note in plan.notes if kind in (None, note.kind)}


def with_mounts(*mounts):
    """Return a config.json with these mounts after the first four."""
    config = base_config()
    config["mounts"] += mounts
    return config


def without_namespace(*kinds):
    """Return a config.json that shares these namespaces with its caller."""
    config = base_config()
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] not in kinds]
    return config


def joining(**paths):
    """Return a config.json that joins namespaces: their paths by type."""
    config = without_namespace(*paths)
    config["linux"]["namespaces"] += [{"type": kind, "path": path} for kind, path in paths.items()]
    return config


def mounts_of(plan, place):
    """Return the operations that stand for this element of `mounts`."""
    return [op for op in plan.ops if op.where == place]


def mount(destination, kind="tmpfs", *options, **more):
    """Return an element of `mounts`."""
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)} | more
