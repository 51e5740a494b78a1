"""Edits of config.json by flags of `run`: what each flag writes, and what holds for any of them."""

from __future__ import annotations

import copy
import json
import os

import pytest

from rootless.bundle.check import check
from rootless.bundle.edit import accounts, mounts, process, resources
from rootless.bundle.edit.values import misused, truth
from rootless.bundle.load import Bundle
from rootless.cli import parser
from rootless.cli.run_flags import EXPLAIN, RUN
from rootless.container.edits.apply import edit, name_flag, name_flags
from rootless.container.edits.devices import devices
from rootless.container.edits.inside_root import reader
from rootless.errors import RootlessError
from rootless.options import EDITS, Options, has_edits
from rootless.plan import ops
from rootless.plan.context import Note
from rootless.plan.ops import Op
from rootless.plan.plan import Plan
from rootless.plan.request import Request
from tests.lib.bundles import base_config

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n"
GROUP = b"root:x:0:\nweb:x:34:\naudio:x:29:web,me\nvideo:x:44:me,web\n"
FILES = {"/etc/passwd": PASSWD, "/etc/group": GROUP}


DEFAULT = ["rw", "rprivate", "rbind"]


def read(path):
    return FILES[path]


def refusal(function, *arguments, **more):
    with pytest.raises(RootlessError) as caught:
        function(*arguments, **more)
    assert caught.value.fix
    return caught.value


@pytest.fixture
def edited(tmp_path):
    """A function that returns the configuration after the flags of a command line, and the Request."""
    etc = tmp_path / "rootfs/etc"
    etc.mkdir(parents=True)
    for path, text in FILES.items():
        (tmp_path / "rootfs" / path[1:]).write_bytes(text)
    (tmp_path / "source").mkdir()

    def run(*flags, config=None):
        options = parser.parse(["run", *flags, "box", "true"] if "--" not in flags else ["run", *flags], lambda _: None)
        request = Request(options)
        given = base_config() if config is None else config
        before = copy.deepcopy(given)
        bundle = edit(Bundle(str(tmp_path), given), request, options)
        assert given == before, "an edit leaves what it is given as it is"
        assert json.loads(bundle.text) == bundle.config, "the text that is kept is that of the edited configuration"
        check(bundle.config)
        return bundle.config, request

    return run


# What each flag writes; tests/engines/test_podman_flags.py compares with what podman writes.


def test_command_replaces_that_of_the_bundle(edited):
    config, request = edited()
    assert config["process"]["args"] == ["true"]
    assert request.places == {"process.args": "", "process.terminal": "--tty"}
    assert request.no_input


@pytest.mark.parametrize(
    ("flags", "args"),
    [
        (["--entrypoint", "sh"], ["sh", "true"]),
        (["--entrypoint", '["sh", "-c"]'], ["sh", "-c", "true"]),
        (["--entrypoint", "sh", "--entrypoint", ""], ["true"]),
        (["--entrypoint", "[x"], ["[x", "true"]),
    ],
)
def test_entrypoint_goes_before_the_command(edited, flags, args):
    assert edited(*flags)[0]["process"]["args"] == args


def test_an_image_has_its_entrypoint_before_the_command(tmp_path):
    options = Options(verb="run", args=("--version",))
    bundle = Bundle(str(tmp_path), base_config())
    assert edit(bundle, Request(options), options, entrypoint=["python"]).config["process"]["args"] == [
        "python",
        "--version",
    ]


def test_the_users_of_an_image_are_read_by_a_function(tmp_path):
    options = Options(verb="run", user="web")
    found = edit(Bundle(str(tmp_path), base_config()), Request(options), options, read=read)
    assert found.config["process"]["user"]["uid"] == 33


def test_nothing_to_run_is_refused(tmp_path):
    options = Options(verb="run", entrypoint=("",))
    error = refusal(edit, Bundle(str(tmp_path), base_config()), Request(options), options)
    assert str(error) == '--entrypoint "": there is no COMMAND either; fix: name a program to run'


