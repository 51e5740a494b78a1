"""The doctor's conclusions from facts; tests/verbs/test_doctor.py tests how it finds them."""

from __future__ import annotations

import errno
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.doctor import directory_checks, id_checks, image_checks, namespace_checks, network_checks, session_checks
from rootless.doctor.fix_script import script
from rootless.doctor.problem import (
    ESSENTIAL,
    OPTIONAL,
    SUDO,
    Condition,
    Fix,
    Host,
    advice,
    device_fix,
    os_family,
    raise_sysctl,
    set_sysctl,
)
from rootless.host import host_network, subids
from rootless.host.delegation import Cgroups
from rootless.host.facts import Facts
from rootless.host.host_network import HostNetwork


def refusal(error, command="", surroundings=None, *, nested=False, **settings):
    values = {name.replace("__", "."): value for name, value in settings.items()}
    return namespace_checks.refusal(error, lambda name: values.get(name, ""), command, surroundings, nested=nested)


APPARMOR = {"kernel__unprivileged_userns_clone": "1", "kernel__apparmor_restrict_unprivileged_userns": "1"}


@pytest.mark.parametrize(
    ("error", "settings", "code", "fix"),
    [
        (errno.ENOSPC, {"user__max_user_namespaces": "0"}, "-LIMIT", "max_user_namespaces=65536"),
        (errno.EPERM, {"kernel__unprivileged_userns_clone": "0"}, "-SYSCTL", "_clone=1"),
        (errno.EPERM, APPARMOR, "-APPARMOR", "kernel.apparmor_restrict_unprivileged_userns=0"),
        (errno.EPERM, {"kernel__apparmor_restrict_unprivileged_userns": "0"}, "", "unshare(CLONE_NEWUSER)"),
        (errno.EPERM, {}, "", "unshare(CLONE_NEWUSER)"),
        (errno.EINVAL, {}, "-KERNEL", "CONFIG_USER_NS=y"),
        (errno.EUSERS, {}, "-DEPTH", "outer"),
        (errno.ENOSPC, {"nested": True, "user__max_user_namespaces": "63000"}, "-DEPTH", "outer"),
        (errno.ENOSPC, {"nested": True, "user__max_user_namespaces": "0"}, "-LIMIT", "max_user_namespaces=65536"),
    ],
)
def test_a_refused_user_namespace_names_the_setting_and_the_command(error, settings, code, fix):
    problem = refusal(error, **settings)
    assert problem.condition.code == f"RL-HOST-USERNS{code}"
    assert fix in str(problem.fix)
    assert problem.level == ESSENTIAL
    for name, value in settings.items():
        if name != "nested" and code not in ("", "-DEPTH") and value in ("0", "1"):
            assert f"{name.replace('__', '.')} is " in problem.evidence or value == "1"


@pytest.mark.parametrize(("error", "code"), [(errno.EPERM, "-SECCOMP"), (0, "-PROFILE")])
def test_filter_and_profile_of_an_outer_container_are_distinguished(monkeypatch, error, code):
    files = {"apparmor/current": "docker-default (enforce)", "/uid_map": "0 0 1", "/mountinfo": "1 1 0:1 / / rw"}
    text_of = lambda path: next(text for name, text in files.items() if path.endswith(name))  # noqa: E731
    errors = iter([errno.EPERM, error])
    monkeypatch.setattr(namespace_checks, "text_of", text_of)
    monkeypatch.setattr(namespace_checks.procfs, "status", lambda _: {"Seccomp": "2"})
    monkeypatch.setattr(namespace_checks, "errno_in_child", lambda _: next(errors))
    monkeypatch.setattr(namespace_checks, "sysctl", lambda _: "")
    [problem] = namespace_checks.user_namespaces(Host(Facts(uid=0, uid_map=((0, 0, 1),))))
    assert problem.condition.code == f"RL-HOST-USERNS{code}"


def test_both_quotas_of_keys_are_raised(monkeypatch):
    monkeypatch.setattr(session_checks, "errno_in_child", lambda _: errno.EDQUOT)
    [problem] = session_checks.keyring(Host(Facts()))
    keys, size, apply = problem.fix.script
    assert ("maxkeys=" in keys, "maxbytes=" in size, apply.startswith("sysctl -p ")) == (True, True, True)


