"""Kubernetes pods when containerd or its shim ends: containerd by SIGTERM or SIGKILL, the shim by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.lib.bundles import own
from tests.lib.containers import until

SCRIPT = "until [ -e /flags/end-$0 ]; do sleep 0.1; done; touch /flags/ended-$0; exit 5"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_pods_survive_a_restart_of_containerd(cri, containerd, number):
    """containerd takes a pod for ended if the runtime's `ps` fails, as runc's does without a cgroup."""
    flags = cri.tmp / f"flags-{number.name}"
    flags.mkdir()
    own(cri, flags)
    mounts = [cri.api.Mount(host_path=str(flags), container_path="/flags")]
    with contextlib.ExitStack() as stack:
        pods = [stack.enter_context(cri.pod(handler)) for handler in ("rootless", *([] if cri.uid else ["runc"]))]
        made = []
        for pod in pods:
            names = [f"{when}-{pod.id}" for when in ("before", "after")]
            before, after = (pod.start("sh", "-c", SCRIPT, name, name=name, mounts=mounts) for name in names)
            made.append((pod, names, before, after, after.status.started_at))
        with containerd.down(cri, number):
            for _, (name, _), *_ in made:
                (flags / f"end-{name}").touch()
                until((flags / f"ended-{name}").exists, "one ends while containerd is down")
        for pod, (_, name), before, after, started in made:
            until(lambda it=before: it.exited, "containerd knows it")
            # containerd 1.7 has forgotten the task, and says "unknown"
            assert before.status.exit_code == 255
            assert pod.status.state == cri.api.SANDBOX_READY
            assert after.running
            assert after.status.started_at == started
            assert after.sh("echo here") == (0, "here\n", "")
            (flags / f"end-{name}").touch()
            until(lambda it=after: it.exited, "the other ends")
            assert after.status.exit_code == 5
            before.remove()
            pod.start("true", name="another")


def processes(*words: str) -> list[int]:
    """Return the processes whose command line has these words next to each other."""
    found = []
    wanted = "".join(f"{word}\0" for word in words).encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and wanted in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("handler", ["rootless", "runc"])
def test_nothing_is_left_of_a_pod_whose_shim_is_killed(cri, handler):
    with cri.pod(handler) as pod:
        container = pod.start("sleep", f"1000{cri.uid}", name="sleeps")
        until(lambda: processes("sleep", f"1000{cri.uid}"), "its process runs")
        (shim,) = processes("-id", pod.id)
        os.kill(shim, signal.SIGKILL)
        until(lambda: container.exited, "containerd knows that it has ended")
        until(lambda: pod.status.state == cri.api.SANDBOX_NOTREADY, "containerd knows that the pod has ended")
        until(lambda: not processes("sleep", f"1000{cri.uid}"), "its process has ended")
    assert not {pod.id, container.id} & cri.states()
