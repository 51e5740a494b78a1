"""Outputs that depend on the command's name: a symlink to `rootless` with the name runc or crun."""

from __future__ import annotations

import json

import pytest

from tests.lib.bundles import base_config, make_bundle
from tests.lib.containers import Rootless

NAMES = ("rootless", "runc", "crun")
KNOWS = {
    "rootless": "container does not exist",
    "runc": "container does not exist",
    "crun": "/nobody/status`: No such file",
}


@pytest.fixture
def called(user, rootless_command):
    """A function that returns the command under a name, by path and then through PATH."""

    def link(name):
        (user.tmp / name).symlink_to(rootless_command)
        return Rootless(user, str(user.tmp / name))

    return link


@pytest.mark.parametrize("name", NAMES)
def test_self_description_follows_the_name(user, called, name):
    lines = called(name)("--version", check=True).stdout.splitlines()
    program, number = lines[0].split(" version ")
    assert program == name
    expected = {"spec": "1.3.0"}
    if name != "rootless":
        expected["commit"] = f"rootless-{number}"
    if name == "crun":
        assert set(lines.pop().split()) >= {"+CAP", "+SECCOMP"}
        expected["rundir"] = str(user.tmp / "state")
    assert dict(line.split(": ") for line in lines[1:]) == expected
    # dockerd uses the last line with this word
    assert [line for line in lines if "version" in line] == lines[:1]


def test_name_in_the_path_counts(user, called):
    called("crun")
    done = user.run(["sh", "-c", "crun --version"], env={"PATH": f"{user.tmp}:{user.env['PATH']}"}, check=True)
    assert done.stdout.startswith("crun version ")


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_debug_prints_the_lines_of_logrus(user, called, verb):
    """Callers of runc search these lines; each is one operation."""
    bundle = make_bundle(user, base_config("echo", "well"))
    with called("runc") as command:
        words = ["run", "--bundle", bundle, "c1"]
        if verb == "exec":
            command.create("c1", bundle)
            words = ["exec", "c1", "echo", "well"]
        done = command("--debug", *words, check=True)
        assert done.stdout == "well\n"
        lines = [line for line in done.stderr.splitlines() if "  execute echo well: done, " in line]
        assert [line.startswith('time="') and ' level=debug msg="' in line for line in lines] == [True], done.stderr
        done = command("--debug", "--log", user.tmp / "log", *words, check=True)
        assert (done.stdout, done.stderr) == ("well\n", "")
        assert " level=debug msg=" in (user.tmp / "log").read_text()


@pytest.mark.parametrize(("name", "said"), [("rootless", "null\n"), ("runc", "null\n"), ("crun", "[\n]\n")])
def test_the_list_of_no_containers(called, name, said):
    command = called(name)
    assert command("list", "--format", "json", check=True).stdout == said
    assert command("list", "--quiet", check=True).stdout == ""


@pytest.mark.parametrize(("name", "verb_status", "flag_status"), [("rootless", 3, 1), ("runc", 3, 1), ("crun", 1, 64)])
def test_statuses_of_a_wrong_command_line(called, name, verb_status, flag_status):
    command = called(name)
    assert command("nope").returncode == verb_status
    for words in (["list", "--nope"], ["--nope", "list"], ["create", "--bundle"], ["exec", "--nope", "c1", "true"]):
        assert command(*words).returncode == flag_status, words
    assert command("state").returncode == 1
    assert command("list", "--format", "yaml").returncode == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["state", "kill", "start", "delete", "ps", "pause"])
def test_the_words_for_an_unknown_container(called, name, verb):
    done = called(name)(verb, "nobody")
    assert done.returncode == 1
    assert KNOWS[name] in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "status"), [("rootless", 255), ("runc", 255), ("crun", 1)])
def test_the_status_of_an_exec_that_fails(user, called, name, status):
    with called(name) as command:
        done = command("exec", "nobody", "true")
        assert (done.returncode, KNOWS[name] in done.stderr) == (status, True)
        command.create("c1", make_bundle(user, base_config("sleep", "600")))
        command.start("c1")
        assert command("exec", "c1", "/nope").returncode == status
        assert command("exec", "c1", "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("name", NAMES)
def test_other_outputs_do_not_depend_on_the_name(user, called, name):
    with called(name) as command:
        command.create("c1", make_bundle(user, base_config("sleep", "600")))
        command.start("c1")
        assert command.status("c1") == "running"
        assert json.loads(command("features", check=True).stdout)["ociVersionMin"] == "1.0.0"
        assert command("delete", "c1").returncode == 1
        assert command("delete", "--force", "c1").returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_probes_of_podman(called, name):
    command = called(name)
    assert command("checkpoint", "--help").returncode == 0
    done = command("restore", "--lsm-mount-context")
    assert "flag needs an argument" in done.stderr
