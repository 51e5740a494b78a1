"""config.md "Hooks", runtime.md "Lifecycle": when each hook runs, its input, and the effect of its failure."""

from __future__ import annotations

import json
import os

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.bundles import own
from tests.lib.containers import until
from tests.lib.oracles import SLEEP, call, differs, stop
from tests.lib.specification import HOOKS

HOOK = """#!/bin/sh
cat > {place}/$1.state
readlink /proc/self/ns/mnt > {place}/$1.mnt
readlink /proc/self/ns/net > {place}/$1.net
echo $1 >> {place}/order
echo "$HOOKED" > {place}/$1.env
"""


INSIDE = {"createContainer", "startContainer"}


STATUS = {
    "prestart": "creating",
    "createRuntime": "creating",
    "createContainer": "creating",
    "startContainer": "created",
    "poststart": "running",
    "poststop": "stopped",
}
"""The status in the state that each kind of hook receives."""


class Hooks:
    """Programs that record what they find: on the host, or in the image for startContainer."""

    def __init__(self, box):
        self.place = box.user.tmp / "hooks"
        self.place.mkdir()
        self.inside = box.rootfs / "data"
        for path, place in ((self.place / "hook", self.place), (box.rootfs / "bin/hook", "/data")):
            path.write_text(HOOK.format(place=place))
            path.chmod(0o755)
        own(box.user, self.place)

    def one(self, kind, **more):
        """Return a hook of a kind."""
        path = "/bin/hook" if kind == "startContainer" else str(self.place / "hook")
        return {"path": path, "args": ["hook", kind], "env": ["PATH=/usr/bin:/bin"]} | more

    def read(self, kind, what):
        """Return the record of a hook."""
        return ((self.inside if kind == "startContainer" else self.place) / f"{kind}.{what}").read_text()

    def has_ended(self, kind):
        """Whether a hook has completed its record."""
        path = (self.inside if kind == "startContainer" else self.place) / f"{kind}.env"
        return path.exists() and path.read_text().endswith("\n")

    def order(self):
        """Return the kinds of the hooks that have run on the host, in order."""
        path = self.place / "order"
        return path.read_text().split() if path.exists() else []


BEFORE_PROGRAM = '"MUST be called after the user-specified process is executed": it is called before'


CREATED = '"creating: the container is being created": the state that the hook is given says created'


STARTING = '"created: … the container process has neither exited nor executed the program": the state says starting'


ROOT_AS_BUNDLE = '"bundle is the absolute path to the container\'s bundle directory": the state says /'


def kinds(**differences):
    """Return a parameter for each kind of hook; `differences` are {runtime: [(sentence, kinds)]}."""
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(
                kind,
                marks=[
                    pytest.mark.spec(f"hooks.{kind}"),
                    *(
                        differs(name, sentence)
                        for name, pairs in differences.items()
                        for sentence, those in pairs
                        if kind in those.split()
                    ),
                ],
            )
            for kind in HOOKS
        ],
    )


def called(box, kind):
    """Run a container until this kind of hook has run; return the hooks and the container's namespaces."""
    hooks = Hooks(box)
    config = config_with_maps(box.user) | {"hooks": {kind: [hooks.one(kind)]}}
    pid = box.create(config, SLEEP)
    namespaces = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "net")}
    if kind in ("startContainer", "poststart", "poststop"):
        assert hooks.order() == []
        call(box, "start", "held", check=True)
    if kind == "poststop":
        assert hooks.order() == []
        stop(box)
        call(box, "delete", "held", check=True)
    until(lambda: hooks.has_ended(kind), "the hook ends")
    return hooks, namespaces


@kinds(runc=[(BEFORE_PROGRAM, "poststart")])
def test_hook(either, kind):
    """Each runs at its moment, in its namespaces, with the state on standard input."""
    hooks, inside = called(either, kind)
    assert json.loads(hooks.read(kind, "state"))["id"] == "held"
    outside = {name: os.readlink(f"/proc/self/ns/{name}") for name in inside}
    found = {name: hooks.read(kind, name).strip() for name in inside}
    assert found["net"] == (inside if kind in INSIDE else outside)["net"]
    assert (found["mnt"] == inside["mnt"]) == (kind in INSIDE)


