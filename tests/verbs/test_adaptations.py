"""A bundle for root just runs: adaptations are logged, and `rootless explain` reports the same before."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest

from tests.lib.boxes import Box, add_mount, config_with_maps, mount_table, set_namespaces
from tests.lib.bundles import base_config, own, write_config
from tests.lib.configurations import PODMAN_SECCOMP


@pytest.fixture
def single(single_user, rootless_command):
    return Box(single_user, [rootless_command])


def explain(box, config, *flags, check=True, **options):
    write_config(box.path, config)
    return box.user.run([*box.command, "explain", *flags, box.path], check=check, **options)


def logged(box, config, *flags):
    """Run the bundle; return the log messages in the form of the notes in `explain --json`."""
    log = box.user.tmp / "log.json"
    box.run(config, flags=flags, check=True, global_flags=["--log", log, "--log-format", "json"])
    kinds = {"info": "adapted", "warning": "not honoured"}
    records = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    return [
        {"kind": kinds[each["level"]], "where": each.get("where", ""), "text": bare(each)}
        | ({"fix": each["fix"]} if "fix" in each else {})
        for each in records
    ]


def bare(record):
    where = record.get("where", "")
    return record["msg"].removesuffix(f"; fix: {record.get('fix')}").removesuffix(f" (config.json: {where})")


# --- One bundle with more and more adaptations ------------------------------------------------------------------------


def plain(config):
    pass


def sharing(config):
    set_namespaces(config, "uts", "mount")
    add_mount(config, "/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    if not os.path.ismount("/dev/mqueue"):
        config["mounts"][-1] = {"destination": "/mqueue", "type": "proc", "source": "proc"}


def limited(config):
    config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 10**9, "hard": 10**9},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    config["linux"]["cgroupsPath"] = "/made/for/root"
    config["linux"]["resources"] = {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": 2**28},
        "pids": {"limit": 64},
    }


def strange(config):
    config["process"]["user"]["additionalGids"] = [5, 100_000]
    config["process"]["capabilities"]["bounding"] = ["CAP_KILL", "CAP_UNHEARD_OF"]


def device(config):
    config["linux"]["devices"] = [
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600, "uid": 0, "gid": 0},
        {"path": "/dev/fifo", "type": "p"},
    ]


def cgroup(config):
    add_mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
    config["linux"]["namespaces"].append({"type": "cgroup"})


def strangers_maps(config):
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 1, "size": 1}]


def without_mounts(config):
    set_namespaces(config, "pid", "network")


def propagating(config):
    add_mount(config, "/data", "bind", "/etc", "rbind", "rshared", "uid=7")


def everything(config):
    for change in (sharing, limited, strange, device, cgroup, propagating):
        change(config)


CHANGES = (plain, sharing, limited, strange, device, cgroup, strangers_maps, without_mounts, propagating, everything)
WANTED = {
    # the places in config.json that must be reported, for a user with subordinate ids
    plain: {"linux.namespaces"},
    sharing: {"linux.namespaces", "mounts[0]", "mounts[3]", "mounts[4]"},
    limited: {
        "linux.namespaces",
        "linux.cgroupsPath",
        "linux.resources",
        "linux.resources.devices",
        "process.rlimits[0]",
    },
    strange: {
        "linux.namespaces",
        "process.capabilities.bounding[1]",
        "process.capabilities.inheritable",
        "process.user.additionalGids",
    },
    device: {"linux.namespaces", "linux.devices[0]"},
    strangers_maps: {"linux.uidMappings"},
    without_mounts: {"linux.namespaces"},
    propagating: {"linux.namespaces", "mounts[4]"},
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("who", ["box", "single"])
def test_explain_says_what_is_logged(request, who, change):
    box = request.getfixturevalue(who)
    config = base_config("true")
    change(config)
    notes = json.loads(explain(box, config, "--json").stdout)["notes"]
    assert logged(box, config) == notes
    text = explain(box, config).stdout
    for note in notes:
        assert f"  - {note['text']}" + (f"  [{note['where']}]" if note["where"] else "") in text.splitlines()
    if who == "box" and change in WANTED:
        assert {note["where"] for note in notes} == WANTED[change]
    if who == "single":
        assert any("gid=5 is left out" in note["text"] and note["where"] == "mounts[2]" for note in notes)
        assert any("usermod --add-subuids" in note["text"] for note in notes)


@pytest.mark.parametrize("mode", ["keep-id", "root", "single"])
def test_explain_takes_the_modes_of_run(box, mode):
    config = config_with_maps(box.user, "cat", "/proc/self/uid_map")
    data = json.loads(explain(box, config, "--json", "--userns", mode).stdout)
    assert logged(box, config, f"--userns={mode}") == data["notes"]
    lines = box.lines(config, flags=["--userns", mode])
    (maps,) = [each["maps"] for each in data["operations"] if each["op"] == "begin_id_maps"]
    assert [[int(word) for word in line.split()] for line in lines] == maps["uids"]


def test_a_bundle_that_needs_nothing_gets_no_message(box):
    config = config_with_maps(box.user, "true")
    assert json.loads(explain(box, config, "--json").stdout)["notes"] == []
    assert logged(box, config) == []
    text = explain(box, config).stdout
    assert "Adapted" not in text
    assert "not done" not in text


def test_warnings_reach_people_and_adaptations_do_not(box):
    config = base_config("true")
    everything(config)
    notes = json.loads(explain(box, config, "--json").stdout)["notes"]
    done = box.run(config, check=True)
    unenforced = [note for note in notes if note["kind"] == "not honoured"]
    assert len(unenforced) > 5
    assert done.stderr.splitlines() == [
        f"rootless: warning: {note['text']} (config.json: {note['where']})"
        + (f"; fix: {note['fix']}" if "fix" in note else "")
        for note in unenforced
    ]


# --- explain ----------------------------------------------------------------------------------------------------------

PLACE = re.compile(r"(root|process|mounts|linux|hostname|domainname)\b[\w.\[\]/-]*")


def test_explain_as_data(box):
    config = base_config("sh", "-c", "true")
    everything(config)
    config["linux"]["seccomp"] = PODMAN_SECCOMP
    config["hostname"] = "inside"
    data = json.loads(explain(box, config, "--json").stdout)
    assert data.keys() == {"format", "id", "operations", "notes"}
    named = {operation["op"]: operation for operation in data["operations"]}
    about = named["record"]["about"]["map"]
    assert (about["bundle"], about["rootfs"]) == (str(box.path), str(box.rootfs))
    maps = named["begin_id_maps"]["maps"]
    assert maps["uids"][0] == [0, box.user.uid, 1]
    assert os.path.basename(maps["uid_program"]) == "newuidmap"
    assert named["compile_filter"]["filter"]["class"] == "SeccompFilter"
    for note in data["notes"]:
        assert note.keys() - {"fix"} == {"kind", "where", "text"}
        assert note["kind"] in ("adapted", "not honoured")
    operations = data["operations"]
    for operation in operations:
        assert operation["op"]
        assert PLACE.fullmatch(operation.get("where", "linux")), operation
        assert operation.get("on_error", "otherwise") in ("skip when absent", "otherwise", "ignore")
    assert [each["op"] for each in operations][-7:] == [
        *("wait_start", "rlimit", "rlimit", "no_new_privs", "seccomp", "exec", "delete")
    ]
    assert operations[-2]["args"] == ["sh", "-c", "true"]
    targets = [each["target"] for each in operations if each.get("where", "").startswith("mounts[")]
    assert list(dict.fromkeys(targets)) == [mount["destination"] for mount in config["mounts"]]
    assert {each["name"] for each in operations if each["op"] == "hostname"} == {"inside"}


def test_explain_for_people(box):
    config = base_config("sh", "-c", "true")
    for change in (limited, strange, device, cgroup):
        change(config)
    config["linux"]["seccomp"] = PODMAN_SECCOMP
    config["root"]["readonly"] = True
    text = explain(box, config).stdout
    chapters = ("On the host", "Namespaces", "The container process", "Mounts and paths", "Rights and limits")
    chapters += ("The program", "Afterwards")
    places = [text.index(f"\n  {chapter}\n") for chapter in chapters]
    assert places == sorted(places)
    assert text.startswith(f"Bundle {box.path}\n\n")
    assert "\n\nIDs: your own id and your subordinate ids, " in text
    assert f"    uid 0 is {box.user.uid} of the host\n" in text
    for words in (
        "create a user namespace",
        "mount proc on /proc",
        "mount tmpfs on /dev (nosuid, strictatime, mode=755, size=65536k)  [mounts[1]]",
        "mask /proc/kcore, if it is there  [linux.maskedPaths[0]]",
        "make /proc/sys read-only, if it is there  [linux.readonlyPaths[0]]",
        "limit the bounding set to KILL",
        "compile the seccomp filter: default: errno 38 (ENOSYS); ",
        "load the seccomp filter",
        "execute sh -c true  [process.args]",
    ):
        assert words in text, words
    assert max(map(len, text.splitlines())) < 400


def test_explain_of_a_joined_user_namespace(box, require_root):
    """Its ids may not be the caller's: root copies the sources of bind mounts before it joins any namespace."""
    config = base_config("true")
    config["mounts"].append({"destination": "/data", "type": "bind", "source": "/srv", "options": ["bind"]})
    new = ("pid", "network", "ipc", "uts", "mount")
    set_namespaces(config, *new, user="/proc/1/ns/user")
    write_config(box.path, config)
    words = [*box.command, "explain", box.path]
    text = box.user.run(words, check=True, user=0, group=0, env={"XDG_RUNTIME_DIR": ""}).stdout
    assert "\nIDs: the container has the IDs of the user namespace /proc/1/ns/user.\n" in text
    assert text.index(" copy the mounts at /srv") < text.rindex("/proc/1/ns/user")


