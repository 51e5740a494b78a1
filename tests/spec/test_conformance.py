"""Properties of config.json that other tests leave to rootless alone, or look at in company: asked of every runtime.

A test says what the specification says, and nothing for one runtime that it does not say for all.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
from pathlib import Path

import pytest

from tests.lib.boxes import (
    SHORT,
    STATUS,
    add_probe,
    config_with_maps,
    make_volume,
    mount_table,
    set_namespaces,
    status_of,
    subordinate,
)
from tests.lib.live import Live
from tests.lib.namespaces import FILES
from tests.lib.seccomp_agent import Agent, notifying
from tests.lib.specification import NAMESPACES

IGNORED = "it is not known, and is ignored"


def differs(runtime, sentence):
    """Mark a test, or one of its cases, as one that a runtime fails, and say by which sentence of the specification."""
    return pytest.mark.differs(runtime, sentence)


def assert_refused(box, config, *words):
    """The container is refused, in words one of which names what was asked for."""
    done = box.run(config, "echo ran")
    assert (done.returncode != 0, done.stdout) == (True, ""), done
    assert any(word in done.stderr.lower() for word in words), done.stderr


# --- The process ------------------------------------------------------------------------------------------------------


def terminal(box, config):
    """Run a container with a terminal over a socket, and return what it writes there."""
    path = box.user.tmp / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(SHORT)
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        box.create(config, *config["process"].pop("script"), flags=["--console-socket", path])
        with listener.accept()[0] as connection:
            master = socket.recv_fds(connection, 100, 1)[1][0]
    box.user.run([*box.command, "start", "held"], check=True, timeout=SHORT)
    written = b""
    try:
        while select.select([master], [], [], SHORT)[0] and (data := os.read(master, 1000)):
            written += data
    except OSError:
        pass  # EIO: nobody has the terminal any more
    finally:
        os.close(master)
    return written.decode().splitlines()


@pytest.mark.spec("process.terminal", "process.consoleSize")
def test_terminal(either, need):
    add_probe(either, need)
    config = config_with_maps(either.user)
    size = {"height": 33, "width": 101}
    config["process"] |= {"terminal": True, "consoleSize": size, "script": ["probe size; tty; stat -c %F /dev/console"]}
    assert terminal(either, config) == ["101 33", "/dev/pts/0", "character special file"]


KEPT = '"specifies additional group IDs … to be added to the process": an ordinary user is refused'


@differs("runc", KEPT)
@pytest.mark.spec("process.user.additionalGids")
def test_additional_groups(either):
    config = config_with_maps(either.user)
    config["process"]["user"]["additionalGids"] = [5, 33]
    assert set(status_of(either.lines(config, STATUS), "Groups").split()) - {"0"} == {"5", "33"}


KEPT_UMASK = '"If unspecified, the umask should not be changed from the calling process\' umask": it is 0022'


@differs("runc", KEPT_UMASK)
@differs("crun", KEPT_UMASK)
@differs("rootless", f"{KEPT_UMASK}, as engines have it from the others")
@pytest.mark.spec("process.user.umask: unspecified")
def test_umask_of_the_caller(either):
    assert either.lines(config_with_maps(either.user), "umask", umask=0o057) == ["0057"]


@pytest.mark.skipif(os.path.exists("/sys/kernel/security/apparmor"), reason="this host has AppArmor")
def test_apparmor_profile(either):
    config = config_with_maps(either.user)
    config["process"]["apparmorProfile"] = "docker-default"
    assert_refused(either, config, "apparmor")


NO_SELINUX = "this kernel has no SELinux"


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this host has SELinux")
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("process.selinuxLabel", marks=pytest.mark.spec("process.selinuxLabel", refused=NO_SELINUX)),
        pytest.param(
            "linux.mountLabel",
            marks=[
                pytest.mark.spec("linux.mountLabel", refused=NO_SELINUX),
                differs("crun", '"sets the SELinux context for the mounts": where the kernel has none it is ignored'),
            ],
        ),
    ],
)
def test_selinux_label(either, place):
    config = config_with_maps(either.user)
    section, name = place.split(".")
    config[section][name] = "system_u:system_r:container_t:s0:c1,c2"
    # runc and crun name what they did with the label
    assert_refused(either, config, "selinux", "data: mode=0755,mode=755,size=65536k,context=", "keycreate")


# --- How it is scheduled ----------------------------------------------------------------------------------------------

STAT = "read line < /proc/self/stat; echo ${line##*) }"
NICE, PRIORITY, POLICY = 16, 37, 38
"""Of /proc/PID/stat, counted from the field after the name; proc(5)."""
SCHEDULER = '"specifies the scheduling policy … for the process": ' + IGNORED
PRIVILEGED = "the kernel lets only root of the host have it (EPERM)"


def scheduled(box, **scheduler):
    config = config_with_maps(box.user)
    config["process"]["scheduler"] = scheduler
    return config


@differs("runc", SCHEDULER)
@pytest.mark.parametrize(
    ("scheduler", "wanted"),
    [
        pytest.param({"policy": "SCHED_BATCH"}, (3, 0), marks=pytest.mark.spec("process.scheduler.policy")),
        pytest.param({"policy": "SCHED_OTHER", "nice": 7}, (0, 7), marks=pytest.mark.spec("process.scheduler.nice")),
    ],
)
def test_scheduler(either, scheduler, wanted):
    fields = either.lines(scheduled(either, **scheduler), STAT)[0].split()
    assert (int(fields[POLICY]), int(fields[NICE])) == wanted


@differs("runc", SCHEDULER)
@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(
            {"policy": "SCHED_FIFO", "priority": 10},
            marks=pytest.mark.spec("process.scheduler.priority", refused=PRIVILEGED),
        ),
        pytest.param(
            {"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            marks=pytest.mark.spec("process.scheduler.flags", refused=PRIVILEGED),
        ),
        pytest.param(
            {"policy": "SCHED_DEADLINE", "runtime": 10**7, "deadline": 10**8, "period": 10**9},
            marks=pytest.mark.spec(
                *(f"process.scheduler.{name}" for name in ("runtime", "deadline", "period")), refused=PRIVILEGED
            ),
        ),
    ],
)
def test_scheduler_that_needs_rights(either, scheduler):
    assert_refused(either, scheduled(either, **scheduler), "sched_setattr", "sched_setscheduler")


@differs("runc", '"configures the I/O priority settings for the container\'s processes": ' + IGNORED)
@pytest.mark.spec("process.ioPriority.class", "process.ioPriority.priority")
def test_io_priority(either, need):
    add_probe(either, need)
    config = config_with_maps(either.user)
    config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    assert either.lines(config, "probe call ioprio_get 1 0") == [str(2 << 13 | 6)]


AFFINITY = '"specifies CPU affinity used to execute the process": ' + IGNORED


@differs("runc", AFFINITY)
@differs("crun", AFFINITY)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("final", marks=pytest.mark.spec("process.execCPUAffinity.final")),
        pytest.param("initial", marks=pytest.mark.spec("process.execCPUAffinity.initial")),
    ],
)
def test_cpu_affinity(either, name):
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) == 1:
        pytest.skip("needs two CPUs")
    config = config_with_maps(either.user)
    config["process"]["execCPUAffinity"] = {name: str(cpus[-1])}
    live = Live(either, config)
    assert live.lines("grep Cpus_allowed_list /proc/self/status") == [f"Cpus_allowed_list:\t{cpus[-1]}"]


# --- Names, annotations, other platforms ------------------------------------------------------------------------------


@pytest.mark.spec("hostname", "linux.namespaces.uts")
def test_hostname(either):
    config = config_with_maps(either.user) | {"hostname": "inside"}
    assert either.lines(config, "hostname") == ["inside"]


@differs("runc", '"specifies the container\'s domainname as seen by processes running inside": ' + IGNORED)
@pytest.mark.spec("domainname")
def test_domainname(either):
    config = config_with_maps(either.user) | {"domainname": "example.test"}
    assert either.lines(config, "cat /proc/sys/kernel/domainname") == ["example.test"]


@pytest.mark.spec("ociVersion")
@pytest.mark.parametrize("version", ["1.0.0", "1.2.1"])
def test_version(either, version):
    config = config_with_maps(either.user) | {"ociVersion": version}
    assert either.lines(config, "echo ran") == ["ran"]


ELSEWHERE = {
    "vm": {"kernel": {"path": "/boot/vmlinuz"}},
    "windows": {"layerFolders": ["C:\\layers"]},
    "solaris": {"milestone": "svc:/milestone/container:default"},
    "freebsd": {"jail": {"host": "new"}},
    "zos": {"namespaces": [{"type": "pid"}]},
}


@pytest.mark.parametrize(
    "section",
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.spec(name, refused="this is Linux, and no virtual machine"),
                *(
                    differs(runtime, f"a bundle for another platform: {IGNORED}, which no sentence forbids")
                    for runtime in ("runc", "crun")
                ),
            ],
        )
        for name in ELSEWHERE
    ],
)
def test_another_platform(either, section):
    config = config_with_maps(either.user) | {section: ELSEWHERE[section]}
    assert_refused(either, config, section)


# --- Namespaces -------------------------------------------------------------------------------------------------------

TIME = '"time: the container will be able to have its own clocks"'


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind,
            marks=[
                pytest.mark.spec(f"linux.namespaces.{kind}"),
                *([differs("runc", f"{TIME}: it is not known, and refused")] if kind == "time" else []),
            ],
        )
        for kind in NAMESPACES
    ],
)
def test_a_new_namespace(either, kind):
    config = config_with_maps(either.user)
    set_namespaces(config, *{kind: None, "user": None, "mount": None, "pid": None, "network": None})
    seen = either.lines(config, f"readlink /proc/self/ns/{FILES[kind]}")
    assert seen != [os.readlink(f"/proc/self/ns/{FILES[kind]}")]


@pytest.mark.spec("linux.namespaces: duplicates")
def test_a_namespace_named_twice(either):
    """ "the runtime MUST generate an error"."""
    config = config_with_maps(either.user)
    config["linux"]["namespaces"].append({"type": "uts"})
    assert_refused(either, config, "uts", "duplicate", "twice")


@differs("runc", '"sets the offset for Time Namespace": it knows no time namespace')
@pytest.mark.parametrize(
    "clock",
    [
        pytest.param(clock, marks=pytest.mark.spec(f"linux.timeOffsets.{clock}", "linux.namespaces.time"))
        for clock in ("boottime", "monotonic")
    ],
)
def test_time_offsets(either, clock):
    config = config_with_maps(either.user)
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {clock: {"secs": 7 * 86400, "nanosecs": 5}}
    lines = either.lines(config, "cat /proc/self/timens_offsets; cut -d . -f 1 /proc/uptime")
    offsets = {name: (secs, nanosecs) for name, secs, nanosecs in map(str.split, lines[:2])}
    assert offsets.pop(clock) == (str(7 * 86400), "5")
    assert set(offsets.values()) == {("0", "0")}
    assert (int(lines[2]) > 7 * 86400) == (clock == "boottime")


# --- Devices, mounts, links -------------------------------------------------------------------------------------------


@pytest.mark.spec("linux.devices[].path")
def test_a_device_where_another_file_is(either):
    """ "If a file already exists at path that does not match …, the runtime MUST generate an error"."""
    (either.rootfs / "data/null").write_text("a file")
    config = config_with_maps(either.user)
    config["linux"]["devices"] = [{"path": "/data/null", "type": "c", "major": 1, "minor": 3}]
    assert_refused(either, config, "/data/null", "device")


@pytest.fixture
def block_device(require_root):
    """A block device in the /dev that tests/run makes, which nobody opens."""
    if " - tmpfs rootless-test-dev " not in Path("/proc/self/mountinfo").read_text():
        pytest.skip("needs a /dev of the tests' own: start them with tests/run")
    path = Path("/dev/rootless-test-block")
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 0))
    yield path
    path.unlink()


@pytest.mark.spec("linux.devices[].type b")
def test_a_block_device(either, block_device):
    config = config_with_maps(either.user)
    config["linux"]["devices"] = [{"path": str(block_device), "type": "b", "major": 7, "minor": 0}]
    assert either.lines(config, f"stat -c '%F %t:%T' {block_device}") == ["block special file 7:0"]


HOSTS_IDS = "the kernel lets only root of the host map ids of the host's file systems"
MAPPED = '"the runtime MUST use those values for the mount\'s mapping"'


@differs("runc", f"{MAPPED}: it knows none")
@differs("crun", f"{MAPPED}: for an ordinary user it fails to write the map")
@pytest.mark.spec("mounts.uidMappings", "mounts.gidMappings", "mounts.options.idmap")
def test_a_mount_with_mappings(either):
    config = config_with_maps(either.user)
    maps = [
        {"containerID": 0, "hostID": subordinate(either.user, 5), "size": 1},
        {"containerID": 7, "hostID": either.user.uid, "size": 1},
    ]
    mount = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["idmap", "mode=0777"]}
    config["mounts"].append(mount | {"uidMappings": maps, "gidMappings": maps})
    assert either.lines(config, "stat -c '%u %g' /data") == ["5 5"]


@differs("runc", f"{MAPPED}: it knows none")
@differs("crun", f"{MAPPED}: for an ordinary user it fails to write the map")
@pytest.mark.spec("mounts.options.ridmap", refused=HOSTS_IDS)
def test_a_tree_of_the_host_with_mappings(either):
    config = config_with_maps(either.user)
    maps = [{"containerID": 0, "hostID": either.user.uid, "size": 1}]
    mount = {"destination": "/data", "source": str(make_volume(either.user)), "options": ["rbind", "ridmap"]}
    config["mounts"].append(mount | {"uidMappings": maps, "gidMappings": maps})
    assert_refused(either, config, "map the ids", "idmap")


LINK_OF_THE_HOST = "a link of the host, which the kernel lets only root of the host move"
LINKS = '"A set of network devices that MUST be made available in the container": '


@differs("runc", LINKS + IGNORED)
@differs("crun", LINKS + IGNORED)
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({}, marks=pytest.mark.spec("linux.netDevices", refused=LINK_OF_THE_HOST)),
        pytest.param({"name": "new"}, marks=pytest.mark.spec("linux.netDevices.name", refused=LINK_OF_THE_HOST)),
    ],
)
def test_a_link_of_the_host(either, asked):
    config = config_with_maps(either.user)
    config["linux"]["netDevices"] = {"lo": asked}
    assert_refused(either, config, "lo")


POLICY_OF_MEMORY = '"sets the NUMA memory policy for the container": ' + IGNORED


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="this kernel is built without NUMA")
@differs("runc", POLICY_OF_MEMORY)
@differs("crun", POLICY_OF_MEMORY)
@pytest.mark.spec(*(f"linux.memoryPolicy.{name}" for name in ("mode", "nodes", "flags")))
def test_memory_policy(either):
    config = config_with_maps(either.user)
    config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    lines = either.lines(config, "cat /proc/self/numa_maps")
    assert {line.split()[1] for line in lines} == {"bind=static:0"}


# --- Shares of caches -------------------------------------------------------------------------------------------------

WITHOUT_RESCTRL = (
    '"If no mounted resctrl pseudo-filesystem is available …, the runtime MUST generate an error": ' + IGNORED
)
RDT = {
    "closID": {"closID": "guaranteed"},
    "l3CacheSchema": {"l3CacheSchema": "L3:0=f"},
    "memBwSchema": {"memBwSchema": "MB:0=20"},
    "schemata": {"schemata": ["L3:0=f"]},
    "enableMonitoring": {"enableMonitoring": True},
}


@pytest.mark.skipif("resctrl" in Path("/proc/self/mounts").read_text(), reason="this host has resctrl")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[
                pytest.mark.spec(f"linux.intelRdt.{name}", refused="no resctrl file system is mounted"),
                *([] if "Schema" in name else [differs("runc", WITHOUT_RESCTRL)]),
            ],
        )
        for name in RDT
    ],
)
def test_intel_rdt(either, name):
    config = config_with_maps(either.user)
    config["linux"]["intelRdt"] = RDT[name]
    assert_refused(either, config, "resctrl", "intelrdt", "intel rdt")


# --- Seccomp ----------------------------------------------------------------------------------------------------------


@differs("runc", '"list of flags to use with seccomp(2)": refused as not yet supported')
@pytest.mark.spec("linux.seccomp.flags")
@pytest.mark.parametrize("flag", ["LOG", "SPEC_ALLOW"])
def test_seccomp_flags(either, need, flag):
    add_probe(either, need)
    config = config_with_maps(either.user)
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [f"SECCOMP_FILTER_FLAG_{flag}"],
        "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert either.lines(config, "probe call getpriority") == ["EPERM"]


@pytest.mark.spec("linux.seccomp.listenerPath", "linux.seccomp.listenerMetadata")
def test_what_the_agent_is_told(either, user):
    """ "The container process state": the agent's message, with the descriptor."""
    with Agent(user) as agent:
        config = notifying(
            config_with_maps(user), "mkdir", "mkdirat", listenerPath=str(agent.path), listenerMetadata="for you"
        )
        either.lines(config, "mkdir /tmp/made")
    ((told, descriptors),) = agent.states
    assert (told["metadata"], told["fds"], descriptors) == ("for you", ["seccompFd"], 1)
    assert (told["state"]["id"], told["state"]["bundle"]) == ("box", str(either.path))


