"""JSON parsing and rendering: jsontext.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rootless
from rootless.errors import RootlessError
from rootless.jsontext import parse, render

ANY_TEXT = st.text(st.characters(exclude_categories=()))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(ANY_TEXT, inner, max_size=5),
    max_leaves=20,
)

calmly = settings(deadline=None, max_examples=200)


def refused(text: bytes) -> RootlessError:
    with pytest.raises(RootlessError) as caught:
        parse(text, "config.json")
    error = caught.value
    assert error.code == "RL-CONFIG-JSON"
    assert str(error).startswith("config.json: not valid JSON: ")
    assert str(error).isprintable()
    assert error.fix
    return error


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{}", {}),
        (b' \t\r\n{"a": [1, -2, 3.5, 1e3, true, false, null]} \n', {"a": [1, -2, 3.5, 1000.0, True, False, None]}),
        (b'"\\u0000"', "\0"),
        (b'"\\ud800"', "\ud800"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        ('"é"'.encode(), "é"),
        (b"18446744073709551616", 2**64),
        (b"1.0", 1.0),
        (b"-0", 0),
        (b'{"a": {"x": 1}, "b": {"x": 1}}', {"a": {"x": 1}, "b": {"x": 1}}),
    ],
)
def test_parse_reads(text, value):
    parsed = parse(text, "config.json")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "it is empty"),
        (b" \n\t ", "it is empty"),
        (b"\n  }", "line 2 column 3: expecting value"),
        (b'{\n "a": 1,\n "b" 2\n}', "line 3 column 6: expecting ':' delimiter"),
        (b'{"a": tru}', "line 1 column 7: expecting value"),
        (b"[1 2]", "line 1 column 4: expecting ',' delimiter"),
        (b'["abc', "line 1 column 2: unterminated string"),
        (b'["a\tb"]', "line 1 column 4: invalid control character"),
        (b'["\\x"]', "line 1 column 3: invalid \\escape"),
        ('\n["é", ?]'.encode(), "line 2 column 7: expecting value"),
        (b"{}\n {}", "line 2 column 2: more text after the end of the value"),
        (b"{}\0", "line 1 column 3: more text after the end of the value"),
        (b"\xef\xbb\xbf{}", "it starts with a byte order mark"),
        (b'{\n"a": "\xff"}', "line 2 column 7: byte 0xff is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "line 1 column 1: byte 0xff is not UTF-8"),
        (b'["\xed\xa0\x80"]', "line 1 column 3: byte 0xed is not UTF-8"),
        (b"[NaN]", "NaN is not a number that JSON has"),
        (b"[-Infinity]", "-Infinity is not a number that JSON has"),
        (b"[Infinity]", "Infinity is not a number that JSON has"),
        (b"[1e999]", "the number 1e999 is too large"),
        (b"[-1e999]", "the number -1e999 is too large"),
        (b"7" * 5000, f"the number {'7' * 60}… has more than 4300 digits"),
        (b"[" * 1_000_000, "arrays or objects are nested too deeply"),
        (b'{"a":' * 1_000_000, "arrays or objects are nested too deeply"),
        (b'{"a": 1, "b\\n": 2, "b\\n": 3}', 'the key "b\\n" stands twice in one object'),
        (b'{"a": {"b": 1, "b": 1}}', 'the key "b" stands twice in one object'),
    ],
)
def test_parse_refuses(text, cause):
    assert refused(text).cause == cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"[1,]", "line 1 column "),
        (b'{"a": 1,}', "line 1 column "),
        (b"{1: 2}", "line 1 column 2: "),
    ],
)
def test_parse_has_the_same_words_with_every_python(text, cause):
    assert refused(text).cause.startswith(cause)


def test_parse_works_again_after_a_refusal():
    refused(b'{"a": [')
    assert parse(b'{"a": 1}', "config.json") == {"a": 1}


@given(JSON, st.data())
@calmly
def test_parse_accepts_only_what_json_accepts(value, data):
    text = render(value)
    at = data.draw(st.integers(0, len(text)))
    spoilt = text[:at] + data.draw(st.sampled_from(["", ",", "}", "]", '"', "1", "\\", "NaN"])) + text[at + 1 :]
    try:
        parsed = parse(spoilt.encode(), "x")
    except RootlessError as error:
        assert str(error).isprintable()  # noqa: PT017 - refusing is one of two right answers
    else:
        assert parsed == json.loads(spoilt)


@given(st.binary())
@calmly
def test_parse_never_fails_otherwise(text):
    try:
        parse(text, "x")
    except RootlessError as error:
        assert str(error).isprintable()  # noqa: PT017 - refusing is one of two right answers


@given(JSON, st.sampled_from([None, 2, 4]))
@calmly
def test_parse_reads_rendered_json(value, indent):
    assert parse(render(value, indent).encode(), "x") == value


@given(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | st.text(),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=20,
    ),
)
@calmly
def test_render_agrees_with_json(value):
    assert render(value, None) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert render(value, 2) == json.dumps(value, ensure_ascii=False, indent=2)


def test_render_lays_out_as_go_does():
    value = {"id": "c1", "pid": 0, "none": [], "nothing": {}, "list": ["a", None, True], "deep": {"x": 1.5}}
    assert render(value) == (
        "{\n"
        '  "id": "c1",\n'
        '  "pid": 0,\n'
        '  "none": [],\n'
        '  "nothing": {},\n'
        '  "list": [\n'
        '    "a",\n'
        "    null,\n"
        "    true\n"
        "  ],\n"
        '  "deep": {\n'
        '    "x": 1.5\n'
        "  }\n"
        "}"
    )
    assert render(value, None) == ('{"id":"c1","pid":0,"none":[],"nothing":{},"list":["a",null,true],"deep":{"x":1.5}}')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("é\u2028", '"é\u2028"'),
        ('\0\n\t"\\\x7f', '"\\u0000\\n\\t\\"\\\\\x7f"'),
        ("\udc80é", '"\\udc80é"'),
        ({"\ud800": 1}, '{"\\ud800":1}'),
        ((1, ()), "[1,[]]"),
        (True, "true"),
        (-(2**70), "-1180591620717411303424"),
        (1e300, "1e+300"),
    ],
)
def test_render_writes(value, text):
    assert render(value, None) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_render_refuses_numbers_outside_json(value):
    with pytest.raises(ValueError, match="no counterpart"):
        render([value])


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_render_refuses_types_outside_json(value):
    with pytest.raises(TypeError, match="no counterpart"):
        render([value])


def test_render_refuses_keys_that_are_not_strings():
    with pytest.raises(TypeError):
        render({1: 2})


def run_alone(program):
    """Run lines of Python in a new interpreter, which unlike this one has imported nothing yet."""
    found = f"import sys; sys.path.insert(0, {str(Path(rootless.__file__).parents[1])!r})\n"
    command = [sys.executable, "-I", "-S", "-c", found + program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "text", [b'{"a" 1}', b"[1 2]", b'["', b'["\\x"]', b'{"a":', b"?", b'{"a": 1, "a": 2}', b"[" * 100_000]
)
def test_a_fresh_interpreter_refuses_alike(text):
    program = (
        "from rootless.jsontext import RootlessError, parse\n"
        "assert 'json' not in sys.modules\n"
        f"try: parse({text!r}, 'config.json')\n"
        "except RootlessError as error: sys.stdout.buffer.write(str(error).encode())\n"
    )
    assert run_alone(program) == str(refused(text))


def test_importing_costs_little():
    """Every create reads and checks JSON: this must not import modules that cost as much as Python's start."""
    program = (
        "import rootless.bundle.check\n"
        "from rootless.jsontext import parse, render\n"
        "render(parse(b'[1, 2.5, {}]', 'x'))\n"
        "print(*sys.modules)"
    )
    modules = run_alone(program).split()
    dear = {"json", "re", "typing", "enum", "dataclasses", "collections", "functools", "contextlib", "math"}
    assert "rootless.bundle.check_linux" in modules
    assert not dear.intersection(modules)