def test_terminal_and_input_are_asked_for_as_with_podman(edited):
    config, request = edited("-it")
    assert config["process"]["terminal"]
    assert "TERM=xterm" in config["process"]["env"]
    assert not request.no_input
    assert edited("-t")[1].no_input
    assert not edited("-i")[0]["process"]["terminal"]


def test_without_a_command_the_bundle_decides_about_terminal_and_input(tmp_path):
    config = base_config()
    config["process"]["terminal"] = True
    options = Options(verb="run", env=("A=1",))
    request = Request(options)
    assert edit(Bundle(str(tmp_path), config), request, options).config["process"]["terminal"]
    assert not request.no_input


def test_environment_comes_from_flags_files_and_the_caller(edited, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environb, b"FROM_ME", b"mine")
    monkeypatch.setattr("rootless.paths.environment", lambda: ["FROM_ME=mine", "LC_A=1", "LC_B=2"])
    (tmp_path / "lines").write_bytes(b"\xef\xbb\xbf# no\n\n  A=file \r\nB='q' x\nFROM_ME\nNOT_MINE\n")
    (tmp_path / "records").write_bytes(b"C=two\nlines\0A=records\0")
    flags = [
        "--env-file",
        str(tmp_path / "lines"),
        "--env-file0",
        str(tmp_path / "records"),
        "-e",
        "A=flag",
        "-e",
        "LC_*",
    ]
    env = edited(*flags)[0]["process"]["env"]
    assert env[1:] == ["A=flag", "B='q' x", "FROM_ME=mine", "C=two\nlines", "LC_A=1", "LC_B=2"]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("web", (33, 34, [34, 29, 44])),
        ("33", (33, 34, [34, 29, 44])),
        ("4242", (4242, 0, [0])),
        ("web:audio", (33, 29, [29])),
        ("33:7", (33, 7, [7])),
        ("me:0", (1000, 0, [0])),
        (":audio", (0, 29, [29])),
    ],
)
def test_user_is_found_in_the_files_of_the_root(edited, user, expected):
    found = edited("-u", user)[0]["process"]["user"]
    assert (found["uid"], found["gid"], found["additionalGids"]) == expected


def test_ids_need_no_files():
    def no(path):
        pytest.fail(f"{path} was read")

    found = accounts.identity("--user", "5:6", no)
    assert (found.uid, found.gid) == (5, 6)


@pytest.mark.parametrize(
    "user", ["nobody", "web:nobody", "4294967295", "-1", "1:4294967295", "\u0661", "99999999999999999999"]
)
def test_unknown_users_are_refused(user):
    assert refusal(accounts.identity, "--user", user, read).code == "RL-USER"


NUMBERS = b"33:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n99999999999999999999:x:0:0::/:/bin/sh\n"


def test_a_user_whose_name_is_a_number_does_not_take_its_place_cve_2026_46680():
    """An image made root of a user that was given as a number, by a user in /etc/passwd with the number as its name."""
    found = accounts.identity("--user", "33", lambda _: NUMBERS)
    assert (found.uid, found.gid, found.gids) == (33, 0, [0])
    for user in ("4294967296", "99999999999999999999"):
        assert refusal(accounts.identity, "--user", user, lambda _: NUMBERS).code == "RL-USER"
    groups = b"4294967296:x:0:\n"
    assert refusal(accounts.group_id, "--group-add", "4294967296", lambda _: groups).code == "RL-USER"
    assert refusal(accounts.identity, "--user", "1:4294967296", lambda _: groups).code == "RL-USER"


def test_a_long_group_file_is_not_read_to_its_end():
    error = refusal(accounts.group_id, "--group-add", "x", lambda _: b"x" * (accounts.MOST_BYTES + 1))
    assert "longer than 4 MiB" in error.cause


