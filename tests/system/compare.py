"""Create a container with each runtime from the same config.json, and print the files of its cgroup.

Argument: a file of JSON: ``config``, a config.json; ``runtimes``, a path for each name; ``managers``, of "systemd" and
"cgroupfs"; ``cases``, for each name the linux.resources to put into it. Output: ``{manager: {case: {runtime: {what:
value}}}}``, where `what` is a file of the cgroup, a property of the scope, or "refused". To be called in a cgroup of
the caller, whose processes it moves to a cgroup below; each runtime gets the same cgroup path.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
NOT_SET = re.compile(r"cgroup\.(procs|threads|kill|pressure)|cpu\.weight\.nice|memory\.reclaim|.*\.(peak|pressure)")
"""Writable files that hold no limit, or the same limit as another file."""
CHANGING = re.compile(
    r"(Description|InvocationID|ControlGroupId|Transient|FragmentPath|DropInPaths|UnitFilePreset)$"
    r"|Timestamp|Current|Peak|Available|Usage|^(IO|IP).*(Bytes|Operations|Packets)$|^Effective"
)
"""Properties that report the state of a unit rather than its settings."""
NAME = "compared"


def cgroup_of(process: int | str) -> Path:
    """Return the directory of a process's cgroup."""
    lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    return ROOT / next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))


def run(*words: str) -> str:
    """Run a program and return its output."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def take_place() -> Path:
    """Enable every controller for the cgroups below this one, and return it."""
    own = cgroup_of("self")
    (own / "caller").mkdir()
    for pid in (own / "cgroup.procs").read_text().split():
        (own / "caller/cgroup.procs").write_text(pid)
    for controller in (own / "cgroup.controllers").read_text().split():
        (own / "cgroup.subtree_control").write_text(f"+{controller}")
    return own


def made(command: list[str], bundle: Path, manager: str) -> dict[str, str]:
    """Return the settings in the cgroup of one runtime's container."""
    with open("said", "w+") as said:
        # a file, since the container keeps it open
        create = [*command, "create", "--bundle", str(bundle), NAME]
        done = subprocess.run(create, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)
        said.seek(0)
        if done.returncode:
            return {"refused": said.read().strip()}
    try:
        directory = cgroup_of(json.loads(run(*command, "state", NAME))["pid"])
        found = {
            path.name: path.read_text().strip()
            for path in directory.iterdir()
            if path.is_file() and path.stat().st_mode & 0o200 and not NOT_SET.fullmatch(path.name)
        }
        if manager == "systemd":
            shown = run("systemctl", "--user", "show", directory.name).splitlines()
            pairs = (line.split("=", 1) for line in shown)
            found |= {name: value for name, value in pairs if not CHANGING.search(name)}
            usual = run("systemctl", "--user", "show", "--property=DefaultTasksMax", "--value").strip()
            found |= {name: "systemd's default" for name in ("TasksMax", "pids.max") if found[name] == usual}
        return found
    finally:
        run(*command, "delete", "--force", NAME)


def main() -> None:
    """Carry out the task in a file."""
    task = json.loads(Path(sys.argv[1]).read_text())
    own = take_place()
    bundle = Path("compared-bundle")
    bundle.mkdir()
    results: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for manager in task["managers"]:
        for case, resources in task["cases"].items():
            place = "user.slice:test:" if manager == "systemd" else f"/{own.relative_to(ROOT)}/"
            config = task["config"] | {"linux": task["config"]["linux"] | {"resources": resources}}
            config["linux"]["cgroupsPath"] = place + NAME
            # otherwise crun creates another cgroup in the scope; the limits of all runtimes are in the scope's
            config["annotations"] = {"run.oci.systemd.subgroup": ""}
            (bundle / "config.json").write_text(json.dumps(config))
            for name, path in task["runtimes"].items():
                command = [path, "--root", os.path.abspath(name)]
                command += ["--systemd-cgroup"] if manager == "systemd" else []
                command += ["--cgroup-manager", "cgroupfs"] if (manager, name) == ("cgroupfs", "rootless") else []
                results.setdefault(manager, {}).setdefault(case, {})[name] = made(command, bundle, manager)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
