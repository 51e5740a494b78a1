"""A Slurm cluster of two nodes on one machine: a slurmctld and two slurmd in their own namespaces.

The nodes resemble batch nodes: users have no runtime directory there. Slurm finds the processes of a step by their
parents (proctrack/linuxproc), or by their cgroups (proctrack/cgroup), as most sites have it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib.accounts import RUN, User, becoming
from tests.lib.containers import PATIENCE, Reader, until
from tests.lib.enclosure import Enclosure, removed, stop
from tests.lib.engines import HELPERS

NODES = {"n1": 6818, "n2": 6819}
"""The ports of the nodes."""
_CONFIGURATION = """
ClusterName=tests
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/slurm
CredType=cred/slurm
StateSaveLocation=/run/slurm-state
SlurmdSpoolDir={spool}
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd-%n.pid
ProctrackType=proctrack/{tracking}
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0
KillWait=1
Epilog={epilog}
"""
_NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=12 State=UNKNOWN\n"
_PARTITION = "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES\n"
_SPOOL = "/run/slurm-spool"
_PREPARE = f"""
# getaddrinfo(3), AI_ADDRCONFIG: a loopback address is not enough to listen on
ip address add 192.0.2.1/32 dev lo
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /run/slurm-state {_SPOOL}
# scripts of slurmd have a PATH of their own
mount -t tmpfs tmpfs /usr/local/bin
ln -s {RUN}/bin/rootless /usr/local/bin/
"""
_NODE_START = f"""
mount -t tmpfs -o mode=0755 spool {_SPOOL}
exec "$@"
"""
_CGROUPS = "/run/slurm-cgroups"
_TRACKING_START = f"""
mkdir -p {_CGROUPS}/freezer
mount -t cgroup -o freezer cgroup {_CGROUPS}/freezer
"""
_INTO_CGROUP = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
_OWN_HOME = """
[ "$(stat -c %d "$1")" != "$(stat -c %d "$1/..")" ] || mount -t tmpfs -o "mode=0700,uid=$2,gid=$3" tmpfs "$1"
"""


class Cluster:
    """The daemons, with the Epilog of helpers/slurm; use() chooses an oci.conf.

    Attributes:
        directory: the configuration, and the daemons' logs in `*.log`.
    """

    def __init__(self, directory: Path, need, freezer: Path | None = None) -> None:
        """Start it; return once both nodes wait for jobs. `freezer`: a cgroup in which Slurm has one for each step."""
        self.directory = directory
        self._freezer = freezer
        self._daemons: list[subprocess.Popen] = []
        programs = {name: need(name) for name in ("slurmctld", "slurmd", "srun", "sbatch", "runuser")}
        self._configure()
        self.enclosure = Enclosure()
        try:
            self._run("sh", "-euc", _PREPARE)
            self._start("slurmctld", programs["slurmctld"], "-D")
            for name in NODES:
                # the spool directory has the same path on all nodes, as in a cluster of several machines
                own_spool = ["unshare", "--mount", "--propagation=slave", *(["--cgroup"] if freezer else [])]
                start = (_TRACKING_START if freezer else "") + _NODE_START
                self._start(name, *own_spool, "sh", "-euc", start, "sh", programs["slurmd"], "-D", "-N", name)
            until(self._idle, "both nodes are idle")
        except BaseException as error:
            error.add_note(self._said())
            self.close()
            raise

    def words(self, *argv) -> list[str]:
        """Return the command line that runs `argv` inside as root."""
        env = ["env", f"SLURM_CONF={self.directory}/slurm.conf", f"PATH={RUN}/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        return self.enclosure.words(*env, *argv)

    def use(self, name: str) -> None:
        """Let the steps from now on have helpers/slurm/`name` as oci.conf."""
        shutil.copy(HELPERS / "slurm" / name, self.directory / "oci.conf")

    def close(self) -> None:
        """Stop the daemons and their namespaces."""
        for daemon in reversed(self._daemons):
            stop(daemon)
        self.enclosure.close()

    def _configure(self) -> None:
        nodes = "".join(_NODE.format(name=name, port=port) for name, port in NODES.items())
        (self.directory / "slurm.conf").write_text(
            _CONFIGURATION.format(
                spool=_SPOOL, epilog=HELPERS / "slurm/epilog.sh", tracking="cgroup" if self._freezer else "linuxproc"
            )
            + nodes
            + _PARTITION
        )
        (self.directory / "cgroup.conf").write_text(
            f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={_CGROUPS}\n" if self._freezer else "CgroupPlugin=disabled\n"
        )
        self.use("oci.conf")
        key = self.directory / "slurm.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))

    def _start(self, name: str, *argv) -> None:
        words = self.words(*argv)
        if self._freezer:
            words = ["sh", "-euc", _INTO_CGROUP, "sh", str(self._freezer), *words]
        with (self.directory / f"{name}.log").open("w") as log:
            self._daemons.append(subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def _run(self, *argv) -> str:
        words = self.words(*argv)
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout

    def _idle(self) -> bool:
        for daemon in self._daemons:
            assert daemon.poll() is None, self._said()
        done = subprocess.run(
            self.words("sinfo", "--noheader", "--Node", "--format=%t"), capture_output=True, text=True, check=False
        )
        return done.stdout.split() == ["idle"] * len(NODES)

    def _said(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.directory.glob("*.log"))


class Submitter(User):
    """An ordinary user of the cluster, on one of its nodes."""

    def __init__(self, account: User, cluster: Cluster) -> None:
        super().__init__(account.name, account.tmp)
        self._cluster = cluster
        self.env = {"HOME": str(self.home), "USER": self.name, "LC_ALL": "C.UTF-8"}
        words = cluster.words("sh", "-euc", _OWN_HOME, "sh", self.home, self.uid, self.gid)
        subprocess.run(words, check=True, timeout=PATIENCE)

    def popen(self, argv, *, env=None, **options) -> subprocess.Popen:
        """Start `argv` on the node, in `tmp`."""
        become = becoming(self.uid, self.gid)
        more = ["env", f"--chdir={self.tmp}", *(f"{name}={value}" for name, value in (env or {}).items())]
        return super().popen(self._cluster.words(*become, *more, *argv), **{"user": 0, "group": 0} | options)

    def processes(self) -> list[str]:
        """Return the command lines of the user's processes on the nodes."""
        # ps itself is one of them
        return self.run(["ps", "-U", self.uid, "-o", "args="], check=True).stdout.splitlines()[:-1]

    def jobs(self) -> list[str]:
        """Return the numbers of the user's jobs that have not ended."""
        return self.run(
            ["squeue", "--noheader", "--array", "--format=%A", f"--user={self.name}"], check=True
        ).stdout.split()

    def await_nothing(self) -> None:
        """Wait until nothing is left of the user's jobs: no container, no process."""
        deadline = time.monotonic() + PATIENCE
        while left := [*self.jobs(), *self._containers(), *self.processes(), *self._files()]:
            assert time.monotonic() < deadline, f"still there: {left}"

    def _files(self) -> list[str]:
        """Return the directories of containers but caches, and the mounts that a container would have."""
        ended = f"/tmp/rootless-{self.uid}/[!@]* /tmp/rootless-{self.uid}/@[!ps]* /tmp/rootless-slurm-{self.uid}/*"
        script = f"for each in {ended}; do [ ! -e $each ] || echo $each; done; grep -E 'fuse|overlay' /proc/self/mounts"
        return self.run(["sh", "-c", script]).stdout.splitlines()

    def _containers(self) -> list[str]:
        return self.run(["rootless", "list", "--quiet"], check=True).stdout.split()