def test_groups_are_added_or_the_callers_kept(edited):
    config, request = edited("-u", "web", "--group-add", "7", "--group-add", "audio")
    assert config["process"]["user"]["additionalGids"] == [34, 29, 44, 7]
    assert next(iter(request.places)) == "process.user.additionalGids"
    assert edited("--group-add", "keep-groups")[0]["annotations"] == {"run.oci.keep_original_groups": "1"}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("nofile=10", {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}),
        ("RLIMIT_NPROC=1:-1", {"type": "RLIMIT_NPROC", "soft": 1, "hard": 2**64 - 1}),
        ("core=unlimited", {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}),
    ],
)
def test_ulimits(edited, limit, expected):
    assert edited("--ulimit", limit)[0]["process"]["rlimits"] == [expected]


def test_all_limits_of_the_caller():
    config = process.set_rlimits(base_config(), ["host", "nofile=3"], {7: (1, 2), 4: (-1, -1)})
    assert config["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3},
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ]


@pytest.mark.parametrize(
    ("volume", "source", "options"),
    [
        (".:/d", "/here", ["rw", "rprivate", "rbind"]),
        ("..:/d", "/", ["rw", "rprivate", "rbind"]),
        ("./a:/d:ro", "/here/a", ["ro", "rprivate", "rbind"]),
        ("a/b:/d:z,noexec", "/here/a/b", ["noexec", "rw", "rprivate", "rbind"]),
        ("/a:/d:bind,rslave", "/a", ["bind", "rslave", "rw"]),
        ("/a:/d:bind,Z", "/a", ["bind", "rw", "private"]),
        ("/a:/d:idmap=uids=0-1-1", "/a", ["idmap=uids=0-1-1", "rw", "rprivate", "rbind"]),
    ],
)
def test_volumes(volume, source, options):
    assert mounts.of_volume(volume, "/here") == {
        "destination": "/d",
        "type": "bind",
        "source": source,
        "options": options,
    }


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ("type=bind,src=a,dst=/d", ("bind", "/here/a", ["rw", "rprivate", "rbind"])),
        ("type=bind,source=/a,target=/d,ro,bind-propagation=rshared", ("bind", "/a", ["ro", "rshared", "rbind"])),
        ('"src=/a,b",type=bind,destination=/d,readonly=false', ("bind", "/a,b", ["rw", "rprivate", "rbind"])),
        ("type=bind,src=/a,dst=/d,bind-nonrecursive,relabel=shared", ("bind", "/a", ["bind", "rw", "private"])),
        (
            "type=bind,src=/a,dst=/d,no-dereference,consistency=x",
            ("bind", "/a", ["copy-symlink", *DEFAULT]),
        ),
        (
            "type=tmpfs,dst=/d,tmpfs-size=1m,notmpcopyup",
            ("tmpfs", "tmpfs", ["size=1m", "rw", "rprivate", "nosuid", "nodev"]),
        ),
        ("type=devpts,dst=/d,mode=0600,max=9", ("devpts", "devpts", ["mode=0600", "max=9"])),
        ("type=ramfs,dst=/d", ("ramfs", "ramfs", [])),
    ],
)
def test_mounts(mount, expected):
    made = mounts.of_mount(mount, "/here")
    assert (made["type"], made["source"], made["options"], made["destination"]) == (*expected, "/d")


