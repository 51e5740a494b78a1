"""What reaches a rank of an MPI program in a container: variables, a directory, a descriptor."""

from __future__ import annotations

import os

import pytest

from rootless.bundle.edit.mpi import is_rank, pass_variables, passed, share_directories, translated
from rootless.bundle.load import Bundle
from rootless.container.edits.mpi import prepare_rank
from rootless.container.edits.ranks import check_key, keep_pmi_descriptor, key_of_rank, key_of_step, name_of_rank
from rootless.errors import RootlessError
from rootless.options import Options
from rootless.plan.request import Request
from rootless.procfs import identity
from tests.unit.planning import base_config, joining, notes, plan_for

SLURM = {
    "PMIX_NAMESPACE": "slurm.pmix.1.0",
    "PMIX_SECURITY_MODE": "munge,native",
    "PMIX_GDS_MODULE": "shmem2,hash",
    "SLURM_PROCID": "1",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "HOME": "/home/user",
}


def env_of(config):
    return dict(entry.split("=", 1) for entry in config["process"]["env"])


def test_variables_of_the_process_manager_are_passed_on():
    found = env_of(pass_variables(base_config(), passed(SLURM)))
    assert found.keys() == SLURM.keys() - {"SLURM_CONF", "HOME"} | {"PATH", "PMIX_MCA_psec", "PMIX_MCA_gds"}
    assert found["PMIX_MCA_psec"] == "munge,native"


def test_variables_of_config_json_stay():
    config = base_config()
    config["process"]["env"] = ["SLURM_PROCID=7", "PMIX_MCA_gds=hash"]
    found = env_of(pass_variables(config, passed(SLURM | {"PMIX_MCA_psec": "native"})))
    assert (found["SLURM_PROCID"], found["PMIX_MCA_gds"], found["PMIX_MCA_psec"]) == ("7", "hash", "native")


def test_directories_of_the_server_are_mounted_once_and_leave_no_names_in_the_root():
    places = ["/run/slurm-spool/oci-job1-0//pmix.1.0/", "/run/slurm-spool/oci-job1-0/spmix_appdir_1000_1.0"]
    config = share_directories(base_config(), places)
    found = [(mount["type"], mount["destination"]) for mount in config["mounts"][-3:]]
    assert found == [
        ("tmpfs", "/run/slurm-spool"),
        ("bind", "/run/slurm-spool/oci-job1-0/pmix.1.0"),
        ("bind", "/run/slurm-spool/oci-job1-0/spmix_appdir_1000_1.0"),
    ]
    assert share_directories(config, places) == config


def test_a_directory_that_the_site_has_mounted_is_enough():
    config = base_config()
    config["mounts"].append({"destination": "/run/spool", "source": "/run/spool", "type": "bind", "options": ["rbind"]})
    assert share_directories(config, ["/run/spool/pmix.1.0"]) == config


def test_nothing_covers_a_directory_of_the_root():
    assert [mount["type"] for mount in share_directories({}, ["/tmp/prte.node7.1000/dvm.12"])["mounts"]] == ["bind"]


@pytest.mark.parametrize(
    ("asked", "publish", "network"),
    [("", (), "host"), ("auto", (), "host"), ("none", (), "none"), ("auto", ("80:80",), "auto")],
)
def test_a_rank_reaches_the_server_on_the_host_s_loopback(monkeypatch, tmp_path, asked, publish, network):
    monkeypatch.setenv("PMIX_NAMESPACE", "job")
    monkeypatch.setenv("PMIX_SERVER_TMPDIR", str(tmp_path))
    request = Request(Options(verb="run", network=asked, publish=publish))
    bundle = prepare_rank(Bundle("/bundle", base_config()), request)
    assert request.network == network
    assert bundle.config["mounts"][-1]["destination"] == str(tmp_path)
    assert request.userns == "keep-id"
    assert b"PMIX_NAMESPACE=job" in bundle.text


def test_explain_says_so():
    assert "process manager of MPI" in notes(plan_for(is_rank=True))["process.env"]


def written_by_slurm(**changes):
    """Return a config.json as slurmstepd writes it for a step, with other variables."""
    config = base_config()
    found = {
        "PMIX_NAMESPACE": "slurm.pmix.2.3",
        "PMIX_GDS_MODULE": "hash",
        "SLURM_JOB_ID": "2",
        "SLURM_STEP_ID": "3",
        "PMI_FD": "5",
    }
    config["process"]["env"] += [f"{name}={value}" for name, value in (found | changes).items()]
    return config


def of_slurmd(monkeypatch, manager="pmix"):
    """Let this process have the environment of slurmd."""
    for name in ("PMIX_NAMESPACE", "PMI_FD", "SLURM_JOB_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PMIX_SERVER_TMPDIR", "/var/run/slurm")
    monkeypatch.setenv("SLURM_MPI_TYPE", manager)
    monkeypatch.setenv("SLURMD_NODENAME", "n1")


def test_slurm_writes_the_variables_of_a_step_into_config_json(monkeypatch, tmp_path):
    of_slurmd(monkeypatch)
    server = tmp_path / "oci-job2-3/pmix.2.3"
    server.mkdir(parents=True)
    config = written_by_slurm(PMIX_SERVER_TMPDIR=str(server))
    request = Request(Options(verb="run"))
    request.join = "step"
    found = prepare_rank(Bundle(str(tmp_path / "oci-job2-3/task-0"), config), request).config
    assert env_of(found).keys() == env_of(config).keys() | {"PMIX_MCA_gds"}
    assert (request.join, request.network, request.userns) == ("2.3.n1", "host", "keep-id")
    assert [mount["source"] for mount in found["mounts"]].count(str(server)) == 1


