"""features.md: what each runtime reports about itself."""

from __future__ import annotations

import json

import pytest

from tests.lib.boxes import config_with_maps
from tests.lib.oracles import call, differs
from tests.lib.specification import HOOKS, NAMESPACES


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
def test_listed_features(features, place):
    found = features
    for name in place.split(".")[1:]:
        found = found[name]
    assert set(found) >= LISTED[place]


ABSENT = '"All properties in the features document … MAY either be absent": it is'


SUPPORTED = {
    # properties that must be true, and the runtimes in whose document they are not
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
def test_supported_features(features, place):
    """Independent of the host: "irrelevant to the actual availability of the features in the host operating system"."""
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
def test_potentially_unsafe_annotations(features):
    assert all(isinstance(name, str) for name in features["potentiallyUnsafeConfigAnnotations"])
