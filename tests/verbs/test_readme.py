"""Every command in README.md works as documented: here, or in the test that is named for it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from rootless.cli.parser import parse
from tests.lib.accounts import CHECKOUT
from tests.lib.bundles import make_rootfs, own
from tests.lib.containers import PATIENCE, until
from tests.lib.netbox import make_net_bundle
from tests.lib.readme import IMAGE, commands, is_test, readers_environment

NEW = "rootless new hello -- sh -c 'id; cat /proc/self/uid_map; ls -ld /root; ps'"
PODMAN = "tests/engines/test_podman.py"
DOCKER = "tests/engines/test_docker.py"
BUILD = "tests/engines/test_podman_build.py"
SLURM = "tests/cluster/test_slurm_images.py"
VERBS = "tests/verbs/test_"
LIMITS = "tests/system/test_systemd.py::test_the_commands_of_the_readme"
IMAGES = "tests/images/test_run_image.py"
ELSEWHERE = {
    "rootless logs -f web": f"{VERBS}logs.py::test_follow_prints_what_comes_and_ends_with_the_container",
    "rootless cp web:/etc/hosts .": f"{VERBS}cp.py::test_a_file_out_and_in",
    "rootless restart web": f"{VERBS}restart.py::test_a_running_container",
    "rootless stop web": f"{VERBS}stop.py::test_the_program_gets_sigterm",
    "rootless wait web": f"{VERBS}wait.py::test_the_status_of_a_container_that_has_ended",
    **dict.fromkeys(IMAGE, "tests/images/test_registry.py::test_the_first_commands_of_the_readme"),
    "rootless run -it -v .:/src -w /src torch.sqsh bash": f"{IMAGES}::test_a_file_of_the_store_runs_as_an_image",
    "rootless run --overlay=changes docker://debian:13 bash": (
        "tests/verbs/test_overlay.py::test_a_relative_directory_is_the_callers"
    ),
    "./install.sh": "tests/verbs/test_install.py::test_an_ordinary_user_installs_runs_upgrades_and_removes",
    "podman --runtime rootless run -it debian": f"{PODMAN}::test_podman_run_with_a_terminal_follows_its_size",
    "podman --runtime rootless run --rm debian echo hello": f"{PODMAN}::test_podman_run_passes_streams_and_exit_status",
    "buildah bud --runtime rootless .": f"{BUILD}::test_buildah_bud_runs_its_steps_with_rootless",
    "sudo cp helpers/docker/daemon.json /etc/docker/": f"{DOCKER}::test_docker_info_lists_the_runtime",
    "docker run --runtime rootless --rm debian echo hello": f"{DOCKER}::test_docker_run_passes_streams_and_exit_status",
    "ctr run --rm --runc-binary rootless docker.io/library/debian:latest hello echo hello": (
        "tests/engines/test_containerd.py::test_ctr_run_passes_streams_and_exit_status"
    ),
    "sudo cp helpers/slurm/oci-image.conf /etc/slurm/oci.conf": f"{SLURM}::test_a_task_is_its_user_on_its_node",
    "srun --container=docker://debian:13 cat /etc/os-release": (
        f"{SLURM}::test_containers_are_bundles_files_and_references"
    ),
    "rootless run -it -v .:/src -w /src -e CI=1 -m 512M box make": (
        "tests/verbs/test_run_flags.py::test_the_example_of_the_documents"
    ),
    "rootless run -d --systemd-cgroup --bundle web web1": LIMITS,
    "rootless update -m 256M --cpus 1.5 --pids-limit 50 web1": LIMITS,
    "rootless events --stats web1": LIMITS,
    "rootless pause web1; rootless resume web1": LIMITS,
}
"""Commands that need an engine, systemd, root or a terminal, with the test that runs them or their equivalent."""

SHELL = "rootless new box && rootless run box"
FIRST = [NEW, "rootless run hello"]
BOX = [
    "rootless new box --from debian.tar",
    "rootless run box",
    "rootless run --userns keep-id box",
    "rootless explain box",
    "rootless rm-tree box",
]
PODMANS_FILE = [
    "mkdir -p ~/.config/containers/containers.conf.d",
    "cp helpers/podman/rootless.conf ~/.config/containers/containers.conf.d/",
]
NETWORK = [
    "rootless run -d -p 8080:80 web",
    "curl http://localhost:8080",
    "rootless run -p 8080:80 other",
    "rootless network create backend",
    "rootless run -d --network backend db",
    "rootless run -d --network backend -p 8080:80 web",
    "rootless list",
]


@pytest.fixture
def shell(user, rootless_command):
    """A function that runs a command line as a user types it, in the user's directory, with or without a terminal."""
    env = readers_environment(user, rootless_command)

    def run(line, *, keys=None, **options):
        words = ["sh", "-c", line]
        if keys is None:
            return user.run(words, env=env, **options)
        master, slave = pty.openpty()
        process = user.popen(words, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        os.write(master, keys)
        shown = b""
        try:
            while piece := os.read(master, 4096):
                shown += piece
        except OSError:  # EIO: no process has the other end open any more
            pass
        os.close(master)
        return subprocess.CompletedProcess(words, process.wait(PATIENCE), shown.decode().replace("\r\n", "\n"), "")

    run.home = Path(env["HOME"])
    return run


def test_every_command_runs_in_a_test():
    here = {SHELL, *FIRST, *BOX, *PODMANS_FILE, *NETWORK}
    assert set(commands()) == here | ELSEWHERE.keys()
    assert [place for place in ELSEWHERE.values() if not is_test(place)] == []


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("rootless ")])
def test_every_command_line_in_readme_parses(line):
    for part in re.split("(?:;|&&) rootless ", line):
        words = shlex.split(part.removeprefix("rootless "))
        assert parse(words, lambda _: None).verb == words[0]