@pytest.mark.parametrize(
    ("manager", "directory"),
    [("pmix", "/bundle"), ("none", "/spool/oci-job2-3/task-0"), ("", "/spool/oci-job2-3/task-0")],
)
def test_variables_of_an_image_make_no_rank(monkeypatch, manager, directory):
    """They would mount directories, share namespaces and pass on descriptors of the caller."""
    of_slurmd(monkeypatch, manager)
    bundle = Bundle(directory, written_by_slurm(PMIX_SERVER_TMPDIR="/etc"))
    request = Request(Options(verb="run"))
    assert prepare_rank(bundle, request) is bundle
    assert (request.is_rank, request.preserve_fds) == (False, 0)
    assert (request.join, request.network, request.userns) == ("", "", "")


def test_variables_of_an_image_name_no_directory_and_no_descriptor_of_a_step(monkeypatch):
    of_slurmd(monkeypatch)
    monkeypatch.setattr("rootless.container.edits.ranks.is_inherited", lambda fd: fd == 5)
    request = Request(Options(verb="run"))
    config = written_by_slurm(PMIX_SERVER_TMPDIR="/etc")
    found = prepare_rank(Bundle("/spool/oci-job2-3/task-0", config), request).config
    assert request.preserve_fds == 0
    assert "/etc" not in [mount["source"] for mount in found["mounts"]]


def test_an_image_chooses_no_group(monkeypatch):
    of_slurmd(monkeypatch)
    request = Request(Options(verb="run"))
    request.join = "step"
    with pytest.raises(RootlessError) as caught:
        prepare_rank(Bundle("/spool/oci-job2-3/task-0", written_by_slurm(SLURM_JOB_ID="7")), request)
    assert caught.value.code == "RL-JOIN"


def test_what_is_no_rank_stays_as_it_is(monkeypatch):
    for name in ("PMIX_NAMESPACE", "PMI_FD"):
        monkeypatch.delenv(name, raising=False)
    bundle = Bundle("/bundle", base_config())
    request = Request(Options(verb="run"))
    assert prepare_rank(bundle, request) is bundle
    assert not request.is_rank
    assert translated({}) == {}


@pytest.mark.parametrize("text", ["", "2", "x", "1022", "-1", "7" * 40])
def test_a_descriptor_that_is_none_is_not_passed(text):
    request = Request(Options(verb="run"))
    keep_pmi_descriptor(request, text)
    assert request.preserve_fds == 0


def test_a_descriptor_that_is_too_high_is_a_warning(monkeypatch, capfd):
    monkeypatch.setattr("rootless.container.edits.ranks.is_inherited", lambda fd: fd == 700)
    request = Request(Options(verb="run"))
    keep_pmi_descriptor(request, "700")
    assert request.preserve_fds == 0
    assert "PMI_FD is 700, and at most 511 is passed on" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURMD_NODENAME": "n1"}, "1.0.n1"),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}, "1.0"),
        ({"SLURM_JOB_ID": "1"}, ""),
        ({"SLURM_JOB_ID": "../x", "SLURM_STEP_ID": "0"}, ""),
    ],
)
def test_the_key_of_a_step(environment, key):
    if key:
        assert key_of_step(environment) == key
        return
    with pytest.raises(RootlessError) as caught:
        key_of_step(environment)
    assert caught.value.code == "RL-JOIN"


@pytest.mark.parametrize("key", ["a/b", "..", "", "a b", "x" * 300, "@groups", "a\nb"])
def test_a_key_that_cannot_be_a_name_is_refused(key):
    with pytest.raises(RootlessError) as caught:
        check_key(key)
    assert caught.value.code == "RL-JOIN"


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"PMIX_NAMESPACE": "prterun-node7-12@1"}, "prterun-node7-12_1"),
        ({"PMIX_NAMESPACE": "slurm.pmix.1.0", "SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}, "1.0"),
        ({"PMIX_NAMESPACE": ".."}, None),
        ({"PMI_FD": "7"}, None),
    ],
)
def test_the_ranks_of_a_job_find_their_group(environment, key):
    assert key_of_rank(environment) == (key or ".".join(map(str, ["pmi", *identity(os.getppid())])))


@pytest.mark.parametrize(
    ("asked", "namespaces", "key"),
    [("", {}, "job"), ("other", {}, "other"), ("none", {}, ""), ("", {"user": "/proc/7/ns/user"}, "")],
)
def test_ranks_are_in_one_group_unless_they_ask_for_something_else(monkeypatch, asked, namespaces, key):
    monkeypatch.setenv("PMIX_NAMESPACE", "job")
    request = Request(Options(verb="run"))
    request.join = asked
    config = prepare_rank(Bundle("/bundle", joining(**namespaces)), request).config
    assert request.join == key
    shared = [mount for mount in config["mounts"] if mount["destination"] == "/dev/shm"]
    assert bool(shared) is (key == "job")


def test_containers_of_ranks_have_names_of_their_own(monkeypatch):
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "batch", "PMIX_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert name_of_rank("solver") == "solver.12.3"


def test_a_rank_is_known_by_its_variables():
    assert is_rank({"PMIX_NAMESPACE": "a"})
    assert is_rank({"PMI_FD": "7"})
    assert not is_rank({"SLURM_PROCID": "0", "PMIX_NAMESPACE": ""})
