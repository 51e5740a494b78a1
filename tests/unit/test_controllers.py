"""Why a cgroup does not have a controller: the reason and the fix, for every way in which it can be missing."""

from __future__ import annotations

import pytest

from rootless import procfs
from rootless.host import controllers

V2 = "0::/user.slice\n"
USER = "user.slice/user-1000.slice/user@1000.service"


class Host:
    """A host whose cgroups are ordinary directories, with its own /proc."""

    def __init__(self, mount, monkeypatch):
        self.mount = mount
        self.proc = {"/proc/self/cgroup": V2, "/proc/cmdline": "root=/dev/vda quiet"}
        self._monkeypatch = monkeypatch
        text_of = controllers.text_of
        for module in (controllers, procfs):
            monkeypatch.setattr(module, "text_of", lambda path: self.proc.get(path) or text_of(path))
        self.booted(is_so=True)

    def booted(self, *, is_so):
        self._monkeypatch.setattr(controllers, "SYSTEMD_BOOTED", str(self.mount) if is_so else "/nowhere")

    def cgroup(self, path, *there):
        directory = self.mount / path
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text(" ".join(there) + "\n")
        (directory / "cgroup.subtree_control").touch()
        if path:
            (directory / "cgroup.type").write_text("domain\n")
        return directory

    def down(self, path, *steps):
        """Create the cgroups along a path; each step names its controllers, and the last step repeats."""
        place = ""
        for number, name in enumerate(("", *path.split("/"))):
            place = f"{place}/{name}".strip("/")
            self.cgroup(place, *steps[min(number, len(steps) - 1)].split())
        return path

    def why(self, controller, path, **more):
        return controllers.why_missing(controller, str(self.mount), f"{self.mount}/{path}".rstrip("/"), **more)


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "line"),
    [("memory", "4:memory:/x"), ("io", "7:blkio:/"), ("cpu", "2:cpu,cpuacct:/"), ("cpu", "9:net_cls,cpu:/a:b")],
)
def test_controller_in_cgroup_v1(host, name, line):
    path = host.down("a", "pids")
    host.proc["/proc/self/cgroup"] = f"12:name=systemd:/\n{line}\n0::/\n"
    reason = "this host has the controllers for that in cgroup v1"
    assert host.why(name, path) == (reason, "boot with systemd.unified_cgroup_hierarchy=1")
    host.booted(is_so=False)
    assert host.why(name, path) == (reason, "boot with cgroup_no_v1=all")
    assert "v1" not in host.why("cpuset", path)[0]
    assert controllers.has_v1()


def test_v1_hierarchy_without_controllers_does_not_count(host):
    host.proc["/proc/self/cgroup"] = "1:name=memory:/\n0::/\n"
    assert not controllers.has_v1()


@pytest.mark.parametrize(("name", "option"), [("cpuset", "CONFIG_CPUSETS"), ("rdma", "CONFIG_CGROUP_RDMA")])
def test_kernel_without_the_controller(host, name, option):
    path = host.down(f"{USER}/app.slice/run.scope", "memory pids")
    assert host.why(name, path) == (f"this kernel has no controller {name}", f"boot a kernel with {option}")
    assert host.why(name, path, ours=True)[0] == f"this kernel has no controller {name}"
    assert host.why("colour", path) == ("this kernel has no controller colour", "leave it out")


@pytest.mark.parametrize(
    ("name", "word"),
    [("memory", "cgroup_disable=memory"), ("io", "cgroup_disable=cpu,blkio"), ("io", "cgroup_disable=io")],
)
def test_controller_disabled_on_the_command_line(host, name, word):
    path = host.down("a", "pids")
    host.proc["/proc/cmdline"] = f"root=/dev/vda {word} quiet"
    reason = f"the controller {name} is disabled on the kernel's command line"
    assert host.why(name, path) == (reason, f"boot without {word}")
    assert host.why("cpuset", path)[0] == "this kernel has no controller cpuset"


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("steps", [("cpuset", "cpuset", "cpuset", ""), ("cpuset", "cpuset", ""), ("cpuset", "")])
def test_controller_not_delegated_to_the_users_systemd(host, steps, ours):
    path = host.down(f"{USER}/app.slice/run.scope", *steps)
    assert host.why("cpuset", path, ours=ours) == (
        "the controller cpuset is not delegated to user@1000.service",
        "run, as root: systemctl edit user@.service with Delegate=cpuset, systemctl restart user@1000.service",
    )


def test_controller_not_delegated_to_a_service(host):
    path = host.down("system.slice/slurmd.service/job_1/step_0", "memory pids", "memory pids", "pids")
    assert host.why("memory", path) == (
        "the controller memory is not delegated to slurmd.service",
        "run, as root: systemctl edit slurmd.service with Delegate=memory, systemctl restart slurmd.service",
    )


def test_systemd_delegates_no_controllers_on_a_hybrid_host(host, monkeypatch):
    path = host.down(f"{USER}/app.slice/run.scope", "memory", "")
    monkeypatch.setattr(controllers, "CGROUP_HYBRID_MOUNT", str(host.mount))
    reason, fix = host.why("memory", path)
    assert reason == "systemd delegates no controllers of cgroup v2 on a host that also has cgroup v1"
    assert fix == "boot with systemd.unified_cgroup_hierarchy=1"


def test_controller_not_enabled_below_the_users_systemd(host):
    path = host.down(f"{USER}/app.slice/run.scope", "cpu", "cpu", "cpu", "cpu", "")
    reason = f"the controller cpu is not enabled below /{USER}"
    assert host.why("cpu", path) == (reason, "run: systemd-run --user --scope -p Delegate=yes rootless …")
    # then the slice disables it
    fix = "remove cpu from DisableControllers= of user@1000.service (systemctl --user cat user@1000.service)"
    assert host.why("cpu", path, ours=True) == (reason, fix)


def test_controller_not_enabled_below_a_cgroup(host):
    path = host.down("jobs/of/user", "hugetlb", "hugetlb", "")
    place = f"{host.mount}/jobs/cgroup.subtree_control"
    reason = "the controller hugetlb is not enabled below /jobs"
    assert host.why("hugetlb", path) == (reason, f"run: echo +hugetlb >{place}")
    host.booted(is_so=False)
    assert host.why("hugetlb", path) == (reason, f"run: echo +hugetlb >{place}")
    (host.mount / "jobs/cgroup.subtree_control").unlink()
    assert host.why("hugetlb", path) == (reason, f"run, as root: echo +hugetlb >{place}")


def test_controller_missing_in_a_cgroup_namespace(host):
    host.cgroup("", "pids")
    (host.mount / "cgroup.type").write_text("domain\n")
    reason, fix = host.why("memory", "")
    assert reason == f"no cgroup below {host.mount} has the controller memory"
    assert "enable it outside the container or cgroup namespace that you are in" in fix
