"""Kubernetes pods: statistics, events and changed limits on a host without cgroup controllers.

tests/system/test_pods.py has a host with controllers.
"""

from __future__ import annotations

import contextlib
import queue
import threading

import grpc
import pytest

from tests.lib.containers import PATIENCE, until
from tests.lib.engines import FOREVER

HANDLERS = ["rootless", "runc"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_statistics_name_pods_and_containers(cri, handler):
    """Those of an ordinary user's pod with runc fail, because its `ps` needs a cgroup."""
    with cri.pod(handler, linux={"cgroup_parent": "/"}) as pod:
        container = pod.start(*FOREVER, labels={"app": "busy"})
        stats = cri.call("ContainerStats", container_id=container.id).stats
        assert stats.attributes.id == container.id
        assert stats.cpu.timestamp > container.status.started_at
        listed = cri.call("ListContainerStats", filter={"label_selector": {"app": "busy"}}).stats
        assert [stats.attributes.id for stats in listed] == [container.id]
        if cri.uid and handler == "runc":
            assert "no such file or directory" in cri.refusal("PodSandboxStats", pod_sandbox_id=pod.id)[1]
            return
        stats = cri.call("PodSandboxStats", pod_sandbox_id=pod.id).stats
        assert stats.linux.network.default_interface.name == "eth0"
        assert [each.attributes.id for each in stats.linux.containers] == [container.id]
        listed = cri.call("ListPodSandboxStats", filter={"id": pod.id}).stats
        assert [stats.attributes.id for stats in listed] == [pod.id]


def test_events_report_each_step_of_a_container(cri):
    """The kubelet learns from them that a container has ended."""
    came = queue.SimpleQueue()
    stream = cri.method("GetContainerEvents")(cri.api.GetEventsRequest())

    def receive():
        with contextlib.suppress(grpc.RpcError):  # it is cancelled
            for event in stream:
                came.put((event.container_id, event.container_event_type))

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        for handler in HANDLERS:
            with cri.pod(handler) as pod:
                container = pod.start("true")
                until(lambda it=container: it.exited, "it ends")
                container.remove()
            kinds = [
                getattr(cri.api, f"CONTAINER_{kind}_EVENT") for kind in ("CREATED", "STARTED", "STOPPED", "DELETED")
            ]
            missing = {(one, kind) for one in (pod.id, container.id) for kind in kinds}
            while missing:
                missing.discard(came.get(timeout=PATIENCE))
    finally:
        stream.cancel()
        thread.join()


def test_a_limit_without_a_controller_is_a_warning_for_root_and_an_error_without_a_cgroup(cri):
    """With runc both are errors."""
    with cri.pod() as pod:
        container = pod.start(*FOREVER)
        request = {"container_id": container.id, "linux": {"memory_limit_in_bytes": 50 << 20}}
        if cri.uid:
            assert "it has no cgroup of its own" in cri.refusal("UpdateContainerResources", **request)[1]
        else:
            cri.call("UpdateContainerResources", **request)
        assert container.running


def test_the_plugin_is_ready_and_lists_its_images(cri):
    status = {each.type: each.status for each in cri.call("Status").status.conditions}
    assert status["RuntimeReady"]
    assert status["NetworkReady"]
    assert cri.call("Version").runtime_name == "containerd"
    image = cri.call("ImageStatus", image={"image": cri.image}).image
    assert image.repo_tags == [cri.image]
    assert image.id in [each.id for each in cri.call("ListImages").images]
