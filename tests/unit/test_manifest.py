"""Manifests, indexes and platforms: what is chosen, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.image.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Index,
    Manifest,
    manifest_of,
    parse,
    platform_of_config,
)
from rootless.image.platform import Platform, host_platform, wanted_platform


def digest(number):
    return f"sha256:{number:064x}"


def descriptor(kind=OCI_LAYER, number=1, size=10, **more):
    return {"mediaType": kind, "digest": digest(number), "size": size, **more}


def manifest(**changes):
    return {"schemaVersion": 2, "config": descriptor(OCI_CONFIG), "layers": [descriptor(number=2)]} | changes


def index(*platforms):
    entries = []
    for number, text in enumerate(platforms):
        os, architecture, variant = (*text.split("/"), "", "")[:3]
        entries.append(descriptor(OCI_MANIFEST, number))
        if os:
            entries[-1]["platform"] = {"os": os, "architecture": architecture, "variant": variant}
    return {"schemaVersion": 2, "manifests": entries}


def read(data, media_type=OCI_MANIFEST):
    return parse(json.dumps(data).encode(), media_type, "a.test/b:c")


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST, f"{OCI_MANIFEST}; charset=utf-8", "text/plain", ""])
def test_a_manifest(kind):
    found = read(manifest(), kind)
    assert isinstance(found, Manifest)
    assert [layer.digest for layer in found.layers] == [digest(2)]
    assert (found.config.digest, found.config.size) == (digest(1), 10)


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST, "text/plain"])
def test_an_index(kind):
    assert isinstance(read(index("linux/amd64"), kind), Index)


def test_the_documents_own_type_counts():
    assert isinstance(read({**index("linux/amd64"), "mediaType": OCI_INDEX}, OCI_MANIFEST), Index)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "not a JSON object"),
        ({"schemaVersion": 1, "fsLayers": []}, "obsolete format schema 1"),
        ({**manifest(), "manifests": []}, "an index and a manifest at once"),
        (manifest(config=None), "a descriptor in its manifest is missing"),
        (manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")), "it is no container image"),
        (manifest(layers=None), "has no layers"),
        (manifest(layers=[descriptor("application/octet-stream")]), "unknown type application/octet-stream"),
        (manifest(layers=[descriptor(OCI_LAYER + "+gzip+encrypted")]), "a layer is encrypted"),
        (manifest(layers=[descriptor()] * 1001), "more than 1000 layers"),
        (manifest(layers=[descriptor(size=-1)]), "the size -1"),
        (manifest(layers=[descriptor(size=True)]), "the size True"),
        (manifest(layers=[descriptor(size=1 << 63)]), "the size 9223372036854775808"),
        (manifest(layers=[{**descriptor(), "digest": "sha256:../../etc/passwd"}]), "unsupported digest sha256:../"),
        (manifest(layers=[{**descriptor(), "digest": "sha512:" + "0" * 128}]), "unsupported digest sha512:"),
        (manifest(config=descriptor(OCI_CONFIG, size=1 << 30)), "configuration has more than 4 MB"),
    ],
)
def test_what_is_no_image_is_refused(data, words):
    with pytest.raises(RootlessError) as raised:
        read(data)
    assert words in str(raised.value)
    assert raised.value.code == "RL-IMAGE-MANIFEST"


def test_what_is_not_json_is_refused():
    with pytest.raises(RootlessError, match="is not JSON"):
        parse(b"<html>", OCI_MANIFEST, "a")


@pytest.mark.parametrize(
    ("have", "wanted", "number"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64/v3", 0),
        (["linux/amd64/v1"], "linux/amd64", 0),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["linux/arm64"], "linux/arm64/v8", 0),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v6", 2),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm", 1),
        (["windows/amd64", "linux/amd64"], "amd64", 1),
        (["linux/amd64"], "x86_64", 0),
        ([""], "linux/amd64", 0),
    ],
)
def test_the_best_platform_is_chosen(have, wanted, number):
    found = read(index(*have), OCI_INDEX).best(wanted_platform(wanted), "a")
    assert found.digest == digest(number)


@pytest.mark.parametrize(
    ("have", "wanted"),
    [
        (["linux/arm64"], "linux/amd64"),
        (["linux/amd64/v3"], "linux/amd64"),
        (["linux/arm/v7"], "linux/arm/v6"),
        (["windows/amd64"], "linux/amd64"),
        ([], "linux/amd64"),
        (["", ""], "linux/amd64"),
    ],
)
def test_an_image_without_the_platform_names_those_that_it_has(have, wanted):
    with pytest.raises(RootlessError, match="it has no image for") as raised:
        read(index(*have), OCI_INDEX).best(wanted_platform(wanted), "a")
    assert raised.value.code == "RL-IMAGE-PLATFORM"
    assert all(each in str(raised.value) for each in have)


@pytest.mark.parametrize("text", ["linux/", "/", "linux/amd64/v1/x", "a b", "linux/am..d64", "linux/\n"])
def test_a_wrong_platform_is_refused(text):
    with pytest.raises(RootlessError, match=r"OS/ARCHITECTURE"):
        wanted_platform(text)


def test_platforms_are_written_as_they_are_read():
    for text in ("linux/amd64", "linux/arm/v7", str(host_platform())):
        assert str(wanted_platform(text)) == text
    assert str(wanted_platform("")) == str(host_platform())
    assert str(wanted_platform("armhf")) == "linux/arm/v7"


def test_the_platform_of_a_configuration():
    assert str(platform_of_config(b'{"os": "linux", "architecture": "arm64", "variant": 3}', "a")) == "linux/arm64"
    with pytest.raises(RootlessError, match="not a JSON object"):
        platform_of_config(b"[]", "a")


def test_a_manifest_that_is_made_reads_back_and_does_not_vary():
    config, layers = read(manifest()).config, list(read(manifest()).layers)
    made = manifest_of(config, layers)
    again = parse(made, "", "a")
    assert isinstance(again, Manifest)
    assert (again.config.as_data(), [each.as_data() for each in again.layers]) == (
        config.as_data(),
        [each.as_data() for each in layers],
    )
    assert made == manifest_of(config, layers)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["config", "layers", "manifests", "mediaType", "schemaVersion"]), values, st.booleans())
def test_every_document_is_an_image_or_one_error(key, value, is_index):
    data = {**(index("linux/amd64") if is_index else manifest()), key: value}
    try:
        found = read(data)
    except RootlessError as error:
        assert error.code == "RL-IMAGE-MANIFEST"  # noqa: PT017 - either is right
        return
    assert isinstance(found, Manifest | Index)


@given(st.text(max_size=6), st.text(max_size=6), st.text(max_size=3))
def test_a_platform_serves_itself(os, architecture, variant):
    platform = Platform(os, architecture, variant if architecture != "arm" else "v7")
    assert platform.rank(platform) is not None or architecture in ("arm64", "arm")