@pytest.mark.parametrize(
    ("function", "value", "cause"),
    [
        (mounts.of_volume, "/d", "no anonymous volumes"),
        (mounts.of_volume, "a:/d", "named volume"),
        (mounts.of_volume, ":/d", "no source"),
        (mounts.of_volume, "/a:d", "d is not absolute"),
        (mounts.of_volume, "/a", "no anonymous volumes"),
        (mounts.of_volume, "/a:/d:x", "no option 'x'"),
        (mounts.of_volume, "/a:/d:ro,rw", "ro and rw exclude each other"),
        (mounts.of_volume, "/a:/d:U", "changing owners"),
        (mounts.of_volume, "/a:/d:O", "overlay"),
        (mounts.of_mount, "type=volume,src=a,dst=/d", "no named volumes"),
        (mounts.of_mount, "src=a,dst=/d", "type is missing"),
        (mounts.of_mount, "type=nfs,dst=/d", "no type 'nfs'"),
        (mounts.of_mount, "type=bind,dst=/d", "needs a source"),
        (mounts.of_mount, "type=bind,src=/a", "not absolute"),
        (mounts.of_mount, "type=bind,src=/a,source=/b,dst=/d", "given twice"),
        (mounts.of_mount, "type=bind,src=/a,dst=/d,size=1", "'size' is not known"),
        (mounts.of_mount, "type=bind,src=/a,dst=/d,ro=maybe", "neither true nor false"),
        (mounts.of_mount, "type=tmpfs,dst=/d,U", "changing owners"),
        (mounts.of_mount, "type=ramfs,dst=/d,size=1", "'size' is not known"),
        (mounts.of_mount, "type=devpts,dst=/d,x", "'x' is not known"),
    ],
)
def test_mounts_that_are_wrong(function, value, cause):
    assert cause in refusal(function, value, "/here").cause


@pytest.mark.parametrize("value", ["d", "/d:x", "/d:uid", "/d:ro,rw", "/d:U", "/d:tmpcopyup,notmpcopyup"])
def test_tmpfs_that_is_wrong(value):
    assert refusal(mounts.of_tmpfs, value).what == f"--tmpfs {value}"


def test_a_missing_source_is_found_before_anything_runs(edited, tmp_path):
    error = refusal(edited, "-v", f"{tmp_path}/nope:/d")
    assert str(error) == (
        f"--volume {tmp_path}/nope:/d: {tmp_path}/nope does not exist; fix: create it first, or correct the path"
    )


def test_a_mount_comes_before_those_that_it_would_cover(edited, tmp_path):
    config, request = edited(
        "-v", f"{tmp_path}:/dev/pts/a", "--tmpfs", "/sys", "-v", f"{tmp_path}:/a/b", "--tmpfs", "/a"
    )
    assert [each["destination"] for each in config["mounts"]] == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/a",
        "/a/b",
        "/dev/pts/a",
    ]
    assert request.places["mounts[3]"] == "--tmpfs /sys"
    assert request.places["mounts[5]"] == f"--volume {tmp_path}:/a/b"


def test_a_directory_on_dev_is_all_that_is_there(edited, tmp_path):
    config, _ = edited("-v", f"{tmp_path}:/dev")
    assert [each["destination"] for each in config["mounts"]] == ["/proc", "/sys", "/dev"]


def test_a_destination_is_used_once(edited, tmp_path):
    assert "two mounts" in refusal(edited, "-v", f"{tmp_path}:/a", "--tmpfs", "/a/").cause


def test_read_only_root_keeps_places_for_temporary_files(edited):
    config, _ = edited("--read-only", "--tmpfs", "/tmp:size=1m")
    assert config["root"]["readonly"]
    temporary = {each["destination"]: each["options"][0] for each in config["mounts"][4:]}
    assert temporary == {"/tmp": "size=1m", "/run": "rw", "/var/tmp": "rw"}
    config, _ = edited("--read-only", "--read-only-tmpfs=false")
    assert [each["destination"] for each in config["mounts"]] == ["/proc", "/dev", "/dev/pts", "/sys"]
    assert config["mounts"][1]["options"][-1] == "ro"


def test_shm_size(edited):
    shm = edited("--shm-size", "1m")[0]["mounts"][-1]
    assert shm["destination"] == "/dev/shm"
    assert shm["options"] == ["nosuid", "noexec", "nodev", "mode=1777", "size=1048576"]
    config = base_config()
    config["mounts"].append(shm)
    assert edited("--shm-size", "0", config=config)[0]["mounts"][-1]["options"][-2:] == ["mode=1777", "size=0"]


