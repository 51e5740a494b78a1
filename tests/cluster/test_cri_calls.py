"""The calls of the CRI that docs/cluster.md names are those that tests make."""

from __future__ import annotations

from pathlib import Path

from tests.lib.accounts import CHECKOUT


def test_documented_calls_are_tested(cri_modules):
    api, _ = cri_modules
    services = api.DESCRIPTOR.services_by_name.values()
    names = {method.name for service in services for method in service.methods}
    files = [CHECKOUT / "tests/lib/cri.py", *Path(__file__).parent.glob("test_cri*.py")]
    sources = "".join(path.read_text() for path in files)
    called = {name for name in names if f'"{name}"' in sources}
    text = (CHECKOUT / "docs/cluster.md").read_text()
    assert called == {name for name in names if f"`{name}`" in text}
    assert f"{len(called)} calls of the API" in text
