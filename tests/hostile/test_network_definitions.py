"""Definitions of shared networks: root must not follow directories of the user who calls it."""

from __future__ import annotations

import pytest

from tests.lib.bundles import own

LAN = '{"name": "lan", "subnet": "10.99.7.0/24"}'
WITH_A_HOME = 'mount -t tmpfs tmpfs /root && exec "$@"'


@pytest.mark.parametrize("kept", ["HOME", "XDG_CONFIG_HOME"])
@pytest.mark.parametrize("words", [["rm", "lan"], ["create", "made"], ["inspect", "lan"]], ids=lambda words: words[0])
def test_root_ignores_network_definitions_of_the_calling_user(user, require_root, rootless_command, kept, words):
    """sudo may keep these variables; the user has placed a symlink at the directory of networks."""
    victim = user.tmp / "victim"
    victim.mkdir()
    (victim / "lan.json").write_text(LAN)
    config = user.tmp / "home/.config"
    (config / "rootless").mkdir(parents=True)
    (config / "rootless/networks").symlink_to(victim)
    own(user, user.tmp / "home")
    env = {"HOME": "/root", "XDG_RUNTIME_DIR": ""} | {kept: str(config if kept == "XDG_CONFIG_HOME" else config.parent)}
    command = [rootless_command, "--root", user.tmp / "state", "network", *words]
    inside = ["unshare", "--mount", "sh", "-c", WITH_A_HOME, "sh", *command]
    done = user.run(inside, env=env, user=0, group=0, cwd="/")
    assert [path.name for path in victim.iterdir()] == ["lan.json"]
    assert (done.returncode, done.stdout) == ((0, "made\n") if words[0] == "create" else (1, ""))


def test_network_definitions_that_others_can_change_are_refused(user, rootless_command):
    networks = user.tmp / "config/rootless/networks"
    networks.mkdir(parents=True)
    (networks / "lan.json").write_text(LAN)
    own(user, user.tmp / "config")
    networks.chmod(0o777)
    env = {"XDG_CONFIG_HOME": str(user.tmp / "config")}
    done = user.run([rootless_command, "network", "inspect", "lan"], env=env)
    assert done.returncode == 1
    assert done.stderr.startswith(f"rootless: networks in {networks}: others can change it; fix: ")
