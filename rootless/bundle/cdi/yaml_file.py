"""YAML as the data that the same text in JSON would be. Imported only if a spec is written in YAML.

PyYAML's C parser reads a spec in milliseconds. Its syntax is that of YAML 1.1, as in the Go package of other runtimes:
``fileMode: 0660`` is octal in both. ruamel.yaml was rejected: in YAML 1.2 the same digits are a decimal number.
"""

from __future__ import annotations

import yaml
from yaml.constructor import SafeConstructor

from rootless.bundle.schema import Invalid

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_LEVELS = 32
_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    f"{_TAG}null": SafeConstructor.construct_yaml_null,
    f"{_TAG}bool": SafeConstructor.construct_yaml_bool,
    f"{_TAG}int": SafeConstructor.construct_yaml_int,
    f"{_TAG}float": SafeConstructor.construct_yaml_float,
}
"""How scalars are read; any other is text, also a date."""


def parse_yaml(text: bytes) -> object:
    """Return the value of a YAML document.

    Aliases are refused, with which a short text stands for a very long one, and so are keys that stand twice.

    Raises:
        Invalid: it is not YAML, or something that JSON does not have.
    """
    try:
        root = yaml.compose(text.decode(), _LOADER)
        return _value(root, set(), 0)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1} column {mark.column + 1}: " if mark else ""
        raise Invalid(f"{place}{getattr(error, 'problem', None) or error}", "correct it there") from None
    except RecursionError:
        raise Invalid("it is nested too deeply", "flatten it") from None


def _value(node: yaml.Node | None, seen: set[int], level: int) -> object:
    if node is None:
        return None
    if id(node) in seen:
        raise _at(node, "it has an alias (*name)", "write out what it stands for")
    if level > _MOST_LEVELS:
        raise _at(node, "it is nested too deeply", "flatten it")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, seen, level + 1) for each in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[object, object] = {}
        for key_node, value_node in node.value:
            key = _value(key_node, seen, level + 1)
            if not isinstance(key, str):
                raise _at(key_node, "this key is not text", "put it in quotes")
            if key in found:
                raise _at(key_node, f"the key {key!r} stands twice in one object", "remove one of the two")
            found[key] = _value(value_node, seen, level + 1)
        return found
    return _scalar(node)


def _scalar(node: yaml.Node) -> object:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
        return str(node.value)
    try:
        return _SCALARS[node.tag](SafeConstructor(), node)
    except (ValueError, LookupError):  # the tag, such as !!bool, is written out
        raise _at(node, f"it is no {node.tag.removeprefix(_TAG)}", "correct it there") from None


def _at(node: yaml.Node, cause: str, fix: str) -> Invalid:
    return Invalid(f"line {node.start_mark.line + 1} column {node.start_mark.column + 1}: {cause}", fix)