def test_the_apparmor_profile_names_the_command_and_its_next_versions():
    problem = refusal(errno.EPERM, "/home/a b/rootless/env-x1/bin/rootless", **APPARMOR)
    printf, install = problem.fix.commands
    profile = subprocess.run(
        ["sh", "-c", printf.partition(" | ")[0]], capture_output=True, text=True, check=True
    ).stdout
    assert profile.splitlines() == [
        "abi <abi/4.0>,",
        'profile rootless "/home/a b/rootless/env-*/bin/rootless" flags=(unconfined) {',
        "  userns,",
        "}",
    ]
    assert printf.endswith(f" | {SUDO}tee /etc/apparmor.d/rootless")
    assert install == f"{SUDO}apparmor_parser -r /etc/apparmor.d/rootless"


def test_profile_for_a_command_elsewhere_names_only_that_command():
    assert '"/usr/bin/rootless"' in str(refusal(errno.EACCES, "/usr/bin/rootless", **APPARMOR).fix)


@pytest.mark.parametrize(
    "path", ['/home/x" {userns,} profile y "/', "/home/*/rootless", "/home/%s", "/home/a\nb", "/ü"]
)
def test_a_path_that_is_more_than_a_name_is_in_no_profile(path):
    fix = refusal(errno.EPERM, f"{path}/rootless", **APPARMOR).fix
    assert (fix.commands, str(fix).isprintable()) == ((), True)


# --- Subordinate IDs ----------------------------------------------------------------------------------------------


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
    assert subids.used_ranges("a:100000:65536\n# no\n\nb:x:1\n", f"1000:165536:10\n:::\na:{'9' * 5000}:1\n") == [
        (100000, 65536),
        (165536, 10),
    ]


def test_a_local_user_gets_a_range_by_usermod():
    assert str(id_checks.grant("root", ["uids", "gids"], 100000)) == (
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 root"
    )
    assert str(id_checks.grant("root", ["gids"], 165536)) == "sudo usermod --add-subgids 165536-231071 root"


def test_a_user_of_a_directory_service_gets_a_range_in_the_files(tmp_path):
    fix = id_checks.grant("CORP\\new o'user", ["uids", "gids"], 100000)
    assert str(fix) == ("printf '%s\\n' 'CORP\\new o'\\''user:100000:65536' | sudo tee -a /etc/subuid /etc/subgid")
    (command,) = fix.script
    subprocess.run(["sh", "-c", command.replace("/etc", str(tmp_path))], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "subuid").read_text() == "CORP\\new o'user:100000:65536\n"


def test_a_shared_range_is_exchanged_for_one_that_nobody_has():
    text = "1000:100000:65536\nother:100000:65536\n"
    [problem] = id_checks.shared("me", 1000, text, "", "ada:x:165537:1::/:/bin/sh\n")
    assert "replace 1000:100000:65536 in /etc/subuid with 1000:165538:65536" in problem.fix.advice


def test_a_limit_is_raised_even_if_it_is_high():
    assert "=65536" in str(raise_sysctl("a.b", 65536, lambda _: "0"))
    assert "=200000" in str(raise_sysctl("a.b", 65536, lambda _: "100000"))
    assert "=65536" in str(raise_sysctl("a.b", 65536, lambda _: ""))


def test_no_range_is_suggested_where_all_ids_are_taken():
    first = subids.free_range([(100000, 4294867294)])
    assert id_checks.grant("root", ["uids"], first).commands == ()


@pytest.mark.parametrize(
    ("uids", "gids", "passwd", "evidence"),
    [
        ("me:100000:65536\nother:165536:65536\n", "me:100000:65536\n", "", None),
        ("me:100000:65536\n1000:100000:65536\n", "", "", None),
        ("me:100000:65536\nother:165535:1\n", "", "", "/etc/subuid gives me 100000-165535, of which other has some"),
        ("", "me:100000:10\n2000:1:100000\n", "", "/etc/subgid gives me 100000-100009, of which 2000 has some"),
        ("me:100000:65536\n", "me:100000:65536\n", "ada:x:100001:1::/:/bin/sh\nme:x:1000:1::/:\n", "of which ada has"),
        ("me:100000:65536\n", "", "::::\nx\nada:x:y:\n", None),
    ],
)
def test_a_range_that_others_have_is_found(uids, gids, passwd, evidence):
    found = [problem.evidence for problem in id_checks.shared("me", 1000, uids, gids, passwd)]
    assert len(found) == (evidence is not None)
    assert all(evidence in each for each in found)


