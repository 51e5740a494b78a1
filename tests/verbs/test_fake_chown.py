"""`--fake-chown`: in a container with a single ID, changes of owner and of user only seem to succeed."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.lib.boxes import Box, add_probe
from tests.lib.bundles import base_config, write_config
from tests.lib.live import Live

OFF = "--fake-chown=false"
REAL = ("EPERM", "EINVAL")
"""What the kernel says to an ID that the container does not have, and to setgroups(2) and device nodes."""
CHANGES = {
    "chown": "chown 33:44 /file",
    "chown of a symlink": "chown -h 33 /link",
    "device node": "mknod /null c 1 3",
    "block device": "mknod /block b 7 0",
    "change of the user": "su -s /bin/sh www-data -c true",
}
SYSTEM_CALLS = ("fchown 1 33 33", "setresuid 33 33 33", "setgroups 1 0")


@pytest.fixture
def single(single_user, rootless_command, need):
    """A bundle of a user without subordinate IDs."""
    box = Box(single_user, [rootless_command])
    add_probe(box, need)
    (box.rootfs / "file").write_text("")
    (box.rootfs / "link").symlink_to("file")
    os.chown(box.rootfs / "file", single_user.uid, single_user.gid)
    os.chown(box.rootfs / "link", single_user.uid, single_user.gid, follow_symlinks=False)
    yield box
    box.close()


def calls(*wanted):
    return [f"probe call {each} >>/file; tail -n 1 /file" for each in wanted]


def fields(lines):
    """Return the fields of /proc/PID/status by their names."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def with_profile(config, *rules, default="ALLOW"):
    config["linux"]["seccomp"] = {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules)}
    return config


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_succeed_unless_switched_off(single, change):
    assert single.run(base_config(), change).returncode == 0
    assert single.run(base_config(), change, flags=[OFF]).returncode != 0


def test_nothing_changes(single):
    script = (
        *CHANGES.values(),
        "stat -c %u:%g /file",
        "ls /null /block 2>/dev/null; su -s /bin/sh www-data -c 'id -u'",
    )
    assert single.lines(base_config(), *script) == ["0:0", "0"]


@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("uid", [0, 7])
def test_every_user_gets_the_filter_and_no_privilege(single, uid, no_new_privileges):
    config = base_config()
    config["process"] |= {"noNewPrivileges": no_new_privileges, "user": {"uid": uid, "gid": uid}}
    lines = single.lines(config, *calls(*SYSTEM_CALLS), "cat /proc/self/status")
    assert lines[:3] == ["0", "0", "0"]
    status = fields(lines[3:])
    assert status["Seccomp"] == "2"
    assert int(status["CapBnd"], 16) >> 21 & 1 == int(status["CapPrm"], 16) >> 21 & 1 == 0  # CAP_SYS_ADMIN


def test_other_kinds_of_files_are_made(single):
    """The device 0:0 is a whiteout of overlayfs, which every user may make."""
    assert single.lines(base_config(), "mkfifo /pipe; mknod /whiteout c 0 0; stat -c %F /pipe /whiteout") == [
        "fifo",
        "character special file",
    ]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="about the three ABIs of x86_64")
def test_other_architectures_of_the_kernel_are_covered(single):
    i386 = {"fchown": "95 1 33 33", "fchown32": "207 1 33 33", "setresuid32": "208 33 33 33", "setgroups32": "206 1 0"}
    script = [f"probe i386 {call} >>/file; tail -n 1 /file" for call in i386.values()]
    x32 = calls(f"{0x4000_0000 | 93} 1 33 33", f"{0x4000_0000 | 117} 33 33 33")
    assert single.lines(base_config(), *script, *x32) == ["0"] * 6
    refused = single.lines(base_config(), *script, *x32, flags=[OFF])
    assert set(refused) <= {*REAL, "ENOSYS"}, "the kernel may not run programs of x32"