@pytest.mark.parametrize(
    ("flags", "limits"),
    [
        ("-m 512M", {"memory": {"limit": 1 << 29, "swap": 1 << 30}}),
        ("-m 512m --memory-swap 1g", {"memory": {"limit": 1 << 29, "swap": 1 << 30}}),
        ("-m 1.5GiB --memory-swap -1", {"memory": {"limit": 3 << 29, "swap": -1}}),
        ("-m 0", {"memory": {"limit": -1, "swap": -1}}),
        ("--memory-reservation 100b", {"memory": {"reservation": 100}}),
        ("--cpus 1.5", {"cpu": {"period": 100000, "quota": 150000}}),
        ("--cpus .01", {"cpu": {"period": 100000, "quota": 1000}}),
        ("--cpus 0", {"cpu": {"period": 100000, "quota": -1}}),
        ("-c 512 --cpuset-cpus 0-3", {"cpu": {"shares": 512, "cpus": "0-3"}}),
        ("--cpu-period 50000 --cpu-quota 20000", {"cpu": {"period": 50000, "quota": 20000}}),
        ("--pids-limit -1", {"pids": {"limit": -1}}),
        ("--blkio-weight 100", {"blockIO": {"weight": 100}}),
        ("--blkio-weight-device /dev/null:20", {"blockIO": {"weightDevice": [{"major": 1, "minor": 3, "weight": 20}]}}),
        (
            "--device-read-bps /dev/null:1mb --device-write-iops /dev/zero:5",
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 1, "minor": 3, "rate": 1 << 20}],
                    "throttleWriteIOPSDevice": [{"major": 1, "minor": 5, "rate": 5}],
                }
            },
        ),
    ],
)
def test_limits(edited, flags, limits):
    assert edited(*flags.split())[0]["linux"]["resources"] == limits


@pytest.mark.parametrize(
    "flags",
    [
        "-m 512x",
        "-m 1.x",
        "-m -2",
        "-m 99999999999999999999",
        "--memory-swap 1g",
        "-m 1g --memory-swap 1m",
        "--cpus abc",
        "--cpus 1e3",
        "--cpus -1",
        "--cpus 1 --cpu-quota 5",
        "--cpu-shares x",
        "--pids-limit -2",
        "--blkio-weight 5",
        "--device-read-bps 1mb",
        "--device-read-bps /dev/nope:1mb",
        "--device-read-bps /etc:1mb",
        "--device-read-bps /dev/null:x",
        "--shm-size x",
        "--ulimit x=1",
        "--ulimit nofile=x",
        "--ulimit nofile=2:1",
        "--ulimit nofile",
        "--cap-add x",
        "--cap-add CHOWN --cap-drop CAP_CHOWN",
        "--cap-add ALL --cap-drop ALL",
        "--security-opt x",
        "--security-opt seccomp",
        "--security-opt seccomp=/nope",
        "--security-opt seccomp=/dev/zero",
        "--security-opt no-new-privileges=x",
        "--security-opt apparmor",
        "--security-opt label=type:x",
        "--security-opt mask=x",
        "--security-opt unmask=x",
        "--security-opt systempaths=x",
        "--security-opt proc-opts",
        "--device /nope",
        "--device /etc/passwd",
        "--device /etc",
        "--device null",
        "--device /dev/null:x",
        "--device /dev/null:/a:/b:rw",
        "--device vendor=x",
        "--gpus x",
        "--group-add nobody",
        "--group-add keep-groups --group-add 1",
        "-w src",
        "-e =x",
        "--env-file /nope",
        "--env-file /dev/zero",
        "--env-file0 /",
        "--annotation x",
        "--annotation =x",
        "--label =x",
        "--label run.oci.handler=wasm",
        "--label org.systemd.property.X=1",
    ],
)
def test_wrong_values_name_the_flag_and_a_fix(edited, flags):
    flag = flags.split()[0].partition("=")[0]
    error = refusal(edited, *flags.split())
    assert error.what.startswith({"-m": "--memory", "-w": "--workdir", "-e": "--env"}.get(flag, flag))
    assert error.code in ("RL-USAGE", "RL-USER")


