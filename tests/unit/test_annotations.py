"""Annotations of runc and crun: docs/annotations.md agrees with the planner."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless.plan import unsupported
from rootless.plan.context import ADAPTED, UNSUPPORTED
from tests.lib.bundles import base_config
from tests.unit.planning import notes, plan_for, refused

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ROWS = [
    [cell.strip(" `") for cell in line.strip().strip("|").split("|")]
    for line in (CHECKOUT / "docs/annotations.md").read_text().splitlines()
    if line.startswith("| `")
]


def annotated(**annotations):
    return base_config() | {"annotations": annotations}


@pytest.mark.parametrize(("name", "told"), [(name, told) for name, _, told, _ in ROWS])
def test_table_agrees_with_the_planner(name, told):
    where = f'annotations["{name}"]'
    if told == "refused":
        error = refused(annotated(**{name: "x"}))
        assert (error.code, error.where) == ("RL-ANNOTATION", where)
        return
    if name == "run.oci.mount_context_type":
        return  # it needs a host with SELinux: test_plan_rare.py
    plan = plan_for(annotated(**{name.replace("*", "Nice"): "x"}))
    assert list(notes(plan, UNSUPPORTED)) == ([where] if told == "noted" else [])
    if told == "honoured":
        sources = "".join(path.read_text() for path in (CHECKOUT / "rootless").rglob("*.py"))
        assert f'"{name.removesuffix("*")}"' in sources


def test_table_is_complete():
    assert {name for name, _, told, _ in ROWS if told == "refused"} == set(unsupported.REFUSED)
    assert {name for name, _, told, _ in ROWS if told == "noted"} == set(unsupported.NOTED)


def test_empty_annotation_is_ignored():
    """For example run.oci.systemd.subgroup, for which crun then uses no subgroup."""
    assert (
        notes(plan_for(annotated(**dict.fromkeys((*unsupported.REFUSED, *unsupported.NOTED), ""))), UNSUPPORTED) == {}
    )


def test_a_property_of_a_unit_is_honoured_by_systemd():
    config = annotated(**{"org.systemd.property.Nice": "uint64 5"})
    plan = plan_for(config, {"user_manager": "/run/user/1000"}, systemd_cgroup=True)
    assert [each.name for each in plan.cgroup.properties] == ["Nice"]
    where = 'annotations["org.systemd.property.Nice"]'
    assert where not in notes(plan)
    assert "no effect" in notes(plan_for(config), ADAPTED)[where]