@kinds(
    runc=[(BEFORE_PROGRAM, "poststart")],
    crun=[(CREATED, "prestart createRuntime createContainer"), (STARTING, "startContainer")],
)
def test_status_in_a_hooks_state(either, kind):
    hooks, _ = called(either, kind)
    assert json.loads(hooks.read(kind, "state"))["status"] == STATUS[kind]


@kinds(runc=[(BEFORE_PROGRAM, "poststart")], crun=[(ROOT_AS_BUNDLE, "startContainer")])
def test_bundle_in_a_hooks_state(either, kind):
    hooks, _ = called(either, kind)
    assert json.loads(hooks.read(kind, "state"))["bundle"] == str(either.path)


@pytest.mark.spec("hooks[].path", "hooks[].args", "hooks[].env", "lifecycle: the order of the hooks")
def test_hooks_in_their_order(either):
    hooks = Hooks(either)
    config = config_with_maps(either.user)
    config["hooks"] = {kind: [hooks.one(kind), hooks.one(kind, env=["HOOKED=yes"])] for kind in HOOKS}
    either.run(config, "true", check=True)
    assert hooks.order() == [kind for kind in HOOKS if kind != "startContainer" for _ in range(2)]
    assert {hooks.read(kind, "env") for kind in HOOKS} == {"yes\n"}


def failing(*script):
    """Return a hook that runs a script after reading its state: otherwise crun would end by SIGPIPE."""
    return {"path": "/bin/sh", "args": ["sh", "-c", "\n".join(["cat >/dev/null", *script])]}


@pytest.mark.spec("hooks[].timeout")
def test_a_hook_that_takes_too_long(either):
    config = config_with_maps(either.user)
    config["hooks"] = {"createRuntime": [failing("exec sleep 1000") | {"timeout": 1}]}
    done = either.run(config, "echo ran")
    assert (done.returncode != 0, done.stdout) == (True, "")


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
@pytest.mark.spec("lifecycle: a hook that fails before start stops the container")
def test_a_hook_that_fails(either, kind):
    """ "the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12"."""
    hooks = Hooks(either)
    config = config_with_maps(either.user)
    config["hooks"] = {kind: [failing("exit 7")], "poststop": [hooks.one("poststop")]}
    done = either.run(config, "echo ran")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert call(either, "state", either.name).returncode != 0


@differs("runc", f"{BEFORE_PROGRAM}, as part of create")
@differs("crun", '"If any poststart hook fails, the runtime MUST generate an error, stop the container": it goes on')
@pytest.mark.spec("lifecycle: a poststart hook that fails stops the container")
def test_a_poststart_hook_that_fails(either):
    """ "If any poststart hook fails, the runtime MUST generate an error, stop the container" (1.3.0)."""
    config = config_with_maps(either.user) | {"hooks": {"poststart": [failing("exit 7")]}}
    pid = either.create(config, SLEEP)
    assert call(either, "start", "held").returncode != 0
    until(lambda: not os.path.exists(f"/proc/{pid}/exe") or not os.readlink(f"/proc/{pid}/exe"), "the program ends")


@differs("runc", '"the remaining hooks and lifecycle continue as if the hook had succeeded": they are not called')
@pytest.mark.spec("lifecycle: a poststop hook that fails is a warning")
def test_a_poststop_hook_that_fails(either):
    """ "the remaining hooks and lifecycle continue as if the hook had succeeded"."""
    hooks = Hooks(either)
    config = config_with_maps(either.user)
    config["hooks"] = {"poststop": [failing("exit 7"), hooks.one("poststop")]}
    either.create(config, SLEEP)
    call(either, "start", "held", check=True)
    stop(either)
    done = call(either, "--debug", "delete", "held")
    assert done.returncode == 0
    assert hooks.order() == ["poststop"]
    assert "hook" in done.stderr
