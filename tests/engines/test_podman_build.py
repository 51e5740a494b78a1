"""Images built by podman and buildah as an ordinary user, their RUN steps carried out by rootless."""

from __future__ import annotations

import pytest

from tests.engines.engines import IMAGE
from tests.user.containers import until

CONTAINERFILE = f"""
FROM {IMAGE}
RUN id -u >/who && grep Seccomp: /proc/self/status >>/who
COPY file /file
WORKDIR /work
RUN --mount=type=tmpfs,dst=/t --mount=type=bind,src=.,dst=/context cat /context/file >/t/x && cat /t/x >copied
USER 1000:33
RUN ["sh", "-c", "id -u; id -g; echo $HOME"]
"""
STEPS = CONTAINERFILE.count("RUN ")


@pytest.fixture
def context(podman):
    """A directory to build from; `write` replaces its Containerfile."""
    directory = podman.account.tmp / "context"
    directory.mkdir(exist_ok=True)
    (directory / "file").write_text("from the context\n")
    (directory / "Containerfile").write_text(CONTAINERFILE)
    return directory


def built(podman, name):
    done = podman.run(f"localhost/{name}", "sh", "-c", "pwd; cat /who copied /file; ls /t /context", check=False)
    assert done.stdout.splitlines() == ["/work", "0", "Seccomp:\t2", "from the context", "from the context"]


def test_podman_build(podman, context, recorder):
    before = len(recorder)
    words = ["build", "--no-cache", "--network=none", "--tag=by-podman", context]
    done = podman.with_runtime(recorder.command, *words, check=True)
    assert "1000\n33\n" in done.stdout
    assert len(recorder.made(before)) == STEPS
    built(podman, "by-podman")


@pytest.mark.parametrize("isolation", ["oci", "rootless"])
def test_buildah_bud(podman, context, recorder, need, isolation):
    before = len(recorder)
    flags = ["--runtime", recorder.command, f"--isolation={isolation}", "--network=none", "--no-cache"]
    done = podman.buildah(need("buildah"), "bud", *flags, f"--tag=by-buildah-{isolation}", context)
    assert done.returncode == 0, done.stderr
    assert "1000\n33\n" in done.stdout
    assert len(recorder.made(before)) == STEPS
    built(podman, f"by-buildah-{isolation}")


def test_buildah_run(podman, recorder, need):
    before = len(recorder)
    buildah = need("buildah")
    name = podman.buildah(buildah, "from", IMAGE).stdout.strip()
    run = ["run", "--runtime", recorder.command, "--isolation=oci", "--network=none", name, "--"]
    done = podman.buildah(buildah, *run, "sh", "-c", "echo out; echo err >&2; exit 7")
    podman.buildah(buildah, "rm", name)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert len(recorder.made(before)) == 1
    assert done.stderr.startswith("err\n")


def test_a_step_that_fails_is_the_builds_failure(podman, context):
    (context / "Containerfile").write_text(f"FROM {IMAGE}\nRUN exit 42\n")
    words = ["build", "--network=none", context]
    ours, theirs = (podman.with_runtime(runtime, *words) for runtime in ("rootless", "runc"))
    assert ours.returncode == theirs.returncode == 42
    until(lambda: podman.left() == [], "nothing is left")
