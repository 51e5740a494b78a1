"""`run --device VENDOR/CLASS=NAME` by an ordinary user: devices of the Container Device Interface, seen from inside."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.lib.boxes import make_volume, mount_table
from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.cdi import specs_of_the_host, write_specs
from tests.lib.engines import make_image

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
OUTSIDE = [kind for kind in KINDS if kind != "startContainer"]


@pytest.fixture
def run(rootless, user, need):
    """A function that runs a script in the user's box; `home` is a home with specs in ~/.config/cdi."""
    bundle = make_bundle(user, name="box")
    home = user.tmp / "home"
    home.mkdir()
    own(user, home)

    def call(*words, verb="run", **options):
        network = ["--network", "none"]
        return rootless(verb, *network, *words, **{"env": {"HOME": str(home)}, "cwd": user.tmp} | options)

    def specs(**files):
        texts = {f"{name}.json": {"cdiVersion": "1.1.0"} | spec for name, spec in files.items()}
        directory = write_specs(home / ".config/cdi", texts)
        own(user, home)
        return directory

    def doctor():
        return rootless("doctor", env={"HOME": str(home)}).stdout

    call.box, call.specs, call.doctor = bundle, specs, doctor
    return call


def lines(done):
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def device(name="a", **edits):
    return {"name": name, "containerEdits": edits or {"env": ["FOUND=1"]}}


def test_every_edit_is_seen_from_inside(run, user):
    make_volume(user, "libraries", **{"lib.so": "text"})
    records = user.tmp / "records"
    records.mkdir()
    own(user, records)
    script = f'echo "$KIND $(id -u)" >>{records}/order'
    hooks = [
        {
            "hookName": kind,
            "path": "/bin/sh",
            "args": ["sh", "-c", script],
            "env": [f"KIND={kind}", "PATH=/usr/bin:/bin"],
        }
        for kind in OUTSIDE
    ]
    hooks += [{"hookName": "startContainer", "path": "/bin/touch", "args": ["touch", "/data/started"]}]
    spec = {
        "kind": "vendor.com/net",
        "containerEdits": {"hooks": hooks, "additionalGids": [44]},
        "devices": [
            device(
                env=["FOUND=1"],
                deviceNodes=[{"path": "/dev/mine", "hostPath": "/dev/zero"}],
                mounts=[{"hostPath": f"{user.tmp}/libraries", "containerPath": "/opt/lib", "options": ["ro", "rbind"]}],
            )
        ],
    }
    run.specs(vendor=spec)
    script = (
        "echo $FOUND; id -G; head -c 3 /dev/mine | od -An -tx1; cat /opt/lib/lib.so; ls /data; cat /proc/self/mountinfo"
    )
    found = lines(run("--device", "vendor.com/net=a", run.box, "sh", "-c", script))
    assert found[:5] == ["1", "0 44", " 00 00 00", "textstarted", found[4]]
    assert "ro" in mount_table(found[4:])["/opt/lib"][0]
    order = [line.split() for line in (records / "order").read_text().splitlines()]
    assert [kind for kind, _ in order] == OUTSIDE
    # a hook of createContainer is in the container's user namespace, where the caller is root
    assert dict(order) == dict.fromkeys(OUTSIDE, str(user.uid)) | {"createContainer": "0"}


def test_the_node_of_the_spec_is_bound_and_not_another_of_its_numbers(run, user):
    """/dev/null and the node have the same numbers, by which the kernel would name /dev/null."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a node")
    node = "/dev/rootless-test-node"
    subprocess.run(["mknod", "-m", "600", node, "c", "1", "3"], check=True)
    try:
        os.chown(node, user.uid, user.gid)
        run.specs(v={"kind": "v.com/x", "devices": [device(deviceNodes=[{"path": "/dev/mine", "hostPath": node}])]})
        for value in ("v.com/x=a", f"{node}:/dev/mine"):
            assert lines(run("--device", value, run.box, "stat", "-c", "%a %t:%T", "/dev/mine")) == ["600 1:3"]
    finally:
        os.unlink(node)


def test_specs_in_yaml_of_the_host_and_all_devices(run, rootless, user, tmp_path):
    spec = """
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
  - {name: "0", containerEdits: {env: [ZERO=1]}}
  - {name: "1", containerEdits: {env: [ONE=1], deviceNodes: [{path: /dev/fuse}]}}
