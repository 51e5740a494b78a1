"""The declaration of the verbs that people call, and of those that engines call seldom; see flags.py."""

from __future__ import annotations

from rootless.cli.flags import (
    BUNDLE,
    CHOICE,
    CONFIG,
    CONTAINER,
    ENGINE_VERBS,
    NETWORK_FLAGS,
    REQUIRE_LIMITS,
    SWITCH,
    USERNS,
    VALUE,
    Flag,
    Verb,
    Word,
)

_CHECKPOINT_FLAGS = (
    Flag("--image-path", VALUE, "DIR", "directory of the checkpoint; default: checkpoint"),
    Flag("--work-path", VALUE, "DIR", "directory for criu's log files; default: that of the checkpoint"),
    Flag("--tcp-established", SWITCH, "", "keep open TCP connections"),
    Flag("--ext-unix-sk", SWITCH, "", "allow unix sockets that are connected to the outside"),
    Flag("--shell-job", SWITCH, "", "allow a terminal from outside the container"),
    Flag("--file-locks", SWITCH, "", "keep file locks"),
    Flag("--manage-cgroups-mode", CHOICE, "soft|full|strict|ignore", "what criu does about cgroups; default: ignore"),
    Flag("--network-lock", CHOICE, "iptables|nftables|skip", "how criu stops the network meanwhile"),
    Flag("--empty-ns", CHOICE, "network", "leave out the inside of this namespace"),
    Flag("--auto-dedup", SWITCH, "", "free what is twice in the memory images"),
    Flag("--lazy-pages", SWITCH, "", "restore memory when it is first used", later=True),
)

_CRIU = "It is done by criu (https://criu.org), which needs root."

