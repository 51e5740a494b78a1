"""podman as an ordinary user: `podman --runtime rootless`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from rootless.bundle.identifiers import identifiers, named_in
from tests.lib.containers import await_end, until
from tests.lib.engines import IMAGE
from tests.lib.native import SETTLED
from tests.lib.terminals import Typewriter


def test_podman_run_passes_streams_and_exit_status(podman):
    done = podman.run("--interactive", IMAGE, "sh", "-c", "cat; echo err >&2; exit 7", input="in\n")

    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")
    until(lambda: podman.left() == [], "nothing is left")


def test_podman_containers_are_run_by_rootless(podman, running):
    assert podman.inspect(running, ".OCIRuntime") == "rootless"
    container_id = podman.inspect(running, ".Id")
    assert podman.left()[0] == container_id
    assert f"{os.environ['ROOTLESS_TEST_RUN']}/bin/rootless" in podman.out(
        "info", "--format", "{{.Host.OCIRuntime.Path}}"
    )


def test_podman_logs_and_stop_a_detached_container(podman):
    name = podman.detach("logged", command=("sh", "-c", "trap 'exit 9' TERM; echo up; echo err >&2; sleep 1000 & wait"))
    until(lambda: podman("logs", name, check=True).stdout == "up\n", "output is logged")

    logs = podman("logs", name, check=True)
    podman("stop", name, check=True)

    assert (logs.stdout, logs.stderr) == ("up\n", "err\n")
    assert podman.inspect(name, ".State.ExitCode") == "9"
    podman("rm", name, check=True)


def test_podman_starts_and_restarts_an_ended_container(podman):
    podman("create", "--name=again", IMAGE, "sh", "-c", "echo run >>/runs; cat /runs", check=True)

    assert [podman.out("start", "--attach", "again") for _ in range(2)] == ["run", "run\nrun"]
    podman("restart", "again", check=True)
    until(lambda: podman.inspect("again", ".State.Status") == "exited", "it ends")
    assert podman.out("logs", "again").splitlines() == ["run"] * 6
    podman("rm", "again", check=True)


@pytest.mark.parametrize(("signal", "status"), [("KILL", 137), ("TERM", 9)])
def test_podman_kill_sends_the_signal(podman, signal, status):
    name = podman.detach("killed")

    podman("kill", f"--signal={signal}", name, check=True)

    assert podman.out("wait", name) == str(status)
    podman("rm", name, check=True)


def test_podman_stop_kills_a_program_that_ignores_sigterm(podman):
    name = podman.detach("deaf", command=("sleep", "1000"))
    podman("stop", "--time=0", name, check=True)
    assert podman.inspect(name, ".State.ExitCode") == "137"
    podman("rm", name, check=True)


def test_podman_rm_force_removes_a_running_container(podman):
    name = podman.detach("removed", command=("sleep", "1000"))
    pid = int(podman.inspect(name, ".State.Pid"))

    podman("rm", "--force", "--time=0", name, check=True)

    await_end(pid)
    until(lambda: podman.left() == [], "nothing is left")


def test_podman_exec_uses_user_workdir_env_and_stdin(podman, running):
    script = "id -u; id -g; pwd; echo $THIS; cat; exit 7"
    flags = ["--interactive", "--user=1000:33", "--workdir=/tmp", "--env=THIS=that"]

    done = podman("exec", *flags, running, "sh", "-c", script, input="in\n")

    assert (done.returncode, done.stdout, done.stderr) == (7, "1000\n33\n/tmp\nthat\nin\n", "")


def test_podman_exec_detached_runs_in_the_background(podman, running):
    podman("exec", "--detach", running, "sh", "-c", "echo $$ >/tmp/there; exec sleep 1000", check=True)
    until(lambda: podman("exec", running, "cat", "/tmp/there").stdout, "it runs")
    assert "sleep 1000" in podman.out("top", running, "args")


def test_podman_exec_has_the_containers_namespaces_and_capabilities(podman, running):
    look = "for n in cgroup ipc mnt net pid uts user; do readlink /proc/$1/ns/$n; done; grep Cap /proc/$1/status"
    ours, theirs = (podman.out("exec", running, "sh", "-c", look, "sh", process) for process in ("self", "1"))
    assert ours == theirs


def test_podman_exec_with_a_terminal_has_its_size(podman, running):
    argv = podman.argv("exec", "--interactive", "--tty", running, "sh")
    with Typewriter(podman, argv, size=(33, 77)) as terminal:
        terminal.until(b"/ # ")
        terminal.type(b"tty; until [ \"$(stty size)\" = '33 77' ]; do :; done; echo size-$((6*7)); exit 5\n")
        terminal.until(b"/dev/pts/")
        terminal.until(b"size-42")
        terminal.ends(5)


def test_podman_run_with_a_terminal_follows_its_size(podman):
    with Typewriter(podman, podman.argv("run", "--rm", "-it", IMAGE, "sh"), size=(33, 77)) as terminal:
        terminal.until(b"/ # ")
        terminal.resize(44, 88)
        terminal.type(b"tty; until [ \"$(stty size)\" = '44 88' ]; do :; done; echo size-$((6*7)); exit 5\n")
        terminal.until(b"/dev/pts/0")
        terminal.resize_until(b"size-42", (44, 87), (44, 88))  # podman may not watch its terminal yet
        terminal.ends(5)


def test_podman_healthcheck_reports_the_health(podman):
    name = podman.detach("healthy", "--health-cmd=test -e /well", "--health-interval=disable", "--health-retries=1")

    ill = podman("healthcheck", "run", name).returncode
    podman("exec", name, "touch", "/well", check=True)
    well = podman("healthcheck", "run", name).returncode

    assert (ill, well) == (1, 0)
    assert podman.inspect(name, ".State.Health.Status") == "healthy"
    podman("rm", "--force", "--time=0", name, check=True)


def test_containers_of_a_podman_pod_share_its_network(podman):
    podman("pod", "create", "--name=pod", check=True)
    serve = ("sh", "-c", "while :; do echo served | nc -l -p 8080; done")
    podman.detach("server", "--pod=pod", command=serve)

    fetch = (
        "until nc 127.0.0.1 8080 </dev/null; do sleep 0.05; done; for n in net pid; do readlink /proc/self/ns/$n; done"
    )
    lines = podman.run("--pod=pod", IMAGE, "sh", "-c", fetch, check=True).stdout.splitlines()
    shared = [podman.out("exec", "server", "readlink", f"/proc/self/ns/{kind}") for kind in ("net", "pid")]

    assert lines[0] == "served"
    assert lines[1] == shared[0]
    assert lines[2] != shared[1]
    podman("pod", "rm", "--force", "--time=0", "pod", check=True)
    until(lambda: podman.left() == [], "nothing is left")


NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
}
STATUS = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
MOUNTS = "awk '{print $5, $6}' /proc/self/mountinfo | grep -v -e /etc/ -e /run/ -e cgroup | sort"
OPTIONS = {
    "read-only": (["--read-only"], "touch /x; touch /tmp/x /run/x && echo tmp"),
    "read-only without tmpfs": (["--read-only", "--read-only-tmpfs=false"], "touch /tmp/x"),
    "user": (["--user=1000:33", "--group-add=5"], f"id; {STATUS}"),
    "user by name": (["--user=www-data"], "id; echo $HOME"),
    "keep-id": (["--userns=keep-id"], f"id -u; {STATUS}; cat /proc/self/uid_map"),
    "cap-drop all": (["--cap-drop=all"], f"{STATUS}; chown 1:1 /tmp"),
    "cap-add": (["--cap-drop=all", "--cap-add=net_raw"], STATUS),
    "no-new-privileges": (["--security-opt=no-new-privileges"], STATUS),
    "seccomp file": (["--security-opt=seccomp={tmp}/seccomp.json"], f"mkdir /x; {STATUS}"),
    "seccomp unconfined": (["--security-opt=seccomp=unconfined"], STATUS),
    "unmask all": (["--security-opt=unmask=ALL"], MOUNTS),
    "mask": (["--security-opt=mask=/proc/uptime"], "wc -c /proc/uptime"),
    "privileged": (["--privileged"], f"{STATUS}; {MOUNTS}; touch /proc/sys/kernel/x"),
    "volume": (["--volume={tmp}/volume:/v"], "cat /v/file; echo new >/v/new && ls -ln /v | awk '{print $3, $9}'"),
    "volume, read-only": (["--volume={tmp}/volume:/v:ro"], "cat /v/file; touch /v/refused"),
    "volume on a file": (["--volume={tmp}/volume/file:/etc/file"], "cat /etc/file"),
    "bind with options": (
        ["--mount=type=bind,src={tmp}/volume,dst=/v,ro,bind-propagation=rslave"],
        f"{MOUNTS} | grep /v",
    ),
    "named volume": (["--volume=named:/v"], "touch /v/x; ls /v; stat -c %u /v"),
    "tmpfs": (
        ["--tmpfs=/t:rw,size=64k,mode=1700"],
        "stat -c %a /t; dd if=/dev/zero of=/t/x bs=1k count=100 2>&1 | tail -1",
    ),
    "init": (["--init"], "cat /proc/1/comm"),
    "device": (["--device=/dev/fuse", "--device=/dev/zero:/dev/nought"], "stat -c %t,%T /dev/fuse /dev/nought"),
    "sysctl": (["--sysctl=net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward"),
    "ulimit": (["--ulimit=nofile=123:456", "--ulimit=core=0"], "ulimit -n; ulimit -Hn; ulimit -c"),
    "shm-size": (["--shm-size=1m"], "df -k /dev/shm | tail -1"),
    "hostname": (["--hostname=boxed", "--add-host=other:127.0.0.9"], "hostname; grep other /etc/hosts"),
    "workdir": (["--workdir=/data"], "pwd"),
    "umask": (["--umask=0077"], "umask; grep Umask /proc/self/status"),
    "oom-score-adj": (["--oom-score-adj=500"], "cat /proc/self/oom_score_adj"),
    "host namespaces": (
        ["--network=host", "--ipc=host", "--uts=host"],
        "for n in net ipc uts; do readlink /proc/self/ns/$n; done",
    ),
    "secret": (["--secret=secret,mode=0400"], "cat /run/secrets/secret; stat -c %a /run/secrets/secret"),
    "annotation": (["--annotation=run.oci.keep_original_groups=1"], "id -G | tr ' ' '\\n' | sort -u | head -1"),
}


@pytest.fixture(scope="module")
def host(podman):
    """Files and a secret that the options name."""
    tmp = podman.account.tmp
    (tmp / "seccomp.json").write_text(json.dumps(NO_MKDIR))
    (tmp / "volume").mkdir()
    (tmp / "volume/file").write_text("volume\n")
    (tmp / "volume").chmod(0o777)
    podman("secret", "create", "secret", "-", input="hush\n", check=True)
    return tmp


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_the_same_effect_as_with_runc(podman, host, option):
    flags, script = OPTIONS[option]
    words = ["run", "--rm", *(flag.format(tmp=host) for flag in flags), IMAGE, "sh", "-c", script]

    ours, theirs = (podman.with_runtime(runtime, *words) for runtime in ("rootless", "runc"))

    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.stdout + ours.stderr


@pytest.mark.parametrize("network", ["pasta", "slirp4netns"])
def test_podman_networks_have_an_interface(podman, need, network):
    need(network)
    lines = podman.run(f"--network={network}", IMAGE, "ip", "-o", "addr", check=True).stdout.splitlines()
    assert {line.split()[1] for line in lines} > {"lo"}


def test_podman_run_in_the_hosts_pid_namespace(podman):
    """Not compared with runc, which prints warnings about it."""
    here = os.readlink("/proc/self/ns/pid")
    assert podman.run("--pid=host", IMAGE, "readlink", "/proc/self/ns/pid", check=True).stdout == f"{here}\n"


def test_podman_run_with_cgroups_disabled(podman):
    """podman accepts this flag only for runtimes that its configuration names."""
    assert podman.run("--cgroups=disabled", IMAGE, "echo", "here", check=True).stdout == "here\n"


@pytest.mark.parametrize("network", ["none", "pasta"])
def test_podmans_third_container_is_created_without_python(podman, need, rootless_command, network):
    traces = podman.account.tmp / f"traces-{network}"
    wrapper = traces / "rootless"  # podman knows what a runtime can do by its name
    podman.account.run(["mkdir", traces], check=True)
    strace = f"exec {need('strace')} -o {traces}/$time -e trace=execve"
    keep = f'time=$(date +%s.%N); cp "$(expr "$*" : ".* --bundle \\([^ ]*\\)")/config.json" {traces}/config-$time'
    cases = f'*" create "*) {keep}; {strace} {rootless_command} "$@";; *) exec {rootless_command} "$@";;'
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in {cases} esac\n')
    wrapper.chmod(0o755)
    until(lambda: time.time() - Path(f"{rootless_command}.py").stat().st_ctime > SETTLED, "it is installed")

    for number in range(4):
        flags = ["--rm", f"--network={network}", f"--env=COUNTED=yes-{network}", f"--env=A{network}=1"]
        done = podman.with_runtime(str(wrapper), "run", *flags, IMAGE, "sh", "-c", "hostname; exit 3")
        assert (done.returncode, len(done.stdout), done.stderr) == (3, len("0123456789ab\n"), ""), number

    native = [path.read_text().count("execve(") == 1 for path in sorted(traces.glob("[0-9]*"))]
    configs = [json.loads(path.read_text()) for path in sorted(traces.glob("config-*"))]
    # one whose identifiers begin like numbers, which is rare, makes no entry for the next
    named = [identifiers(named_in(config)) for config in configs]
    second, third = (len(found or ()) == max(map(len, filter(None, named))) for found in named[1:3])
    assert native == [False, False, second, second or third]
    until(lambda: podman.left() == [], "nothing is left")
