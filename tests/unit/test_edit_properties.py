"""Edits of config.json by flags of `run`: what holds for any value, and for any file that a value comes from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rootless.bundle.check import check
from rootless.bundle.edit import accounts, environment, mounts, security
from rootless.bundle.edit.seccomp_profile import linux_seccomp
from rootless.bundle.edit.values import size
from rootless.errors import RootlessError
from tests.lib.bundles import base_config


def outcome(function, *arguments):
    """Return what a function returns, or the error that it raises."""
    try:
        return function(*arguments)
    except RootlessError as error:
        return error


# A seccomp profile


SYS_ADMIN = {"caps": ["CAP_SYS_ADMIN"]}
PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
        {"name": "chown", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}},
        {
            "names": ["umount"],
            "action": "SCMP_ACT_ERRNO",
            "errno": "EPERM",
            "errnoRet": 9,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.10"}},
        {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
    ],
}


def test_a_profile_depends_on_the_machine_and_the_capabilities():
    made = linux_seccomp(PROFILE, "f", "x86_64", (6, 2), ["CAP_CHOWN"])
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert made["defaultErrnoRet"] == 38
    assert [rule["names"] for rule in made["syscalls"]] == [["read"], ["chown"], ["umount"]]
    assert made["syscalls"][2] == {"names": ["umount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    made = linux_seccomp(PROFILE, "f", "aarch64", (6, 10), ["CAP_CHOWN", "CAP_SYS_ADMIN"])
    assert made["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert [rule["names"] for rule in made["syscalls"]] == [["read"], ["chown"], ["mount"], ["arm"], ["new"]]


def test_linux_seccomp_is_a_profile():
    given = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "flags": ["x"], "syscalls": []}
    assert linux_seccomp(given, "f", "x86_64", (6, 1), []) == given


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("defaultAction", "archMap", "architectures", "syscalls", "defaultErrnoRet", "defaultErrno", "flags")
RULES = ("name", "names", "action", "args", "includes", "excludes", "errnoRet", "errno")
CONDITIONS = ("arches", "caps", "minKernel")


def objects(keys, values):
    return st.dictionaries(st.sampled_from(keys), values, max_size=len(keys))


@given(objects(KEYS, JSON | st.lists(objects(RULES, JSON | objects(CONDITIONS, JSON)), max_size=3)) | JSON)
def test_any_file_is_a_profile_or_refused(profile):
    made = outcome(linux_seccomp, profile, "f", "x86_64", (6, 1), [])
    if isinstance(made, RootlessError):
        assert made.code == "RL-USAGE"
        return
    config = base_config()
    config["linux"]["seccomp"] = made
    refused = outcome(check, config)
    assert refused is None or refused.where.startswith("linux.seccomp")


# What holds for any value

WORDS = st.text(st.sampled_from("/ab.:=,01-rwzZ*\"' \t\n\\\u00e9"), max_size=12)


@given(st.binary(max_size=200), st.binary(max_size=200), WORDS)
def test_any_passwd_and_group_file_gives_a_user_or_words(passwd, group, user):
    found = outcome(accounts.identity, "--user", user, {"/etc/passwd": passwd, "/etc/group": group}.get)
    if isinstance(found, RootlessError):
        assert found.code == "RL-USER"
    else:
        assert all(0 <= each < 2**32 - 1 for each in (found.uid, found.gid, *found.gids))


@given(WORDS, st.sampled_from(["volume", "type=bind,", "type=tmpfs,", "tmpfs"]))
def test_any_text_is_a_mount_or_refused(text, form):
    if form == "volume":
        made = outcome(mounts.of_volume, text, "/here")
    elif form == "tmpfs":
        made = outcome(mounts.of_tmpfs, text)
    else:
        made = outcome(mounts.of_mount, form + text, "/here")
    if isinstance(made, RootlessError):
        assert (made.code, bool(made.fix)) == ("RL-USAGE", True)
        return
    config = base_config()
    config["mounts"].append(made)
    check(config)
    assert made["type"] != "bind" or made["source"].startswith("/")


PLACES = st.lists(st.sampled_from(["/a", "/a/b", "/a/b/c", "/ab", "/dev", "/dev/x", "/proc/", "/d//e"]), unique=True)


@given(PLACES, PLACES)
def test_mounts_keep_their_order_and_cover_none_that_is_asked_for(before, asked):
    kept = [{"destination": place} for place in before]
    made = [{"destination": place, "type": "tmpfs"} for place in asked]
    found = [each["destination"] for each in mounts.add_mounts({"mounts": kept}, made)["mounts"]]
    assert sorted(set(found) & set(asked)) == sorted(asked)
    others = [place for place in before if place in found and place not in asked]
    assert [place for place in found if place in others] == others
    for index, place in enumerate(found):
        for later in found[index + 1 :]:
            is_new = later in asked
            assert not (is_new and place.startswith(later.rstrip("/") + "/")), f"{later} covers {place}"


ADDED = st.lists(st.sampled_from(["CHOWN", "cap_kill", "ALL", "net_raw", "CAP_SYS_ADMIN"]))
DROPPED = st.lists(st.sampled_from(["chown", "ALL", "NET_RAW"]))


@given(ADDED, DROPPED, st.sampled_from([0, 33]))
def test_no_capability_is_beyond_the_bounding_set(add, drop, uid):
    config = base_config()
    config["process"]["user"]["uid"] = uid
    made = outcome(security.set_capabilities, config, add, drop)
    if isinstance(made, RootlessError):
        assert made.code == "RL-USAGE"
        return
    sets = made["process"]["capabilities"]
    assert all(set(each) <= set(sets["bounding"]) for each in sets.values())
    assert set(sets.get("ambient", ())) <= set(sets["permitted"]) & set(sets.get("inheritable", ()))


@given(st.integers(0, 2**20), st.sampled_from(["", "b", "B"]))
def test_sizes(number, end):
    assert size("-m", f"{number}{end}") == number
    for power, unit in enumerate("kmgt", 1):
        assert size("-m", f"{number}{unit}") == size("-m", f"{number} {unit.upper()}iB") == number * 1024**power


@given(st.binary(max_size=60))
def test_any_file_of_variables_is_understood_or_refused(text):
    words = outcome(environment.lines_of, text, "f")
    if isinstance(words, RootlessError):
        assert words.what == "--env-file f"
    else:
        assert all(word and not word.startswith(("=", "#")) and "\n" not in word for word in words)


@given(st.lists(st.sampled_from(["A=1", "A=2", "B=", "C=x=y", "HOME=/"])))
def test_of_several_values_the_last_one_counts(entries):
    config = environment.set_variables(base_config(), entries)
    env = config["process"]["env"]
    names = [entry.partition("=")[0] for entry in env]
    assert len(names) == len(set(names))
    assert {entry.partition("=")[0]: entry for entry in entries}.items() <= dict(zip(names, env, strict=True)).items()