VERBS = {
    "run": ENGINE_VERBS["run"],
    "new": Verb(
        "make a bundle, from this host's own programs or from an image archive",
        (
            Flag(
                "--from",
                VALUE,
                "FILE",
                "root filesystem archive (.tar, .tar.gz, .tar.zst); - is standard input",
                dest="from_file",
            ),
        ),
        (Word("DIR", "directory"),),
        rest=Word("COMMAND", "args", optional=True),
        everyday=True,
        about="COMMAND and its arguments are what the bundle runs; default: a shell.",
        examples=(
            "rootless new mybundle",
            "rootless new mybundle -- ls -l /",
            "docker export $(docker create debian) | rootless new mybundle --from -",
        ),
    ),
    "explain": Verb(
        "show what run would do with a bundle, and why, without doing it",
        (
            BUNDLE,
            CONFIG,
            USERNS,
            *NETWORK_FLAGS,
            Flag("--json", SWITCH, "", "print the plan as data"),
        ),
        (Word("BUNDLE", "bundle", optional=True),),
        everyday=True,
        examples=("rootless explain mybundle", "rootless explain --json mybundle | jq ."),
    ),
    "top": Verb(
        "watch what your containers use",
        (
            Flag("--once", SWITCH, "", "print it once; also when standard output is no terminal"),
            Flag("--json", SWITCH, "", "print it once, as JSON"),
            Flag("--interval", VALUE, "TIME", "how often, such as 500ms or 5s; default: 2s"),
        ),
        rest=Word("CONTAINER", "args", optional=True),
        everyday=True,
        about="Memory is what the container's cgroup counts, caches included; for a container without one it is what "
        "its processes have in memory.",
        examples=("rootless top", "rootless top --json web1 | jq '.[].cpuPercent'"),
    ),
    "network": Verb(
        "make networks that several of your containers share",
        (
            Flag("--subnet", VALUE, "CIDR", "create: the network's addresses; default: a free /24 of 10.89.0.0/16"),
            Flag("-f --format", CHOICE, "table|json", "ls: how the list is written"),
            Flag("-q --quiet", SWITCH, "", "ls: names only"),
        ),
        (
            Word("create|ls|inspect|rm", "action", kind=CHOICE),
            Word("NETWORK", "container", optional=True),
        ),
        everyday=True,
        about="create makes one, ls lists them, inspect shows one and who is on it as JSON, rm removes one that is not "
        "in use.\n\nContainers that run with --network NETWORK reach each other by their ids and host names, and the "
        "outside; nobody reaches them but by ports that are published. A network is there while a container is in it, "
        "and is made again for the next one.",
        examples=(
            "rootless network create backend",
            "rootless run -d --network backend db && rootless run --network backend -p 8080:80 web",
        ),
    ),
    "port": Verb(
        "list the ports that a container publishes",
        (),
        (CONTAINER,),
        everyday=True,
    ),
    "doctor": Verb(
        "check this host, and print how an administrator can fix what is missing",
        (),
        everyday=True,
        about="The checks try the operations. The exit status is 1 when no container can run here.",
    ),
    **ENGINE_VERBS,
    "update": Verb(
        "change the limits of a container",
        (
            REQUIRE_LIMITS,
            Flag("-r --resources", VALUE, "FILE", "read all of them from FILE, as JSON; - is standard input"),
            Flag("--blkio-weight", VALUE, "WEIGHT", "weight of its block I/O"),
            Flag("--cpu-period", VALUE, "MICROSECONDS", "period that the quota is for"),
            Flag("--cpu-quota", VALUE, "MICROSECONDS", "CPU time in each period"),
            Flag("--cpu-burst", VALUE, "MICROSECONDS", "CPU time that may be saved up"),
            Flag("--cpu-share", VALUE, "SHARES", "weight of its CPU time"),
            Flag("--cpu-rt-period", VALUE, "MICROSECONDS", "period of the realtime quota (cgroup v1)"),
            Flag("--cpu-rt-runtime", VALUE, "MICROSECONDS", "realtime quota (cgroup v1)"),
            Flag("--cpu-idle", VALUE, "0|1", "run only when the CPU is idle"),
            Flag("--cpuset-cpus", VALUE, "LIST", "CPUs that it may use, such as 0-3,7"),
            Flag("--cpuset-mems", VALUE, "LIST", "memory nodes that it may use"),
            Flag("--memory", VALUE, "BYTES", "most memory"),
            Flag("--memory-reservation", VALUE, "BYTES", "memory that is left to it when memory is short"),
            Flag("--memory-swap", VALUE, "BYTES", "most memory and swap together; -1: any amount"),
            Flag("--kernel-memory", VALUE, "BYTES", "deprecated: a warning says that Linux has no such limit any more"),
            Flag("--kernel-memory-tcp", VALUE, "BYTES", "deprecated: a warning says that cgroup v2 has no such limit"),
            Flag("--pids-limit", VALUE, "COUNT", "most processes and threads"),
            Flag("--l3-cache-schema", VALUE, "SCHEMA", "share of the L3 cache (Intel RDT)"),
            Flag("--mem-bw-schema", VALUE, "SCHEMA", "share of the memory bandwidth (Intel RDT)"),
        ),
        (CONTAINER,),
    ),
    "events": Verb(
        "show what a container uses, and what happens to it",
        (
            Flag("--interval", VALUE, "TIME", "how often, such as 500ms or 5s; default: 5s"),
            Flag("--stats", SWITCH, "", "show it once"),
        ),
        (CONTAINER,),
    ),
    "checkpoint": Verb(
        "write the whole state of a container's processes to disk, and stop it",
        (
            *_CHECKPOINT_FLAGS,
            Flag("--parent-path", VALUE, "DIR", "directory of an earlier --pre-dump, seen from --image-path"),
            Flag("--leave-running", SWITCH, "", "let it run on"),
            Flag("--pre-dump", SWITCH, "", "write its memory only, and let it run on"),
            Flag("--tcp-skip-in-flight", SWITCH, "", "leave out TCP connections that are being made"),
            Flag("--link-remap", SWITCH, "", "allow open files that have been removed"),
            Flag("--status-fd", VALUE, "N", "write to this descriptor when lazy pages are ready", later=True),
            Flag("--page-server", VALUE, "ADDRESS:PORT", "send the memory to criu's page server there"),
        ),
        (CONTAINER,),
        about=_CRIU,
        examples=("rootless checkpoint --image-path saved web1",),
    ),
    "restore": Verb(
        "make a container from what checkpoint wrote",
        (
            BUNDLE,
            *_CHECKPOINT_FLAGS,
            Flag("--pid-file", VALUE, "FILE", "write the process id of the container's first process to FILE"),
            Flag("--console-socket", VALUE, "SOCKET", "send the terminal's descriptor to this unix socket"),
            Flag("-d --detach", SWITCH, "", "return as soon as the program runs"),
            Flag("--tcp-close", SWITCH, "", "restore TCP connections as closed ones"),
            Flag("--lsm-profile", VALUE, "TYPE:NAME", "another security profile for its processes"),
            Flag("--lsm-mount-context", VALUE, "CONTEXT", "another SELinux context for its mounts"),
            Flag("--no-pivot", SWITCH, "", "change the root without pivot_root", ignored="criu changes the root"),
            Flag("--no-new-keyring", SWITCH, "", "keep the caller's session keyring", ignored="criu makes none"),
            Flag(
                "--no-subreaper",
                SWITCH,
                "",
                "do not reap orphans of the container",
                ignored="who reaps the orphans of a container never depends on it",
            ),
        ),
        (CONTAINER,),
        about=_CRIU,
        examples=("rootless restore --detach --bundle mybundle --image-path saved web1",),
    ),
    "features": Verb(
        "print what this runtime can do, as JSON",
        about="The document is that of features.md in the OCI runtime specification.",
        examples=("rootless features | jq .mountOptions",),
    ),
    "spec": Verb(
        "write a config.json to start from",
        (
            Flag("-b --bundle", VALUE, "DIR", "where to write it; default: the current directory"),
            Flag("--rootless", SWITCH, "", "put your own uid and gid mappings in it", dest="rootless_spec"),
            Flag("-f --file", VALUE, "NAME", "the name of the file; default: config.json"),
        ),
        about="The file is made for a bundle whose root filesystem is in the directory rootfs. "
        "`rootless new` makes a whole bundle.",
        examples=("rootless spec --bundle mybundle",),
    ),
}
"""Every verb, in the order of the help."""

LATER_VERBS = ("mounts",)
"""Verbs of runc and crun that do not exist here yet; they are refused as unknown ones are, with better words."""
