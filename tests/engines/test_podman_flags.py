"""The flags of `run` compared with podman's: both edit the same config.json, and the results are the same.

podman's result is read from the bundle that it gives to its runtime, here a script that keeps a copy and fails.
"""

from __future__ import annotations

import json
import os
import posix
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from rootless.bundle.load import Bundle
from rootless.cli import parser
from rootless.container.edits.apply import edit
from rootless.container.request import request_for
from rootless.host.facts import Facts
from rootless.plan.idmaps import id_maps
from rootless.plan.request import Request
from tests.lib.accounts import User
from tests.lib.boxes import pure_cgroup2
from tests.lib.bundles import base_config, make_rootfs, own
from tests.lib.cdi import specs_of_the_host

RECORDER = """#!/bin/sh
for word; do
    [ "$last" = --bundle ] && cp "$word/config.json" "$0.json"
    last=$word
done
exit 1
"""
COMMAND = ["sh", "-c", "true"]
PROFILE = "/usr/share/containers/seccomp.json"

FLAGS = {
    # each of these is given or not; {tmp} is a directory of the user
    "terminal": ["-t", "-it", "-i"],
    "environment": [
        "-e A=1 -e A=2 -e B=",
        "-e FROM_CALLER -e NOT_THERE",
        "-e FROM_*",
        "--env-file {tmp}/env -e A=flag",
    ],
    "workdir": ["-w /data", "--workdir=/tmp"],
    "user": ["-u www-data", "-u 33", "-u 4242", "-u 33:29", "-u user:audio", "-u 0:5", "-u www-data:user"],
    "groups": ["--group-add audio --group-add 7", "--group-add keep-groups", "--group-add 29"],
    "ulimit": ["--ulimit nofile=10:20", "--ulimit RLIMIT_CORE=3 --ulimit nofile=5"],
    "hostname": ["--hostname web.example"],
    "volume": [
        "-v ./source:/dst",
        "-v {tmp}/source:/dst:ro",
        "-v {tmp}/source:/dst:Z,noexec,bind,suid,dev",
        "-v {tmp}/source:/dst:ro,z,rbind,shared -v {tmp}/source:/a/b -v {tmp}/env:/a",
        "-v {tmp}/source:/dst:rslave,exec",
        "-v {tmp}/source:/dev",
        "-v {tmp}/source:/proc/sys",
    ],
    "mount": [
        "--mount type=bind,src={tmp}/source,dst=/m",
        "--mount type=bind,source={tmp}/source,destination=/m,readonly=false,bind-propagation=rslave",
        "--mount type=bind,src={tmp}/source,dst=/m,bind-nonrecursive=true,relabel=shared",
        "--mount type=bind,src={tmp}/source,target=/m,bind-nonrecursive,nosuid,noexec,nodev",
        "--mount type=bind,src={tmp}/source,dst=/m,ro=true,consistency=cached",
        "--mount 'type=bind,\"src={tmp}/source\",dst=/m,ro'",
        "--mount type=tmpfs,dst=/m",
        "--mount type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=1770,ro",
        "--mount type=tmpfs,dst=/m,tmpcopyup,noexec",
        "--mount type=tmpfs,dst=/m,notmpcopyup",
        "--mount type=devpts,dst=/m/pts,uid=3,gid=4,mode=0600,max=10",
        "--mount type=ramfs,dst=/m",
    ],
    "tmpfs": ["--tmpfs /t", "--tmpfs /t:size=1m,mode=755", "--tmpfs /t:rw,exec,suid,dev", "--tmpfs /t:notmpcopyup,ro"],
    "read-only": ["--read-only", "--read-only --read-only-tmpfs=false", "--read-only --tmpfs /tmp:size=1m"],
    "capabilities": [
        "--cap-add SYS_ADMIN",
        "--cap-add CAP_SYS_ADMIN,net_raw",
        "--cap-drop all",
        "--cap-drop ALL --cap-add chown",
        "--cap-add ALL",
        "--cap-add ALL --cap-drop NET_RAW",
        "--cap-drop KILL --cap-drop CAP_CHOWN",
    ],
    "privileges": [
        "--security-opt no-new-privileges",
        "--security-opt no-new-privileges:true",
        "--security-opt no-new-privileges=false",
    ],
    "seccomp": ["--security-opt seccomp=unconfined", "--security-opt seccomp={tmp}/profile.json"],
    "paths": [
        "--security-opt mask=/a:/b",
        "--security-opt unmask=ALL",
        "--security-opt unmask=/proc/acpi:/sys/fs/s*",
        "--security-opt unmask=/sys/fs/cgroup",
        "--security-opt systempaths=unconfined",
    ],
    "proc": ["--security-opt proc-opts=hidepid=2"],
    "labels": ["--security-opt label=disable --security-opt apparmor=unconfined"],
    "devices": ["--device /dev/fuse", "--device /dev/null:/dev/x:r --device /dev/zero:rw", "--device /dev/net"],
    "annotations": ["--annotation a=b --annotation c.d=e=f --label x=y"],
    "entrypoint": ["--entrypoint /x", '--entrypoint \'["a","b"]\''],
    "name": ["--name other --rm"],
}
LIMITS = {
    "memory": [
        "-m 512M",
        "-m 512m --memory-swap 1g",
        "-m 1.5g",
        "-m 8388608k",
        "--memory 512MiB --memory-reservation 100m",
        "--memory-reservation=9999b",
    ],
    "cpu": ["--cpus 1.5", "--cpus 0.01", "--cpu-period 50000 --cpu-quota 20000"],
    "shares": ["--cpu-shares 512", "-c 2"],
    "cpuset": ["--cpuset-cpus 0 --cpuset-mems 0"],
    "pids": ["--pids-limit 10", "--pids-limit -1", "--pids-limit 0"],
    "devices": [
        "--blkio-weight-device /dev/null:100",
        "--device-read-bps /dev/null:1mb --device-write-bps /dev/null:2m",
        "--device-read-iops /dev/null:100 --device-write-iops /dev/zero:7",
    ],
}
NAMED = [
    "--device vendor.com/net=a --device vendor.com/net=b",
    "--device vendor.com/net=b -e SHARED=flag --device other.com/x.y=1:a",
    "--gpus all",
]
"""Devices of SPECS, which podman 5.4 looks for in /etc/cdi and /var/run/cdi only."""
if os.geteuid() == 0:
    FLAGS["names of devices"] = NAMED
