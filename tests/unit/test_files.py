"""Files are created and replaced atomically, without leftovers."""

from __future__ import annotations

import os

import pytest

from rootless import files

WAYS = (files.put, files._put_by_rename)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_is_made_and_replaced(tmp_path, way):
    os.umask(0o022)
    for content in (b"first", b"", b"x" * 100_000):
        way(str(tmp_path / "file"), content, 0o640)
        assert (tmp_path / "file").read_bytes() == content
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("way", WAYS)
def test_a_name_in_the_current_directory(tmp_path, monkeypatch, way):
    monkeypatch.chdir(tmp_path)
    way("file", b"content", 0o600)
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("way", WAYS)
def test_failed_replacement_leaves_the_old_file_only(tmp_path, way):
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        way(str(tmp_path / "directory"), b"content", 0o600)
    assert os.listdir(tmp_path) == ["directory"]


def test_symlink_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    files.put(str(tmp_path / "link"), b"new", 0o600)
    assert (tmp_path / "target").read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()
