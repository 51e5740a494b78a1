"""config.md "Process": each property set, and looked at from inside. capabilities(7), credentials(7), getrlimit(2)."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.lib.boxes import (
    STATUS,
    Box,
    add_mount,
    add_probe,
    config_with_maps,
    status_of,
    subordinate,
)
from tests.lib.bundles import base_config, own

UNLIMITED = 2**64 - 1


# --- args, env, cwd ---------------------------------------------------------------------------------------------------


@pytest.mark.spec("process.args")
def test_args_reach_the_program_as_they_are(either):
    words = ["two words", "", "-n", "ä€😀", "new\nline", "$HOME", "'\"\\"]
    config = config_with_maps(either.user, "xargs-free", *words)
    config["process"]["args"][0:1] = ["sh", "-c", 'for word; do echo "[$word]"; done', "name"]
    assert either.run(config, check=True).stdout == "".join(f"[{word}]\n" for word in words)


@pytest.mark.parametrize("path", ["PATH=/nowhere:/opt/tools:/bin", None])
def test_the_program_is_looked_for_in_the_path_of_the_container(either, path):
    (either.rootfs / "opt/tools").mkdir(parents=True)
    for directory in ("opt/tools", "bin"):
        tool = either.rootfs / directory / "tool"
        tool.write_text(f"#!/bin/sh\necho /{directory}\n")
        tool.chmod(0o755)
    own(either.user, either.rootfs)
    config = config_with_maps(either.user, "tool")
    config["process"]["env"] = [path] if path else []
    if path is None and either.oracle:
        pytest.skip("runc 1.1.15 looks nowhere without PATH")
    # without PATH the usual directories, as execvp(3) has it
    assert either.lines(config) == ["/opt/tools" if path else "/bin"]


@pytest.mark.spec("process.env")
def test_the_environment_is_what_config_json_says(either):
    env = ["PATH=/bin", "HOME=/home", "EMPTY=", "EQUALS=a=b", "UNICODE=ä€😀", "BLANK=two words", "lower.case-1=x"]
    config = config_with_maps(either.user, "env")
    config["process"]["env"] = env
    assert sorted(either.lines(config, env={"LEAKED": "yes"})) == sorted(env)


@pytest.mark.parametrize(
    ("uid", "given", "home"),
    [
        (0, [], "/root"),
        (1000, [], "/home/user"),
        (4711, [], "/"),
        (0, ["HOME=/given"], "/given"),
        (33, ["HOME="], "/var/www"),
    ],
)
def test_home_comes_from_the_image_where_it_is_missing(either, uid, given, home):
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
    """A missing one is made, as engines expect."""
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
    """podman run --user 1000 in an image whose WORKDIR is /root: runc enters it before it gives up its rights."""
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


# --- Who --------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("process.user.uid", "process.user.gid")
@pytest.mark.parametrize("ids", [(0, 0), (0, 7), (33, 33), (1000, 0), (65536, 65536)])
def test_user_and_group(either, need, ids):
    add_probe(either, need)
    uid, gid = ids
    config = config_with_maps(either.user)
    config["process"]["user"] = {"uid": uid, "gid": gid}
    lines = either.lines(config, "probe ids; touch /tmp/file; stat -c %u:%g /tmp/file", STATUS)
    assert lines[:2] == [f"{uid} {uid} {uid} {gid} {gid} {gid}", f"{uid}:{gid}"]
    assert status_of(lines[2:], "Uid", "Gid") == ("\t".join([str(uid)] * 4), "\t".join([str(gid)] * 4))
    made = (either.rootfs / "tmp/file").stat()
    assert made.st_uid == (either.user.uid if uid == 0 else subordinate(either.user, uid))


@pytest.mark.spec("process.user.additionalGids")
@pytest.mark.parametrize("groups", [None, [], [5], [0, 33, 65536], list(range(100, 400))])
def test_additional_gids(box, groups):
    """runc 1.1.15 sets none where it is not run by root: it keeps the caller's, and refuses any other."""
    config = base_config()
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    if groups is not None:
        config["process"]["user"]["additionalGids"] = groups
    shown = status_of(box.lines(config, STATUS), "Groups").split()
    assert shown == [str(group) for group in groups or ()]