def test_the_first_commands(user, shell):
    done = shell(FIRST[0], check=True)
    assert done.stdout.startswith("hello: ")
    assert done.stdout.endswith("\nrun it with: rootless run hello\n")
    done = shell(FIRST[1], check=True)
    ids, own_id, *others, home, head, shell_line, ps_line = done.stdout.splitlines()
    assert ids == "uid=0(root) gid=0(root) groups=0(root)"
    assert own_id.split() == ["0", str(user.uid), "1"]
    assert [line.split()[0] for line in others] == ["1"] * len(others)
    assert home.startswith("drwx------ 2 root root 4096 ")
    assert home.endswith(" /root")
    assert head.split() == ["PID", "TTY", "TIME", "CMD"]
    assert [line.split()[-1] for line in (shell_line, ps_line)] == ["sh", "ps"]
    explained = shell("rootless explain hello", check=True).stdout
    assert f"\n             uid 0 is {user.uid} of the host\n" in explained
    assert "\n  - a user namespace is added: you are not root  [linux.namespaces]\n" in explained
    assert " begin to connect the network, " in explained


def test_a_shell(shell):
    at_terminal = shell(SHELL, keys=b"id -u; exit 5\n")
    assert at_terminal.returncode == 5
    assert "0" in at_terminal.stdout.split()


def test_a_bundle_from_an_archive(user, shell):
    rootfs = make_rootfs(user.tmp / "debian")
    with tarfile.open(user.tmp / "debian.tar", "w") as archive:

        def owned(info):
            info.uid = info.gid = 33 if info.name.endswith("/data") else 0
            return info

        archive.add(rootfs, ".", filter=owned)
    shutil.rmtree(rootfs)
    new, run, run_as_oneself, explain, remove = BOX
    shell(new, check=True)
    at_terminal = shell(run, keys=b"id -u; stat -c %u /data; exit 5\n")
    assert at_terminal.returncode == 5
    assert "\n0\n33\n" in at_terminal.stdout
    oneself = shell(run_as_oneself, keys=b"id -u; exit\n")
    assert f"\n{user.uid}\n" in oneself.stdout
    explained = shell(explain, check=True).stdout
    assert "a user namespace is added: you are not root" in explained

    # the error in README.md
    config = json.loads((user.tmp / "box/config.json").read_text())
    config["process"] |= {"args": ["bahs"], "terminal": False}
    (user.tmp / "box/config.json").write_text(json.dumps(config))
    failed = shell(run)
    assert failed.returncode
    shown = (CHECKOUT / "README.md").read_text().partition("    rootless: exec: ")[2].partition("\n\n")[0]
    assert failed.stderr == "rootless: exec: " + " ".join(shown.split()) + "\n"

    shell(remove, check=True)
    assert not (user.tmp / "box").exists()


def test_podmans_configuration_file_in_readme(shell):
    for line in PODMANS_FILE:
        shell(line, cwd=CHECKOUT, check=True)
    copied = shell.home / ".config/containers/containers.conf.d/rootless.conf"
    assert copied.read_text() == (CHECKOUT / "helpers/podman/rootless.conf").read_text()


SERVE = """
import http.server, socket
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"it works\\n")
Server(("::", 80), Handler).serve_forever()
"""
"""A server that listens on both address families: `localhost` is ::1 first."""


def test_the_commands_about_networks(netbox, net_user, net_rootless, need):
    need("pasta")
    need("slirp4netns")
    publish, curl, refused, create, database, web, listing = NETWORK
    low_ports = {"net.ipv4.ip_unprivileged_port_start": "0"}
    make_net_bundle(net_user, "/usr/bin/python3", "-c", SERVE, name="web", sysctl=low_ports)
    for name in ("other", "db"):
        make_net_bundle(net_user, "sleep", "600", name=name)
    home = net_user.tmp / "home"
    home.mkdir()
    own(net_user, home)

    def rootless(line, **options):
        quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL) if "-d" in shlex.split(line) else {}
        options = quiet | {"cwd": net_user.tmp, "env": {"HOME": str(home)}} | options
        return net_rootless(*shlex.split(line)[1:], **options)

    def served():
        with netbox.on_host(*shlex.split(curl), "--silent", stdout=subprocess.PIPE, text=True) as asking:
            return asking.communicate(timeout=PATIENCE)[0] == "it works\n"

    rootless(publish, check=True)
    until(served, "the server's answer")
    done = rootless(refused)
    shown = (CHECKOUT / "README.md").read_text().partition("    rootless: cannot publish ")[2].partition("\n\n")[0]
    assert done.stderr == "rootless: cannot publish " + " ".join(shown.split()) + "\n"
    rootless("rootless delete --force web", check=True)

    assert rootless(create, check=True).stdout == "backend\n"
    rootless(database, check=True)
    rootless(web, check=True)
    until(served, "the server's answer")
    head, *rows = rootless(listing, check=True).stdout.splitlines()
    assert head.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER", "NETWORK"]
    assert [row.split()[0] for row in rows] == ["db", "web"]
    assert all(" shared backend 10.89." in row for row in rows)
    found = net_rootless("exec", "web", "getent", "hosts", "db")
    assert found.stdout.split()[-1:] == ["db"]
    for name in ("web", "db"):
        rootless(f"rootless delete --force {name}", check=True)
    rootless("rootless network rm backend", check=True)
