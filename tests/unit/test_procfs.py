"""Parsing of /proc: the lines of proc(5), cgroups(7) and user_namespaces(7) on which decisions depend."""

from __future__ import annotations

import os
import resource

import pytest

from rootless import procfs


@pytest.fixture
def cgroup_file(monkeypatch):
    """Replace /proc/PID/cgroup by a text."""

    def replace(text):
        monkeypatch.setattr(procfs, "text_of", lambda path: text if path == "/proc/7/cgroup" else "")

    return replace


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("0::/user.slice", "/user.slice", True),
        ("12:name=systemd:/x\n4:memory:/y\n0::/z:with:colons", "/z:with:colons", True),
        ("1:name=systemd:/only/v1", "", False),
        ("0::/", "/", True),
        ("0::/../beside", "/../beside", False),
        ("0::/..", "/..", False),
        ("0::/..name", "/..name", True),
        ("", "", False),
    ],
)
def test_the_cgroup_of_a_process(cgroup_file, text, path, shown):
    cgroup_file(text)
    assert (procfs.cgroup(7), procfs.is_shown(procfs.cgroup(7))) == (path, shown)


def test_controllers_of_cgroup_v1_keep_their_order(cgroup_file):
    cgroup_file("3:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/c")
    assert procfs.cgroups(7) == [("cpu,cpuacct", "/a:b"), ("name=systemd", "/"), ("", "/c")]


def test_own_status_ids_and_limits():
    status = procfs.status("self")
    assert status["Pid"] == str(os.getpid())
    assert status["Uid"].split()[1] == str(os.geteuid())
    uids, gids = procfs.id_maps(os.getpid())
    assert any(first <= os.geteuid() < first + count for first, _, count in uids)
    assert any(first <= os.getegid() < first + count for first, _, count in gids)
    limits = procfs.hard_limits("self")
    assert limits[resource.RLIMIT_NOFILE] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def test_ended_process_has_no_properties():
    assert procfs.status(0) == {}
    assert procfs.cgroup(0) == ""
    assert procfs.hard_limits(0) == {}
    assert procfs.id_maps(0) == ((procfs.ALL_IDS,), (procfs.ALL_IDS,))
    assert not procfs.denies_setgroups(0)