def test_a_program_without_setuid_and_capabilities_is_powerless(tmp_path):
    program = tmp_path / "new uidmap"
    program.touch(mode=0o755)
    [problem] = id_checks.powerless(str(program), 7)
    assert "neither setuid root" in problem.evidence
    assert str(problem.fix) == f"sudo chown root:root '{program}' && sudo chmod u+s '{program}'"


# --- Problems and fixes -------------------------------------------------------------------------------------------

CONDITION = Condition("RL-HOST-THING", "a thing", "nothing works", ESSENTIAL)


def test_a_problem_reads_as_four_lines():
    problem = CONDITION.found("it is not there", Fix(f"{SUDO}repair it", "use it"))
    assert str(problem).splitlines() == [
        "missing: a thing (RL-HOST-THING)",
        "    evidence: it is not there",
        "    cost: nothing works",
        "    fix: sudo repair it && use it",
    ]


@given(st.text(), st.text(), st.text())
def test_hostile_texts_are_shown_on_one_line_and_in_no_script(evidence, command, instruction):
    name = command.replace(SUDO, "")
    for fix in (Fix(f"{SUDO}chmod u+x {shlex.quote(name)}"), advice(instruction)):
        problem = CONDITION.found(evidence, fix)
        assert len(str(problem).splitlines()) == 4
        written = script([problem], "me")
        assert written.replace("\n", "").isprintable()
        assert (fix.script[0] in written) if fix.commands else (str(fix) in written)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_quoted_name_is_one_argument_in_the_script(name):
    fix = Fix(f"{SUDO}printf %s {shlex.quote(name)}")
    written = script([CONDITION.found("e", fix)], "me")
    done = subprocess.run(["sh", "-c", written, "sh", "root"], capture_output=True, check=True)
    assert done.stdout == (name.encode() if name.isprintable() else b"nothing needs root\n")


def test_optional_fixes_are_comments_in_the_script():
    handy = Condition("RL-HOST-HANDY", "a handy thing", "little", OPTIONAL)
    written = script([handy.found("e", Fix(f"{SUDO}echo handy")), handy.found("e", Fix("echo own"))], "me")
    for word, said in (("root", b"nothing needs root\n"), ("user", b"nothing to do\n")):
        assert subprocess.run(["sh", "-c", written, "sh", word], capture_output=True, check=True).stdout == said
    enabled = written.replace("#: ", "")
    assert subprocess.run(["sh", "-c", enabled, "sh", "root"], capture_output=True, check=True).stdout.startswith(
        b"handy\n"
    )


def test_the_script_has_each_command_once():
    twice = [CONDITION.found("uid", Fix("a", "b")), CONDITION.found("gid", Fix("a", "b"))]
    assert script(twice, "me").count("    a\n    b\n") == 1


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


def test_setting_is_added_to_existing_ones(tmp_path):
    for name, value in (("a.b", 1), ("c.d", "0 2")):
        lines = [line.replace("/etc/sysctl.d", str(tmp_path)) for line in set_sysctl(name, value).script]
        assert lines[1] == f"sysctl -p {tmp_path}/90-rootless.conf"
        subprocess.run(["sh", "-c", lines[0]], check=True)
    assert (tmp_path / "90-rootless.conf").read_text() == "a.b=1\nc.d=0 2\n"


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (errno.EACCES, "sudo chmod 666 /dev/{}"),
        (errno.ENOENT, "sudo modprobe {}"),
        (errno.ENODEV, "sudo modprobe {}"),
    ],
)
def test_a_device_problem_comes_with_its_command(error, command):
    for module, device in (("tun", "net/tun"), ("fuse", "fuse")):
        fix = str(device_fix(module, f"/dev/{device}", error))
        assert fix.endswith(command.format(device if "chmod" in command else module))


# --- Recorded hosts -----------------------------------------------------------------------------------------------

NFS = """
25 1 0:23 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
60 25 0:52 / /home/my\\040user rw,nosuid,relatime shared:29 - nfs4 server:/home rw,vers=4.2,sec=sys
61 25 0:53 / /home rw,relatime shared:30 - autofs /etc/auto.home rw
""".strip()


