"""The ids of a container: ID maps, subordinate ids, and the facts from which they are computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless.errors import RootlessError
from rootless.host import facts as host_facts
from rootless.host import subids
from rootless.host.facts import Facts
from rootless.plan import ops
from rootless.plan.idmaps import id_maps, usable
from tests.unit.planning import (
    NESTED,
    ROOT,
    SINGLE,
    base_config,
    notes,
    plan_for,
    refused,
    the,
)

# --- Id maps ----------------------------------------------------------------------------------------------------------


def maps_for(mode="", linux=None, program=None, **facts):
    return id_maps(linux or {}, {"user": program or {}}, Facts(**facts), mode)


def test_own_id_is_root_and_subordinate_ids_follow():
    maps, adapted, shortcoming = maps_for()
    assert maps.uids == maps.gids == ((0, 1000, 1), (1, 100000, 65536))
    assert (maps.uid_program, maps.gid_program) == ("/usr/bin/newuidmap", "/usr/bin/newgidmap")
    assert not maps.deny_setgroups
    assert not adapted
    assert not shortcoming


def test_all_ranges_are_mapped_in_their_order():
    maps, _, _ = maps_for(subuids=((500000, 10), (100000, 20)), subgids=((7, 3),))
    assert maps.uids == ((0, 1000, 1), (1, 500000, 10), (11, 100000, 20))
    assert maps.gids == ((0, 1000, 1), (1, 7, 3))


@pytest.mark.parametrize(
    ("own", "ranges", "lines"),
    [
        (1000, ((100000, 65536),), ((0, 100000, 1000), (1000, 1000, 1), (1001, 101000, 64536))),
        (5, ((100, 3), (200, 10)), ((0, 100, 3), (3, 200, 2), (5, 5, 1), (6, 202, 8))),
        (3, ((100, 3), (200, 10)), ((0, 100, 3), (3, 3, 1), (4, 200, 10))),
        (70000, ((100000, 65536),), ((0, 100000, 65536), (70000, 70000, 1))),
        (65536, ((100000, 65536),), ((0, 100000, 65536), (65536, 65536, 1))),
        (0, ((100000, 2),), ((0, 0, 1), (1, 100000, 2))),
    ],
)
def test_keep_id_keeps_the_callers_id(own, ranges, lines):
    maps, _, _ = maps_for("keep-id", uid=own, subuids=ranges)
    assert maps.uids == lines


@pytest.mark.parametrize(
    ("ranges", "own", "held", "left"),
    [
        (((100000, 65536), (100000, 65536)), 1000, ((0, 0, 4294967295),), ((100000, 65536),)),
        (((100, 10), (105, 10)), 1, ((0, 0, 4294967295),), ((100, 10), (110, 5))),
        (((105, 10), (100, 20)), 1, ((0, 0, 4294967295),), ((105, 10), (100, 5), (115, 5))),
        (((990, 20),), 1000, ((0, 0, 4294967295),), ((990, 10), (1001, 9))),
        (((100000, 65536),), 1000, ((0, 1000, 1), (1, 100000, 65536)), ()),
        (((60000, 65536),), 1000, ((0, 1000, 1), (1, 100000, 65536)), ((60000, 5537),)),
        (((4294967290, 100),), 1000, ((0, 0, 4294967295),), ((4294967290, 5),)),
        (((1, 10),), 1000, ((5, 0, 2), (9, 50, 9)), ((5, 2), (9, 2))),
    ],
)
def test_mappable_part_of_subordinate_ranges(ranges, own, held, left):
    assert usable(ranges, own, held) == left


def test_id_maps_have_at_most_340_lines():
    ranges = tuple((100000 + 2 * number, 1) for number in range(400))
    for mode in ("", "keep-id"):
        maps, _, _ = maps_for(mode, subuids=ranges, uid=100)
        assert 300 < len(maps.uids) <= 340


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (dict(subuids=(), subgids=()), "/etc/subuid has no range for user; fix, as root: usermod --add-subuids"),
        (dict(subgids=()), "/etc/subgid has no range for user"),
        (dict(id_programs=()), "newuidmap and newgidmap are not installed; fix: apt install uidmap"),
        (dict(uid_map=((0, 1000, 1),)), "the user namespace that user is in does not have the ids of /etc/subuid"),
    ],
)
def test_without_subordinate_ids_the_own_id_is_the_only_one(facts, told):
    maps, _, shortcoming = maps_for(program={"uid": 33, "gid": 34}, **({"uid_map": ((0, 0, 4294967295),)} | facts))
    assert maps.uids == ((33, 1000, 1),)
    assert maps.gids == ((34, 1000, 1),)
    assert (maps.uid_program, maps.gid_program) == ("", "")
    assert maps.deny_setgroups
    assert told in shortcoming


@pytest.mark.parametrize("caller", [{}, ROOT])
def test_single_is_the_own_id_as_root(caller):
    maps, _, shortcoming = maps_for("single", program={"uid": 33}, **caller)
    assert maps.uids == maps.gids == ((0, caller.get("uid", 1000), 1),)
    assert maps.uid_program == ""
    assert maps.deny_setgroups == (not caller)
    assert not shortcoming


def test_mappings_of_config_json_are_used_when_they_are_the_callers():
    lines = {
        "uidMappings": [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100005, "size": 100},
        ],
        "gidMappings": [{"containerID": 7, "hostID": 1000, "size": 1}],
    }
    maps, adapted, _ = maps_for(linux=lines)
    assert maps.uids == ((0, 1000, 1), (1, 100005, 100))
    assert maps.gids == ((7, 1000, 1),)
    assert maps.uid_program
    assert not maps.gid_program
    assert maps.deny_setgroups
    assert maps.source == "config.json"
    assert not adapted


@pytest.mark.parametrize(
    "lines",
    [
        [{"containerID": 0, "hostID": 0, "size": 65536}],
        [{"containerID": 0, "hostID": 1000, "size": 2}],
        [{"containerID": 0, "hostID": 99999, "size": 10}],
        [{"containerID": 0, "hostID": 165530, "size": 10}],
    ],
)
def test_mappings_of_others_are_replaced_by_the_callers_own(lines):
    maps, adapted, _ = maps_for(linux={"uidMappings": lines, "gidMappings": lines})
    assert maps.uids == ((0, 1000, 1), (1, 100000, 65536))
    assert adapted.startswith(
        "linux.uidMappings and gidMappings name IDs that are not yours: your own are mapped instead: "
        "uids 0 is 1000, 1-65536 is 100000-165535 (not 0-"
    )
    assert "; gids 0 is 1000, 1-65536 is 100000-165535 (not " in adapted


def test_root_gets_the_mappings_that_it_asks_for():
    lines = [{"containerID": 0, "hostID": 5000, "size": 65536}]
    maps, adapted, _ = maps_for(linux={"uidMappings": lines, "gidMappings": lines}, **ROOT)
    assert maps.uids == ((0, 5000, 65536),)
    assert (maps.uid_program, maps.deny_setgroups) == ("", False)
    assert not adapted


def test_mappings_of_one_kind_only_are_not_used():
    lines = [{"containerID": 0, "hostID": 1000, "size": 1}]
    maps, adapted, _ = maps_for(linux={"uidMappings": lines})
    assert maps.uids == ((0, 1000, 1), (1, 100000, 65536))
    assert "belong together" in adapted
    assert adapted.endswith(
        ": uids 0 is 1000, 1-65536 is 100000-165535 (not 0 is 1000); gids 0 is 1000, 1-65536 is 100000-165535 (not any)"
    )


def test_mappings_that_the_flag_replaces_are_noted():
    lines = [{"containerID": 0, "hostID": 1000, "size": 1}]
    _, adapted, _ = maps_for(linux={"uidMappings": lines, "gidMappings": lines}, mode="keep-id")
    assert adapted.startswith("--userns keep-id replaces linux.uidMappings and gidMappings: uids 0-999 is ")


def test_mappings_without_newuidmap_are_refused():
    lines = [{"containerID": 0, "hostID": 100000, "size": 1}]
    with pytest.raises(RootlessError, match="newuidmap and newgidmap are not installed") as caught:
        maps_for(linux={"uidMappings": lines, "gidMappings": lines}, id_programs=())
    assert caught.value.code == "RL-IDMAP-PROGRAMS"


@pytest.mark.parametrize(("caller", "lines"), [(ROOT, ((0, 0, 4294967295),)), (NESTED, ((0, 0, 1), (1, 1, 65536)))])
def test_root_maps_its_ids_onto_themselves(caller, lines):
    maps, adapted, _ = maps_for(**caller)
    assert maps.uids == lines
    assert "onto themselves" in adapted


def test_unmapped_user_is_refused_with_the_mapped_ids():
    config = base_config()
    config["process"]["user"] = {"uid": 70000, "gid": 0}
    error = refused(config)
    assert error.where == "process.user.uid"
    assert "it has 0 to 0, 1 to 65536" in str(error)
    config["process"]["user"] = {"uid": 5, "gid": 7}
    error = refused(config, userns="single")
    assert (error.where, error.code) == ("process.user.uid", "RL-IDMAP-UNMAPPED")
    config["process"]["user"] = {"uid": 0, "gid": 7}
    assert refused(config, SINGLE | {"id_programs": ()}, userns="single").where == "process.user.gid"


def test_keep_id_runs_the_program_as_the_caller():
    plan = plan_for(userns="keep-id")
    assert the(plan, ops.IDS).numbers == (1000, 1000)
    assert "as you: --userns keep-id" in notes(plan)["process.user"]
    config = base_config()
    config["process"]["user"] = {"uid": 33, "gid": 33}
    assert the(plan_for(config, userns="keep-id"), ops.IDS).numbers == (33, 33)


# --- The host ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("user:100000:65536\n", ((100000, 65536),)),
        ("other:1:2\nuser:100000:65536\n1000:5:6\n", ((100000, 65536), (5, 6))),
        ("  user:7:8  \n", ((7, 8),)),
        ("user:x:8\nuser:7\nuser:7:0\nuser:7:-1\n\n#user:1:1\nuser:9:10:11\n", ()),
        ("user2:1:1\nuse:1:1\n10001:1:1\n", ()),
        ("", ()),
    ],
)
def test_subordinate_ranges(text, ranges):
    assert subids.parse(text, "user", 1000) == ranges


def test_getsubids_is_read(tmp_path):
    program = tmp_path / "getsubids"
    program.write_text(
        "#!/bin/sh\n"
        "[ \"$1\" = -g ] && echo '0: user 300000 10' && exit\n"
        "echo '0: user 100000 65536'\n"
        "echo '1: user 5 6'\n"
    )
    program.chmod(0o755)
    assert subids._ask(str(program), "user") == ((100000, 65536), (5, 6))
    assert subids._ask(str(program), "-g", "user") == ((300000, 10),)


def test_failing_getsubids_yields_no_ranges(tmp_path):
    program = tmp_path / "getsubids"
    program.write_text("#!/bin/sh\necho 'Error fetching ranges' >&2\nexit 1\n")
    program.chmod(0o755)
    assert subids._ask(str(program), "user") == ()


def test_programs_are_found_in_the_usual_places_then_on_path(tmp_path, monkeypatch):
    (tmp_path / "only-here").write_text("")
    (tmp_path / "only-here").chmod(0o755)
    (tmp_path / "env").write_text("")
    (tmp_path / "env").chmod(0o755)
    monkeypatch.setenv("PATH", f"relative:{tmp_path}")
    assert subids.find_program("only-here") == f"{tmp_path}/only-here"
    assert subids.find_program("env") == "/usr/bin/env"
    assert subids.find_program("nowhere") == ""


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.0-18-amd64", (6, 1)),
        ("5.12", (5, 12)),
        ("6.18+", (6, 18)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15)),
        ("6.12-rc1", (6, 12)),
    ],
)
def test_kernel_version(release, version):
    assert host_facts.kernel_version(release) == version


def test_facts_of_this_process():
    import os
    import resource

    facts = host_facts.read()
    assert (facts.uid, facts.gid) == (os.geteuid(), os.getegid())
    assert facts.hard_limits[resource.RLIMIT_NOFILE] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert facts.kernel >= (5, 12)
    assert facts.nested == (Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"])
    assert 37 <= facts.last_capability <= 63
    assert facts.user


def test_unknown_fact_is_an_error():
    with pytest.raises(AttributeError):
        Facts(uidd=5)
