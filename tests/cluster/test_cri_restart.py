"""Kubernetes pods outlive containerd, which ends by SIGTERM or SIGKILL and starts again."""

from __future__ import annotations

import contextlib
import signal

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
