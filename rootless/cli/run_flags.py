"""The flags of `run` and `explain` by the sections of their help; those that people give are declared here.

Names and values are podman's and docker's. Each edits config.json (rootless/container/edits/), unless its help says
what else it does.
"""

from __future__ import annotations

from rootless.cli.flags import (
    BUNDLE,
    CONFIG,
    CREATE_FLAGS,
    DETACH,
    ENV,
    ENV_FILE,
    FAKE_CHOWN,
    INTEGER,
    KEEP,
    NETWORK_FLAGS,
    OPTIONAL,
    PLAN,
    REPEATED,
    REQUIRE_LIMITS,
    SWITCH,
    TTY,
    USERNS,
    VALUE,
    Flag,
)
from rootless.cli.image_verbs import PLATFORM, PULL, STORE

_PROCESS = (
    Flag("-i --interactive", SWITCH, "", "pass standard input on to COMMAND; otherwise it is empty"),
    TTY,
    ENV,
    ENV_FILE,
    Flag("--env-file0", REPEATED, "FILE", "the same, with a NUL after each, as in /proc/PID/environ"),
    Flag("-w --workdir", VALUE, "DIR", "working directory; it is made if it is missing", dest="cwd"),
    Flag("-u --user", VALUE, "USER[:GROUP]", "run as this user, by name or by id"),
    Flag("--group-add", REPEATED, "GROUP", "add a supplementary group, by name or id; keep-groups keeps all of yours"),
    Flag("--entrypoint", REPEATED, "PROGRAM", "run PROGRAM, with COMMAND as its arguments"),
    Flag("--init", SWITCH, "", "run an init as process 1: it reaps orphans and forwards signals to the program"),
)
_FILES = (
    Flag(
        "-v --volume",
        REPEATED,
        "SRC:DST[:OPTIONS]",
        "mount the directory or file SRC of this host on DST; options: ro, rbind, bind, noexec, rslave, …",
    ),
    Flag(
        "--mount",
        REPEATED,
        "type=TYPE,…",
        "mount type=bind,src=SRC,dst=DST[,ro] or type=tmpfs,dst=DST[,tmpfs-size=SIZE]; also devpts and ramfs",
    ),
    Flag("--tmpfs", REPEATED, "DST[:OPTIONS]", "mount a tmpfs on DST; options: size=64m, mode=1777, ro, noexec, …"),
    Flag("--shm-size", VALUE, "SIZE", "size of /dev/shm"),
    Flag("--read-only", SWITCH, "", "make the root file system read-only; /run, /tmp and /var/tmp stay writable"),
    Flag("--read-only-tmpfs", SWITCH, "", "whether they do (default: true)"),
    Flag(
        "--overlay",
        OPTIONAL,
        "memory|DIR",
        "leave the root file system as it is: what the container changes there goes to memory, or to DIR and stays",
    ),
    Flag(
        "--device",
        REPEATED,
        "SRC[:DST][:rwm]|NAME",
        "add a device of this host, or all devices in a directory, or the CDI device VENDOR/CLASS=NAME or "
        "VENDOR/CLASS=all",
    ),
    Flag(
        "--gpus",
        REPEATED,
        "all|COUNT|device=NAME,…",
        "add GPUs by their CDI specs: all, so many, or those with these names",
    ),
)
_IMAGE = (PULL, PLATFORM, STORE)
_LIMITS = (
    Flag("-m --memory", VALUE, "SIZE", "memory limit, such as 512m or 2g"),
    Flag("--memory-swap", VALUE, "SIZE", "limit of memory and swap together, or -1 (default: twice --memory)"),
    Flag("--memory-reservation", VALUE, "SIZE", "memory that is protected from reclaim"),
    Flag("--cpus", VALUE, "NUMBER", "limit of CPU time, such as 1.5 CPUs"),
    Flag("-c --cpu-shares", VALUE, "SHARES", "CPU weight, 1024 is the usual one", dest="cpu_share"),
    Flag("--cpu-period", VALUE, "MICROSECONDS", "period of the CPU quota"),
    Flag("--cpu-quota", VALUE, "MICROSECONDS", "CPU time per period"),
    Flag("--cpuset-cpus", VALUE, "LIST", "allowed CPUs, such as 0-3,7"),
    Flag("--cpuset-mems", VALUE, "LIST", "allowed memory nodes"),
    Flag("--pids-limit", VALUE, "COUNT", "limit of processes and threads; -1 for no limit"),
    Flag("--blkio-weight", VALUE, "WEIGHT", "block I/O weight, from 10 to 1000"),
    Flag("--blkio-weight-device", REPEATED, "DEVICE:WEIGHT", "the same for one device"),
    Flag("--device-read-bps", REPEATED, "DEVICE:SIZE", "limit of bytes that are read per second"),
    Flag("--device-write-bps", REPEATED, "DEVICE:SIZE", "limit of bytes that are written per second"),
    Flag("--device-read-iops", REPEATED, "DEVICE:COUNT", "limit of reads per second"),
    Flag("--device-write-iops", REPEATED, "DEVICE:COUNT", "limit of writes per second"),
    Flag("--ulimit", REPEATED, "NAME=SOFT[:HARD]", "resource limit such as nofile=1024:4096; host: all of yours"),
    REQUIRE_LIMITS,
)
_SECURITY = (
    USERNS,
    FAKE_CHOWN,
    Flag("--cap-add", REPEATED, "CAPABILITY", "add a capability, or ALL"),
    Flag("--cap-drop", REPEATED, "CAPABILITY", "drop a capability, or ALL"),
    Flag(
        "--security-opt",
        REPEATED,
        "OPTION",
        "seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE|unconfined, label=disable, mask=PATHS, "
        "unmask=PATHS|ALL, proc-opts=OPTIONS",
    ),
)
_CONTAINER = (
    Flag("--name", VALUE, "NAME", "name of the container (default: that of the bundle)"),
    Flag("--hostname", VALUE, "NAME", "host name inside"),
    Flag("-l --label", REPEATED, "NAME=VALUE", "add an annotation that no runtime acts upon"),
    Flag("--annotation", REPEATED, "NAME=VALUE", "add an annotation"),
    DETACH,
    KEEP,
    Flag("--timeout", INTEGER, "SECONDS", "end the container after so long: SIGTERM, and SIGKILL 10 s later"),
    Flag(
        "--slurm",
        VALUE,
        "FILE",
        "run a task of Slurm: the image, the environment, the mounts and your wishes come from its environment FILE "
        "(docs/cluster.md)",
    ),
    Flag(
        "--join",
        OPTIONAL,
        "step|KEY",
        "share the user and ipc namespaces with the containers of the same KEY; step: those of this Slurm step; "
        "none: no others, even if this is a rank of MPI",
    ),
    Flag("--rm", SWITCH, "", "remove the container when it has stopped", ignored="that is the default; see --keep"),
)
_ENGINES = (
    BUNDLE,
    CONFIG,
    *(
        flag
        for flag in CREATE_FLAGS
        if flag not in (BUNDLE, CONFIG, USERNS, FAKE_CHOWN, REQUIRE_LIMITS, *NETWORK_FLAGS)
    ),
    PLAN,
)

RUN = {
    "Process": _PROCESS,
    "Files": _FILES,
    "Image": _IMAGE,
    "Limits": _LIMITS,
    "Network": (
        *NETWORK_FLAGS,
        Flag("-P --publish-all", SWITCH, "", "publish all ports that IMAGE exposes, on free ports of the host"),
    ),
    "Security": _SECURITY,
    "Container": _CONTAINER,
    "For engines and scripts": _ENGINES,
}
EXPLAIN = RUN | {
    "For engines and scripts": (BUNDLE, CONFIG, Flag("--json", SWITCH, "", "print the plan as JSON")),
}