SPECS = {
    "vendor.json": {
        "cdiVersion": "0.8.0",
        "kind": "vendor.com/net",
        "annotations": {"of": "the spec"},
        "containerEdits": {
            "env": ["SHARED=1", "TERM=spec"],
            "mounts": [{"hostPath": "{tmp}/source", "containerPath": "/cdi/shared", "options": ["ro", "rbind"]}],
            "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true", "--all"]}],
            "additionalGids": [0, 5, 6],
        },
        "devices": [
            {
                "name": "a",
                "annotations": {"of": "the device"},
                "containerEdits": {
                    "env": ["A=1"],
                    "deviceNodes": [
                        {"path": "/dev/cdi/a", "hostPath": "/dev/null", "permissions": "rw", "fileMode": 416, "gid": 5},
                        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "uid": 3},
                        {"path": "/dev/fifo", "type": "p"},
                    ],
                    "mounts": [
                        {"hostPath": "tmpfs", "containerPath": "/cdi/t", "type": "tmpfs", "options": ["size=1m"]},
                        {"hostPath": "{tmp}/env", "containerPath": "/cdi/shared/env", "options": ["bind", "nosuid"]},
                    ],
                    "hooks": [
                        {"hookName": kind, "path": "/bin/true", "env": ["A=b"], "timeout": 3}
                        for kind in ("prestart", "createRuntime", "startContainer", "poststart", "poststop")
                    ],
                },
            },
            {
                "name": "b",
                "containerEdits": {
                    "env": ["SHARED=2", "A=2"],
                    "deviceNodes": [{"path": "/dev/fuse"}, {"path": "/dev/cdi/a", "hostPath": "/dev/zero"}],
                    "mounts": [{"hostPath": "{tmp}/source", "containerPath": "/cdi/shared", "type": "bind"}],
                    "hooks": [{"hookName": "createContainer", "path": "/bin/false", "args": []}],
                    "additionalGids": [7],
                    "intelRdt": {"closID": "guaranteed", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=70"},
                },
            },
        ],
    },
    "other.yaml": """
cdiVersion: 0.6.0
kind: other.com/x.y
devices:
  - name: "1:a"
    containerEdits:
      env: [OTHER=spec, 'QUOTED="1"']
      deviceNodes:
        - {path: /dev/random, fileMode: 0620}
""",
    "nvidia.yaml": """
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
containerEdits:
  env:
    - NVIDIA_VISIBLE_DEVICES=void
  mounts:
    - {hostPath: /usr/share/doc, containerPath: /usr/share/doc, options: [ro, nosuid, nodev, rbind, rprivate]}
devices:
  - name: "0"
    containerEdits:
      deviceNodes:
        - path: /dev/net/tun
  - name: all
    containerEdits:
      deviceNodes:
        - path: /dev/net/tun
        - path: /dev/zero
""",
}
"""Specs of devices that the flags name. That of podman 5.4 is version 0.8 of the Container Device Interface."""


