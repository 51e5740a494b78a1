"""Images built by podman and buildah as an ordinary user: rootless executes their RUN steps."""

from __future__ import annotations

import pytest

from tests.lib.bundles import own
from tests.lib.containers import until
from tests.lib.engines import IMAGE

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


def test_podman_build_runs_its_steps_with_rootless(podman, context, recorder):
    before = len(recorder)
    words = ["build", "--no-cache", "--network=none", "--tag=by-podman", context]
    done = podman.with_runtime(recorder.command, *words, check=True)
    assert "1000\n33\n" in done.stdout
    assert len(recorder.made(before)) == STEPS
    built(podman, "by-podman")


@pytest.mark.parametrize("isolation", ["oci", "rootless"])
def test_buildah_bud_runs_its_steps_with_rootless(podman, context, recorder, need, isolation):
    before = len(recorder)
    flags = ["--runtime", recorder.command, f"--isolation={isolation}", "--network=none", "--no-cache"]
    done = podman.buildah(need("buildah"), "bud", *flags, f"--tag=by-buildah-{isolation}", context)
    assert done.returncode == 0, done.stderr
    assert "1000\n33\n" in done.stdout
    assert len(recorder.made(before)) == STEPS
    built(podman, f"by-buildah-{isolation}")


def test_buildah_run_passes_streams_and_exit_status(podman, recorder, need):
    before = len(recorder)
    buildah = need("buildah")
    name = podman.buildah(buildah, "from", IMAGE).stdout.strip()
    run = ["run", "--runtime", recorder.command, "--isolation=oci", "--network=none", name, "--"]
    done = podman.buildah(buildah, *run, "sh", "-c", "echo out; echo err >&2; exit 7")
    podman.buildah(buildah, "rm", name)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert len(recorder.made(before)) == 1
    assert done.stderr.startswith("err\n")


LOOK = """
FROM {image}
RUN {mount} grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Groups|Umask)' /proc/self/status; \\
    cat /proc/self/uid_map; env | grep -v HOSTNAME; ls /dev; \\
    awk '!/cgroup/ {{print $5, $6}}' /proc/self/mountinfo | sort; ulimit -n; {script}; true
USER 1000:33
RUN id; pwd; touch /tmp/by-user; stat -c "%A %u %g %n" /tmp/*
"""
BUILDS = {
    "plain": ([], "", "cat /proc/1/comm; stat -c '%u %g %a' /etc/hostname"),
    "capabilities": (["--cap-add=NET_ADMIN", "--cap-drop=CHOWN"], "", "chown 1 /etc"),
    "seccomp unconfined": (["--security-opt=seccomp=unconfined"], "", "true"),
    "ulimit": (["--ulimit=nofile=123:456"], "", "ulimit -Hn"),
    "shm-size": (["--shm-size=1m"], "", "df -k /dev/shm | tail -1"),
    "device": (["--device=/dev/fuse"], "", "stat -c %t,%T /dev/fuse"),
    "volume": (["--volume={context}:/v:ro"], "", "cat /v/file; touch /v/new"),
    "cache": ([], "--mount=type=cache,target=/cache,mode=0700", "touch /cache/new; ls -ln /cache | cut -c 1-20"),
    "bind": ([], "--mount=type=bind,src=file,dst=/in/file,rw", "cat /in/file; echo more >>/in/file; cat /in/file"),
}


@pytest.mark.parametrize("isolation", ["oci", "rootless"])
@pytest.mark.parametrize("option", BUILDS)
def test_a_build_has_the_same_result_as_with_runc(podman, context, need, option, isolation):
    """The output includes the image's ID."""
    need("runc")
    flags, mount, script = BUILDS[option]
    (context / "Containerfile").write_text(LOOK.format(image=IMAGE, mount=mount, script=script))
    own(podman.account, context)
    flags = [flag.format(context=context) for flag in flags]
    flags += [f"--isolation={isolation}", "--network=none", "--no-cache", "--timestamp=0"]

    ours, theirs = (
        podman.buildah(need("buildah"), "bud", "--runtime", runtime, *flags, context)
        for runtime in ("rootless", "runc")
    )

    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.returncode == 0


def test_podman_build_fails_with_its_step(podman, context):
    (context / "Containerfile").write_text(f"FROM {IMAGE}\nRUN exit 42\n")
    words = ["build", "--network=none", context]
    ours, theirs = (podman.with_runtime(runtime, *words) for runtime in ("rootless", "runc"))
    assert ours.returncode == theirs.returncode == 42
    until(lambda: podman.left() == [], "nothing is left")
