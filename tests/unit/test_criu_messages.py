"""Messages to criu: the encoding of protocol buffers, and files with criu's options."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rootless.container.checkpoint.criu_messages import decoded, encoded, options_text


def test_encoding_of_protocol_buffers():
    """The examples are from protobuf.dev, "Encoding"."""
    assert encoded({1: 150}) == bytes.fromhex("089601")
    assert encoded({2: b"testing"}) == bytes.fromhex("120774657374696e67")


@given(st.dictionaries(st.integers(1, 1000), st.integers(0, 2**31 - 1) | st.binary(max_size=300)))
def test_decoding_is_the_reverse_of_encoding(fields):
    assert decoded(encoded(fields)) == fields


@given(st.binary(max_size=100))
def test_decoding_of_anything_ends(data):
    assert isinstance(decoded(data), dict)


def test_options_in_a_file():
    words = ["--external", "mnt[]:sm", "--manage-cgroups=ignore", "--root", '/a "b"/c', "--track-mem"]
    assert options_text(words) == ('external "mnt[]:sm"\nmanage-cgroups=ignore\nroot "/a \\"b\\"/c"\ntrack-mem\n')
