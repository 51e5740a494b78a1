"""Problems that `doctor` finds on hosts without some feature: the test removes it for one process."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from rootless.doctor import host_checks

DOCTOR = (sys.executable, "-m", "rootless", "doctor")


@pytest.fixture
def checkout(pytestconfig):
    return {"cwd": pytestconfig.rootpath}


WHOLE = "Nothing is missing on this host.\n"


@pytest.fixture
def whole(need):
    """A host with all features."""
    for program in ("newuidmap", "slirp4netns", "pasta", "squashfuse_ll", "sqfstar", "skopeo"):
        need(program)
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")


def missing(done):
    """Return the output without optional problems."""
    return "".join(each for each in re.split(r"(?m)^(?=\w)", done.stdout) if not each.startswith("optional: "))


@pytest.mark.usefixtures("whole")
def test_an_ordinary_user_on_a_whole_host_has_no_problem(user, checkout):
    done = user.run(DOCTOR, **checkout)
    assert (done.returncode, missing(done), done.stderr) == (0, WHOLE, "")


def test_a_user_without_subordinate_ids_gets_the_command(single_user, checkout):
    done = single_user.run(DOCTOR, **checkout)
    assert done.returncode == 0
    assert f"missing: subordinate uids and gids for {single_user.name}\n" in done.stdout
    assert "fix: sudo usermod --add-subuids " in done.stdout
    assert done.stdout.count("missing: ") == 1


def test_doctor_verb_prints_the_same(user, rootless_command, checkout):
    done = user.run([rootless_command, "doctor"])
    assert (done.returncode, done.stdout) == (0, user.run(DOCTOR, **checkout).stdout)


@pytest.mark.usefixtures("whole")
def test_root_of_a_user_namespace_has_no_problem(user, checkout):
    done = user.run(["unshare", "--user", "--map-root-user", *DOCTOR], **checkout)
    assert (done.returncode, missing(done)) == (0, WHOLE)


def test_disabled_user_namespaces_are_an_essential_problem(user, checkout):
    switch_off = 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --securebits +noroot --inh-caps=-all "$@"'
    done = user.run(["unshare", "-Ur", "sh", "-c", switch_off, "sh", *DOCTOR], **checkout)
    assert done.returncode == 1, done.stderr
    assert "missing: user namespaces (user.max_user_namespaces is 0)\n" in done.stdout
    assert "fix: echo user.max_user_namespaces=65536 | sudo tee -a /etc/sysctl.d/90-rootless.conf" in done.stdout


def test_no_new_privs_is_found(user, checkout, need):
    need("newuidmap")
    done = user.run(["setpriv", "--no-new-privs", *DOCTOR], **checkout)
    assert done.returncode == 0
    assert "no_new_privs is set" in done.stdout


def in_mounts(user, checkout, script, *words):
    return user.run(["unshare", "-Urm", "sh", "-euc", script, "sh", sys.executable, *words], **checkout)


def test_a_setuid_program_on_a_nosuid_mount_is_powerless(user, checkout):
    script = """
        mount -t tmpfs -o nosuid,mode=755 tmpfs /mnt
        cp /bin/true /mnt/newuidmap
        chmod u+s /mnt/newuidmap
        exec "$@"
    """
    ask = "from rootless.doctor import host_checks; print(*host_checks.powerless('/mnt/newuidmap', 7))"
    done = in_mounts(user, checkout, script, "-c", ask)
    assert done.stdout == "('/mnt is mounted nosuid', 'sudo mount -o remount,suid /mnt')\n", done.stderr


@pytest.mark.parametrize(("capability", "enough"), [("cap_setuid", True), ("cap_setgid", False)])
def test_the_file_capability_of_the_right_kind_is_enough(user, checkout, need, capability, enough):
    need("setcap")
    script = f"""
        mount -t tmpfs -o mode=755 tmpfs /mnt
        cp /bin/true /mnt/newuidmap
        setcap {capability}+ep /mnt/newuidmap
        exec "$@"
    """
    ask = "from rootless.doctor import host_checks; print(not list(host_checks.powerless('/mnt/newuidmap', 7)))"
    done = in_mounts(user, checkout, script, "-c", ask)
    assert done.stdout == f"{enough}\n", done.stderr


def test_a_host_without_the_programs_names_their_packages(user, checkout, need):
    need("newuidmap")
    hide = """
        mount -t tmpfs tmpfs /mnt
        for name in newuidmap newgidmap pasta slirp4netns squashfuse_ll sqfstar skopeo; do
            : >/mnt/$name
            for directory in /usr/bin /usr/sbin /usr/local/bin; do
                [ ! -e $directory/$name ] || mount --bind /mnt/$name $directory/$name
            done
        done
        exec "$@"
    """
    # A user namespace with every id cannot be distinguished from the host's.
    ask = """
