"""`--userns systemd` with systemd-nsresourced itself, whose BPF programs need the kernel of QEMU's machine."""

from __future__ import annotations

import pytest

from tests.lib.bundles import make_rootfs
from tests.lib.squashfs import entry, make_image

RUN = "rootless run --network none --userns systemd"
IMAGE = "/mnt/host/ids.sqsh"
RANGES = range(0x8_0000, 0x6FFF_0000)
"""What systemd gives to containers: https://systemd.io/UIDS-GIDS."""
PREPARE = """
    cp /etc/subuid /etc/subuid.kept && sed -i /tester/d /etc/subuid && chmod 666 /dev/fuse
    systemctl start systemd-nsresourced.socket systemd-nsresourced.service
"""
RESTORE = """
    mv /etc/subuid.kept /etc/subuid
    systemctl stop systemd-nsresourced.socket systemd-nsresourced.service
"""
REGISTRY = "/run/systemd/nsresource/registry"


@pytest.fixture(scope="module")
def guest(two_processors, tmp_path_factory, need):
    """Run a script in the machine, whose user has no subordinate IDs; return its output and errors."""
    need("sqfstar")
    tree = make_rootfs(tmp_path_factory.mktemp("tree") / "root")
    make_image(two_processors.shared / "ids.sqsh", entry("of-33", uid=33, gid=44, data=b"text"), tree=tree)
    two_processors.run(PREPARE, root=True, check=True)
    yield two_processors.run
    two_processors.run(RESTORE, root=True, check=True)


def test_an_image_has_all_ids_of_a_range_until_its_container_ends(guest):
    script = f"""
        {RUN} -d --name ids {IMAGE} sh -c 'touch /new; chown 7:8 /new; mkdir /d; chown www-data /d; sleep 1000'
        rootless exec ids sh -c '
            cat /proc/self/uid_map /proc/self/gid_map
            until su -s /bin/sh www-data -c "touch /d/f" 2>/dev/null; do sleep 0.1; done
            stat -c %u:%g /of-33 /new /d/f'
    """
    uids, gids, *owners = guest(script, check=True).stdout.splitlines()[1:]
    assert owners == ["33:44", "7:8", "33:33"]
    assert uids == gids
    inside, outside, count = map(int, uids.split())
    assert (inside, count) == (0, 65536)
    assert outside in RANGES
    held = guest(f"cat {REGISTRY}/u{outside}.userns", root=True, check=True).stdout
    assert '"owner":1000' in held

    guest("rootless delete --force ids", check=True)

    gone = f"until [ ! -e {REGISTRY}/u{outside}.userns ]; do sleep 0.1; done"
    guest(gone, root=True, check=True)


def test_no_file_of_the_host_belongs_to_the_range(guest):
    script = f"mkdir -m 777 open; {RUN} -v ~/open:/open {IMAGE} touch /open/file; ls open; rmdir open"
    done = guest(script)
    assert done.stdout == ""
    assert "Read-only file system" in done.stderr