# Differences: each function changes both results before they are compared, and gives the reason.


def _home(config, flags):
    """podman writes HOME into config.json; here the Plan looks it up when the program starts, for the same user."""
    config["process"]["env"] = [each for each in config["process"]["env"] if not each.startswith("HOME=")]


def _sets_of_users(config, flags):
    """podman empties the sets of a user other than root; here execve(2) does, and config.json keeps what it had."""
    if config["process"]["user"].get("uid") and "--cap" not in flags:
        for name in ("effective", "permitted"):
            config["process"]["capabilities"].pop(name, None)


def _dropped_of_all(config, flags):
    """podman gives a user other than root the capabilities that --cap-drop removes from ALL.

    They are not in the bounding set, so that the program does not get them.
    """
    sets = config["process"]["capabilities"]
    if "--cap-add ALL" in flags:
        for name, capabilities in sets.items():
            sets[name] = [each for each in capabilities if each in sets["bounding"]]


def _groups_of_root(config, flags):
    """podman adds the group of --group-add alone; the group list of root without -u has nothing more here either."""
    config["process"]["user"]["additionalGids"] = sorted(config["process"]["user"].get("additionalGids") or ())


def _propagation(config, flags):
    """podman makes the root slave or shared for such a mount; here it is slave anyway, and cannot be shared."""
    config["linux"].pop("rootfsPropagation", None)


def _filter(config, flags):
    """podman derives its default filter from the capabilities; a bundle's filter is its own and stays."""
    if "--cap" in flags:
        config["linux"].pop("seccomp", None)
    for rule in (config["linux"].get("seccomp") or {}).get("syscalls") or ():
        for argument in rule.get("args") or ():
            argument.pop("valueTwo", None)  # 0 in podman's file, and left out by Go


def _own_annotations(config, flags):
    """podman records its own flags in annotations, and names the cgroup by the container's ID."""
    config["linux"].pop("cgroupsPath", None)
    annotations = config.get("annotations") or {}
    config["annotations"] = {name: each for name, each in annotations.items() if not name.startswith("io.podman.")}


def _labels(config, flags):
    """podman keeps labels in its database; here they are annotations."""
    (config.get("annotations") or {}).pop("x", None)


OWN_FILES = ("/dev/shm", "/run/.containerenv", *(f"/etc/{name}" for name in ["hosts", "hostname", "passwd", "group"]))


def _own_mounts(config, flags):
    """podman mounts files of its own, such as a passwd with an entry for any user, and its own /dev/shm."""
    config["mounts"] = [each for each in config["mounts"] if each["destination"] not in OWN_FILES]


def _proc(config, flags):
    """podman drops nosuid, noexec and nodev of /proc when it gets other options; here they stay."""
    for each in config["mounts"]:
        if each["destination"] == "/proc":
            each["options"] = [option for option in each["options"] if option not in ("nosuid", "noexec", "nodev")]


