"""`features`: the document that engines read is valid and true."""

from __future__ import annotations

import json
import os

import pytest

from tests.lib.bundles import base_config, make_bundle, write_config

BOOLEANS = {
    ("cgroup", "v1"),
    ("cgroup", "v2"),
    ("cgroup", "systemd"),
    ("cgroup", "systemdUser"),
    ("cgroup", "rdma"),
    ("seccomp", "enabled"),
    ("apparmor", "enabled"),
    ("selinux", "enabled"),
    ("intelRdt", "enabled"),
    ("intelRdt", "schemata"),
    ("intelRdt", "monitoring"),
    ("netDevices", "enabled"),
}
LISTS = {
    ("seccomp", "actions"): "SCMP_ACT_",
    ("seccomp", "operators"): "SCMP_CMP_",
    ("seccomp", "archs"): "SCMP_ARCH_",
    ("seccomp", "knownFlags"): "SECCOMP_FILTER_FLAG_",
    ("seccomp", "supportedFlags"): "SECCOMP_FILTER_FLAG_",
    ("memoryPolicy", "modes"): "MPOL_",
    ("memoryPolicy", "flags"): "MPOL_F_",
}


@pytest.fixture
def features(user, rootless_command):
    done = user.run([rootless_command, "features"])
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_document_has_the_shape_that_the_specification_gives_it(features):
    assert (features["ociVersionMin"], features["ociVersionMax"]) == ("1.0.0", "1.3.0")
    assert features.keys() <= {
        "ociVersionMin",
        "ociVersionMax",
        "hooks",
        "mountOptions",
        "linux",
        "annotations",
        "potentiallyUnsafeConfigAnnotations",
    }
    for key in ("hooks", "mountOptions", "potentiallyUnsafeConfigAnnotations"):
        assert_names(features.get(key, []))
    assert all(type(value) is str for value in features["annotations"].values())
    linux = features["linux"]
    assert_names(linux["namespaces"])
    assert_names(linux["capabilities"], "CAP_")
    for section, key in BOOLEANS:
        assert type(linux[section][key]) is bool, (section, key)
    for (section, key), prefix in LISTS.items():
        assert_names(linux[section][key], prefix)
    assert linux["mountExtensions"].keys() == {"idmap"}
    assert type(linux["mountExtensions"]["idmap"]["enabled"]) is bool
    assert {(section, key) for section in linux if isinstance(linux[section], dict) for key in linux[section]} == (
        BOOLEANS | LISTS.keys() | {("mountExtensions", "idmap")}
    )


def assert_names(names, prefix=""):
    assert all(type(name) is str and name.startswith(prefix) for name in names)
    assert len(set(names)) == len(names)


def asking(path, value):
    """A config.json with one additional property."""
    config = base_config()
    *parents, last = path.split(".")
    place = config
    for name in parents:
        place = place.setdefault(name, {})
    if isinstance(place.get(last), list):
        place[last] = place[last] + value
    else:
        place[last] = value
    return config


HOOK = [{"path": "/bin/true"}]
ASKED = {
    "apparmor": ("process.apparmorProfile", "unconfined"),
    "selinux": ("process.selinuxLabel", "a:b:c:d"),
    "intelRdt": ("linux.intelRdt", {"closID": "x", "schemata": ["L3:0=f"], "enableMonitoring": True}),
    "memoryPolicy": ("linux.memoryPolicy", {"mode": "MPOL_LOCAL"}),
    "netDevices": ("linux.netDevices", {"dummy0": {}}),
    "mountExtensions": ("mounts", [{"destination": "/mnt", "source": "/usr", "options": ["bind", "idmap"]}]),
}


@pytest.mark.parametrize("section", ASKED)
def test_listed_features_can_be_requested(user, rootless_command, features, section):
    """It works, or is refused because of the host or the caller's privileges, but never as unknown."""
    assert False not in features["linux"][section].values()
    done = user.run([rootless_command, "explain", make_bundle(user, asking(*ASKED[section]))])
    assert done.returncode == 0 or f"(config.json: {ASKED[section][0]}" in done.stderr, done.stderr
    assert "not supported yet" not in done.stdout + done.stderr


def test_listed_hooks_and_namespaces_can_be_requested(user, rootless_command, features):
    bundle = make_bundle(user, base_config())
    hooks = dict.fromkeys(features["hooks"], HOOK)
    assert len(hooks) in (0, 6)
    for config in (
        asking("hooks", hooks),
        asking(
            "linux.namespaces",
            [{"type": kind} for kind in features["linux"]["namespaces"] if kind in ("time", "cgroup")],
        ),
    ):
        write_config(bundle, config)
        done = user.run([rootless_command, "explain", bundle])
        assert done.returncode == 0, done.stderr


def test_listed_mount_options_are_known(user, rootless_command, features):
    """Unknown options would go to the file system."""
    to_the_file_system = {"dirsync", "lazytime", "mand", "sync"}
    options = sorted({*features["mountOptions"]} - to_the_file_system - {"remount", "bind", "rbind", "idmap", "ridmap"})
    bundle = make_bundle(user, asking("mounts", [mount("/one", [option]) for option in options]))
    done = user.run([rootless_command, "explain", "--json", bundle], check=True)
    operations = [each for each in json.loads(done.stdout)["operations"] if each.get("target") == "/one"]
    assert len(operations) == len(options)
    assert [each["options"] for each in operations] == [[]] * len(options)


def mount(destination, options):
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}


@pytest.mark.oracle
def test_runc_lists_no_other_features(user, need, features):
    theirs = json.loads(user.run([need("runc"), "features"], check=True).stdout)
    # not in the specification, and ignored by the kernel where runc sets them
    assert {*theirs["mountOptions"]} - {*features["mountOptions"]} <= {"acl", "noacl"}
    assert {*theirs["hooks"]} == {*features["hooks"]}
    linux, ours = theirs["linux"], features["linux"]
    assert {*linux["namespaces"]} <= {*ours["namespaces"]}
    assert {*linux["capabilities"]} <= {*ours["capabilities"]}
    for key in ("actions", "operators", "archs"):
        assert {*linux["seccomp"][key]} <= {*ours["seccomp"][key]}, key
    library = "io.github.seccomp.libseccomp.version"
    assert features["annotations"][library] == theirs["annotations"][library]


def test_the_kernel_has_the_actions(features):
    with open("/proc/sys/kernel/seccomp/actions_avail") as file:
        available = {"notify" if name == "user_notif" else name for name in file.read().split()}
    named = {name.removeprefix("SCMP_ACT_").lower() for name in features["linux"]["seccomp"]["actions"]}
    assert available - {"kill"} <= named | {"kill"}


def test_features_needs_no_state_or_home(user, rootless_command):
    done = user.run([rootless_command, "features"], env={"HOME": "/nonexistent", "XDG_RUNTIME_DIR": ""}, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.exists("/nonexistent")