@contextmanager
def submitting(user: User, cluster: Cluster, configuration: str):
    """Provide the ordinary user on a node, with this file of helpers/slurm; at the end nothing is left of the jobs."""
    cluster.use(configuration)
    submitter = Submitter(user, cluster)
    yield submitter
    submitter.run(["scancel", "--user", submitter.name], check=True)
    submitter.await_nothing()


class Step:
    """A step that srun has started, and that runs until it is ended.

    Attributes:
        job: the number of its job.
        srun: the process of srun, whose output is a pipe.
    """

    def __init__(self, submitter, bundle, script, *flags) -> None:
        before = submitter.jobs()
        words = ["srun", f"--container={bundle}", *flags, "/bin/sh", "-c", script]
        self.srun = submitter.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.reader = Reader(self.srun.stdout)
        assert self.reader.line() == "up"
        (self.job,) = {*submitter.jobs()}.difference(before)

    def end(self) -> tuple[int, str]:
        """Wait for the end of the step; return srun's exit status and the rest of the output."""
        rest = self.reader.rest().decode()
        self.srun.communicate(timeout=60)
        return self.srun.returncode, rest


@contextmanager
def _running(need, freezer: Path | None = None):
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces and cgroups")
    need("tini")
    directory = Path(RUN) / ("slurm-cgroups" if freezer else "slurm")
    directory.mkdir()
    running = Cluster(directory, need, freezer)
    yield running
    running.close()
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def cluster(need):
    """A running cluster."""
    with _running(need) as running:
        yield running


@pytest.fixture(scope="session")
def cluster_with_cgroups(need):
    """One in which Slurm has a cgroup for each step."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mounted = [Path(line[1]) for line in lines if line[2] == "cgroup" and "freezer" in line[3].split(",")]
    if not mounted:
        pytest.skip("needs the freezer of cgroup v1")
    freezer = mounted[0] / f"rootless-slurm-{os.urandom(6).hex()}"
    freezer.mkdir()
    with _running(need, freezer) as running:
        yield running
    until(lambda: removed(freezer), f"{freezer} is empty")
