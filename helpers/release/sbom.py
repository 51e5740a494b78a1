"""The software bill of materials of a release, in the format of CycloneDX 1.6.

It lists the static programs of the wheel, the libraries linked into them, the compiler, and the Python packages
that install.sh installs, with the hashes that it accepts.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+)(?: ; (?P<marker>.*))?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def bill_of_materials(
    *,
    version: str,
    epoch: int,
    wheel: tuple[str, str],
    programs: Mapping[str, str],
    linked: Mapping[str, str],
    requirements: Mapping[str, str],
) -> dict[str, Any]:
    """Return the document as JSON data.

    Args:
        version: rootless's.
        epoch: the time of the release, in seconds since 1970.
        wheel: the file's name and its SHA-256 hash.
        programs: the hash of each static program, by its path in the wheel.
        linked: the version of each library that is linked into the programs, by its name.
        requirements: the content of the lists in helpers/requirements, by the name of the list.
    """
    root = f"pkg:pypi/rootless@{version}"
    needed = list(_packages(requirements["run"], "required"))
    tools = [*_packages(requirements["build"], "excluded"), *_packages(requirements["zig"], "excluded")]
    libraries = [_component("library", name, linked[name], f"pkg:generic/{name}@{linked[name]}") for name in linked]
    files = [
        _component("application", path, version, f"{root}#{path}") | {"hashes": _hashes([programs[path]])}
        for path in sorted(programs)
    ]
    depends = {root: [each["bom-ref"] for each in (*needed, *files)]}
    depends |= {each["bom-ref"]: [library["bom-ref"] for library in libraries] for each in files}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{root}#{wheel[1]}").urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z"),
            "component": _component("application", "rootless", version, root)
            | {
                "purl": root,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "externalReferences": [{"type": "distribution", "url": wheel[0], "hashes": _hashes([wheel[1]])}],
            },
        },
        "components": [*files, *libraries, *needed, *tools],
        "dependencies": [{"ref": ref, "dependsOn": depends[ref]} for ref in depends],
    }


def pins(text: str) -> Iterator[tuple[re.Match[str], list[str]]]:
    """Yield the pins of a list of requirements, as matches of `_PIN`, each with its SHA-256 hashes."""
    for line in text.replace("\\\n", " ").splitlines():
        requirement = line.partition(" --hash")[0].strip()
        if match := _PIN.fullmatch(requirement):
            yield match, _HASH.findall(line)
        elif requirement and not requirement.startswith("#"):
            raise ValueError(f"{requirement!r} is not pinned")


def _packages(text: str, scope: str) -> Iterator[dict[str, Any]]:
    """Yield the components of a list of requirements; `excluded` are tools, which are not in the wheel."""
    for match, hashes in pins(text):
        purl = f"pkg:pypi/{match['name']}@{match['version']}"
        found = _component("library", match["name"], match["version"], purl)
        found |= {"purl": purl, "scope": scope}
        found["externalReferences"] = [{"type": "distribution", "url": purl, "hashes": _hashes(hashes)}]
        if match["marker"]:
            found["properties"] = [{"name": "rootless:marker", "value": match["marker"]}]
        yield found


def _component(kind: str, name: str, version: str, ref: str) -> dict[str, Any]:
    return {"type": kind, "bom-ref": ref, "name": name, "version": version}


def _hashes(found: Sequence[str]) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": each} for each in found]
