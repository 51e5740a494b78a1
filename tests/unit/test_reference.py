"""References to images: the forms that people write, and one clear line for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.image.reference import (
    CONTAINERS_STORAGE,
    DOCKER_ARCHIVE,
    DOCKER_DAEMON,
    FILE,
    OCI,
    OCI_ARCHIVE,
    REGISTRY,
    Reference,
    is_path,
    parse,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4


def registry(host, repository, tag="", digest=""):
    return Reference(REGISTRY, registry=host, repository=repository, tag=tag, digest=digest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debian", registry("", "debian", "latest")),
        ("debian:13", registry("", "debian", "13")),
        ("me/tool:1.0_rc-1", registry("", "me/tool", "1.0_rc-1")),
        ("docker://debian", registry("docker.io", "library/debian", "latest")),
        ("docker://me/tool", registry("docker.io", "me/tool", "latest")),
        ("docker.io/debian", registry("docker.io", "library/debian", "latest")),
        ("index.docker.io/debian", registry("docker.io", "library/debian", "latest")),
        ("quay.io/a/b/c:x", registry("quay.io", "a/b/c", "x")),
        ("localhost/a", registry("localhost", "a", "latest")),
        ("localhost:5000/a", registry("localhost:5000", "a", "latest")),
        ("host:5000/a:b", registry("host:5000", "a", "b")),
        ("[2001:db8::1]:5000/a", registry("[2001:db8::1]:5000", "a", "latest")),
        (f"docker://quay.io/a@{DIGEST}", registry("quay.io", "a", digest=DIGEST)),
        (f"quay.io/a:tag@{DIGEST}", registry("quay.io", "a", digest=DIGEST)),
        ("oci:dir", Reference(OCI, path="dir")),
        ("oci:/a/dir:13", Reference(OCI, path="/a/dir", tag="13")),
        ("oci-archive:f.tar:13", Reference(OCI_ARCHIVE, path="f.tar", tag="13")),
        ("docker-archive:f.tar", Reference(DOCKER_ARCHIVE, path="f.tar")),
        ("docker-archive:f.tar:debian:13", Reference(DOCKER_ARCHIVE, path="f.tar", tag="debian:13")),
        ("docker-daemon:debian:13", Reference(DOCKER_DAEMON, name="debian:13")),
        ("containers-storage:localhost/a", Reference(CONTAINERS_STORAGE, name="localhost/a")),
        ("torch.sqsh", Reference(FILE, path="torch.sqsh")),
        ("a/b.squashfs", Reference(FILE, path="a/b.squashfs")),
        ("B.SIF", Reference(FILE, path="B.SIF")),
        ("/scratch/image", Reference(FILE, path="/scratch/image")),
        ("./image", Reference(FILE, path="./image")),
    ],
)
def test_each_form_is_understood(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("a\nb", "cannot be printed"),
        ("a b", "is not the name of an image"),
        ("Debian:13", "names are in lower case; fix: write debian:13"),
        ("docker://", "the name of the image is missing"),
        ("library://me/tool", "library:// is not supported"),
        ("https://quay.io/a", "https:// is not supported"),
        ("a:b:c", "b:c is not a tag"),
        ("a:", "is not a tag"),
        ("a@sha256:12", "a digest is sha256: and 64"),
        ("a@sha512:" + "0" * 128, "only sha256 is supported"),
        ("a//b", "is not the name of an image"),
        ("quay.io/../b", "is not the name of an image"),
        ("-oops", "is not the name of an image"),
        ("host:port/a", "host:port is not the host of a registry"),
        ("oci:", "the path is missing"),
        ("docker-daemon:", "the name of the image is missing"),
        ("quay.io/" + "a" * 250, "more than 255 characters"),
    ],
)
def test_a_wrong_reference_is_one_line(text, words):
    with pytest.raises(RootlessError) as raised:
        parse(text)
    assert words in str(raised.value)
    assert raised.value.fix
    assert "\n" not in str(raised.value)
    assert raised.value.code == "RL-IMAGE-REFERENCE"


@given(st.text(alphabet="abAZ09:/@.-_[]\n é", max_size=60) | st.text(max_size=300))
def test_every_text_is_a_reference_or_an_error_and_a_reference_reads_back(text):
    try:
        reference = parse(text)
    except RootlessError:
        return
    assert parse(str(reference)) == reference
    assert reference.kind != REGISTRY or ".." not in reference.repository


part = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)*", fullmatch=True).filter(lambda text: len(text) < 30)
host = st.from_regex(r"[a-z0-9]+(\.[a-z0-9]+)+(:[0-9]{1,5})?", fullmatch=True).filter(lambda text: len(text) < 40)


@given(host, st.lists(part, min_size=1, max_size=4), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
def test_whole_names_are_taken_apart_as_they_were_put_together(host, parts, tag):
    name = "/".join(parts)
    found = parse(f"docker://{host}/{name}:{tag}")
    assert (found.tag, found.digest) == (tag, "")
    if "docker.io" not in host:
        assert (found.registry, found.repository) == (host, name)


def test_a_word_with_the_ending_of_an_image_file_is_a_path():
    assert is_path("x.sqsh")
    assert is_path("../x")
    assert not is_path("debian")
    assert not is_path("quay.io/a")