from rootless.doctor import host_checks, image_checks, network_checks
from rootless.host import facts
found = [*host_checks._id_programs(), *network_checks.problems(facts.read(), try_them=False)]
print(*found, *image_checks.problems(facts.read(), try_them=False), sep="\\n")
"""
    done = in_mounts(user, checkout, hide, "-c", ask)
    assert "missing: newuidmap and newgidmap\n" in done.stdout, done.stderr
    assert "missing: pasta or slirp4netns\n" in done.stdout
    assert "missing: squashfuse_ll\n" in done.stdout
    assert "missing: sqfstar\n" in done.stdout
    assert "optional: skopeo\n" in done.stdout
    for line in done.stdout.split("optional: ")[0].splitlines():
        if "fix:" in line:
            assert line.startswith(("    fix: sudo ", "    fix: install the distribution's package"))


@pytest.mark.parametrize("broken", ["slirp4netns", "pasta"])
@pytest.mark.usefixtures("whole")
def test_broken_helper_is_found(user, checkout, broken):
    script = """
        mount -t tmpfs -o mode=755 tmpfs /mnt
        printf '#!/bin/sh\necho it is broken >&2; exit 1' >/mnt/broken
        chmod 755 /mnt/broken
        mount --bind /mnt/broken "$(command -v BROKEN)"
        exec "$@"
    """
    done = in_mounts(user, checkout, script.replace("BROKEN", broken), "-m", "rootless", "doctor")
    assert done.stdout.count("missing: ") == 1, done
    assert re.search(rf"missing: a working /\S*/{broken} \(it is broken\)\n", done.stdout)


@pytest.mark.usefixtures("whole")
def test_a_host_without_fuse_gets_the_command(user, checkout):
    script = """
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/net
        touch /mnt/null
        mount --bind /dev/null /mnt/null
        mount --rbind /dev/net /mnt/net
        mount --rbind /mnt /dev
        exec "$@"
    """
    done = in_mounts(user, checkout, script, "-m", "rootless", "doctor")
    assert "missing: access to /dev/fuse (No such file or directory)\n" in done.stdout, done
    assert "sudo modprobe fuse" in done.stdout
    assert done.stdout.count("missing: ") == 1


@pytest.mark.usefixtures("whole")
def test_an_old_server_of_images_is_found(user, checkout):
    script = """
        mount -t tmpfs -o mode=755 tmpfs /mnt
        printf '#!/bin/sh\necho "squashfuse 0.1.105 (c) 2012" >&2; exit 254' >/mnt/old
        chmod 755 /mnt/old
        mount --bind /mnt/old "$(command -v squashfuse_ll)"
        exec "$@"
    """
    done = in_mounts(user, checkout, script, "-m", "rootless", "doctor")
    assert "missing: squashfuse_ll 0.5.2 or later (this is 0.1.105)\n" in done.stdout, done


@pytest.mark.usefixtures("whole")
def test_a_host_without_dev_net_tun_gets_the_command(user, checkout):
    script = 'mount -t tmpfs tmpfs /dev/net; exec "$@"'
    done = in_mounts(user, checkout, script, "-m", "rootless", "doctor")
    assert "missing: access to /dev/net/tun (No such file or directory)\n" in done.stdout, done
    assert "sudo modprobe tun" in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("ip_unprivileged_port_start", "80", "ports below"),
        ("ping_group_range", "0 0", "users to ping"),
    ],
)
def test_allowed_settings_are_not_suggested(user, checkout, name, value, what):
    """The test sets it in its own network namespace."""
    change = f'[ "$1" = no ] || echo "{value}" >/proc/sys/net/ipv4/{name}; shift; exec "$@"'
    for wanted in ("no", "yes"):
        words = ["unshare", "-Urn", "sh", "-euc", change, "sh", wanted, "setpriv", "--bounding-set=-all", *DOCTOR]
        done = user.run(words, **checkout)
        assert (what in done.stdout) == (wanted == "no"), done


@pytest.mark.usefixtures("whole", "require_root")
def test_real_root_has_no_problem_where_ordinary_users_have_none():
    assert [each.what for each in host_checks.problems() if not each.optional] == []
