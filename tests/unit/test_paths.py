"""rootless.paths, which is used at start-up, agrees with os.path."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootless import paths

PATHS = st.lists(st.sampled_from(["/", "//", "a", "bc", ".", "..", "...", "/a", "../", "\udcff"])).map("".join)


@given(PATHS)
@example("//a")
@example("///a")
@example("")
def test_components_are_those_of_os_path(path):
    assert paths.name(path) == os.path.basename(path)
    assert paths.parent(path) == os.path.dirname(path)
    assert paths.normal(path) == os.path.normpath(path)
    assert paths.absolute(path) == os.path.abspath(path)


@given(PATHS, PATHS)
def test_a_path_is_joined_as_os_path_does(directory, path):
    assert paths.join(directory, path) == os.path.join(directory, path)


def test_a_path_is_resolved_as_os_path_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/../there")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (".", "link", f"{tmp_path}/link/..", "/", "there/", "nowhere", "nowhere/.."):
        assert paths.resolved(path) == os.path.realpath(path)
    assert paths.resolved("dangling") == f"{tmp_path}/dangling"


def test_a_path_that_was_resolved_depends_on_its_components(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    for path, is_known in (("a/b", True), (f"{tmp_path.resolve()}/a//b/", True), ("link/b", False), ("link", False)):
        paths.note_reads()
        paths.resolved(path)
        reads = paths.taken_reads()
        assert all(kind == paths.SYMLINK for kind, *_ in reads) is is_known, path
        assert any(kind == paths.UNKNOWN for kind, *_ in reads) is not is_known, path
    assert not paths.crosses_symlink("link/b", "link")
    assert not paths.crosses_symlink("missing/b")


def test_existing_files_exist(tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (tmp_path, tmp_path / "dangling", tmp_path / "nowhere", "nul\0"):
        assert paths.exists(str(path)) == os.path.exists(path)


@pytest.mark.parametrize("value", ["", "plain", "ünd", "\udcff"])
def test_an_environment_variable_is_read_as_os_environ_has_it(value):
    script = (
        "from rootless.paths import variable; import os; print(variable('V') == os.environ['V'], variable('W') == '')"
    )
    environment = {"V": value, "PYTHONPATH": os.getcwd(), "LC_ALL": "C.UTF-8"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "True True\n", done.stderr
