"""The Container Device Interface as a table, and the grammar of its names.

Source: SPEC.md of github.com/cncf-tags/container-device-interface, version 1.1.0.
"""

from __future__ import annotations

from rootless.bundle.check import HOOK_KINDS
from rootless.bundle.check_linux import DEVICE_MAJOR, DEVICE_MINOR, INTEL_RDT_OPTIONS, INTERFACE_NAME
from rootless.bundle.schema import (
    ABSOLUTE_PATH,
    ID,
    PATH,
    STRING,
    STRING_MAP,
    STRINGS,
    UINT32,
    Invalid,
    array,
    boolean,
    distinct,
    integer,
    one_of,
    record,
    string,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "1.0", "1.1")


def parts_of(text: str) -> tuple[str, str]:
    """Return the kind and the device of ``VENDOR/CLASS=NAME``; two empty texts for any other."""
    kind, _, name = text.partition("=")
    return (kind, name) if is_kind(kind) and is_name(name) else ("", "")


def is_kind(text: str) -> bool:
    """Whether `text` is ``VENDOR/CLASS``."""
    vendor, _, kind = text.partition("/")
    return all(_is_word(word, "_-.") and word[0].isalpha() for word in (vendor, kind))


def is_name(text: str) -> bool:
    """Whether `text` is the name of a device."""
    return _is_word(text, "_-.:")


def _is_word(text: str, others: str) -> bool:
    """Whether `text` is of ASCII letters and digits, and of `others` between them."""
    inner = text.translate(dict.fromkeys(map(ord, others)))
    return text.isascii() and inner.isalnum() and text[0].isalnum() and text[-1].isalnum()


def is_bind(mount: dict[str, Any]) -> bool:
    """Whether an element of `mounts` of a spec is a bind mount: so is one without a type."""
    return (mount.get("type") or "bind") == "bind" or not {"bind", "rbind"}.isdisjoint(mount.get("options") or ())


def _from_an_absolute_path(mount: dict[str, Any]) -> None:
    if is_bind(mount) and not mount["hostPath"].startswith("/"):
        cause = "found a relative path, expected an absolute path of the host"
        raise Invalid(cause, "start it with /", ["hostPath"])


_ENVIRONMENT = array(
    string("NAME=value", fix="write NAME=value, or remove it", accepts=lambda text: text.find("=") > 0),
)

_EDITS = record(
    closed=True,
    optional={
        "env": _ENVIRONMENT,
        "deviceNodes": array(
            record(
                closed=True,
                required={"path": ABSOLUTE_PATH},
                optional={
                    "hostPath": ABSOLUTE_PATH,
                    "type": one_of("c b u p", or_empty=True),
                    "major": DEVICE_MAJOR,
                    "minor": DEVICE_MINOR,
                    "fileMode": UINT32,
                    "permissions": string("letters of rwm", accepts=lambda text: not text.strip("rwm")),
                    "uid": ID,
                    "gid": ID,
                },
            ),
        ),
        "netDevices": array(
            record(closed=True, required={"hostInterfaceName": INTERFACE_NAME, "name": INTERFACE_NAME}),
            also=distinct("hostInterfaceName"),
        ),
        "mounts": array(
            record(
                closed=True,
                required={"hostPath": PATH, "containerPath": PATH},
                optional={"options": STRINGS, "type": STRING},
                also=_from_an_absolute_path,
            ),
        ),
        "hooks": array(
            record(
                closed=True,
                required={"hookName": one_of(" ".join(HOOK_KINDS)), "path": ABSOLUTE_PATH},
                optional={"args": STRINGS, "env": _ENVIRONMENT, "timeout": integer(1, 2**31 - 1)},
            ),
        ),
        "additionalGids": array(ID),
        # 1.1 dropped the last two
        "intelRdt": record(closed=True, optional=INTEL_RDT_OPTIONS | {"enableCMT": boolean, "enableMBM": boolean}),
    },
)

SPEC = record(
    closed=True,
    required={
        "cdiVersion": string(
            f"a version from {_VERSIONS[0]}.0 to {_VERSIONS[-1]}.0",
            fix="write a spec of such a version, or update rootless",
            accepts=lambda text: text.rpartition(".")[0] in _VERSIONS and text.rpartition(".")[2].isdecimal(),
        ),
        "kind": string("VENDOR/CLASS", fix="write a name such as vendor.com/device", accepts=is_kind),
        "devices": array(
            record(
                closed=True,
                required={
                    "name": string("the name of a device", fix="write letters and digits", accepts=is_name),
                    "containerEdits": _EDITS,
                },
                optional={"annotations": STRING_MAP},
            ),
            filled=True,
            also=distinct("name"),
        ),
    },
    optional={"annotations": STRING_MAP, "containerEdits": _EDITS},
)
"""An unknown property is an error: it could be an edit that the device needs."""