def _devices(config, flags):
    """podman writes a bind mount for a user's device; here linux.devices, which becomes one in the Plan.

    Both write linux.devices for the device of a spec.
    """
    if "--device /dev" not in flags:
        config["linux"]["devices"] = {each["path"]: each for each in config["linux"].get("devices") or ()}
        return
    binds = [each for each in config["mounts"] if each.get("source", "").startswith("/dev/")]
    config["mounts"] = [each for each in config["mounts"] if each not in binds]
    numbers = {each["destination"]: os.stat(each["source"]).st_rdev for each in binds}
    for each in config["linux"].pop("devices", None) or ():
        numbers[each["path"]] = posix.makedev(each.get("major", 0), each.get("minor", 0))
    config["linux"]["devices"] = numbers


def _variables_of_specs(config, flags):
    """podman leaves the variable that a spec sets again before it, and programs take either; here it is replaced."""
    variables = {each.partition("=")[0]: each for each in config["process"]["env"]}
    config["process"]["env"] = list(variables.values())


def _rules_of_specs(config, flags):
    """podman writes a rule for a device of a spec even where no rule denies any; here only where there are rules."""
    (config["linux"].get("resources") or {}).pop("devices", None)


def _mounts_of_specs(config, flags):
    """podman leaves the type of a bind mount out where a spec does; then the option rbind makes it one, or nothing."""
    for each in config["mounts"]:
        if each["destination"].startswith(("/cdi/", "/usr/share/doc")) and each.get("type") == "bind":
            del each["type"]


def _order(config, flags):
    """The order has no meaning in these; tests/unit/test_edit_properties.py shows the order of mounts."""
    config["mounts"] = {
        each["destination"]: each | {"options": sorted(each.get("options") or ())} for each in config["mounts"]
    }
    config["process"]["env"].sort()
    for each in (config["process"].get("capabilities") or {}).values():
        each.sort()
    config["process"]["rlimits"] = sorted(config["process"].get("rlimits") or (), key=lambda each: each["type"])
    for name in ("maskedPaths", "readonlyPaths"):
        config["linux"][name] = sorted(set(config["linux"].get(name) or ()))


def _nothing(config, flags):
    """Go omits empty, zero and false values."""
    for name, value in list(config.items()):
        if isinstance(value, dict):
            _nothing(value, flags)
            value = config[name]  # noqa: PLW2901 - changed in place
        if value in (None, False, "", [], {}) or (value == 0 and name in ("uid", "gid")):
            del config[name]


DIFFERENCES = (
    _home,
    _sets_of_users,
    _dropped_of_all,
    _groups_of_root,
    _propagation,
    _filter,
    _own_annotations,
    _labels,
    _own_mounts,
    _proc,
    _devices,
    _variables_of_specs,
    _rules_of_specs,
    _mounts_of_specs,
    _order,
    _nothing,
)
"""Flags that are not in the tables above, because podman does something else or nothing on this host:

- `-w` of a missing directory: podman refuses it.
- `--shm-size`: podman makes the tmpfs itself; test_shm_size_is_the_same_as_podmans() compares the number.
- `--memory-swap -1` and `-m 0`: podman writes nothing; here -1, because config.json may have a limit that they lift.
- `--blkio-weight`: podman drops it without BFQ on the host.
- `--ulimit` above the caller's own: podman lowers it already, here the Plan does, with a warning.
- `-v …:idmap`, `:U`, `:O`: see docs/run.md.
- `--gpus 2`: podman takes the GPU with the name 2; here two GPUs, as with docker.
- `--device vendor.com/net=all`: podman refuses it unless a spec defines a device of that name.
- a device that is named twice: podman adds its hooks twice.
- a spec that names a node which the host does not have: podman takes the numbers that the spec gives.
- netDevices, and schemata and enableMonitoring of intelRdt: version 1.1 has them, and podman 5.4 refuses the spec.
- `--userns keep-id`: in podman's config.json, here in the Plan; test_id_maps_of_keep_id_are_the_same_as_podmans()
  compares the maps.
"""


