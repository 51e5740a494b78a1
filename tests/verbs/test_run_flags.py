"""Everyday flags of `run`, seen from inside the container by an ordinary user; docs/run.md."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest

from tests.lib.boxes import make_volume, mount_table, status_of
from tests.lib.bundles import base_config, make_bundle, write_config
from tests.lib.containers import Reader


@pytest.fixture
def bundle(user):
    """A bundle of the user's named box, with a group that has a member."""
    made = make_bundle(user, base_config("sh", "-c", "echo config.json decides"), name="box")
    (made / "rootfs/etc/group").write_text("root:x:0:\nwww-data:x:33:\naudio:x:29:www-data\nuser:x:1000:\n")
    return made


@pytest.fixture
def run(rootless, bundle):
    """A function that runs a command in the box, with flags before it, and returns its lines."""

    def lines(*words, **options):
        done = rootless("run", "--network", "none", *words, **options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.splitlines()

    lines.box = bundle
    return lines


def test_the_example_of_the_documents(rootless, bundle, user):
    source = make_volume(user, "src", Makefile="all:\n")
    script = "pwd; echo $CI; cat Makefile; touch made; tty; id -u"
    (bundle / "rootfs/bin/make").write_text(f"#!/bin/sh\n{script}\n")
    (bundle / "rootfs/bin/make").chmod(0o755)
    words = [
        "run",
        "--network",
        "none",
        "-itv",
        ".:/src",
        "-w",
        "/src",
        "-e",
        "CI=1",
        "-m",
        "512M",
        bundle,
        "make",
        "-j2",
    ]
    master, slave = pty.openpty()
    try:
        with rootless.popen(*words, cwd=source, stdin=slave, stdout=slave, stderr=subprocess.PIPE) as process:
            os.close(slave)
            said = Reader(master)
            lines = [said.line() for _ in range(5)]
            complaint = process.stderr.read()
        assert process.returncode == 0
        assert lines == ["/src", "1", "all:", "/dev/pts/0", "0"]
        for line in complaint.splitlines():
            assert "limits that are not enforced: memory" in line
            assert "(--memory); fix: " in line
    finally:
        os.close(master)
    assert (source / "made").stat().st_uid == user.uid


def test_config_json_decides_without_flags(run):
    assert run(run.box) == ["config.json decides"]
    assert json.loads((run.box / "config.json").read_text())["process"]["args"][0] == "sh", "the bundle is unchanged"


def test_command_of_either_form(run):
    assert run(run.box, "echo", "-n", "a", "--", "-t") == ["a -- -t"]
    assert run("--bundle", run.box, "web1", "--", "echo", "b") == ["b"]
    assert run("--entrypoint", '["echo", "c"]', run.box, "d") == ["c d"]
    assert run(run.box, "-e", "A=1", "sh", "-c", "echo $A") == ["1"]


@pytest.mark.parametrize(("flags", "expected"), [([], []), (["-i"], ["input"]), (["-t"], ["tty"])])
def test_input_is_passed_on_if_that_is_asked_for(run, flags, expected):
    script = "test -t 0 && echo tty; test -t 1 || cat"
    assert run(*flags, run.box, "sh", "-c", script, input="input\n") == expected


def test_a_terminal_without_input_ends(run):
    assert run("-t", run.box, "cat", input="input\n") == []


def test_environment(run, user):
    (user.tmp / "env").write_text("# comment\nA=file\nB=x y\nMINE\n")
    (user.tmp / "env0").write_bytes(b"C=1\n2\0")
    flags = ["--env-file", "env", "--env-file0", "env0", "-e", "A=flag", "-eMY*", "-e", "NOT_MINE"]
    lines = run(*flags, run.box, "env", env={"MINE": "m", "MYTH": "y"})
    assert {"A=flag", "B=x y", "MINE=m", "MYTH=y", "C=1", "2"} <= set(lines)
    assert not any(line.startswith("NOT_MINE") for line in lines)


@pytest.mark.parametrize(
    ("flags", "identity"),
    [
        (["-u", "www-data"], "33 33 29 33"),
        (["-u", "33"], "33 33 29 33"),
        (["-u", "www-data:user"], "33 1000 1000"),
        (["-u", "7:8", "--group-add", "audio"], "7 8 8 29"),
    ],
)
def test_user_by_name_and_by_id(run, flags, identity):
    lines = run(*flags, run.box, "cat", "/proc/self/status")
    uid, gid, groups = status_of(lines, "Uid", "Gid", "Groups")
    assert (uid.split()[0], gid.split()[0], set(groups.split())) == (*identity.split()[:2], set(identity.split()[2:]))


def test_a_user_of_an_unreadable_file_is_refused(rootless, bundle):
    (bundle / "rootfs/etc/passwd").unlink()
    os.mkfifo(bundle / "rootfs/etc/passwd")
    done = rootless("run", "-u", "root", bundle, "true")
    assert done.returncode == 1
    assert done.stderr == (
        "rootless: cannot read /etc/passwd of the container: it is not a regular file; fix: give users and groups as "
        "numbers, UID:GID\n"
    )


def test_a_symlink_in_the_image_leads_nowhere_outside(rootless, bundle):
    (bundle / "rootfs/etc/passwd").unlink()
    (bundle / "rootfs/etc/passwd").symlink_to("/../../../../../../etc/passwd")
    done = rootless("run", "-u", "root", bundle, "true")
    assert "cannot read /etc/passwd of the container: too many levels of symbolic links" in done.stderr


def test_volumes(run, user):
    make_volume(user, "data", file="text")
    flags = [
        "-v",
        "./data:/rw",
        "-v",
        "data/:/ro:ro,noexec",
        "-v",
        "./data/file:/file",
        "--mount",
        "type=bind,src=data,dst=/m,ro",
    ]
    script = "cat /rw/file /ro/file /file /m/file; echo; touch /rw/new; touch /ro/new /m/new; cat /proc/self/mountinfo"
    done = run(*flags, run.box, "sh", "-c", f"exec 2>&1; {script}")
    assert done[0] == "text" * 4
    assert done[1:3] == ["touch: /ro/new: Read-only file system", "touch: /m/new: Read-only file system"]
    table = mount_table(done[3:])
    assert {"ro", "noexec"} <= table["/ro"][0]
    assert "ro" not in table["/rw"][0]
    assert (user.tmp / "data/new").exists()


def test_a_volume_that_is_missing_is_named(rootless, bundle):
    done = rootless("run", "-v", "./nope:/x", bundle, "true")
    assert f"rootless: --volume ./nope:/x: {bundle.parent}/nope does not exist; fix: create it first" in done.stderr


def test_a_mount_on_what_config_json_mounts_replaces_it(run, user):
    make_volume(user, "data", file="text")
    lines = run("-v", "./data:/dev/pts", "--tmpfs", "/proc/acpi", run.box, "ls", "/dev/pts")
    assert lines == ["file"]


def test_tmpfs_and_read_only(run):
    (run.box / "rootfs/data/file").write_text("covered")
    script = "cat /data/file; for d in / /tmp /run /var/tmp /dev/shm /data; do touch $d/x && echo $d; done; df /data"
    flags = ["--read-only", "--tmpfs", "/data:size=1m,mode=1777", "--shm-size", "2m"]
    lines = run(*flags, run.box, "sh", "-c", f"exec 2>&1; {script}; df /dev/shm")
    assert lines[0] == "coveredtouch: //x: Read-only file system"
    assert lines[1:6] == ["/tmp", "/run", "/var/tmp", "/dev/shm", "/data"]
    assert [lines[7].split()[1], lines[9].split()[1]] == ["1024", "2048"]


def test_read_only_without_places_to_write(run):
    flags = ["--read-only", "--read-only-tmpfs=false"]
    script = "for d in /tmp /dev; do touch $d/x && echo $d; done; echo >/dev/null && echo done"
    assert run(*flags, run.box, "sh", "-c", f"exec 2>/dev/null; {script}") == ["done"]


def test_host_name(run):
    assert run("--hostname", "web.example", run.box, "hostname") == ["web.example"]


def test_name_is_that_of_the_container(rootless, bundle):
    config = base_config("sh", "-c", "sleep 600")
    write_config(bundle, config)
    flags = ["-d", "--network", "none", "--name", "web1", "--annotation", "a=b", "--label", "c=d"]
    rootless("run", *flags, bundle, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = rootless.state("web1")
    assert (state["status"], state["annotations"]) == ("running", {"a": "b", "c": "d"})
    done = rootless("run", "--bundle", bundle, "--name", "web2", "web3")
    assert "--name web2: the container is already named web3" in done.stderr


def test_exec_has_the_edits_of_run(rootless, bundle):
    flags = ["-d", "--network", "none", "-e", "A=1", "-w", "/data", "-u", "www-data"]
    words = ["run", *flags, bundle, "sleep", "600"]
    rootless(*words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = rootless("exec", "box", "sh", "-c", "echo $A; pwd; id -u", check=True)
    assert done.stdout.split() == ["1", "/data", "33"]


@pytest.fixture
def running(rootless, bundle):
    """A running container named box, and a function that executes a script in it."""
    words = ["run", "-d", "--network", "none", "-u", "0", "--group-add", "7", bundle, "sleep", "600"]
    rootless(*words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def execute(*flags, script, **options):
        return rootless("exec", *flags, "box", "sh", "-c", script, **options)

    return execute


def test_exec_takes_names_and_variables_as_run_does(running, user):
    (user.tmp / "env").write_text("# comment\nA=file\nMINE\n")
    flags = ["--env-file", "env", "-e", "B=flag", "-e", "MINE", "-e", "NOT_MINE", "--workdir", "/data"]
    done = running(*flags, script="echo $A $B $MINE ${NOT_MINE-none}; pwd", env={"MINE": "m"}, check=True)
    assert done.stdout.splitlines() == ["file flag m none", "/data"]
    assert running("-u", "www-data", script="id -u; id -G", check=True).stdout.splitlines() == ["33", "33 29"]
    assert running("-u", "www-data:user", script="id -u; id -G", check=True).stdout.splitlines() == ["33", "1000"]
    assert running("-u", "33", script="id -u; id -G", check=True).stdout.splitlines() == ["33", "0 7"], "as runc does"
    assert running("-i", script="cat", input="input", check=True).stdout == "input"


def test_a_container_gives_exec_no_file_of_the_host(running, bundle):
    """The container's root can change the files while they are looked up."""
    assert running(script="rm /etc/passwd && ln -s /../../../../../../../etc/passwd /etc/passwd").returncode == 0
    done = running("-u", "root", script="true")
    assert (done.returncode, "too many levels of symbolic links" in done.stderr) == (255, True)
    assert running(script="rm /etc/passwd && ln -s /proc/self/root/etc/passwd /etc/passwd").returncode == 0
    assert running("-u", "root", script="true").returncode == 255, "a magic link is not followed"
    assert running(script="rm /etc/passwd && mkfifo /etc/passwd").returncode == 0
    assert "it is not a regular file" in running("-u", "root", script="true").stderr
    assert running(script="rm /etc/passwd && mkdir /etc/passwd").returncode == 0
    assert "it is not a regular file" in running("-u", "root", script="true").stderr
    assert running("-u", "0:0", script="id -u").stdout == "0\n", "ids need no file"


def test_resource_limits_of_the_process(run):
    flags = ["--ulimit", "nofile=100:200", "--ulimit", "core=0"]
    assert run(*flags, run.box, "sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c") == ["100", "200", "0"]


def test_capabilities(run):
    status = ["cat", "/proc/self/status"]
    assert status_of(run("--cap-drop", "ALL", run.box, *status), "CapEff", "CapBnd") == ("0" * 16, "0" * 16)
    chown = "0000000000000001"
    assert status_of(run("--cap-drop", "all", "--cap-add", "chown", run.box, *status), "CapEff") == chown
    flags = ["-u", "33", "--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"]
    assert status_of(run(*flags, run.box, *status), "CapEff", "CapAmb") == (chown, chown)


def test_security_options(run, user):
    profile = user.tmp / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    flags = ["--security-opt", f"seccomp={profile}", "--security-opt", "no-new-privileges"]
    lines = run(*flags, run.box, "sh", "-c", "mkdir /x 2>/dev/null || echo $?; cat /proc/self/status")
    assert lines[0] == "1"
    assert status_of(lines, "NoNewPrivs", "Seccomp") == ("1", "2")
    config = base_config()
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    write_config(run.box, config)
    assert status_of(run("--security-opt", "seccomp=unconfined", run.box, "cat", "/proc/self/status"), "Seccomp") == "0"
    assert run("--security-opt", "mask=/etc/passwd", run.box, "cat", "/etc/passwd") == []


def test_devices(run):
    script = "ls -l /dev/mine; echo x >/dev/mine && echo written; ls /dev/net"
    lines = run("--device", "/dev/null:/dev/mine", "--device", "/dev/net", run.box, "sh", "-c", script)
    assert lines[0].startswith("crw-rw-rw-")
    assert lines[0].split()[4:6] == ["1,", "3"]
    assert lines[1:] == ["written", "tun"]


def test_own_ids_are_others_inside(run, user):
    make_volume(user, "data", file="text")
    flags = ["--userns", "keep-id:uid=200,gid=210", "-v", "./data:/data"]
    lines = run(*flags, run.box, "sh", "-c", "id -u; id -g; stat -c %u:%g /data/file; touch /data/new")
    assert lines == ["200", "210", "200:210"]
    assert (user.tmp / "data/new").stat().st_uid == user.uid
    assert run(*flags, "-u", "root", run.box, "id", "-u") == ["0"]


def test_own_id_alone_is_another_inside(single_user, rootless_command):
    bundle = make_bundle(single_user, name="box")
    words = [rootless_command, "--root", single_user.tmp / "state", "run", "--network", "none"]
    done = single_user.run([*words, "--userns", "keep-id:uid=7", bundle, "id", "-u"])
    assert done.stdout == "7\n", done


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (
            ["--userns", "keep-id:uid=x"],
            "--userns keep-id:uid=x: 'uid=x' is neither uid=N nor gid=N; fix: ",
        ),
        (["--userns", "host"], "--userns host: there is no such user namespace; fix: write keep-id"),
        (["-m", "512x"], "--memory 512x: it is not a size; fix: write a number of bytes"),
        (["-w", "src"], "--workdir src: src is not absolute; fix: start it with /"),
        (["-m", "1g", "--require-limits"], "memory"),
    ],
)
def test_wrong_values(rootless, bundle, flags, complaint):
    done = rootless("run", "--network", "none", *flags, bundle, "true")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: ")
    assert complaint in done.stderr
    assert rootless.list() == []


def test_errors_from_inside_name_the_flag(rootless, bundle, user):
    make_volume(user, "data")
    (bundle / "rootfs/etc/file").write_text("")
    done = rootless("run", "--network", "none", "-v", "./data:/etc/file", bundle, "true")
    assert "(--volume ./data:/etc/file)" in done.stderr, done
    done = rootless("run", "--network", "none", "-u", "70000:1", bundle, "true")
    assert "cannot run as uid 70000" in done.stderr
    assert "(--user 70000:1)" in done.stderr
    done = rootless("run", "--network", "none", bundle, "nope")
    assert done.stderr.startswith('rootless: exec: "nope": executable file not found in $PATH; fix: ')


def test_explain_shows_the_edits(rootless, bundle):
    lines = rootless("explain", "-v", ".:/src", "-e", "A=1", bundle, "make", "-j2", check=True).stdout
    assert f"bind {bundle.parent} on /src (recursive, rw, rprivate)  [--volume .:/src]" in lines
    assert "give the program /dev/null as its standard input" in lines
    assert "execute make -j2" in lines


def test_a_plan_with_edits_is_run_again(rootless, bundle, user):
    plan = rootless(
        "explain", "--network", "none", "--json", "-e", "A=1", bundle, "sh", "-c", "cat; echo $A", check=True
    )
    (user.tmp / "plan.json").write_text(plan.stdout)
    assert rootless("run", "--plan", "plan.json", "again", input="x\n", check=True).stdout == "1\n"
    done = rootless("run", "--plan", "plan.json", "-e", "A=2", "again")
    assert done.stderr.startswith("rootless: --plan plan.json: the plan is complete: ")
