"""The user's directories: those of platformdirs, unless a variable is relative or, for root, of another user."""

from __future__ import annotations

import os
import pwd

import platformdirs
import pytest

from rootless import xdg


@pytest.fixture
def environ(monkeypatch, tmp_path):
    """Set variables to directories below a new directory of the caller; return that."""

    def put(**variables):
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delitem(xdg.paths.posix.environ, name.encode(), raising=False)
        for name, value in variables.items():
            path = value.replace("TMP", str(tmp_path))
            monkeypatch.setenv(name, path)
            monkeypatch.setitem(xdg.paths.posix.environ, name.encode(), path.encode())
        return tmp_path

    return put


@pytest.mark.parametrize(
    "variables",
    [
        {"HOME": "TMP"},
        {"HOME": "TMP", "XDG_CONFIG_HOME": ""},
        {"HOME": "TMP", "XDG_DATA_HOME": "TMP/data"},
        {"HOME": "TMP", "XDG_CONFIG_HOME": "TMP/other"},
        {"HOME": "TMP/not there", "XDG_CONFIG_HOME": "TMP/a/b/c"},
        {"HOME": "TMP", "XDG_RUNTIME_DIR": "TMP/run", "XDG_CONFIG_HOME": "TMP/ü"},
    ],
)
def test_directories_equal_those_of_platformdirs(environ, variables):
    environ(**variables)
    assert xdg.config() == platformdirs.user_config_dir()
    assert xdg.data() == platformdirs.user_data_dir()
    assert xdg.state(os.environ["HOME"]) == platformdirs.user_state_dir()
    if "XDG_RUNTIME_DIR" in variables:
        assert xdg.runtime() == platformdirs.user_runtime_dir()


def test_a_relative_path_is_ignored(environ):
    home = environ(HOME="TMP", XDG_CONFIG_HOME="config", XDG_RUNTIME_DIR="run")
    assert (xdg.config(), xdg.runtime()) == (f"{home}/.config", "")


def test_without_a_home_there_is_no_configuration(environ, monkeypatch):
    monkeypatch.setattr(xdg.posix, "geteuid", lambda: 1000)
    environ()
    assert (xdg.config(), xdg.runtime()) == ("", "")


def test_the_homes_of_a_user(environ):
    home = environ(HOME="TMP")
    account = pwd.getpwuid(os.geteuid()).pw_dir
    assert xdg.homes(os.geteuid()) == (account, str(home))
    assert xdg.homes(2**31 - 3) == ("", str(home))


def test_root_ignores_the_directories_of_another_user(environ, monkeypatch):
    monkeypatch.setattr(xdg.posix, "geteuid", lambda: 0)
    theirs = os.stat_result((0o40755, 0, 0, 1, 1000, 1000, 0, 0, 0, 0))
    monkeypatch.setattr(xdg.posix, "stat", lambda _: theirs)
    environ(HOME="TMP", XDG_CONFIG_HOME="TMP/config")
    assert xdg.config() == f"{pwd.getpwuid(0).pw_dir}/.config"
