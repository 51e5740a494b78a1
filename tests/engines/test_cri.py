"""Kubernetes pods: containerd's CRI plugin, driven as by the kubelet, with rootless as its runtime and with runc."""

from __future__ import annotations

import pytest

from tests.user.containers import until

FIRST = 200000
"""Of the host's ids that a pod with `hostUsers: false` has."""
IDS = {True: ["0", "0", "4294967295"], False: ["0", str(FIRST), "65536"]}


@pytest.fixture(params=[True, False], ids=["hostUsers: true", "hostUsers: false"])
def host_users(request):
    return request.param


def pod(cri, host_users, **options):
    """Have a pod, perhaps with a user namespace."""
    if not host_users:
        ids = [cri.api.IDMapping(container_id=0, host_id=FIRST, length=65536)]
        options["userns_options"] = cri.api.UserNamespace(mode=cri.api.POD, uids=ids, gids=ids)
    return cri.pod(**options)


@pytest.mark.parametrize("handler", ["rootless", "runc"])
def test_the_life_of_a_pod(root_cri, recorder, host_users, handler):
    cri, before = root_cri, len(recorder)
    with pod(cri, host_users, handler=handler) as made:
        assert made.status.state == cri.api.SANDBOX_READY
        container = made.create()
        assert container.status.state == cri.api.CONTAINER_CREATED
        cri.call("StartContainer", container_id=container.id)
        assert container.status.state == cri.api.CONTAINER_RUNNING
        code, out, err = container.sh("cat /proc/self/uid_map; hostname; cat /etc/hostname; exit 7")
        assert (code, out.split(), err) == (7, [*IDS[host_users], "in-a-pod", "in-a-pod"], "")
        until(lambda: container.sh("kill -0 1")[0] == 0, "its trap is set")
        container.stop()
        assert container.status.state == cri.api.CONTAINER_EXITED
        container.remove()
    assert len(recorder.made(before)) == (2 if handler == "rootless" else 0), "the sandbox and the container"


def test_containers_of_a_pod_share_what_is_the_pods(root_cri, host_users):
    links = "for name in net ipc uts user pid mnt; do readlink /proc/self/ns/$name; done"
    with pod(root_cri, host_users) as made:
        one, other = (made.start(name=name).sh(links)[1].split() for name in ("one", "other"))
    assert one[:4] == other[:4]
    assert not set(one[4:]) & set(other[4:])


def test_a_container_that_ends_can_be_followed_by_another(root_cri, host_users):
    with pod(root_cri, host_users) as made:
        for exit_code in (0, 3):
            container = made.start("sh", "-c", f"exit {exit_code}")
            until(lambda it=container: it.status.state == root_cri.api.CONTAINER_EXITED, "it ends")
            assert container.status.exit_code == exit_code
            container.remove()


def volume(cri, directory, **options):
    """A directory of a pod as the kubelet makes it: what is above only root may search."""
    above = directory / "pods"
    if not above.exists():
        above.mkdir(0o700)
        (above / "volume").mkdir(0o777)
        (above / "volume").chmod(0o777)
        (above / "volume/file").write_text("text\n")
    return cri.api.Mount(host_path=str(above / "volume"), container_path="/data", **options)


STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid)' /proc/self/status"
OPTIONS = {
    "plain": (lambda *_: {}, f"{STATUS}; ls /dev; awk '{{print $5}}' /proc/self/mountinfo | sort"),
    "volume": (
        lambda cri, tmp: {"mounts": [volume(cri, tmp)]},
        "cat /data/file; touch /data/new && rm /data/new; stat -c '%u %g %a' /data /etc/hosts",
    ),
    "read-only volume": (
        lambda cri, tmp: {"mounts": [volume(cri, tmp, readonly=True)]},
        "cat /data/file; touch /data/new",
    ),
    "another user": (
        lambda cri, _: {"run_as_user": cri.api.Int64Value(value=1000), "supplemental_groups": [7, 8]},
        f"id; {STATUS}",
    ),
    "no new privileges": (lambda *_: {"no_new_privs": True}, STATUS),
    "read-only root": (lambda *_: {"readonly_rootfs": True}, "touch /file"),
    "capabilities": (
        lambda cri, _: {
            "capabilities": cri.api.Capability(add_capabilities=["NET_ADMIN"], drop_capabilities=["CHOWN"])
        },
        STATUS,
    ),
    "seccomp": (
        lambda cri, _: {"seccomp": cri.api.SecurityProfile(profile_type=cri.api.SecurityProfile.RuntimeDefault)},
        f"{STATUS}; unshare -U true",
    ),
    "device": (
        lambda cri, _: {
            "devices": [
                cri.api.Device(host_path=f"/dev/{name}", container_path=f"/dev/{name}", permissions="rwm")
                for name in ("fuse", "null")
            ]
        },
        "stat -c '%t,%T %a' /dev/fuse /dev/null; : </dev/fuse; : </dev/null",
    ),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_does_what_it_does_under_runc(root_cri, tmp_path, need, option, host_users):
    need("runc")
    options, script = OPTIONS[option]

    def run(handler):
        with pod(root_cri, host_users, handler=handler) as made:
            return made.start(**options(root_cri, tmp_path)).sh(script)

    assert run("rootless") == run("runc")


def test_a_device_by_another_name(root_cri):
    device = root_cri.api.Device(host_path="/dev/null", container_path="/dev/nul2", permissions="rwm")
    with pod(root_cri, host_users=True) as made:
        container = made.start(devices=[device])
        assert container.sh("stat -c %t,%T /dev/nul2; echo x >/dev/nul2") == (0, "1,3\n", "")
