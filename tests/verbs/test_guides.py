"""Every command in the guides of docs/ works as documented: here, or in the test that is named for it."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from rootless.cli.parser import parse
from tests.lib.accounts import CHECKOUT
from tests.lib.containers import until
from tests.lib.readme import GUIDES, commands, is_test, readers_environment

LAPTOP, SHARED_NODE, ADMINISTRATORS = GUIDES
INSTALL = "tests/verbs/test_install.py::test_an_ordinary_user_installs_runs_upgrades_and_removes"
ROOT_INSTALL = "tests/hostile/test_install.py::test_root_ignores_the_calling_users_pip_conf"
PINNED = "tests/verbs/test_release.py::test_a_changed_wheel_is_not_installed"
SLURM = "tests/cluster/test_slurm_images.py::test_containers_are_bundles_files_and_references"
ELSEWHERE = {
    "./install.sh": INSTALL,
    "./install.sh --try": INSTALL,
    "./install.sh --uninstall": INSTALL,
    "sudo ./install.sh": ROOT_INSTALL,
    "sudo ./install.sh --uninstall": INSTALL,
    "sha256sum --check SHA256SUMS": "tests/verbs/test_release.py::test_checksums_are_those_of_all_other_files",
    "python3 helpers/release/make_release.py --out again": (
        "tests/verbs/test_release.py::test_another_user_makes_the_same_files_from_the_sdist_alone"
    ),
    **dict.fromkeys(commands("Verify and pin a release", "docs/administrators.md")[2:5], PINNED),
    commands("Verify and pin a release", "docs/administrators.md")[5]: (
        "tests/verbs/test_release.py::test_a_wheel_gives_the_quick_command"
    ),
    "rootless doctor": "tests/verbs/test_doctor.py::test_doctor_verb_prints_the_same",
    "rootless doctor --fix-script": ("tests/verbs/test_doctor.py::test_fix_script_separates_root_and_changes_nothing"),
    "rootless run docker://debian:13 cat /etc/os-release": (
        "tests/images/test_registry.py::test_the_first_commands_of_the_readme"
    ),
    "rootless run -it -v .:/src -w /src docker://debian:13 bash": (
        "tests/verbs/test_run_flags.py::test_the_example_of_the_documents"
    ),
    "rootless pull --output torch.sqsh docker://debian:13": (
        "tests/images/test_registry.py::test_output_writes_an_image_to_a_file"
    ),
    "rootless run torch.sqsh cat /etc/os-release": (
        "tests/images/test_run_image.py::test_a_file_of_the_store_runs_as_an_image"
    ),
    "srun --container=torch.sqsh python train.py": SLURM,
    "srun -n64 rootless run torch.sqsh python train.py": "tests/cluster/test_mpi.py",
    "rootless image prune": "tests/images/test_registry.py::test_prune_removes_only_files_that_no_image_needs",
    "rootless clean": "tests/verbs/test_clean.py",
    "sudo systemctl daemon-reload": "tests/system/test_limits_systemd.py",
    "sudo rootless pull --store /srv/images debian:13 && sudo chmod 755 /srv/images": (
        "tests/images/test_registry.py::test_a_shared_store_is_listed_and_never_changed"
    ),
}
"""Commands that need a registry, a release, Slurm, systemd or a terminal, with tests that run them or an equivalent."""

KEEP = commands("Keep what you install", LAPTOP)
SERVICE = commands("Run a service", LAPTOP)
NO_REGISTRY = commands("Prepare on the login node, run in the job", SHARED_NODE)[-3:]
NEIGHBOUR = commands("Be a good neighbour", SHARED_NODE)[:2]
ROOTS = [
    *commands("What to enable", ADMINISTRATORS)[:3],
    next(line for line in commands("Switch it off", ADMINISTRATORS) if "--del-subuids" in line),
]
HERE = [*KEEP, *SERVICE, *NO_REGISTRY, *NEIGHBOUR, *ROOTS]

IN_A_COPY_OF_ETC = """
mount -t tmpfs tmpfs "$1"
cp -a /etc "$1"
mount --bind "$1/etc" /etc
useradd --no-log-init --key SUB_UID_COUNT=0 --key SUB_GID_COUNT=0 ada
sudo() { "$@"; }
"""


@pytest.fixture
def shell(user, rootless_command):
    """A function that runs a command line as a user types it, in the user's directory."""
    env = readers_environment(user, rootless_command)

    def run(line, **options):
        return user.run(["sh", "-c", line], env=env, **({"check": True} | options))

    return run


def test_every_command_runs_in_a_test():
    every = {line for guide in GUIDES for line in commands(document=guide)}
    assert every == {*HERE, *ELSEWHERE}
    assert not ELSEWHERE.keys() & {*HERE}
    assert [place for place in ELSEWHERE.values() if not is_test(place)] == []


@pytest.mark.parametrize("line", [line for guide in GUIDES for line in commands(document=guide)])
def test_every_command_line_parses(line):
    found = re.search(r"(?:^|&& |sudo |srun .*)rootless ([^&]*)", line)
    if found:
        words = shlex.split(found[1])
        assert parse(words, lambda _: None).verb == words[0]


def test_changes_are_kept_and_become_an_image(shell, need):
    need("sqfstar")
    outputs = [shell(line).stdout for line in KEEP]
    assert outputs[2] == outputs[4] == "note\n"


def test_a_service(shell, user):
    shell(KEEP[0])
    run, logs, stop, delete = SERVICE
    assert shell(run, stderr=subprocess.DEVNULL).stdout == "clock\n"
    until(lambda: shell(logs).stdout, "the first line of the clock")
    assert len(shell(logs).stdout.splitlines()) <= 5
    assert shell(stop).stdout == "clock\n"
    assert shell("rootless list").stdout.splitlines()[1].split()[2] == "stopped"
    shell(delete)
    assert shell("rootless list -q").stdout == ""


def test_a_node_without_a_registry(shell, user):
    new, run, data = NO_REGISTRY
    shell(new)
    ids, *homes = shell(run).stdout.splitlines()
    assert ids.startswith("uid=0(root) ")
    assert user.home.name not in homes
    (user.tmp / "result").touch()
    assert "result" in shell(data).stdout.splitlines()


def test_limits_and_usage(shell):
    shell(NO_REGISTRY[0])
    limited, top = NEIGHBOUR
    assert "bin" in shell(limited).stdout.splitlines()
    assert shell(top).returncode == 0


def test_roots_commands_give_subordinate_ids_and_take_them(require_root, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    add, show, delegate, remove = ROOTS
    written = "cat /etc/systemd/system/user@*/*"
    script = f"{IN_A_COPY_OF_ETC}\n{add}\n{show}\n{delegate}\n{written}\n{remove}\n! {show}"
    words = ["unshare", "--mount", "sh", "-euc", script, "sh", copy]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0: ada 500000 65536\n") == 1
    assert "Delegate=cpu cpuset io memory pids\n" in done.stdout