@pytest.mark.parametrize("how", ["positional", "--bundle", "-b", "here"])
def test_explain_finds_the_bundle_as_run_does(box, how):
    write_config(box.path, base_config("true"))
    words = {"positional": [box.path], "--bundle": ["--bundle", box.path], "-b": ["-b", box.path], "here": []}[how]
    done = box.user.run([*box.command, "explain", *words], cwd=box.path if how == "here" else "/", check=True)
    assert done.stdout.startswith(f"Bundle {box.path}\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["process"].update(cwd="relative"),
        lambda config: config["process"]["user"].update(uid=10**9),
        lambda config: config["linux"].update(sysctl={"kernel.panic": "1"}),
        lambda config: config["mounts"].append({"destination": "/data"}),
        lambda config: config["root"].update(path="nowhere"),
    ],
)
def test_explain_fails_as_run_would(box, change):
    config = base_config("true")
    change(config)
    ran = box.run(config)
    explained = explain(box, config, check=False)
    assert (explained.returncode, explained.stdout, explained.stderr) == (1, "", ran.stderr)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1


def tree(*directories):
    """Return all metadata and content of every file below directories, except access times."""
    seen = {}
    for directory in directories:
        for parent, _, names in os.walk(directory):
            for path in [parent, *(os.path.join(parent, name) for name in names)]:
                status = os.lstat(path)
                seen[path] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return seen


