"""podman containers that share namespaces, or that get files and descriptors: the outcome is the same as with crun."""

from __future__ import annotations

import pytest

from tests.lib.bundles import own
from tests.lib.engines import IMAGE

LOOK = "cat /proc/self/uid_map /proc/self/gid_map; id; stat -c '%u %g %a' /etc/hosts /etc/hostname; cat /etc/hostname"


@pytest.fixture
def both(podman_in_cgroup2, need):
    """Return a function that runs the same command with rootless and with crun, whose results have to be equal."""
    need("crun")
    podman = podman_in_cgroup2

    def run(*words, **options):
        ours, theirs = (
            podman.with_runtime(runtime, "run", "--rm", *words, **options) for runtime in ("rootless", "crun")
        )
        assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
        return ours

    return run


@pytest.fixture
def first(podman_in_cgroup2):
    """Return a function that creates a container whose namespaces others join."""
    names = []

    def detach(*flags):
        name = f"first{len(names)}"
        names.append(name)
        return podman_in_cgroup2.detach(name, *flags)

    yield detach
    if names:
        podman_in_cgroup2("rm", "--force", "--time=0", *names, check=True)


@pytest.mark.parametrize(
    "flags", [["--userns=keep-id"], ["--userns=auto:size=1000"], ["--uidmap=0:1:5000", "--gidmap=0:1:5000"]], ids=str
)
def test_files_are_mounted_in_a_joined_user_namespace(flags, both, first):
    """Its root may have no access to them: podman's directories belong to the caller."""
    done = both(f"--userns=container:{first(*flags)}", "--network=none", "--hostname=box", IMAGE, "sh", "-c", LOOK)

    assert done.returncode == 0
    assert done.stdout.endswith("\nbox\n")


USERNS = (
    ["--userns=keep-id"],
    ["--userns=keep-id:uid=33,gid=34"],
    ["--userns=keep-id", "--user=0"],
    ["--userns=keep-id", "--user=5:6", "--group-add=keep-groups"],
    ["--userns=nomap"],
    ["--userns=auto"],
    ["--userns=auto:size=300,uidmapping=0:5:10"],
    ["--userns=host"],
    ["--uidmap=0:1:1", "--uidmap=1:0:1", "--gidmap=0:1:1", "--gidmap=1:0:1"],
    ["--uidmap=+7:@{uid}:1"],
)
FILES = {
    "private directory": ["--volume={tmp}/private/volume:/v"],
    "chowned": ["--volume={tmp}/given:/v:U"],
    "named volume": ["--volume=named:/v:rw"],
    "overlay": ["--volume={tmp}/private/volume:/v:O"],
    "secret": ["--secret=secret,target=/v/secret,mode=0444"],
    "workdir and tmpfs": ["--tmpfs=/v", "--workdir=/v"],
    "read-only": ["--read-only", "--tmpfs=/v"],
}


@pytest.fixture(scope="module")
def host(podman_in_cgroup2):
    """Files that the options name: podman may search every directory, the container's IDs need not."""
    podman = podman_in_cgroup2
    (podman.account.tmp / "private/volume").mkdir(parents=True)
    (podman.account.tmp / "given").mkdir()
    for name in ("private", "given"):
        own(podman.account, podman.account.tmp / name)
    (podman.account.tmp / "private/volume").chmod(0o777)
    (podman.account.tmp / "private").chmod(0o700)
    podman("secret", "create", "secret", "-", input="hush\n", check=True)
    return {"tmp": podman.account.tmp, "uid": podman.account.uid}


@pytest.mark.parametrize(
    ("userns", "files"),
    [*((userns, "private directory") for userns in USERNS), *((["--userns=keep-id"], files) for files in FILES)],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_files_are_mounted_in_a_new_user_namespace(both, host, userns, files):
    look = "stat -c '%n %A %u %g %s' . .. *; cat secret; grep Groups: /proc/self/status"
    script = f"{LOOK}; cd /v && touch new; {look}; rm -f new"
    words = [word.format(**host) for word in (*userns, *FILES[files])]
    done = both("--network=none", "--hostname=box", *words, IMAGE, "sh", "-c", script)
    assert done.stdout


@pytest.mark.parametrize("descriptors", [(3,), (5,), (4, 6)], ids=str)
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_preserved_descriptors_keep_their_numbers(podman_in_cgroup2, first, need, verb, descriptors):
    """podman passes the highest number only: lower descriptors need not be open."""
    podman = podman_in_cgroup2
    need("crun")
    script = "ls /proc/self/fd | tr '\\n' ' '; for n in 3 4 5 6; do (cat <&$n) 2>/dev/null; done; true"
    flags = [f"--preserve-fd={','.join(map(str, descriptors))}"]
    where = [first()] if verb == "exec" else ["--rm", IMAGE]
    redirect = " ".join(f"{number}</etc/hostname" for number in descriptors)

    def call(runtime):
        words = [*podman.under(runtime), verb, *flags, *where, "sh", "-c", script]
        return podman.account.run(["sh", "-c", f'"$@" {redirect}', "sh", *words], env=podman.env)

    ours = call("rootless")
    assert (ours.returncode, ours.stderr) == (0, "")
    numbers = [int(word) for word in ours.stdout.split() if word.isdecimal()]
    # ls opens a directory itself, with the lowest free number
    free = next(number for number in range(3, 8) if number not in descriptors)
    assert numbers == sorted({0, 1, 2, free, *descriptors})
    assert ours.stdout.count("\n") == len(descriptors), "each descriptor is the same file"
    if verb == "run":
        assert ours.stdout == call("crun").stdout


@pytest.mark.parametrize("joined", ["network", "ipc", "pid", "uts"])
def test_a_namespace_of_another_user_namespace_can_be_joined(both, first, joined):
    """podman's own user namespace owns it."""
    users, other = first("--userns=keep-id"), first()
    words = [f"--userns=container:{users}", f"--{joined}=container:{other}"]
    words += ["--network=none"] if joined != "network" else []
    done = both(*words, IMAGE, "sh", "-c", f"cat /proc/self/uid_map; readlink /proc/self/ns/{joined[:3]}")
    assert done.returncode == 0
