"""runtime.md, config.md "Hooks", features.md: what each runtime does, and says of itself."""

from __future__ import annotations

import json
import os

import pytest

from tests.lib.boxes import SHORT, config_with_maps
from tests.lib.bundles import own, write_config
from tests.lib.containers import until
from tests.lib.specification import HOOKS, NAMESPACES

SLEEP = "exec sleep 1000"


def differs(runtime, sentence):
    """Mark a test as one that a runtime fails, and say by which sentence of the specification."""
    return pytest.mark.differs(runtime, sentence)


def call(box, *words, **options):
    """Run a verb to its end."""
    return box.user.run([*box.command, *words], timeout=SHORT, **box.options | options)


def state(box, name="held"):
    """Return the state of a container."""
    return json.loads(call(box, "state", name, check=True).stdout)


def started(box, *script):
    """Create a container and start it; return its pid."""
    pid = box.create(config_with_maps(box.user), *(script or (SLEEP,)))
    call(box, "start", "held", check=True)
    return pid


def stop(box):
    """End the container's program."""
    call(box, "kill", "held", "KILL", check=True)
    until(lambda: state(box)["status"] == "stopped", "the program ends")


# --- Operations -------------------------------------------------------------------------------------------------------


@pytest.mark.spec(*(f"state.{name}" for name in ("ociVersion", "id", "status", "pid", "bundle", "annotations")))
def test_state(either):
    config = config_with_maps(either.user) | {"annotations": {"com.example.key": "value"}}
    pid = either.create(config, SLEEP)
    seen = state(either)
    assert seen["ociVersion"].startswith("1.")
    assert {key: seen[key] for key in ("id", "status", "pid", "bundle", "annotations")} == {
        "id": "held",
        "status": "created",
        "pid": pid,
        "bundle": str(either.path),
        "annotations": {"com.example.key": "value"},
    }
    call(either, "start", "held", check=True)
    until(lambda: state(either)["status"] == "running", "the program runs")
    stop(either)


@pytest.mark.spec("state: of a container that does not exist")
def test_state_of_nothing(either):
    done = call(either, "state", "nothing")
    assert done.returncode != 0
    assert done.stderr


@pytest.mark.spec("create: the program does not run", "start: runs the program", "create: config.json is read once")
def test_create_and_start(either):
    """ "Any changes made to the config.json file after this operation will not have an effect on the container"."""
    config = config_with_maps(either.user)
    either.create(config, "echo first > /data/made; " + SLEEP)
    assert not (either.rootfs / "data/made").exists()
    config["process"]["args"] = ["sh", "-c", "echo second > /data/made"]
    write_config(either.path, config)
    call(either, "start", "held", check=True)
    until((either.rootfs / "data/made").exists, "the program has run")
    until(lambda: (either.rootfs / "data/made").read_text() == "first\n", "the program has written")


@pytest.mark.spec("create: an id that is in use")
def test_an_id_that_is_in_use(either):
    pid = either.create(config_with_maps(either.user), SLEEP)
    done = call(either, "create", "--bundle", either.path, "held")
    assert done.returncode != 0
    assert state(either)["pid"] == pid


@pytest.mark.spec("start: a container that is not created")
def test_start_of_what_is_not_created(either):
    pid = started(either)
    for name in ("held", "nothing"):
        assert call(either, "start", name).returncode != 0
    assert (state(either)["status"], state(either)["pid"]) == ("running", pid)


@pytest.mark.spec("kill: sends the signal")
def test_kill(either):
    started(either, "trap 'touch /data/caught' USR1; touch /data/ready; while :; do sleep 0.01; done")
    until((either.rootfs / "data/ready").exists, "the program catches the signal")
    call(either, "kill", "held", "USR1", check=True)
    until((either.rootfs / "data/caught").exists, "the signal arrives")
    assert state(either)["status"] == "running"


@pytest.mark.spec("kill: a container that is not there or has stopped")
def test_kill_of_what_does_not_run(either):
    started(either)
    stop(either)
    for name in ("held", "nothing"):
        assert call(either, "kill", name, "TERM").returncode != 0


@pytest.mark.spec("delete: removes a stopped container")
def test_delete(either):
    pid = started(either)
    stop(either)
    call(either, "delete", "held", check=True)
    assert call(either, "state", "held").returncode != 0
    assert not os.path.exists(f"/proc/{pid}")
    # "the ID … MAY be reused"
    either.create(config_with_maps(either.user), SLEEP)


