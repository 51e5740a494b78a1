"""Plans for tests of planning: from a bundle, facts and options, independent of the machine."""

from __future__ import annotations

import pytest

from rootless.bundle.check import check
from rootless.bundle.load import Bundle
from rootless.errors import RootlessError
from rootless.host.facts import Facts
from rootless.options import Options
from rootless.plan import ops
from rootless.plan.compile import compile_plan
from rootless.plan.request import Request
from tests.lib.bundles import base_config

EVERY_CAPABILITY = (1 << 41) - 1

SINGLE = dict(subuids=(), subgids=())
"""Facts that differ for a user without subordinate ids."""

ROOT = dict(uid=0, gid=0, user="root", capabilities=EVERY_CAPABILITY, subuids=(), subgids=(), id_programs=())
"""Facts that differ for root of the host."""

NESTED = ROOT | dict(uid_map=((0, 1000, 1), (1, 100000, 65536)), gid_map=((0, 1000, 1), (1, 100000, 65536)))
"""Facts that differ for root of the user namespace of rootless podman."""


class Decided:
    """A Plan, and the operands of its launcher operations by subject."""

    def __init__(self, plan):
        self._plan = plan

    def __getattr__(self, name):
        return getattr(self._plan, name)

    def _operand(self, *kinds):
        op = self._plan.first(*kinds)
        return op.strings[0] if op else None

    @property
    def maps(self):
        return self._operand(ops.BEGIN_ID_MAPS, ops.ALLOCATE_IDS)

    @property
    def filter(self):
        return self._operand(ops.COMPILE_FILTER)

    @property
    def cgroup(self):
        return self._operand(ops.MAKE_CGROUP, ops.START_SCOPE)

    @property
    def network(self):
        return self._operand(ops.BEGIN_NETWORK)

    @property
    def links(self):
        return self._operand(ops.MOVE_INTERFACES) or ()

    @property
    def group(self):
        return self._operand(ops.JOIN_RESCTRL, ops.ADD_TO_RESCTRL)

    @property
    def covered(self):
        return self._operand(ops.COVER) or ""

    @property
    def terminal(self):
        return self._plan.has_terminal

    @property
    def notify(self):
        return bool(self._plan.first(ops.FORWARD_REPORTS))

    @property
    def listener(self):
        op = self._plan.first(ops.FORWARD_NOTIFICATIONS)
        return {"path": op.value("path"), "metadata": op.value("metadata")} if op else {}

    @property
    def hooks(self):
        found = {}
        for op in chosen(self._plan, ops.RUN_HOOK):
            found.setdefault(op.value("kind"), []).append(op.value("hook"))
        return found

    @property
    def identifying(self):
        return self._operand(ops.IDENTIFY) or ()


def plan_for(config=None, facts=None, **options):
    """Return the Plan for a config.json, by default a small one, with `facts` that differ from the defaults."""
    config = base_config() if config is None else config
    check(config)
    asked = Request(Options(container="c1"))
    for name, value in options.items():
        assert hasattr(asked, name)
        setattr(asked, name, value)
    bundle = Bundle("/home/user/bundle", config)
    bundle.is_image = bundle.rootfs.endswith(".sqsh")
    return Decided(compile_plan(bundle, Facts(**(facts or {})), asked))


def refused(config=None, facts=None, **options):
    """Return the error with which planning fails."""
    with pytest.raises(RootlessError) as caught:
        plan_for(config, facts, **options)
    return caught.value


def executor_ops(plan):
    """Return the operations of the executor."""
    return [op for _, op in plan.executor_part()]


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
    """Return a config.json that shares these namespaces with the caller."""
    config = base_config()
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] not in kinds]
    return config


def joining(**paths):
    """Return a config.json that joins namespaces: their paths by type."""
    config = without_namespace(*paths)
    config["linux"]["namespaces"] += [{"type": kind, "path": path} for kind, path in paths.items()]
    return config


def mounts_of(plan, place):
    """Return the operations for this element of `mounts`."""
    return [op for op in plan.ops if op.where == place]


def mount(destination, kind="tmpfs", *options, **more):
    """Return an element of `mounts`."""
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)} | more