# --- Personality, propagation -----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="what LINUX32 says is known here of x86_64 alone")
@differs("runc", '"sets the execution domain": ' + IGNORED)
@pytest.mark.spec("linux.personality.domain")
def test_personality(either):
    config = config_with_maps(either.user)
    config["linux"]["personality"] = {"domain": "LINUX32"}
    assert either.lines(config, "uname -m") == ["i686"]


NO_FLAGS = '"Additional flags to apply. Currently no flag values are supported": ' + IGNORED


@pytest.mark.spec("linux.personality.flags", refused="there are none yet")
@differs("runc", NO_FLAGS)
@differs("crun", NO_FLAGS)
def test_personality_flags(either):
    """There are none: what is asked for cannot be had."""
    config = config_with_maps(either.user)
    config["linux"]["personality"] = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}
    assert_refused(either, config, "personality")


ROOT = '"sets the rootfs\'s mount propagation"'


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        pytest.param("private", [], marks=pytest.mark.spec("linux.rootfsPropagation private")),
        pytest.param("slave", [], marks=pytest.mark.spec("linux.rootfsPropagation slave")),
        pytest.param(
            "shared",
            ["shared"],
            marks=[
                pytest.mark.spec("linux.rootfsPropagation shared"),
                differs("runc", f"{ROOT}: it stays private"),
            ],
        ),
        pytest.param(
            "unbindable",
            ["unbindable"],
            marks=[
                pytest.mark.spec("linux.rootfsPropagation unbindable"),
                differs("runc", f"{ROOT}: it fails"),
            ],
        ),
    ],
)
def test_root_propagation(either, value, wanted):
    config = config_with_maps(either.user)
    config["linux"]["rootfsPropagation"] = value
    table = mount_table(either.lines(config, "cat /proc/self/mountinfo"))
    assert [field.split(":")[0] for field in table["/"][1]] == wanted


# --- Files that are the host's ----------------------------------------------------------------------------------------


@pytest.mark.spec("mounts.source", "mounts.type")
def test_a_bind_mount(either):
    """ "A mount is a bind mount if it has either bind or rbind in the options": the type is a dummy."""
    volume = make_volume(either.user, file="text\n")
    config = config_with_maps(either.user)
    mount = {"destination": "/data", "source": str(volume), "options": ["bind"]}
    config["mounts"].append(mount)
    config["mounts"].append(json.loads(json.dumps(mount | {"destination": "/tmp", "type": "none"})))
    assert either.lines(config, "cat /data/file /tmp/file") == ["text", "text"]
