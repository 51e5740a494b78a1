"""The doctor's conclusions from facts; tests/verbs/test_doctor.py tests how it finds them."""

from __future__ import annotations

import errno
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.doctor import host_checks, network_checks
from rootless.doctor.problem import Problem, os_family, set_sysctl
from rootless.host import host_network, subids
from rootless.host.host_network import HostNetwork


def refusal(error, command="", *, essential=True, **settings):
    values = {name.replace("__", "."): value for name, value in settings.items()}
    return host_checks.user_namespace_problem(error, lambda name: values.get(name, ""), command, essential=essential)


@pytest.mark.parametrize(
    ("error", "settings", "what", "fix"),
    [
        (
            errno.ENOSPC,
            {"user__max_user_namespaces": "0"},
            "user.max_user_namespaces is 0",
            "max_user_namespaces=65536",
        ),
        (errno.EPERM, {"kernel__unprivileged_userns_clone": "0"}, "unprivileged_userns_clone is 0", "_clone=1"),
        (
            errno.EPERM,
            {"kernel__unprivileged_userns_clone": "1", "kernel__apparmor_restrict_unprivileged_userns": "1"},
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (errno.EPERM, {"kernel__apparmor_restrict_unprivileged_userns": "0"}, "Operation not permitted", "outside"),
        (errno.EPERM, {}, "Operation not permitted", "unshare(CLONE_NEWUSER)"),
        (errno.EINVAL, {}, "a kernel with user namespaces", "CONFIG_USER_NS=y"),
        (errno.EUSERS, {}, "another level of user namespaces", "outer"),
    ],
)
def test_a_refused_user_namespace_names_the_setting_and_the_command(error, settings, what, fix):
    problem = refusal(error, **settings)
    assert what in problem.what
    assert fix in problem.fix
    assert problem.essential


def test_the_apparmor_profile_names_the_command_and_its_next_versions():
    problem = refusal(
        errno.EPERM, "/home/a b/rootless/env-x1/bin/rootless", kernel__apparmor_restrict_unprivileged_userns="1"
    )
    printf, _, install = problem.fix.partition(" | ")
    profile = subprocess.run(["sh", "-c", printf], capture_output=True, text=True, check=True).stdout
    assert profile.splitlines() == [
        "abi <abi/4.0>,",
        'profile rootless "/home/a b/rootless/env-*/bin/rootless" flags=(unconfined) {',
        "  userns,",
        "}",
    ]
    assert install == "sudo tee /etc/apparmor.d/rootless && sudo apparmor_parser -r /etc/apparmor.d/rootless"


def test_profile_for_a_command_elsewhere_names_only_that_command():
    problem = refusal(errno.EACCES, "/usr/bin/rootless", kernel__apparmor_restrict_unprivileged_userns="1")
    assert '"/usr/bin/rootless"' in problem.fix


@given(st.lists(st.tuples(st.integers(0, 600_000), st.integers(1, 200_000))))
def test_suggested_range_is_free(used):
    first = subids.free_range(used)
    assert first >= subids.FIRST_SUBORDINATE
    assert all(start + count <= first or start >= first + subids.RANGE for start, count in used)


@given(st.lists(st.integers(0, 20), unique=True))
def test_suggested_range_is_the_lowest(blocks):
    used = [(subids.FIRST_SUBORDINATE + block * subids.RANGE, subids.RANGE) for block in blocks]
    lowest = next(block for block in range(22) if block not in blocks)
    assert subids.free_range(used) == subids.FIRST_SUBORDINATE + lowest * subids.RANGE


def test_ranges_are_read_from_both_files_and_odd_lines_passed_over():
    assert subids.used_ranges("a:100000:65536\n# no\n\nb:x:1\n", "1000:165536:10\n:::\n") == [
        (100000, 65536),
        (165536, 10),
    ]


def test_a_local_user_gets_a_range_by_usermod():
    assert host_checks.grant("root", ["uids", "gids"], 100000) == (
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 root"
    )
    assert host_checks.grant("root", ["gids"], 165536) == "sudo usermod --add-subgids 165536-231071 root"


def test_a_user_of_a_directory_service_gets_a_range_in_the_files():
    assert host_checks.grant("no such@user", ["uids", "gids"], 100000) == (
        f"echo {shlex.quote('no such@user:100000:65536')} | sudo tee -a /etc/subuid /etc/subgid"
    )


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 13"\nID=debian\n', "debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "debian"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "debian"),
        ("ID=fedora\n", "fedora"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ("ID=nixos\nNAME=debian\n", ""),
        ("", ""),
    ],
)
def test_the_distribution_is_known_by_its_relatives(text, family):
    assert os_family(text) == family


