"""Kubernetes pods: containerd's CRI plugin, called as by the kubelet, with rootless and with runc as its runtime."""

from __future__ import annotations

import contextlib
import signal

import grpc
import pytest

from tests.lib.bundles import own
from tests.lib.containers import until
from tests.lib.engines import FOREVER

FIRST, COUNT = 10000, 5000
"""The IDs of containerd's user namespace that a pod with `hostUsers: false` has."""
HANDLERS = ["rootless", "runc"]


@pytest.fixture(params=[True, False], ids=["hostUsers: true", "hostUsers: false"])
def host_users(request):
    return request.param


def users(cri, host_users):
    """Return the namespaces of a pod: with a user namespace unless `host_users`."""
    if host_users:
        return {}
    ids = [cri.api.IDMapping(container_id=0, host_id=FIRST, length=COUNT)]
    return {"userns_options": cri.api.UserNamespace(mode=cri.api.POD, uids=ids, gids=ids)}


@pytest.fixture(scope="module")
def standing(cri, need):
    """Return a function that returns a pod by runtime and user namespace; all tests share these pods."""
    need("runc")
    with contextlib.ExitStack() as stack:
        made = {}

        def stands(handler, host_users=True):  # noqa: FBT002
            if (handler, host_users) not in made:
                pod = cri.pod(handler, namespaces=users(cri, host_users))
                made[handler, host_users] = stack.enter_context(pod)
            return made[handler, host_users]

        yield stands


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_pod_and_its_container_start_run_and_stop(cri, recorder, host_users, handler):
    before = len(recorder)
    with cri.pod(handler, namespaces=users(cri, host_users), labels={"app": "life"}) as pod:
        assert pod.status.state == cri.api.SANDBOX_READY
        (listed,) = cri.call("ListPodSandbox", filter={"label_selector": {"app": "life"}}).items
        assert (listed.id, listed.runtime_handler) == (pod.id, handler)
        container = pod.create(*FOREVER)
        assert container.status.state == cri.api.CONTAINER_CREATED
        cri.call("StartContainer", container_id=container.id)
        assert container.running
        code, out, err = container.sh("cat /proc/self/uid_map; hostname; cat /etc/hostname; exit 7")
        (inside, outside, _), *_ = lines = [line.split() for line in out.splitlines()]
        assert (code, inside, int(outside), err) == (7, "0", cri.uid if host_users else FIRST, "")
        assert lines[-2:] == [["in-a-pod"]] * 2
        until(lambda: container.log.read_text().endswith(" stdout F up\n"), "its trap is set")
        (listed,) = cri.call("ListContainers", filter={"pod_sandbox_id": pod.id}).containers
        assert (listed.id, listed.state) == (container.id, cri.api.CONTAINER_RUNNING)
        container.stop()
        assert (container.status.state, container.status.exit_code) == (cri.api.CONTAINER_EXITED, 9)
        assert {pod.id, container.id} & cri.states() == {pod.id}
        container.remove()
        assert not cri.call("ListContainers", filter={"pod_sandbox_id": pod.id}).containers
    assert pod.id not in cri.states()
    assert not cri.call("ListPodSandbox", filter={"id": pod.id}).items
    assert len(recorder.made(before)) == (2 if handler == "rootless" else 0), "the sandbox and the container"


def test_containers_of_a_pod_share_its_namespaces(standing, host_users):
    links = "for name in net ipc uts user pid mnt; do readlink /proc/self/ns/$name; done"
    containers = [standing("rootless", host_users).start(*FOREVER, name=name) for name in ("one", "other")]
    one, other = (container.sh(links)[1].split() for container in containers)
    assert one[:4] == other[:4]
    assert not set(one[4:]) & set(other[4:])


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_ended_container_is_removed_and_replaced(standing, handler, host_users):
    for script, exit_code in (("exit 0", 0), ("exit 3", 3), ("kill -SEGV 1; kill -KILL -1", 3)):
        container = standing(handler, host_users).start("sh", "-c", f"trap 'exit 3' SEGV; {script}")
        until(lambda it=container: it.exited, "it ends")
        assert container.status.exit_code == exit_code
        container.remove()


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_container_that_ignores_sigterm_is_killed(standing, handler, host_users):
    container = standing(handler, host_users).start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    until(container.log.read_text, "it ignores the signal")
    container.stop(1)
    assert container.status.exit_code == 128 + signal.SIGKILL
    container.remove()