class Podman:
    """podman with a store of its own, whose runtime keeps config.json and fails."""

    def __init__(self, account, directory: Path, podman: str) -> None:
        self.account = account
        self.tmp = directory
        self.rootfs = make_rootfs(directory / "rootfs")
        (self.rootfs / "etc/group").write_text("root:x:0:\nwww-data:x:33:\naudio:x:29:www-data,user\nuser:x:1000:\n")
        (directory / "source").mkdir()
        (directory / "env").write_text("# comment\nA=file\n  C=a b\nFROM_CALLER\n")
        profile = json.loads(Path(PROFILE).read_text())
        (directory / "profile.json").write_text(json.dumps(profile | {"defaultErrnoRet": 1}))
        (directory / "recorder").write_text(RECORDER)
        (directory / "recorder").chmod(0o755)
        own(account, directory)
        stores = [f"--root={directory}/store", f"--runroot={directory}/run", f"--tmpdir={directory}/tmp"]
        self._command = [podman, "--log-level=error", "--cgroup-manager=cgroupfs", *stores, "--storage-driver=vfs"]
        self._command += ["--runtime", str(directory / "recorder")]

    def __call__(self, *words) -> str:
        env = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1", "FROM_CALLER": "mine", "XDG_RUNTIME_DIR": str(self.tmp)}
        return self.account.run([*self._command, *words], cwd=self.tmp, env=env).stdout.strip()

    def config(self, flags: str) -> dict:
        """Return the config.json for a container with these flags."""
        recorded = self.tmp / "recorder.json"
        recorded.unlink(missing_ok=True)
        name = [] if "--name" in flags else ["--name", "box"]
        host = [] if "--hostname" in flags else ["--hostname", "box"]
        words = ["create", "--network=none", *name, *host, *shlex.split(flags), "--rootfs", str(self.rootfs), *COMMAND]
        container = self(*words)
        assert re.fullmatch("[0-9a-f]{64}", container), flags
        self("init", container)
        self("rm", "--force", container)
        return json.loads(recorded.read_text())

    def close(self) -> None:
        """Remove the containers and the process that keeps podman's user namespace."""
        self("rm", "--all", "--force")
        pause = self.tmp / "tmp/pause.pid"
        if pause.exists():
            os.kill(int(pause.read_text()), 9)


@pytest.fixture(scope="module")
def podman(module_user, need, tmp_path_factory):
    """podman of the ordinary user, on a host with cgroup v2 only, which rootless podman 5 requires."""
    program = need("podman")
    specs = {name: json.dumps(spec) if isinstance(spec, dict) else spec for name, spec in SPECS.items()}
    specs = {name: text.replace("{tmp}", str(module_user.tmp)) for name, text in specs.items()}
    with ExitStack() as stack:
        stack.enter_context(pure_cgroup2("crun"))
        if os.geteuid() == 0:
            stack.enter_context(specs_of_the_host(tmp_path_factory.mktemp("etc"), specs))
        made = Podman(module_user, module_user.tmp, program)
        stack.callback(made.close)
        yield made


class Base(dict):
    """A config.json without flags, which a failing test does not print."""

    def __repr__(self):
        return "base"


@pytest.fixture(scope="module")
def base(podman):
    return Base(podman.config(""))


def edited(podman, base, flags):
    """Return the config.json of podman's container, edited by the flags of `rootless run`."""
    options = parser.parse(["run", *shlex.split(flags), "box", *COMMAND], lambda _: None)
    bundle = Bundle(str(podman.tmp), json.loads(json.dumps(base)))
    here = os.getcwd()
    os.chdir(podman.tmp)
    try:
        return json.loads(edit(bundle, Request(options), options).text)
    finally:
        os.chdir(here)


def compared(config, flags):
    """Return config.json without the differences."""
    for difference in DIFFERENCES:
        difference(config, flags)
    return config