@pytest.mark.spec("process.user.umask")
@pytest.mark.parametrize(("umask", "shown"), [(0, "0000"), (0o077, "0077"), (0o27, "0027"), (None, "0022")])
def test_umask(either, umask, shown):
    config = config_with_maps(either.user)
    if umask is not None:
        config["process"]["user"]["umask"] = umask
    wanted = f"{0o666 & ~int(shown, 8):o}"
    # where it is not said, runc's and crun's, whatever the caller's own is
    lines = either.lines(config, "umask; touch /tmp/file; stat -c %a /tmp/file", umask=0o057)
    assert lines == [shown, wanted]


@pytest.mark.parametrize(
    ("key", "number", "cause"),
    [
        ("uid", 100_000, "the container has no such id; it has 0 to 0, 1 to 65536"),
        ("gid", 65537, "the container has no such id; "),
    ],
)
def test_an_id_that_the_container_does_not_have(box, key, number, cause):
    config = base_config()
    config["process"]["user"][key] = number
    done = box.run(config, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: cannot run as {key} {number}: {cause}")
    assert (
        f"(config.json: process.user.{key}); fix: choose one of these, or have the administrator give " in done.stderr
    )


def test_a_group_that_the_container_does_not_have_is_left_out(box):
    config = base_config()
    config["process"]["user"]["additionalGids"] = [5, 70_000, 6, 80_000]
    done = box.run(config, STATUS, check=True)
    assert status_of(done.stdout.splitlines(), "Groups") == "5 6"
    assert done.stderr == (
        "rootless: warning: left out: the container has no group id 70000, 80000 "
        "(config.json: process.user.additionalGids)\n"
    )


def test_groups_cannot_be_set_with_a_single_id(single_user, rootless_command):
    box = Box(single_user, [rootless_command])
    config = base_config()
    config["process"]["user"]["additionalGids"] = [5]
    done = box.run(config, STATUS, check=True)
    assert "process.user.additionalGids" in done.stderr
    assert "setgroups is denied" in done.stderr


# --- Limits -----------------------------------------------------------------------------------------------------------

SHOWN = {
    # in the order of their numbers
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_STACK": "Max stack size",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_RSS": "Max resident set",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_AS": "Max address space",
    "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_SIGPENDING": "Max pending signals",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_RTTIME": "Max realtime timeout",
}


def limits(lines):
    """Return {name: (soft, hard)} of /proc/PID/limits."""
    return {
        name: tuple(line[26:].split()[:2])
        for line in lines
        for name, title in SHOWN.items()
        if line.startswith(title + " ")
    }


def hard_limit(name):
    return resource.getrlimit(list(SHOWN).index(name))[1] % 2**64


@pytest.mark.spec("process.rlimits")
def test_every_limit(either):
    config = config_with_maps(either.user)
    wanted = {}
    for name in SHOWN:
        hard = min(hard_limit(name), 2**31)
        soft = hard - hard // 4
        wanted[name] = (str(soft), str(hard))
        config["process"].setdefault("rlimits", []).append({"type": name, "soft": soft, "hard": hard})
    assert limits(either.lines(config, "cat /proc/self/limits")) == wanted


def test_a_limit_that_is_none(either):
    names = [name for name in SHOWN if hard_limit(name) == UNLIMITED]
    assert names
    config = config_with_maps(either.user)
    config["process"]["rlimits"] = [{"type": name, "soft": UNLIMITED, "hard": UNLIMITED} for name in names]
    shown = limits(either.lines(config, "cat /proc/self/limits"))
    assert {name: shown[name] for name in names} == dict.fromkeys(names, ("unlimited", "unlimited"))


def test_low_limits_hit_the_program_and_not_its_set_up(box):
    config = base_config()
    low = {"RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 4, "RLIMIT_MEMLOCK": 0, "RLIMIT_SIGPENDING": 0, "RLIMIT_MSGQUEUE": 0}
    config["process"]["rlimits"] = [{"type": name, "soft": value, "hard": value} for name, value in low.items()]
    shown = limits(box.lines(config, "cat /proc/self/limits"))
    assert {name: shown[name] for name in low} == {name: (str(value),) * 2 for name, value in low.items()}


def test_a_limit_above_the_callers_own_is_lowered(box):
    config = base_config()
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 500, "hard": 2**40}]
    box.command[:0] = ["prlimit", "--nofile=300:400"]
    done = box.run(config, "cat /proc/self/limits", check=True)
    assert limits(done.stdout.splitlines())["RLIMIT_NOFILE"] == ("400", "400")
    assert done.stderr == (
        "rootless: warning: RLIMIT_NOFILE is 400, the caller's own hard limit: only root may raise it to 1099511627776 "
        "(config.json: process.rlimits[0])\n"
    )


