"""config.md "Process": args, env and cwd; notes about adaptations."""

from __future__ import annotations

import json

import pytest

from tests.lib.boxes import (
    add_mount,
    config_with_maps,
)
from tests.lib.bundles import base_config, own

# --- args, env, cwd ---------------------------------------------------------------------------------------------------


@pytest.mark.spec("process.args")
def test_args_reach_the_program_as_they_are(either):
    words = ["two words", "", "-n", "ä€😀", "new\nline", "$HOME", "'\"\\"]
    config = config_with_maps(either.user, "xargs-free", *words)
    config["process"]["args"][0:1] = ["sh", "-c", 'for word; do echo "[$word]"; done', "name"]
    assert either.run(config, check=True).stdout == "".join(f"[{word}]\n" for word in words)


@pytest.mark.parametrize("path", ["PATH=/nowhere:/opt/tools:/bin", None])
def test_program_is_found_in_the_containers_path(either, path):
    (either.rootfs / "opt/tools").mkdir(parents=True)
    for directory in ("opt/tools", "bin"):
        tool = either.rootfs / directory / "tool"
        tool.write_text(f"#!/bin/sh\necho /{directory}\n")
        tool.chmod(0o755)
    own(either.user, either.rootfs)
    config = config_with_maps(either.user, "tool")
    config["process"]["env"] = [path] if path else []
    if path is None and either.oracle:
        pytest.skip("runc 1.1.15 finds nothing without PATH")
    # without PATH the default directories, as in execvp(3)
    assert either.lines(config) == ["/opt/tools" if path else "/bin"]


@pytest.mark.spec("process.env")
def test_environment_is_that_of_config_json(either):
    env = ["PATH=/bin", "HOME=/home", "EMPTY=", "EQUALS=a=b", "UNICODE=ä€😀", "BLANK=two words", "lower.case-1=x"]
    config = config_with_maps(either.user, "env")
    config["process"]["env"] = env
    assert sorted(either.lines(config, env={"LEAKED": "yes"})) == sorted(env)


@pytest.mark.parametrize(
    ("uid", "given", "home"),
    [
        (0, [], "/root"),
        (4321, [], "/home/user"),
        (4711, [], "/"),
        (0, ["HOME=/given"], "/given"),
        (33, ["HOME="], "/var/www"),
    ],
)
def test_missing_home_comes_from_the_image(either, uid, given, home):
    config = config_with_maps(either.user)
    config["process"]["user"] = {"uid": uid, "gid": uid}
    config["process"]["env"] += given
    assert either.lines(config, 'echo "$HOME"') == [home]


@pytest.mark.spec("process.cwd")
@pytest.mark.parametrize(
    ("cwd", "inside"),
    [("/", "/"), ("/data", "/data"), ("/new/deep", "/new/deep"), ("/link", "/data"), ("/data/../etc/.", "/etc")],
)
def test_cwd(either, cwd, inside):
    """A missing directory is created, as engines expect."""
    (either.rootfs / "link").symlink_to("/data")
    config = config_with_maps(either.user)
    config["process"]["cwd"] = cwd
    config["process"]["env"].append("PWD=/")
    assert either.lines(config, "readlink /proc/self/cwd; stat -c %u:%g .") == [inside, "0:0"]


def test_cwd_on_a_mount(either):
    config = config_with_maps(either.user)
    add_mount(config, "/data", "tmpfs", "tmpfs", "mode=0755")
    config["process"]["cwd"] = "/data/work"
    assert either.lines(config, "pwd; touch file && stat -f -c %T .") == ["/data/work", "tmpfs"]
    assert list((either.rootfs / "data").iterdir()) == []


def test_a_cwd_that_only_root_may_enter(either):
    """podman run --user 1000 in an image whose WORKDIR is /root: runc enters it before it drops privileges."""
    config = config_with_maps(either.user)
    config["process"]["cwd"] = "/root"
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["process"]["capabilities"] = {}
    (either.rootfs / "root").chmod(0o700)
    assert either.lines(config, "id -u; readlink /proc/self/cwd") == ["1000", "/root"]


def test_a_cwd_that_is_no_directory(box):
    config = base_config()
    config["process"]["cwd"] = "/etc/passwd"
    done = box.run(config, "true")
    assert done.returncode == 1
    assert "/etc/passwd" in done.stderr
    assert "Not a directory (config.json: process.cwd)" in done.stderr


# --- For others, and for the log --------------------------------------------------------------------------------------


def test_notes_go_to_the_log_too(box):
    log = box.user.tmp / "log"
    config = base_config()
    config["process"]["user"]["additionalGids"] = [70_000]
    done = box.run(config, "true", check=True, global_flags=["--log", log, "--log-format", "json"])
    assert done.stderr == ""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(record["level"], record["where"]) for record in records] == [
        ("info", "linux.namespaces"),
        ("warning", "process.user.additionalGids"),
    ]
