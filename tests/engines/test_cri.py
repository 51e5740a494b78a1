"""Kubernetes pods: containerd's CRI plugin, called as by the kubelet, with rootless and with runc as its runtime."""

from __future__ import annotations

import contextlib

import pytest

from tests.lib.bundles import own
from tests.lib.containers import until

FIRST, COUNT = 10000, 5000
"""The IDs of containerd's user namespace that a pod with `hostUsers: false` has."""


@pytest.fixture(scope="module", params=["root", "user"], ids=["root", "rootlesskit"])
def cri(request):
    """Root's containerd, and an ordinary user's containerd."""
    return request.getfixturevalue(f"{request.param}_cri")


@pytest.fixture(params=[True, False], ids=["hostUsers: true", "hostUsers: false"])
def host_users(request):
    return request.param


def pod(cri, host_users, **options):
    """Yield a pod, with a user namespace unless `host_users`."""
    if not host_users:
        ids = [cri.api.IDMapping(container_id=0, host_id=FIRST, length=COUNT)]
        options["userns_options"] = cri.api.UserNamespace(mode=cri.api.POD, uids=ids, gids=ids)
    return cri.pod(**options)


@pytest.fixture(scope="module")
def standing(cri, need):
    """Return a function that returns a pod by runtime and user namespace; all tests share these pods."""
    need("runc")
    with contextlib.ExitStack() as stack:
        made = {}

        def stands(handler, host_users):
            if (handler, host_users) not in made:
                made[handler, host_users] = stack.enter_context(pod(cri, host_users, handler=handler))
            return made[handler, host_users]

        yield stands


@pytest.mark.parametrize("handler", ["rootless", "runc"])
def test_a_pod_and_its_container_start_run_and_stop(cri, recorder, host_users, handler):
    before = len(recorder)
    with pod(cri, host_users, handler=handler) as made:
        assert made.status.state == cri.api.SANDBOX_READY
        container = made.create()
        assert container.status.state == cri.api.CONTAINER_CREATED
        cri.call("StartContainer", container_id=container.id)
        assert container.status.state == cri.api.CONTAINER_RUNNING
        code, out, err = container.sh("cat /proc/self/uid_map; hostname; cat /etc/hostname; exit 7")
        (inside, outside, _), *_ = lines = [line.split() for line in out.splitlines()]
        assert (code, inside, int(outside), err) == (7, "0", cri.account.uid if host_users else FIRST, "")
        assert lines[-2:] == [["in-a-pod"]] * 2
        until(lambda: container.sh("kill -0 1")[0] == 0, "its trap is set")
        container.stop()
        assert container.status.state == cri.api.CONTAINER_EXITED
        container.remove()
    assert len(recorder.made(before)) == (2 if handler == "rootless" else 0), "the sandbox and the container"


def test_containers_of_a_pod_share_its_namespaces(standing, host_users):
    links = "for name in net ipc uts user pid mnt; do readlink /proc/self/ns/$name; done"
    containers = [standing("rootless", host_users).start(name=name) for name in ("one", "other")]
    one, other = (container.sh(links)[1].split() for container in containers)
    assert one[:4] == other[:4]
    assert not set(one[4:]) & set(other[4:])


def test_an_ended_container_is_removed_and_replaced(cri, standing, host_users):
    for exit_code in (0, 3):
        container = standing("rootless", host_users).start("sh", "-c", f"exit {exit_code}")
        until(lambda it=container: it.status.state == cri.api.CONTAINER_EXITED, "it ends")
        assert container.status.exit_code == exit_code
        container.remove()


def volume(cri, **options):
    """A directory of a pod as the kubelet makes it: only containerd's user may search its parent."""
    above = cri.account.tmp / "pods"
    if not above.exists():
        (above / "volume").mkdir(parents=True)
        (above / "volume/file").write_text("text\n")
        own(cri.account, above)
        above.chmod(0o700)
        (above / "volume").chmod(0o777)
    return cri.api.Mount(host_path=str(above / "volume"), container_path="/data", **options)


STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid)' /proc/self/status"
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
    "another user": (
        lambda cri: {"run_as_user": cri.api.Int64Value(value=1000), "supplemental_groups": [7, 8]},
        f"id; {STATUS}",
    ),
    "no new privileges": (lambda _: {"no_new_privs": True}, STATUS),
    "read-only root": (lambda _: {"readonly_rootfs": True}, "touch /file"),
    "capabilities": (
        lambda cri: {"capabilities": cri.api.Capability(add_capabilities=["NET_ADMIN"], drop_capabilities=["CHOWN"])},
        STATUS,
    ),
    "seccomp": (
        lambda cri: {"seccomp": cri.api.SecurityProfile(profile_type=cri.api.SecurityProfile.RuntimeDefault)},
        f"{STATUS}; unshare -U true",
    ),
    "device": (
        lambda cri: {
            "devices": [
                cri.api.Device(host_path=f"/dev/{name}", container_path=f"/dev/{name}", permissions="rwm")
                for name in ("fuse", "null")
            ]
        },
        "stat -c '%t,%T %a' /dev/fuse /dev/null; : </dev/fuse; : </dev/null",
    ),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_the_same_effect_as_with_runc(cri, standing, option, host_users):
    options, script = OPTIONS[option]

    def run(handler):
        container = standing(handler, host_users).start(name=option.replace(" ", "-"), **options(cri))
        try:
            return container.sh(script)
        finally:
            container.stop(0)
            container.remove()

    assert run("rootless") == run("runc")


def test_a_device_can_have_another_name(cri, standing, host_users):
    """If no node can be made, the host's device is found by its numbers. runc looks it up by name and fails."""
    device = cri.api.Device(host_path="/dev/null", container_path="/dev/nul2", permissions="rwm")
    container = standing("rootless", host_users).start(name="device-by-another-name", devices=[device])
    assert container.sh("stat -c %t,%T /dev/nul2; echo x >/dev/nul2") == (0, "1,3\n", "")
