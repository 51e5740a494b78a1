"""Every command in a page of docs/ that is no guide is run by the test that is named for it.

test_readme.py and test_guides.py do the same for README.md and the guides. A new page is one of this file's.
"""

from __future__ import annotations

import re
import shlex

import pytest

from rootless.cli.parser import parse
from rootless.errors import RootlessError
from tests.lib.accounts import CHECKOUT
from tests.lib.readme import GUIDES, README, commands, is_test, spans

DOCUMENTS = [README, *sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").rglob("*.md"))]
PAGES = [page for page in DOCUMENTS if page not in (README, *GUIDES)]
COMMAND = re.compile(r"(\w+=\S+ )*(rootless|sudo|srun|sbatch|mpirun|export|unset|kubectl|mkdir|tar|chrt|helpers/\S+) ")
SYNTAX = re.compile(r"\[FLAGS\]|── ")
"""Lines that begin as commands do."""
SLURM = "tests/cluster/test_slurm_images.py::test_"
MPI = "tests/cluster/test_mpi.py::test_"
CP = "tests/verbs/test_cp.py::test_"
LOGS = "tests/verbs/test_logs.py::test_"
LOOPBACK = "tests/network/test_network.py::test_the_hosts_loopback_is_reachable_on_request"
OPTIONS = "tests/network/test_network.py::test_options_are_passed_to_the_helpers"
NAMED = f"{SLURM}a_container_with_a_name_lasts_as_long_as_the_job"
FOR_MANY = f"{SLURM}changes_of_one_task_are_saved_as_an_image_for_many"
REFERENCES = f"{SLURM}containers_are_bundles_files_and_references"
FIRST = "tests/images/test_registry.py::test_the_first_commands_of_the_readme"
PULLED = "tests/images/test_registry.py::test_an_image_is_pulled_listed_inspected_and_removed"
SHARED = "tests/images/test_registry.py::test_a_shared_store_is_listed_and_never_changed"
NETWORK = "tests/verbs/test_readme.py::test_the_commands_about_networks"
CRI = "tests/cluster/test_cri.py::test_a_pod_and_its_container_start_run_and_stop"
EXAMPLE = "tests/verbs/test_run_flags.py::test_the_example_of_the_documents"
TESTS = {
    "docs/cluster.md": {
        "srun --container=torch.sqsh python train.py": REFERENCES,
        "srun --container=docker://debian:13 cat /etc/os-release": REFERENCES,
        "sbatch --array=0-199%16 --container=$HOME/torch.sqsh job.sh": f"{SLURM}nothing_is_left_of_an_array",
        "sudo cp helpers/slurm/oci-image.conf /etc/slurm/oci.conf": f"{SLURM}a_task_is_its_user_on_its_node",
        "sudo cp helpers/slurm/epilog.sh /etc/slurm/": f"{SLURM}the_epilog_removes_nothing_of_others",
        "export ROOTLESS_CONTAINER_NAME=build": NAMED,
        "ROOTLESS_REMAP_ROOT=1 srun -n1 --container=docker://debian:13 sh -c "
        "'apt-get update && apt-get install -y gcc'": NAMED,
        "srun -n1 --container=docker://debian:13 gcc --version": NAMED,
        "srun -N1 -n1 rootless save --overlay /tmp/rootless-slurm-$UID/$SLURM_JOB_ID/build.0 -o gcc.sqsh "
        "docker://debian:13": FOR_MANY,
        "unset ROOTLESS_CONTAINER_NAME; srun -n64 --container=gcc.sqsh gcc --version": FOR_MANY,
        "srun --mpi=pmix -N2 -n64 --container=BUNDLE ./solver": f"{MPI}ranks_of_two_nodes",
        "srun --mpi=pmix -N2 -n64 rootless run image.sqsh ./solver": f"{MPI}ranks_of_a_step_on_the_host_run_containers",
        "mpirun -n 16 rootless run image.sqsh ./solver": f"{MPI}ranks_without_slurm",
        "sudo ./install.sh": "tests/hostile/test_install.py::test_root_ignores_the_calling_users_pip_conf",
        "sudo cp helpers/containerd/rootful.toml /etc/containerd/": CRI,
        "sudo systemctl restart containerd": "tests/cluster/test_cri_restart.py",
        "kubectl apply -f - <<<'{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: rootless}, "
        "handler: rootless}'": CRI,
        "mkdir -p ~/.config/containerd && cp helpers/containerd/rootless.toml ~/.config/containerd/config.toml": CRI,
        "helpers/containerd/in-rootlesskit.sh containerd --config ~/.config/containerd/config.toml": CRI,
    },
    "docs/doctor.md": {
        "rootless doctor": "tests/verbs/test_doctor.py::test_doctor_verb_prints_the_same",
        "rootless doctor --json": "tests/verbs/test_doctor.py::test_json_has_every_check_and_stable_keys",
        "rootless doctor --fix-script": (
            "tests/verbs/test_doctor.py::test_fix_script_separates_root_and_changes_nothing"
        ),
    },
    "docs/images.md": {
        "rootless pull docker://debian:13": PULLED,
        "rootless images": FIRST,
        "rootless pull --output torch.sqsh quay.io/me/torch:2.4": (
            "tests/images/test_registry.py::test_output_writes_an_image_to_a_file"
        ),
        "sudo rootless pull --store /srv/images debian:13 && sudo chmod 755 /srv/images": SHARED,
        "export ROOTLESS_ADDITIONAL_IMAGES=/srv/images": SHARED,
        "rootless run docker://debian:13 cat /etc/os-release": FIRST,
        "rootless run -it -v .:/src -w /src -m 2g torch.sqsh python train.py": (
            "tests/images/test_run_image.py::test_flags_override_the_configuration_of_the_image"
        ),
        "rootless run -d -P --name web docker://example.org/web:1": (
            "tests/images/test_run_image.py::test_exposed_ports_are_published_on_request"
        ),
        "rootless new box --from docker://debian:13": (
            "tests/images/test_new_from_image.py::test_an_image_can_be_named_by_a_reference"
        ),
        "rootless new box --from torch.sqsh --squashfs": (
            "tests/images/test_new_from_image.py::test_squashfs_keeps_the_image_as_one_file"
        ),
        "rootless save --output box.sqsh box": (
            "tests/images/test_save.py::test_a_saved_bundle_has_the_files_and_settings_of_its_image"
        ),
        "rootless save --output web.sqsh web1": (
            "tests/images/test_save.py::test_a_running_container_is_saved_with_its_changes"
        ),
        "rootless save --overlay changes --output oci-archive:box.tar box": (
            "tests/images/test_save.py::test_the_changes_of_an_overlay_are_saved"
        ),
    },
    "docs/network.md": {
        "rootless run --network slirp4netns:allow_host_loopback=true box": LOOPBACK,
        "rootless run --network pasta:--map-gw box": LOOPBACK,
        "rootless run --network pasta:--ipv4-only,-T,5432 box": OPTIONS,
        "rootless network create backend": NETWORK,
        "rootless run -d --network backend db": NETWORK,
        "rootless run -d --network backend -p 8080:80 web": NETWORK,
        "rootless network ls": (
            "tests/network/test_shared_networks.py::test_networks_are_created_listed_inspected_and_removed"
        ),
    },
    "docs/run.md": {
        "rootless run -it -v .:/src -w /src -e CI=1 -m 512M box make": EXAMPLE,
        "rootless explain -v .:/src box make": "tests/verbs/test_run_flags.py::test_explain_shows_the_edits",
        "rootless run -it --userns systemd docker://debian:13 bash": "tests/system/test_systemd_ids.py",
        "rootless run --gpus all torch.sqsh nvidia-smi": "tests/verbs/test_cdi.py",
        "rootless run --device nvidia.com/gpu=0 --device vendor.com/nic=a box": "tests/verbs/test_cdi.py",
    },
    "docs/speed.md": {"ROOTLESS_BENCH_ROUNDS=25 chrt --rr 1 tests/run tests/bench": "tests/bench/test_speed.py"},
    "docs/verbs.md": {
        "rootless logs web": f"{LOGS}each_stream_is_kept_and_printed_on_its_own",
        "rootless logs -f --tail 20 web": f"{LOGS}follow_prints_what_comes_and_ends_with_the_container",
        "rootless logs -t --since 10m web": f"{LOGS}since_compares_times",
        "rootless stop web": "tests/verbs/test_stop.py::test_the_program_gets_sigterm",
        "rootless stop -t 2 web db": "tests/verbs/test_stop.py::test_several_stop_at_the_same_time",
        "rootless wait web": "tests/verbs/test_wait.py::test_the_status_of_a_container_that_has_ended",
        "rootless inspect web | jq '.[0].asked'": "tests/verbs/test_inspect.py::test_a_container_that_has_ended",
        "rootless restart web": "tests/verbs/test_restart.py::test_a_running_container",
        "rootless cp web:/etc/nginx/nginx.conf .": f"{CP}a_file_out_and_in",
        "rootless cp site/. web:/srv": f"{CP}directories_as_podman_names_them",
        "rootless cp web:/srv - | tar -t": f"{CP}a_tar_archive_out",
        "tar -c site | rootless cp - web:/srv": f"{CP}a_tar_archive_in",
        "rootless rm-tree box": "tests/verbs/test_rm_tree.py",
        "rootless unshare ls -l box/rootfs/var/lib": "tests/verbs/test_unshare.py",
        "rootless unshare chown -R 0:0 box/rootfs/var": "tests/verbs/test_unshare.py",
        "rootless unshare": "tests/verbs/test_unshare.py",
        "rootless clean --dry-run": "tests/verbs/test_clean.py",
        "rootless clean": "tests/verbs/test_clean.py::test_containers_of_an_earlier_boot",
        "ROOTLESS_FRONT=0 rootless run mybundle": "tests/verbs/test_front_door.py",
    },
}
"""The tests that run the commands or their equivalent."""


def commands_of(page):
    """Return the commands of a page, without drawings, outputs and syntax."""
    return [line for line in commands(document=page) if COMMAND.match(f"{line} ") and not SYNTAX.search(line)]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_has_a_test(page):
    tests = TESTS.get(page, {})
    assert set(commands_of(page)) == tests.keys()
    assert [place for place in tests.values() if not is_test(place)] == []


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands_of(page)])
def test_every_command_line_parses(line):
    for call in re.findall(r"(?:^|[|&] |sudo |=0 |^srun .*?|^mpirun .*?)rootless ([^&|]*)", line):
        words = shlex.split(call)
        assert parse(words, lambda _: None).verb == words[0]


def mistake(span):
    """Return what is wrong with a command within a sentence, where words may be left out."""
    call = re.fullmatch(r"(?:sudo )?(?:[A-Z_]+=\S+ )*rootless ([a-z][^>|]*).*", span)
    try:
        parse(shlex.split(call[1]) if call else ["--help"], lambda _: None)
    except RootlessError as error:
        problem = str(error).partition("; fix")[0]
        return "" if problem.endswith((" is missing", "needs an argument: --from")) else problem
    return ""


@pytest.mark.parametrize("page", DOCUMENTS)
def test_commands_within_sentences_name_verbs_and_flags_that_exist(page):
    assert [problem for span in spans(page) if (problem := mistake(span))] == []


def test_a_wrong_command_within_a_sentence_is_found():
    assert mistake("rootless frobnicate") == "unknown verb: frobnicate"
    assert mistake("sudo rootless run --frobnicate box") == "run: unknown flag: --frobnicate"