def test_the_type_of_a_mount_is_read():
    assert directory_checks.file_system(NFS, "/home/my user") == "nfs4"
    assert directory_checks.file_system(NFS, "/") == "ext4"
    assert directory_checks.file_system(NFS, "/nowhere") == ""


def test_an_old_kernel_is_found():
    [problem] = namespace_checks.kernel(Host(Facts(kernel=(4, 18))))
    assert (problem.condition, problem.evidence) == (namespace_checks.KERNEL, "this is 4.18")


@pytest.mark.parametrize(
    ("error", "fix"), [(errno.ENODEV, "sudo modprobe overlay"), (errno.EPERM, "run rootless outside")]
)
def test_a_kernel_that_cannot_mount_for_users_is_found(monkeypatch, error, fix):
    monkeypatch.setattr(image_checks, "errno_in_child", lambda _: error)
    [problem] = image_checks.overlay(Host(Facts()))
    assert problem.condition is image_checks.OVERLAY
    assert str(problem.fix).startswith(fix)
    answers = iter([0, error])  # the device can be opened
    monkeypatch.setattr(image_checks, "errno_in_child", lambda _: next(answers))
    [problem] = image_checks.fuse(Host(Facts()))
    assert problem.condition is image_checks.FUSE


def test_a_manager_is_missing_for_users_of_the_host_only(monkeypatch):
    monkeypatch.setattr(session_checks, "SYSTEMD_BOOTED", "/")
    [problem] = session_checks.manager(Host(Facts(user="ada lace")))
    assert problem.fix.script == ["loginctl enable-linger 'ada lace'"]
    assert list(session_checks.manager(Host(Facts(user="root", uid=0, uid_map=((0, 1000, 1),))))) == []


def test_controllers_that_systemd_does_not_delegate_come_with_its_file(tmp_path):
    own = tmp_path / "user.slice/user-1000.slice/user@1000.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("memory pids\n")
    cgroups = Cgroups(mount=str(tmp_path), why_nowhere=lambda _: None)
    host = Host(Facts(cgroups=cgroups, user_manager="/run/user/1000"))
    [problem] = session_checks.cgroups(host)
    assert problem.evidence == "/user.slice/user-1000.slice/user@1000.service has no cpu, cpuset, io"
    directory, text, reload = problem.fix.script
    place = tmp_path / "etc"
    for command in (directory, text):
        subprocess.run(["sh", "-c", command.replace("/etc/systemd", str(place))], check=True, capture_output=True)
    [file] = place.rglob("rootless.conf")
    assert file.read_text() == "[Service]\nDelegate=cpu cpuset io memory pids\n"
    assert file.parent.name == "user@.service.d"
    assert reload == "systemctl daemon-reload"
    (own / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma misc\n")
    assert list(session_checks.cgroups(host)) == []


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("pasta 0.0~git20240220.1e6f92b-1", ["this is 0.0~git20240220.1e6f92b-1"]),
        ("pasta", ["this is of an unknown version"]),
        ("pasta 2025_05_03.587980c", []),
    ],
)
def test_helpers_of_networks_with_known_flaws_are_named(tmp_path, said, found):
    pasta = tmp_path / "pasta"
    pasta.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo '{said}'\n")
    pasta.chmod(0o755)
    flawed = HostNetwork({"pasta": str(pasta), "slirp4netns": "/no/such/program"}, libslirp="4.9.2")
    libslirp = (
        "libslirp 4.9.2 is open to CVE-2026-95507, CVE-2026-95508, CVE-2026-120830, unless your distribution has "
        "patched it"
    )
    problems = list(network_checks.versions(Host(Facts(network=flawed))))
    assert [problem.evidence for problem in problems] == [libslirp, *found]
    assert {problem.level for problem in problems} == {"optional"}
    fixed = HostNetwork({"slirp4netns": "/no/such/program"}, libslirp="4.9.6")
    assert not list(network_checks.versions(Host(Facts(network=fixed))))


def test_a_program_that_hangs_or_is_missing_has_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(host_network, "_PATIENCE", 100)
    monkeypatch.setattr(network_checks, "PATIENCE", 100)
    program = tmp_path / "slirp4netns"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    assert HostNetwork({"slirp4netns": str(program)}).libslirp == ""
    assert HostNetwork({"slirp4netns": str(tmp_path / "missing")}).libslirp == ""
    assert network_checks._version(str(program)) == ""
    assert network_checks._version(str(tmp_path / "missing")) == ""