@pytest.mark.spec("delete: a container that has not stopped")
def test_delete_of_what_runs(either):
    started(either)
    for name in ("held", "nothing"):
        assert call(either, "delete", name).returncode != 0
    assert state(either)["status"] == "running"


# --- Hooks ------------------------------------------------------------------------------------------------------------

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
"""When each is called, by the state that it is given."""


class Hooks:
    """Programs that write down what they find: on the host, and in the image for startContainer."""

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
        """Return what a hook has written."""
        return ((self.inside if kind == "startContainer" else self.place) / f"{kind}.{what}").read_text()

    def has_ended(self, kind):
        """Whether a hook has written the last that it writes."""
        path = (self.inside if kind == "startContainer" else self.place) / f"{kind}.env"
        return path.exists() and path.read_text().endswith("\n")

    def order(self):
        """Return the kinds of those on the host that have been called."""
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
    """Bring a container as far as this kind of hook is called; return the hooks, and the container's namespaces."""
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
    """At its moment, in its namespaces, with the state on its standard input."""
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
def test_the_status_that_a_hook_is_given(either, kind):
    hooks, _ = called(either, kind)
    assert json.loads(hooks.read(kind, "state"))["status"] == STATUS[kind]


@kinds(runc=[(BEFORE_PROGRAM, "poststart")], crun=[(ROOT_AS_BUNDLE, "startContainer")])
def test_the_bundle_that_a_hook_is_given(either, kind):
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
    """Return a hook that runs a script; it reads its state first: crun would end by SIGPIPE."""
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


# --- What they say of themselves --------------------------------------------------------------------------------------


@pytest.fixture
def features(either):
    """The features document."""
    return json.loads(call(either, "features", check=True).stdout)


LISTED = {
    "features.hooks": set(HOOKS),
    "features.mountOptions": {"bind", "rbind", "ro", "nosuid", "rslave", "tmpcopyup", "rro"},
    "features.linux.namespaces": set(NAMESPACES) - {"time"},
    "features.linux.capabilities": {"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"},
}


@pytest.mark.parametrize("place", [pytest.param(place, marks=pytest.mark.spec(place)) for place in LISTED])
def test_what_is_listed(features, place):
    found = features
    for name in place.split(".")[1:]:
        found = found[name]
    assert set(found) >= LISTED[place]


ABSENT = '"All properties in the features document … MAY either be absent": it is'
SUPPORTED = {
    # what is to be true there, and in whose document it is not
    "features.linux.seccomp": ("enabled", ()),
    "features.linux.apparmor": ("enabled", ()),
    "features.linux.selinux": ("enabled", ()),
    "features.linux.intelRdt": ("enabled", ("runc",)),
    "features.linux.memoryPolicy": ("modes", ("runc", "crun")),
    "features.linux.mountExtensions": ("idmap", ("runc",)),
    "features.linux.netDevices": ("enabled", ("runc", "crun")),
}


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[pytest.mark.spec(place), *(differs(name, ABSENT) for name in absent)])
        for place, (_, absent) in SUPPORTED.items()
    ],
)
def test_what_is_supported(features, place):
    """Whatever the host has: "irrelevant to the actual availability of the features in the host operating system"."""
    assert features["linux"][place.rpartition(".")[2]][SUPPORTED[place][0]]


@pytest.mark.spec("features.linux.cgroup")
def test_managers_of_cgroups(features):
    managers = features["linux"]["cgroup"]
    assert {type(managers[name]) for name in ("v1", "v2", "systemd", "systemdUser")} == {bool}


@pytest.mark.spec("features.ociVersionMin", "features.ociVersionMax")
def test_versions(either, features):
    """ "The runtime MUST accept this value as the ociVersion property of config.json"."""
    for name in ("ociVersionMin", "ociVersionMax"):
        config = config_with_maps(either.user) | {"ociVersion": features[name]}
        assert either.lines(config, "echo ran") == ["ran"]


@pytest.mark.spec("features.annotations")
def test_annotations_of_features(features):
    assert all(isinstance(value, str) for value in features["annotations"].values())


@differs("runc", ABSENT)
@pytest.mark.spec("features.potentiallyUnsafeConfigAnnotations")
def test_annotations_that_may_be_unsafe(features):
    assert all(isinstance(name, str) for name in features["potentiallyUnsafeConfigAnnotations"])