def volume(cri, **options):
    """A directory of a pod as the kubelet makes it: only containerd's user may search its parent."""
    above = cri.tmp / "pods"
    if not above.exists():
        (above / "volume").mkdir(parents=True)
        (above / "volume/file").write_text("text\n")
        above.chmod(0o700)
        (above / "volume").chmod(0o777)
        own(cri, above)
    return cri.api.Mount(host_path=str(above / "volume"), container_path="/data", **options)


def capabilities(cri, **options):
    return {"security": {"capabilities": cri.api.Capability(**options)}}


def seccomp(cri, kind, **options):
    profile = cri.api.SecurityProfile
    return {"security": {"seccomp": profile(profile_type=getattr(profile, kind), **options)}}


def local_profile(cri):
    path = cri.tmp / "seccomp.json"
    path.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    return str(path)


STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid)' /proc/self/status"
PROC = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
PROC_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
"""The kubelet's own lists, in part."""
OPTIONS = {
    "plain": (lambda _: {}, f"{STATUS}; ls /dev; awk '{{print $5}}' /proc/self/mountinfo | sort"),
    "volume": (
        lambda cri: {"mounts": [volume(cri)]},
        "cat /data/file; touch /data/new && rm /data/new; stat -c '%u %g %a' /data /etc/hosts",
    ),
    "read-only volume": (
        lambda cri: {"mounts": [volume(cri, readonly=True)]},
        "cat /data/file; touch /data/new",
    ),
    "volume with mounts of the host": (
        lambda cri: {"mounts": [volume(cri, propagation=cri.api.PROPAGATION_HOST_TO_CONTAINER)]},
        "awk '$5 == \"/data\" { print $6, $7 ~ /master/ }' /proc/self/mountinfo",
    ),
    "another user": (
        lambda cri: {
            "security": {
                "run_as_user": cri.api.Int64Value(value=1000),
                "run_as_group": cri.api.Int64Value(value=33),
                "supplemental_groups": [7, 8],
            }
        },
        f"id; {STATUS}",
    ),
    "user by name": (lambda _: {"security": {"run_as_username": "user"}}, "id; env | grep HOME"),
    "no new privileges": (lambda _: {"security": {"no_new_privs": True}}, STATUS),
    "read-only root": (lambda _: {"security": {"readonly_rootfs": True}}, "touch /file; touch /dev/shm/file"),
    "capabilities": (
        lambda cri: capabilities(cri, add_capabilities=["NET_ADMIN"], drop_capabilities=["CHOWN"]),
        STATUS,
    ),
    "no capabilities": (lambda cri: capabilities(cri, drop_capabilities=["ALL"]), f"{STATUS}; chown 1 /tmp"),
    "seccomp RuntimeDefault": (lambda cri: seccomp(cri, "RuntimeDefault"), f"{STATUS}; unshare -U true"),
    "seccomp Localhost": (
        lambda cri: seccomp(cri, "Localhost", localhost_ref=f"localhost/{local_profile(cri)}"),
        f"{STATUS}; mkdir /tmp/new",
    ),
    "seccomp Unconfined": (lambda cri: seccomp(cri, "Unconfined"), STATUS),
    "device": (
        lambda cri: {
            "devices": [
                cri.api.Device(host_path=f"/dev/{name}", container_path=f"/dev/{name}", permissions="rwm")
                for name in ("fuse", "null")
            ]
        },
        "stat -c '%t,%T %a' /dev/fuse /dev/null; : </dev/fuse; : </dev/null",
    ),
    "masked paths": (
        lambda _: {"security": {"masked_paths": PROC, "readonly_paths": PROC_READ_ONLY}},
        "wc -c </proc/keys; wc -c </proc/timer_list; ls /sys/firmware; echo 1 >/proc/sys/kernel/hostname; echo $?",
    ),
    "terminal": (
        lambda _: {"tty": True, "stdin": True},
        "ls -l /proc/1/fd | awk '{ print $NF }'; stat -c %t,%T /dev/console",
    ),
    "directory and environment": (
        lambda cri: {"working_dir": "/made/here", "envs": [cri.api.KeyValue(key="ONE", value="a b")]},
        "pwd; stat -c '%u %g %a' /made /made/here; echo $ONE; echo $HOSTNAME",
    ),
    "oom score": (lambda _: {"resources": {"oom_score_adj": 900}}, "cat /proc/1/oom_score_adj"),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_the_same_effect_as_with_runc(cri, standing, option, host_users):
    options, script = OPTIONS[option]

    def run(handler):
        container = standing(handler, host_users).start(*FOREVER, name=option.replace(" ", "-"), **options(cri))
        try:
            return container.sh(script)
        finally:
            container.stop(0)
            container.remove()

    assert run("rootless") == run("runc")


def test_a_device_can_have_another_name(cri, standing, host_users):
    """If no node can be made, the host's device is found by its numbers. runc looks it up by name and fails."""
    device = cri.api.Device(host_path="/dev/null", container_path="/dev/nul2", permissions="rwm")
    container = standing("rootless", host_users).start(*FOREVER, name="device-by-another-name", devices=[device])
    assert container.sh("stat -c %t,%T /dev/nul2; echo x >/dev/nul2") == (0, "1,3\n", "")


NAMES = ("net", "ipc", "uts", "pid")
SHARED = f"for name in {' '.join(NAMES)}; do readlink /proc/self/ns/$name; done"
PODS = {
    "network of the host": (
        lambda cri: {"namespaces": {"network": cri.api.NODE}}, f"hostname; {SHARED} | sed -n '1p;3p'",
    ),
    "processes and ipc of the host": (
        lambda cri: {"namespaces": {"pid": cri.api.NODE, "ipc": cri.api.NODE}}, f"{SHARED} | sed -n '2p;4p'",
    ),
    "processes of the pod": (lambda cri: {"namespaces": {"pid": cri.api.POD}}, "tr '\\0' ' ' </proc/1/cmdline"),
    "sysctls": (
        lambda _: {"linux": {"sysctls": {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"}}},
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced",
    ),
    "name server": (
        lambda cri: {"dns_config": cri.api.DNSConfig(servers=["192.0.2.1"], searches=["a.test"], options=["ndots:5"])},
        "cat /etc/resolv.conf",
    ),
    "privileged": (
        lambda _: {"security": {"privileged": True}},
        f"{STATUS}; stat -c '%t,%T %a' /dev/fuse; awk '$5 ~ \"^/(sys|proc)\" {{ print $5, $6 }}' /proc/self/mountinfo",
    ),
}  # fmt: skip


@pytest.mark.parametrize("option", PODS)
def test_pod_option_has_the_same_effect_as_with_runc(cri, option):
    options, script = PODS[option]
    given = options(cri)

    def run(handler):
        with cri.pod(handler, **given) as pod:
            container = pod.start(*FOREVER, security=given.get("security"))
            return container.sh(script)

    assert run("rootless") == run("runc")


def test_a_container_can_join_the_processes_of_another(cri, standing):
    """As an ephemeral container, of `kubectl debug --target`."""
    pod = standing("rootless")
    target = pod.start("sleep", "1000", name="target")
    pid = {"pid": cri.api.TARGET, "target_id": target.id}
    debugger = pod.start(*FOREVER, name="debugger", security={"namespace_options": pid})
    assert debugger.sh("tr '\\0' ' ' </proc/1/cmdline") == (0, "sleep 1000 ", "")


FAILURES = {
    "no such program": (["nope"], lambda _: {}, '"nope": executable file not found in $PATH'),
    "no such user": (FOREVER, lambda _: {"security": {"run_as_username": "nobody-knows"}}, "no users found"),
    "a file as directory": (FOREVER, lambda _: {"working_dir": "/etc/passwd"}, "not a directory"),
    "a mount on a file": (
        FOREVER,
        lambda cri: {"mounts": [cri.api.Mount(host_path=str(cri.tmp), container_path="/etc/passwd")]},
        "not a directory",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_reported_as_with_runc(cri, standing, failure):
    command, options, words = FAILURES[failure]
    given = options(cri)

    def fail(handler):
        config = {"name": failure.replace(" ", "-"), **given}
        try:
            container = standing(handler).create(*command, **config)
        except grpc.RpcError as error:
            return "CreateContainer", error.code(), error.details()
        code, said = cri.refusal("StartContainer", container_id=container.id)
        status = container.status
        container.remove()
        return "StartContainer", code, status.state, status.exit_code, status.reason, said

    (*ours, our_words), (*theirs, their_words) = fail("rootless"), fail("runc")
    assert ours == theirs
    assert words in their_words.lower() or words in their_words
    assert words in our_words.lower() or words in our_words


@pytest.mark.parametrize("handler", HANDLERS)
def test_exec_reports_a_missing_program_and_ends_one_at_its_timeout(cri, standing, handler):
    container = standing(handler).start(*FOREVER, name="exec")
    _, said = cri.refusal("ExecSync", container_id=container.id, cmd=["nope"])
    assert '"nope": executable file not found in $PATH' in said
    code, _ = cri.refusal("ExecSync", container_id=container.id, cmd=["sleep", "1000"], timeout=1)
    assert code.name == "DEADLINE_EXCEEDED"
    until(lambda: "sleep 1000" not in container.sh("ps -o args")[1], "the program is killed")
    assert container.running