def test_a_program_without_setuid_and_capabilities_is_powerless(tmp_path):
    program = tmp_path / "new uidmap"
    program.touch(mode=0o755)
    [(reason, fix)] = host_checks.powerless(str(program), 7)
    assert "neither setuid root" in reason
    assert fix == f"sudo chown root:root '{program}' && sudo chmod u+s '{program}'"


def test_a_problem_reads_as_three_lines():
    problem = Problem("a thing", "a reason", "sudo repair it")
    assert str(problem) == "missing: a thing\n    why: a reason\n    fix: sudo repair it"


def test_an_optional_problem_leaves_the_host_whole(monkeypatch):
    monkeypatch.setattr(
        host_checks, "problems", lambda _: [Problem("a thing", "a reason", "sudo get it", optional=True)]
    )
    assert host_checks.report() == (
        "Nothing is missing on this host.\noptional: a thing\n    why: a reason\n    fix: sudo get it\n",
        0,
    )
    monkeypatch.setattr(
        host_checks, "problems", lambda _: [Problem("a kernel", "a reason", "boot one", essential=True)]
    )
    assert host_checks.report() == ("missing: a kernel\n    why: a reason\n    fix: boot one\n", 1)


def test_setting_is_added_to_existing_ones(tmp_path):
    for name, value in (("a.b", 1), ("c.d", "0 2")):
        command = set_sysctl(name, value).replace("sudo ", "").replace("sysctl --system", ":")
        subprocess.run(["sh", "-c", command.replace("/etc/sysctl.d", str(tmp_path))], check=True)
    assert (tmp_path / "90-rootless.conf").read_text() == "a.b=1\nc.d=0 2\n"


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (errno.EACCES, "sudo chmod 666 /dev/net/tun"),
        (errno.ENOENT, "sudo modprobe tun"),
        (errno.ENODEV, "sudo modprobe tun"),
    ],
)
def test_network_problem_comes_with_its_command(error, command):
    assert network_checks.tun_fix(error).endswith(command)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("pasta 0.0~git20240220.1e6f92b-1", ["a pasta of 20240821 or later (this is 0.0~git20240220.1e6f92b-1)"]),
        ("pasta", ["a pasta of 20240821 or later (this is of an unknown version)"]),
        ("pasta 2025_05_03.587980c", []),
    ],
)
def test_helpers_of_networks_with_known_flaws_are_named(tmp_path, said, found):
    pasta = tmp_path / "pasta"
    pasta.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo '{said}'\n")
    pasta.chmod(0o755)
    flawed = HostNetwork({"pasta": str(pasta), "slirp4netns": "/no/such/program"}, libslirp="4.9.2")
    libslirp = (
        "a libslirp without known flaws (libslirp 4.9.2 is open to CVE-2026-95507, CVE-2026-95508, CVE-2026-120830, "
        "unless your distribution has patched it)"
    )
    found_problems = list(network_checks._versions(flawed))
    assert [problem.what for problem in found_problems] == [libslirp, *found]
    assert all(problem.optional for problem in found_problems)
    assert not list(network_checks._versions(HostNetwork({"slirp4netns": "/no/such/program"}, libslirp="4.9.6")))


def test_a_program_that_hangs_or_is_missing_has_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(host_network, "_PATIENCE", 100)
    program = tmp_path / "slirp4netns"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    assert HostNetwork({"slirp4netns": str(program)}).libslirp == ""
    assert HostNetwork({"slirp4netns": str(tmp_path / "missing")}).libslirp == ""