def lines(value, place=""):
    """Yield each value of a configuration with its place."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from lines(each, f"{place}.{name}")
    else:
        yield place, value


def merged(ours, theirs):
    """Yield each place of either with both values."""
    for place in {**ours, **theirs}:
        yield place, ours.get(place), theirs.get(place)


def assert_same(podman, base, flags):
    flags = flags.format(tmp=podman.tmp)
    ours, theirs = compared(edited(podman, base, flags), flags), compared(podman.config(flags), flags)
    both = (dict(lines(each)) for each in (ours, theirs))
    different = {place: pair for place, *pair in merged(*both) if pair[0] != pair[1]}
    assert different == {}, flags


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr("posix.environ", {b"FROM_CALLER": b"mine", b"OTHER": b"x"})


def rounds(table):
    """Return command lines that have each value of a table once, with as many others as possible."""
    longest = max(map(len, table.values()))
    return [" ".join(each[index] for each in table.values() if index < len(each)) for index in range(longest)]


def is_possible(flags):
    """Return whether podman accepts these together: a read-only /dev, or the user's own, has no room for devices."""
    return "--device" not in flags or not ("source:/dev" in flags or "--read-only-tmpfs=false" in flags)


@pytest.mark.parametrize("flags", rounds(FLAGS))
def test_config_json_is_the_same_as_podmans(podman, base, flags):
    """Each value of the table occurs once."""
    assert_same(podman, base, flags)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to write into /etc/cdi")
@pytest.mark.parametrize("flags", [*NAMED, "-u 33:29 --device vendor.com/net=a"])
def test_all_properties_of_devices_of_specs_are_the_same_as_podmans(podman, base, flags):
    assert_same(podman, base, flags)


SETS = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FLAGS.items()})


@given(SETS.map(lambda chosen: " ".join(chosen.values())).filter(is_possible))
@example("--cap-add ALL --cap-drop NET_RAW -u 33:29")
@settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_config_json_of_random_flags_is_the_same_as_podmans(podman, base, flags):
    assert_same(podman, base, flags)


def test_shm_size_is_the_same_as_podmans(podman, base):
    container = podman("create", "--network=none", "--shm-size=3m", "--rootfs", str(podman.rootfs), *COMMAND)
    size = podman("inspect", "--format={{.HostConfig.ShmSize}}", container)
    podman("rm", "--force", container)
    options = parser.parse(["run", "--shm-size=3m", "box"], lambda _: None)
    bundle = edit(Bundle(str(podman.tmp), base_config()), Request(options), options)
    assert bundle.config["mounts"][-1]["options"][-1] == f"size={size}"


@pytest.mark.parametrize("flags", ["--userns keep-id", "--userns keep-id:uid=200,gid=210", "--userns keep-id:uid=0"])
def test_id_maps_of_keep_id_are_the_same_as_podmans(podman, module_user, flags):
    """podman's maps are relative to its own user namespace, in which the user is root."""
    linux = podman.config(flags)["linux"]
    facts = Facts(uid=module_user.uid, gid=module_user.gid, subuids=((100000, 65536),), subgids=((100000, 65536),))
    options = parser.parse(["explain", *flags.split(), "box"], lambda _: None)
    request = request_for(options)
    maps, _, _ = id_maps({}, {}, facts, request.userns, request.kept_ids)
    for ours, name, own_id in (
        (maps.uids, "uidMappings", module_user.uid),
        (maps.gids, "gidMappings", module_user.gid),
    ):
        theirs = [(each["containerID"], each["hostID"], each["size"]) for each in linux[name]]
        outside = [(first, own_id if host == 0 else 100000 + host - 1, size) for first, host, size in theirs]
        assert sorted(ours) == sorted(outside)


@pytest.fixture(scope="module")
def roots_podman(tmp_path_factory, need):
    """podman of the host's root: on a machine with controllers in cgroup v1, only root's podman writes limits."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    program = need("podman")
    root = User("root", tmp_path_factory.mktemp("podman"))
    made = Podman(root, root.tmp, program)
    yield made
    made.close()


@pytest.mark.parametrize("flags", rounds(LIMITS))
def test_limits_are_the_same_as_podmans(roots_podman, flags):
    assert_same(roots_podman, roots_podman.config(""), flags)