CHANGING = re.compile(
    r"\b(mount|umount2|unshare|setns|clone3|mkdir|mkdirat|unlink|unlinkat|rename\w*|link|linkat|symlink\w*|chmod|fchmod\w*"
    r"|chown|fchown\w*|lchown|truncate|ftruncate|mknod\w*|connect|bind|listen|sendto|sendmsg|memfd_create|fsopen|fsmount"
    r"|open_tree|move_mount|mount_setattr|pivot_root|chroot|sethostname|setuid|setgid|setresuid|setresgid|utime\w*|kill"
    r"|pidfd_open|fork|vfork|clone)\("
)


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_explain_touches_nothing(box, need, json_flag):
    """`explain` is one process that only reads files: it starts, creates, mounts and changes nothing."""
    config = base_config("true")
    everything(config)
    config["linux"]["seccomp"] = PODMAN_SECCOMP
    write_config(box.path, config)
    trace = box.user.tmp / "trace"
    trace.write_text("")
    own(box.user, trace)
    words = [need("strace"), "-f", "-o", trace, "-e", "trace=%file,%desc,%network,%process,%creds,memfd_create"]
    cache = box.user.tmp / "cache"
    runtime = box.user.tmp / "runtime"
    for directory in (cache, runtime):
        directory.mkdir(mode=0o700)
        own(box.user, directory)
    env = {"XDG_CACHE_HOME": str(cache), "XDG_RUNTIME_DIR": str(runtime), "HOME": str(box.user.home)}
    before = tree(box.path, cache, runtime)
    done = box.user.run([*words, *box.command, "explain", *json_flag, box.path], check=True, env=env)
    assert done.stdout
    calls = trace.read_text().splitlines()
    assert len(calls) > 100
    succeeded = [line for line in calls if " = -1 " not in line]
    assert [line for line in succeeded if CHANGING.search(line)] == []
    written = [
        line for line in succeeded if re.search(r"\bopen(at)?\(", line) and re.search(r"O_WRONLY|O_RDWR|O_CREAT", line)
    ]
    harmless = ('"/dev/tty"', '"/dev/null"', '"/dev/net/tun"')
    assert [line for line in written if not any(name in line for name in harmless)] == []
    assert tree(box.path, cache, runtime) == before


# --- Fallbacks at run time --------------------------------------------------------------------------------------------


def test_a_proc_that_an_engine_has_covered_is_bound(box):
    """A new /proc would uncover files (mount_namespaces(7)), so the kernel refuses it in a user namespace."""
    config = base_config("sh", "-c", "wc -c < /proc/version; cat /proc/self/mountinfo")
    config["mounts"][2]["options"].remove("gid=5")
    inner = 'exec unshare --user --map-root-user --mount "$@"'
    script = f"mount --bind /dev/null /proc/version; {inner}"
    box.command[:0] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    log = box.user.tmp / "log"
    lines = box.lines(config, global_flags=["--log", log])
    assert lines[0] == "0"
    assert mount_table(lines[1:])["/proc"][2] == "proc"
    note = "mount proc on /proc: fsmount: Operation not permitted: the host's mount is bound instead"
    assert f'msg="{note}" where="mounts[0]"' in log.read_text()


def test_bound_device_keeps_its_owner_and_mode(box):
    config = base_config("stat", "-c", "%a %u:%g", "/dev/full")
    device(config)
    host = os.stat("/dev/full")
    assert box.lines(config) == [f"{stat.S_IMODE(host.st_mode):o} 65534:65534"]
