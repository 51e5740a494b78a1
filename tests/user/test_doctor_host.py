"""What the doctor finds on hosts that lack something: the lack is made, for one process, and found."""

from __future__ import annotations

import sys

import pytest

from rootless.doctor import host

DOCTOR = (sys.executable, "-m", "rootless.doctor")


@pytest.fixture
def checkout(pytestconfig):
    return {"cwd": pytestconfig.rootpath}


def test_an_ordinary_user_on_a_whole_host_lacks_nothing(user, checkout, need):
    need("newuidmap")
    need("slirp4netns")
    done = user.run(DOCTOR, **checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Nothing is missing on this host.\n", "")


def test_a_user_without_subordinate_ids_is_told_the_command(single_user, checkout):
    done = single_user.run(DOCTOR, **checkout)
    assert done.returncode == 0
    assert f"missing: subordinate uids and gids for {single_user.name}\n" in done.stdout
    assert "fix: sudo usermod --add-subuids " in done.stdout
    assert done.stdout.count("missing: ") == 1


def test_root_of_a_user_namespace_lacks_nothing(user, checkout):
    done = user.run(["unshare", "--user", "--map-root-user", *DOCTOR], **checkout)
    assert (done.returncode, done.stdout) == (0, "Nothing is missing on this host.\n")


def test_user_namespaces_that_are_switched_off_are_essential(user, checkout):
    switch_off = 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --securebits +noroot --inh-caps=-all "$@"'
    done = user.run(["unshare", "-Ur", "sh", "-c", switch_off, "sh", *DOCTOR], **checkout)
    assert done.returncode == 1, done.stderr
    assert "missing: user namespaces (user.max_user_namespaces is 0)\n" in done.stdout
    assert "fix: echo user.max_user_namespaces=65536 | sudo tee /etc/sysctl.d/90-rootless.conf" in done.stdout


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
    ask = "from rootless.doctor import host; print(*host.powerless('/mnt/newuidmap', 7))"
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
    ask = "from rootless.doctor import host; print(not list(host.powerless('/mnt/newuidmap', 7)))"
    done = in_mounts(user, checkout, script, "-c", ask)
    assert done.stdout == f"{enough}\n", done.stderr


def test_a_host_without_the_programs_names_their_packages(user, checkout, need):
    need("newuidmap")
    hide = """
        mount -t tmpfs tmpfs /mnt
        for name in newuidmap newgidmap pasta slirp4netns; do
            : >/mnt/$name
            for directory in /usr/bin /usr/sbin /usr/local/bin; do
                [ ! -e $directory/$name ] || mount --bind /mnt/$name $directory/$name
            done
        done
        exec "$@"
    """
    # In a user namespace that has every id, nothing tells it from the host's own.
    ask = "from rootless.doctor import host; print(*host._id_programs(), *host._network(), sep='\\n')"
    done = in_mounts(user, checkout, hide, "-c", ask)
    assert "missing: newuidmap and newgidmap\n" in done.stdout, done.stderr
    assert "missing: pasta or slirp4netns\n" in done.stdout
    for line in done.stdout.splitlines():
        if "fix:" in line:
            assert line.startswith(("    fix: sudo ", "    fix: install the distribution's package"))


def test_real_root_lacks_nothing_where_ordinary_users_do_not(require_root, need):
    need("newuidmap")
    need("slirp4netns")
    assert host.lacks() == []