# --- The filter of config.json ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("default", ["ALLOW", "LOG"])
def test_a_denied_call_stays_denied(single, default):
    config = with_profile(
        base_config(),
        {"names": ["fchown", "setgroups"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        default=default,
    )
    assert single.lines(config, *calls(*SYSTEM_CALLS)) == ["EACCES", "0", "EACCES"]


def test_a_call_that_ends_the_program_still_does(single):
    config = with_profile(base_config(), {"names": ["fchown"], "action": "SCMP_ACT_KILL_PROCESS"})
    assert single.run(config, "exec probe call fchown 1 33 33").returncode == 128 + 31


def test_a_call_that_is_left_to_a_tracer_is_not_answered(single):
    """Without a tracer the kernel answers ENOSYS."""
    config = with_profile(base_config(), {"names": ["fchown"], "action": "SCMP_ACT_TRACE"})
    assert single.lines(config, *calls(*SYSTEM_CALLS)) == ["ENOSYS", "0", "0"]


# --- Which containers, which processes --------------------------------------------------------------------------------


def test_one_warning_names_the_flag(single):
    done = single.run(base_config(), "true", flags=["--userns", "single"], check=True)
    assert done.stderr == (
        "rootless: warning: with a single ID, changes of owner and of user only seem to succeed; "
        "fix: give --fake-chown=false to let them fail\n"
    )
    assert single.run(base_config(), "true", flags=["--userns", "single", OFF], check=True).stderr == ""


def test_a_user_with_subordinate_ids_gets_no_filter(box):
    assert box.lines(
        base_config(), "chown 33:44 /etc/passwd; stat -c %u:%g /etc/passwd; grep Seccomp: /proc/self/status"
    ) == [
        "33:44",
        "Seccomp:\t0",
    ]


def test_an_engines_single_id_is_left_alone(single):
    config = base_config("grep", "Seccomp:", "/proc/self/status")
    config["linux"]["namespaces"].append({"type": "user"})
    for name, own in (("uidMappings", single.user.uid), ("gidMappings", single.user.gid)):
        config["linux"][name] = [{"containerID": 0, "hostID": own, "size": 1}]
    assert single.lines(config) == ["Seccomp:\t0"]


@pytest.mark.parametrize(("flags", "found"), [((), {"0"}), ((OFF,), set(REAL))], ids=["on", "off"])
def test_exec_does_as_the_container(single, flags, found):
    live = Live(single, base_config(), flags=flags)
    output = [line for line in live.lines(*calls(*SYSTEM_CALLS)) if line]
    assert len(output) == len(SYSTEM_CALLS)
    assert set(output) <= found


def test_hooks_in_the_container_are_included(single):
    config = base_config("cat", "/file")
    config["hooks"] = {
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "chown 33 /file && echo hook >/file"]}]
    }
    assert single.lines(config) == ["hook"]
    assert single.run(config, flags=[OFF]).returncode != 0


def test_a_reaper_drops_the_right_to_load_filters(single):
    """capset(2) takes effect: it is not among the calls that only seem to succeed."""
    config = base_config()
    config["process"]["noNewPrivileges"] = False
    lines = single.lines(config, "cat /proc/1/status; chown 33 /file && echo done", flags=["--init"])
    assert lines.pop() == "done"
    status = fields(lines)
    assert int(status["CapEff"], 16) >> 21 & 1 == 0  # CAP_SYS_ADMIN
    assert status["Seccomp"] == "2"


def test_explain_shows_the_filter(single):
    done = single.user.run([*single.command, "explain", single.path], check=True)
    assert "let changes of owner and of user only seem to succeed" in done.stdout
    assert "21 syscalls skipped as if they had succeeded" in done.stdout
    done = single.user.run([*single.command, "explain", OFF, single.path], check=True)
    assert "seem to succeed" not in done.stdout


@pytest.mark.parametrize("hooks", [False, True])
def test_without_libseccomp_the_container_runs_and_the_changes_fail(single, hooks, require_root):
    config = base_config("sh", "-c", "chown 33 /file || echo refused")
    if hooks:
        config["hooks"] = {"startContainer": [{"path": "/bin/true"}]}
    write_config(single.path, config)
    library = subprocess.run(["sh", "-c", "ls /usr/lib/*/libseccomp.so.2"], capture_output=True, text=True, check=True)
    hide = "".join(f"mount --bind /dev/null {path}; " for path in library.stdout.split())
    hide += "cache=$1; shift; rm -rf $cache"
    user = single.user
    become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]
    words = [user.runtime_dir / "rootless/@seccomp", *become, *single.command, "run", "--bundle", single.path, "c1"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", f'{hide}; exec "$@"', "sh", *map(str, words)],
        env=user.env,
        cwd=user.tmp,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done
    assert "rootless: warning: --fake-chown: cannot load libseccomp" in done.stderr