"""
    script = "echo $ZERO$ONE; ls /dev/fuse 2>/dev/null || true"
    run.specs(own={"kind": "own.com/x", "devices": [device()]})
    with specs_of_the_host(tmp_path, {"nvidia.yaml": spec}):
        for flags, found in (
            (["--gpus", "all"], ["11", "/dev/fuse"]),
            (["--gpus", "1"], ["1"]),
            (["--gpus=device=1", "--device", "own.com/x=a"], ["1", "/dev/fuse"]),
        ):
            assert lines(run(*flags, run.box, "sh", "-c", script)) == found
        plan = lines(run("--device", "nvidia.com/gpu=all", run.box, verb="explain"))
        nested = user.run(["unshare", "-Ur", rootless.command, "explain", "--gpus", "all", run.box])
        assert "/dev/fuse" in "".join(lines(nested))
    (bound,) = [line for line in plan if "/dev/fuse" in line and "bind-mounted" not in line]
    assert bound.endswith("[--device nvidia.com/gpu=all]")


def test_a_stale_spec_is_one_line_with_a_fix(run, rootless):
    hook = {"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook-of-yesterday"}
    directory = run.specs(gone={"kind": "nvidia.com/gpu", "devices": [device("0", hooks=[hook]), device("1")]})
    done = run("--gpus", "all", run.box, "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "rootless: --gpus all: /usr/bin/nvidia-cdi-hook-of-yesterday does not exist "
        f"({directory}/gone.json: devices[0].containerEdits.hooks[0]); "
        f"fix: run nvidia-ctk cdi generate --output={directory}/gone.json\n"
    )
    assert rootless("list", "-q").stdout == ""
    checked = run.doctor()
    assert f"CDI devices of {directory}/gone.json: nvidia.com/gpu=0, nvidia.com/gpu=1\n" in checked
    assert f"evidence: {directory}/gone.json, of nvidia.com/gpu=0: {hook['path']} does not exist\n" in checked


def test_a_spec_that_cannot_be_used_is_a_warning_with_its_reason(run):
    directory = run.specs(good={"kind": "v.com/x", "devices": [device()]}, bad={"kind": "v.com/x", "devices": []})
    done = run("--device", "v.com/x=a", run.box, "sh", "-c", "echo $FOUND")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr.startswith(
        f"rootless: warning: CDI spec {directory}/bad.json is ignored: devices: found an empty"
    )


def test_a_refused_edit_names_the_flag(run):
    moved = [{"hostInterfaceName": "lo", "name": "eth9"}]
    run.specs(v={"kind": "v.com/x", "devices": [device(netDevices=moved)]})
    done = run("--device", "v.com/x=a", run.box, "true")
    assert done.returncode == 1
    assert (
        "cannot move the network interface lo: only root of its network namespace may move it (--device v.com/x=a)"
        in (done.stderr)
    )


def test_restart_takes_the_devices_again(run, rootless, user):
    run.specs(v={"kind": "v.com/x", "devices": [device()]})
    done = run("-d", "--device", "v.com/x=a", "--name", "c1", run.box, "sh", "-c", "echo $FOUND; sleep 600")
    assert done.returncode == 0, done
    env = {"HOME": str(user.tmp / "home")}
    assert rootless("restart", "--time", "0", "c1", env=env).returncode == 0
    config = json.loads(rootless("inspect", "c1").stdout)
    assert "FOUND=1" in json.dumps(config)


@pytest.mark.parametrize("name", ["cdi.k8s.io/x", "nvidia.com/gpu", "vendor.com/net", "io.podman.annotations.cdi"])
def test_neither_an_image_nor_a_bundle_names_devices(run, rootless, user, name):
    run.specs(v={"kind": "v.com/x", "devices": [device()]})
    named = {name: "v.com/x=a"}
    write_config(run.box, base_config("sh", "-c", "echo $FOUND.") | {"annotations": named})
    assert lines(run(run.box)) == ["."]
    archive = make_image(
        user.tmp, command=("sh", "-c", "echo $FOUND."), Labels=named, Env=["NVIDIA_VISIBLE_DEVICES=all"]
    )
    own(user, archive)
    env = {"HOME": str(user.tmp / "home"), "ROOTLESS_IMAGES": str(user.tmp / "store")}
    assert lines(run(f"docker-archive:{archive}", env=env)) == ["."]
    assert lines(run("--device", "v.com/x=a", f"docker-archive:{archive}", env=env)) == ["1."]
