"""The log: the format that podman and containerd read, and the output for people."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless import log
from rootless.errors import RootlessError

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(log, "_log", log._Log())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "log"


def configure(path="", *, as_json=True, level="warning"):
    log.configure(str(path), as_json=as_json, level=level)


def an_error():
    return RootlessError(
        "mounts[3]: mount tmpfs on /data",
        cause="Permission denied",
        where="mounts[3]",
        fix="drop it",
        code="RL-MOUNT",
    )


def test_a_failure_is_one_object_with_the_warnings_inside(file, capfd):
    configure(file)
    log.warning("memory limit not kept", where="linux.resources.memory.limit", code="RL-LIMIT")
    log.debug("not told")
    assert file.read_text() == ""
    log.fail(an_error())
    log.flush()
    record = json.loads(file.read_text())
    warning = record.pop("warnings")[0]
    assert RFC3339.fullmatch(record.pop("time"))
    line = "mounts[3]: mount tmpfs on /data: Permission denied (config.json: mounts[3]); fix: drop it"
    assert record == {
        "level": "error",
        "msg": line,
        "code": "RL-MOUNT",
        "what": "mounts[3]: mount tmpfs on /data",
        "where": "mounts[3]",
        "cause": "Permission denied",
        "fix": "drop it",
    }
    assert warning["msg"] == "memory limit not kept (config.json: linux.resources.memory.limit)"
    assert (warning["level"], warning["code"]) == ("warning", "RL-LIMIT")
    assert capfd.readouterr().err == f"rootless: {line}\n"


def test_a_success_is_one_object_per_warning(file, capfd):
    configure(f"file:{file}")
    log.warning("one")
    log.info("not told")
    log.warning("two", fix="that")
    log.flush()
    log.flush()
    assert [json.loads(line)["msg"] for line in file.read_text().splitlines()] == ["one", "two; fix: that"]
    assert capfd.readouterr().err == ""


def test_several_commands_append_to_one_file(file):
    for what in ("first", "second"):
        configure(file)
        log.fail(RootlessError(what))
    assert [json.loads(line)["msg"] for line in file.read_text().splitlines()] == ["first", "second"]


def test_debug_writes_at_once(file):
    configure(file, level="debug")
    log.debug("mount", source="proc", flags=14, paths=["a", None], read_only=True)
    record = json.loads(file.read_text())
    fields = {"level": "debug", "msg": "mount", "source": "proc", "flags": 14, "paths": ["a", None], "read_only": True}
    assert record == {**fields, "time": record["time"]}


def test_text_is_what_logrus_writes(file):
    configure(file, as_json=False)
    log.warning('say "x"\nor y', code="RL-X")
    log.fail(RootlessError("no"))
    warning, error = file.read_text().splitlines()
    assert re.fullmatch(r'time="[^"]*" level=warning msg="say \\"x\\"\\\\nor y" code="RL-X"', warning)
    assert re.fullmatch(r'time="[^"]*" level=error msg="no" code="RL-FAILED" what="no"', error)


def test_without_a_file_people_read_standard_error(capfd):
    log.warning("limits\nare not kept")
    log.info("not told")
    log.fail(RootlessError("no", cause="because"))
    log.flush()
    assert capfd.readouterr().err == "rootless: warning: limits\\nare not kept\nrootless: no: because\n"


def test_without_a_file_json_goes_to_standard_error_and_nothing_else_does(capfd):
    configure()
    log.warning("one")
    log.fail(RootlessError("no"))
    record = json.loads(capfd.readouterr().err)
    assert (record["msg"], record["warnings"][0]["msg"]) == ("no", "one")


@pytest.mark.parametrize(("level", "told"), [("error", []), ("warning", ["w"]), ("info", ["i", "w"])])
def test_levels(file, level, told):
    configure(file, level=level)
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.flush()
    assert [json.loads(line)["msg"] for line in file.read_text().splitlines()] == told


def test_a_terminal_gets_messages_even_with_a_file(file):
    ours, theirs = os.openpty()
    saved = os.dup(2)
    try:
        os.dup2(theirs, 2)
        configure(file)
        log.warning("limits")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert os.read(ours, 100) == b"rootless: warning: limits\r\n"
    os.close(theirs)
    os.close(ours)


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/nowhere/log", "No such file or directory"),
        ("file:/", "Is a directory"),
        ("journald:x", "logs are written to files only"),
        ("syslog:x", "logs are written to files only"),
    ],
)
def test_a_log_that_cannot_be_written_is_refused_at_once(path, cause, capfd):
    with pytest.raises(RootlessError) as caught:
        configure(path)
    assert caught.value.cause == cause
    assert caught.value.code == "RL-LOG"
    log.fail(caught.value)
    assert cause in capfd.readouterr().err


def test_a_log_that_breaks_later_does_not_hide_the_error(tmp_path, capfd):
    directory = tmp_path / "d"
    directory.mkdir()
    configure(directory / "log", as_json=False)
    (directory / "log").unlink()
    directory.rmdir()
    log.fail(RootlessError("no"))
    assert capfd.readouterr().err == (
        f"rootless: no\nrootless: warning: --log: write {directory}/log: No such file or directory\n"
    )


def test_a_relative_path_is_that_of_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configure("log")
    monkeypatch.chdir("/")
    log.fail(RootlessError("no"))
    assert json.loads((tmp_path / "log").read_text())["msg"] == "no"


@given(st.text(st.characters(exclude_categories=[])))
def test_any_message_is_one_json_line_and_one_text_line(text):
    record = log._record("warning", text, {"field": text})
    line = log._json(record)
    assert json.loads(line) == record
    assert line.isascii()
    assert line.isprintable()
    assert log._text(record).isprintable()


def test_the_first_second_of_1970_is_a_time():
    assert log.timestamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert log.timestamp(1.5) == "1970-01-01T00:00:01.500000000Z"
    assert RFC3339.fullmatch(log.timestamp())