# --- The OOM score ----------------------------------------------------------------------------------------------------


@pytest.mark.spec("process.oomScoreAdj")
@pytest.mark.parametrize("more", [0, 1, 300])
def test_oom_score_adj(either, more):
    own_score = int(Path("/proc/self/oom_score_adj").read_text())
    config = config_with_maps(either.user)
    config["process"]["oomScoreAdj"] = own_score + more
    assert (
        either.lines(config, "cat /proc/self/oom_score_adj; sh -c 'cat /proc/$$/oom_score_adj'")
        == [str(own_score + more)] * 2
    )


def test_an_oom_score_below_the_callers_own_stays(box):
    """Lowering it takes CAP_SYS_RESOURCE over the host: runc fails (podman lowers its wish before it asks)."""
    config = base_config()
    config["process"]["oomScoreAdj"] = -500
    box.command[:0] = ["choom", "--adjust", "200", "--"]
    done = box.run(config, "cat /proc/self/oom_score_adj", check=True)
    assert done.stdout == "200\n"
    assert done.stderr == (
        "rootless: warning: write -500 to /proc/self/oom_score_adj: write: Permission denied: "
        "the caller's stays, which only root may lower (config.json: process.oomScoreAdj)\n"
    )


def test_an_oom_score_that_the_caller_has_raised_is_lowered(either):
    """As containerd's shims raise theirs: the kernel allows a process without rights what it had before, proc(5)."""
    config = config_with_maps(either.user)
    config["process"]["oomScoreAdj"] = 100
    either.command[:0] = ["choom", "--adjust", "200", "--"]
    assert either.lines(config, "cat /proc/self/oom_score_adj") == ["100"]


def test_without_an_oom_score_it_is_the_callers(either):
    either.command[:0] = ["choom", "--adjust", "123", "--"]
    assert either.lines(config_with_maps(either.user), "cat /proc/self/oom_score_adj") == ["123"]


# --- The terminal -----------------------------------------------------------------------------------------------------


@pytest.mark.spec("process.terminal", "process.consoleSize")
def test_console_size(box, need):
    add_probe(box, need)
    config = base_config()
    config["process"]["terminal"] = True
    config["process"]["consoleSize"] = {"height": 33, "width": 101}
    done = box.run(config, "probe size; tty; stat -c '%F %u' /dev/console", check=True)
    assert done.stdout.splitlines() == ["101 33", "/dev/pts/0", "character special file 0"]


def test_console_size_means_nothing_without_a_terminal(either):
    config = config_with_maps(either.user)
    config["process"]["consoleSize"] = {"height": 33, "width": 101}
    assert either.lines(config, "tty || true") == ["not a tty"]


# --- For others, and for the log --------------------------------------------------------------------------------------


def test_the_affinity_of_later_commands_is_not_that_of_the_first(box):
    config = base_config()
    before = box.lines(config, "grep Cpus_allowed_list /proc/self/status")
    config["process"]["execCPUAffinity"] = {"initial": "0", "final": "0"}
    done = box.run(config, "grep Cpus_allowed_list /proc/self/status", check=True)
    assert (done.stdout.splitlines(), done.stderr) == (before, "")


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