def test_capabilities(edited):
    own = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"]

    def sets(*flags):
        return edited(*flags)[0]["process"]["capabilities"]

    made = sets("--cap-add", "sys_admin,CAP_NET_RAW")
    assert made["bounding"] == made["effective"] == made["permitted"] == [*own, "CAP_SYS_ADMIN", "CAP_NET_RAW"]
    assert len(made) == 3
    assert not any(sets("--cap-drop", "all").values())
    assert sets("--cap-drop", "ALL", "--cap-add", "chown")["bounding"] == ["CAP_CHOWN"]
    assert "CAP_NET_RAW" not in sets("--cap-add", "ALL", "--cap-drop", "net_raw")["bounding"]
    assert len(sets("--cap-add", "ALL")["bounding"]) == 41
    given = sets("-u", "33", "--cap-add", "net_raw")
    assert given["ambient"] == given["effective"] == given["inheritable"] == given["permitted"] == ["CAP_NET_RAW"]
    assert given["bounding"] == [*own, "CAP_NET_RAW"]


def test_security_options(edited, tmp_path):
    config = base_config()
    config["process"]["noNewPrivileges"] = False
    config["process"]["selinuxLabel"] = "x"
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO"}

    def opt(*options):
        return edited(*(word for each in options for word in ("--security-opt", each)), config=config)[0]

    assert opt("no-new-privileges")["process"]["noNewPrivileges"]
    assert opt("no-new-privileges:true")["process"]["noNewPrivileges"]
    assert not opt("no-new-privileges", "no-new-privileges=false")["process"]["noNewPrivileges"]
    assert "seccomp" not in opt("seccomp=unconfined")["linux"]
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))
    assert opt(f"seccomp={profile}")["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    assert "seccomp" not in opt(f"seccomp={profile}", "seccomp:unconfined")["linux"]
    assert opt("apparmor=mine")["process"]["apparmorProfile"] == "mine"
    assert not opt("apparmor=unconfined")["process"]["apparmorProfile"]
    assert not opt("label=disable")["process"]["selinuxLabel"]
    assert opt("mask=/a:/b")["linux"]["maskedPaths"] == ["/proc/kcore", "/sys/firmware", "/a", "/b"]
    assert opt("unmask=/proc/*")["linux"]["maskedPaths"] == ["/sys/firmware"]
    assert not opt("unmask=ALL")["linux"]["readonlyPaths"]
    assert not opt("systempaths=unconfined")["linux"]["maskedPaths"]
    assert opt("proc-opts=hidepid=2,subset=pid")["mounts"][0]["options"] == ["hidepid=2", "subset=pid"]


def test_devices(edited):
    config = base_config()
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    linux = edited("--device", "/dev/null:/dev/mine:r", config=config)[0]["linux"]
    device = {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3}
    assert {name: linux["devices"][0][name] for name in device} == device
    allowed = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}, allowed]
    assert "resources" not in edited("--device", "/dev/null")[0]["linux"]


def test_devices_keep_the_path_of_the_host(edited):
    config, request = edited("--device", "/dev/null:/dev/mine:r", "--device", "/dev/zero")
    assert request.device_sources == {"/dev/mine": "/dev/null", "/dev/zero": "/dev/zero"}
    assert request.places["linux.devices[1]"] == "--device /dev/zero"
    assert len(config["linux"]["devices"]) == 2


def test_only_a_profile_that_is_asked_for_names_the_flag(edited):
    config = base_config()
    config["process"]["apparmorProfile"] = "of-the-bundle"
    flags = ["--security-opt", "no-new-privileges", "--security-opt", "apparmor=mine"]
    assert edited(*flags, config=config)[1].places["process.apparmorProfile"] == "--security-opt apparmor"
    assert "process.apparmorProfile" not in edited(*flags[:2], config=config)[1].places


@pytest.mark.parametrize("value", ["/dev/pts:/dev/x", "/dev/pts/:/dev/x", "/dev/pts:/dev/x/", "/dev/pts/:/dev/x/"])
def test_devices_of_a_directory_are_below_the_other_one(value):
    assert "/dev/x/ptmx" in [device["path"] for device, _, _ in devices(value)]


