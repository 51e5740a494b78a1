"""config.md "User": each property set, and observed from inside."""

from __future__ import annotations

import pytest

from tests.lib.boxes import STATUS, Box, add_probe, config_with_maps, status_of, subordinate
from tests.lib.bundles import base_config
from tests.lib.oracles import differs

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
@differs("rootless", f"{KEPT_UMASK}, which engines expect")
@pytest.mark.spec("process.user.umask: unspecified")
def test_umask_of_the_caller(either):
    assert either.lines(config_with_maps(either.user), "umask", umask=0o057) == ["0057"]


@pytest.mark.spec("process.user.uid", "process.user.gid")
@pytest.mark.parametrize("ids", [(0, 0), (0, 7), (33, 33), (1000, 0), (65536, 65536)])
def test_user_and_group(either, need, ids):
    add_probe(either, need)
    uid, gid = ids
    config = config_with_maps(either.user)
    config["process"]["user"] = {"uid": uid, "gid": gid}
    lines = either.lines(config, "probe ids; touch /tmp/file; stat -c %u:%g /tmp/file", STATUS)
    assert lines[:2] == [f"{uid} {uid} {uid} {gid} {gid} {gid}", f"{uid}:{gid}"]
    assert status_of(lines[2:], "Uid", "Gid") == ("\t".join([str(uid)] * 4), "\t".join([str(gid)] * 4))
    made = (either.rootfs / "tmp/file").stat()
    assert made.st_uid == (either.user.uid if uid == 0 else subordinate(either.user, uid))


@pytest.mark.spec("process.user.additionalGids")
@pytest.mark.parametrize("groups", [None, [], [5], [0, 33, 65536], list(range(100, 400))])
def test_additional_gids(box, groups):
    """runc 1.1.15 sets no groups unless root runs it: it keeps the caller's and refuses others."""
    config = base_config()
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    if groups is not None:
        config["process"]["user"]["additionalGids"] = groups
    shown = status_of(box.lines(config, STATUS), "Groups").split()
    assert shown == [str(group) for group in groups or ()]


@pytest.mark.spec("process.user.umask")
@pytest.mark.parametrize(("umask", "shown"), [(0, "0000"), (0o077, "0077"), (0o27, "0027"), (None, "0022")])
def test_umask(either, umask, shown):
    config = config_with_maps(either.user)
    if umask is not None:
        config["process"]["user"]["umask"] = umask
    wanted = f"{0o666 & ~int(shown, 8):o}"
    # the default is that of runc and crun, independent of the caller's umask
    lines = either.lines(config, "umask; touch /tmp/file; stat -c %a /tmp/file", umask=0o057)
    assert lines == [shown, wanted]


@pytest.mark.parametrize(
    ("key", "number", "cause"),
    [
        ("uid", 100_000, "the container has no such id; it has 0 to 0, 1 to 65536"),
        ("gid", 65537, "the container has no such id; "),
    ],
)
def test_an_id_that_the_container_does_not_have(box, key, number, cause):
    config = base_config()
    config["process"]["user"][key] = number
    done = box.run(config, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: cannot run as {key} {number}: {cause}")
    assert (
        f"(config.json: process.user.{key}); fix: choose one of these, or have the administrator give " in done.stderr
    )


def test_a_group_that_the_container_does_not_have_is_left_out(box):
    config = base_config()
    config["process"]["user"]["additionalGids"] = [5, 70_000, 6, 80_000]
    done = box.run(config, STATUS, check=True)
    assert status_of(done.stdout.splitlines(), "Groups") == "5 6"
    assert done.stderr == (
        "rootless: warning: left out: the container has no group id 70000, 80000 "
        "(config.json: process.user.additionalGids)\n"
    )


def test_groups_cannot_be_set_with_a_single_id(single_user, rootless_command):
    box = Box(single_user, [rootless_command])
    config = base_config()
    config["process"]["user"]["additionalGids"] = [5]
    done = box.run(config, STATUS, check=True)
    assert "process.user.additionalGids" in done.stderr
    assert "setgroups is denied" in done.stderr