def test_names_and_annotations(edited):
    config = base_config()
    config["process"]["env"] = ["HOSTNAME=old"]
    flags = ["--hostname", "new", "--label", "a=b", "--label", "c", "--annotation", "run.oci.x=y"]
    config, request = edited(*flags, config=config)
    assert config["hostname"] == "new"
    assert config["process"]["env"] == ["HOSTNAME=new"]
    assert config["annotations"] == {"a": "b", "c": "", "run.oci.x": "y"}
    assert request.places["hostname"] == "--hostname new"


def test_what_the_specification_forbids_is_about_the_flag(edited):
    error = refusal(edited, "--hostname", "x" * 65)
    assert str(error).startswith("config.json is not valid: found the string")
    assert f"(--hostname {'x' * 65})" in str(error)


def test_a_plan_names_the_flags():
    places = {"mounts[1]": "--volume a:/b", "process.args": ""}
    wheres = ["mounts[1]", "mounts[1].source", "mounts[10]", "mounts[11]", "process.args[0]", ""]
    plan = Plan([Op(ops.PIVOT, where=where) for where in wheres], [Note("adapted", "mounts[1]", "x")])
    name_flags(plan, places)
    assert [op.where for op in plan.ops] == ["--volume a:/b", "--volume a:/b", "mounts[10]", "mounts[11]", "", ""]
    assert plan.notes[0].where == "--volume a:/b"
    error = name_flag(RootlessError("bind", cause="no", where="mounts[1].source", fix="do"), places)
    assert str(error) == "bind: no (--volume a:/b); fix: do"


def test_every_flag_that_edits_is_known_to_edit():
    """A flag that is not would be ignored if it is the only one."""
    others = {
        "add_host", "bundle", "config", "console_socket", "detach", "dns", "dns_search", "fake_chown", "init", "json",
        "keep", "name", "network", "no_new_keyring", "no_pivot", "overlay", "pid_file", "pidfd_socket", "plan",
        "platform", "preserve_fds", "publish", "publish_all", "pull", "slurm", "store", "require_limits", "timeout",
        "userns",
    }  # fmt: skip
    declared = {flag.dest for table in (RUN, EXPLAIN) for flags in table.values() for flag in flags if not flag.ignored}
    assert declared == others | EDITS - {"args"}
    assert not has_edits(parser.parse(["run", "box"], lambda _: None))
    assert has_edits(parser.parse(["run", "-t=false", "box"], lambda _: None))


def test_values_of_truth():
    assert truth("-x", "", "true")
    assert not truth("-x", "", "0")
    assert str(misused("--x", "y", "it is wrong", "do this")) == "--x y: it is wrong; fix: do this"


def test_memory_of_the_bundle_counts_for_swap():
    config = base_config()
    config["linux"]["resources"] = {"memory": {"limit": 100}}
    assert resources.set_memory(config, swap="200")["linux"]["resources"]["memory"] == {"limit": 100, "swap": 200}


# Files inside a root


def test_no_path_leads_out_of_the_root(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    read_it = reader(str(root))
    for target in (tmp_path / "secret", "../../secret", "/proc/self/environ"):
        (root / "etc/passwd").symlink_to(target)
        assert read_it("/etc/passwd") == b""
        (root / "etc/passwd").unlink()
    (root / "real").write_text("x")
    (root / "etc/passwd").symlink_to("/real")
    assert read_it("/etc/passwd") == b"x"
    assert read_it("/../../real") == b"x"


def test_what_is_no_file_is_not_opened(tmp_path):
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    assert "not a regular file" in refusal(reader(str(tmp_path)), "/etc/passwd").cause
    (tmp_path / "etc/group").symlink_to("group")
    assert refusal(reader(str(tmp_path)), "/etc/group").code == "RL-USER"


def test_a_file_without_an_end_is_not_read_to_it(tmp_path):
    with (tmp_path / "group").open("wb") as file:
        file.truncate(1 << 40)
    assert len(reader(str(tmp_path))("/group")) == accounts.MOST_BYTES + 1
