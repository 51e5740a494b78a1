"""All verbs: those that people call and those that engines rarely call are declared here.

The verbs that engines call are in flags.py, those of images in image_verbs.py.
"""

from __future__ import annotations

from rootless.cli.flags import (
    BUNDLE,
    CHOICE,
    CONSOLE_SOCKET,
    CONTAINER,
    DETACH,
    ENGINE_VERBS,
    INTEGER,
    LITERAL,
    NO_SUBREAPER,
    NOT_YET,
    PID_FILE,
    REQUIRE_LIMITS,
    SWITCH,
    VALUE,
    Flag,
    Verb,
    Word,
)
from rootless.cli.image_verbs import IMAGE_VERBS, PLATFORM, PULL, STORE

_CHECKPOINT_FLAGS = (
    Flag("--image-path", VALUE, "DIR", "directory of the checkpoint (default: checkpoint)"),
    Flag("--work-path", VALUE, "DIR", "directory for criu's log files (default: that of the checkpoint)"),
    Flag("--tcp-established", SWITCH, "", "keep open TCP connections"),
    Flag("--ext-unix-sk", SWITCH, "", "allow Unix sockets that are connected to processes outside the container"),
    Flag("--shell-job", SWITCH, "", "allow a terminal from outside the container"),
    Flag("--file-locks", SWITCH, "", "keep file locks"),
    Flag("--manage-cgroups-mode", CHOICE, "soft|full|strict|ignore", "criu's cgroup mode (default: ignore)"),
    Flag("--network-lock", CHOICE, "iptables|nftables|skip", "how criu blocks network traffic during the checkpoint"),
    Flag("--empty-ns", CHOICE, "network", "leave out the contents of this namespace"),
    Flag("--auto-dedup", SWITCH, "", "deduplicate memory images"),
    Flag("--lazy-pages", NOT_YET),
)

STOP_TIME = Flag("-t --time", INTEGER, "SECONDS", "time from the signal to SIGKILL (default: 10)")
_CRIU = "This verb uses criu (https://criu.org), which needs root."

EVERYDAY_VERBS = {
    "run": ENGINE_VERBS["run"],
    **IMAGE_VERBS,
    "new": Verb(
        "cli.output:new",
        "create a bundle from this host's programs, an archive or an image",
        (
            Flag(
                "--from",
                VALUE,
                "IMAGE|FILE",
                "image, or root filesystem archive (.tar, .tar.gz, .tar.zst); - reads standard input",
                dest="from_file",
            ),
            Flag("--squashfs", SWITCH, "", "keep the image as one file instead of unpacking it"),
            PULL,
            PLATFORM,
            STORE,
        ),
        (Word("DIR", "directory"),),
        rest=Word("COMMAND", "args", optional=True),
        about="The bundle runs COMMAND with its arguments (default: that of the image, or a shell).",
        examples=(
            "rootless new mybundle",
            "rootless new mybundle -- ls -l /",
            "rootless new mybundle --from docker://debian:13",
            "docker export $(docker create debian) | rootless new mybundle --from -",
        ),
    ),
    "save": Verb(
        "container.inside.save:save",
        "save a container, or a bundle with the changes of an overlay, as an image",
        (
            Flag("-o --output", VALUE, "FILE.sqsh|oci-archive:FILE", "image file, or archive for other engines"),
            Flag("--overlay", VALUE, "DIR", "include the changes that run --overlay=DIR kept"),
        ),
        (Word("CONTAINER|BUNDLE|IMAGE", "bundle", optional=True),),
        about="Owners are those that a container sees. The image runs the command of the container or the bundle. "
        "A container may run, and is not stopped: the image has its files with all changes, also those in memory, but "
        "not what is mounted there. Write ./NAME for a bundle that has the name of a container.",
        examples=(
            "rootless save --output web.sqsh web1",
            "rootless save --output box.sqsh mybundle",
            "rootless save --overlay changes --output oci-archive:box.tar mybundle && podman load --input box.tar",
        ),
    ),
    "explain": Verb(
        "cli.output:explain",
        "show what run would do with a bundle or an image, and why",
        words=(Word("BUNDLE|IMAGE", "bundle", optional=True),),
        rest=Word("COMMAND", "args", optional=True),
        sections="cli.run_flags:EXPLAIN",
        about="Nothing is changed, but an image that is missing is pulled, unless --pull is never, and unpacked if "
        "this host cannot serve images. COMMAND and the flags are those of run.",
        examples=("rootless explain mybundle", "rootless explain --json -v .:/src mybundle make | jq ."),
    ),
    "top": Verb(
        "cli.live_top:top",
        "watch the resource usage of your containers",
        (
            Flag("--once", SWITCH, "", "print the table once (default if standard output is not a terminal)"),
            Flag("--json", SWITCH, "", "print the usage once, as JSON"),
            Flag("--interval", VALUE, "TIME", "refresh interval, such as 500ms or 5s (default: 2s)"),
        ),
        rest=Word("CONTAINER", "args", optional=True),
        about="Memory is the usage of the container's cgroup, caches included. For a container without a cgroup, it is "
        "the memory of its processes.",
        examples=("rootless top", "rootless top --json web1 | jq '.[].cpuPercent'"),
    ),
    "list": ENGINE_VERBS["list"],
    "logs": Verb(
        "cli.output:logs",
        "print the output of a detached container",
        (
            Flag("-f --follow", SWITCH, "", "print further output until the container ends"),
            Flag("-n --tail", VALUE, "N", "print only the last N lines"),
            Flag("--since", VALUE, "TIME", "print output from this time on, or of the last 10m, 1h30m, …"),
            Flag("-t --timestamps", SWITCH, "", "begin each line with its time"),
        ),
        (CONTAINER,),
        about="The output of `rootless run -d BUNDLE` is kept until the container is deleted: the last 5 to 10 MB. "
        "What the program wrote to standard error goes to standard error. On a terminal, control characters other than "
        "colours are shown as escapes.",
        examples=("rootless logs --tail 20 -f web1", "rootless logs --since 10m -t web1"),
    ),
    "restart": Verb(
        "cli.output:restart",
        "stop containers and run them again as they were asked for",
        (STOP_TIME,),
        (CONTAINER,),
        rest=Word("CONTAINER", "args", optional=True),
        about="The bundle is read again, with the options of its `rootless run` and from the same directory. The new "
        "container runs detached, whether the old one did or not, and keeps the newer half of its log.",
        examples=("rootless restart -t 2 web1",),
    ),
    "stop": Verb(
        "cli.output:stop",
        "stop containers: ask first, kill after a time",
        (STOP_TIME,),
        (CONTAINER,),
        rest=Word("CONTAINER", "args", optional=True),
        about="The signal is that of the annotation org.opencontainers.image.stopSignal, or else SIGTERM. A stopped "
        "container stays until `rootless delete`; a foreground run removes its own.",
        examples=("rootless stop web1", "rootless stop -t 2 web1 web2"),
    ),
    "wait": Verb(
        "cli.output:wait",
        "wait until containers end, and print their exit statuses",
        (),
        (CONTAINER,),
        rest=Word("CONTAINER", "args", optional=True),
        about="Each line is the status of a program, or 128 plus the number of the signal that ended it, in the order "
        "of the arguments. If `create` or `run -d --bundle` made the container, only the parent of its process "
        "knows the status.",
        examples=("rootless run -d mybundle && rootless wait mybundle",),
    ),
    "clean": Verb(
        "cli.output:clean",
        "remove what killed commands and earlier boots have left",
        (Flag("--dry-run", SWITCH, "", "print what would be removed, and remove nothing"),),
        about="Containers whose create or foreground run was killed, containers of earlier boots, the state of shared "
        "networks without containers, and what a killed pull was writing. Containers that run, wait for their start, "
        "or are kept stay.",
        examples=("rootless clean --dry-run",),
    ),
    "unshare": Verb(
        "container.unshare:unshare",
        "run a command with the ids of your containers, without a container",
        rest=Word("COMMAND", "args", optional=True),
        about="COMMAND (default: your shell) runs on this host's files, as root of a user namespace that has your own "
        "id and your subordinate ids, and in a mount namespace of its own. There you can look at, change and remove "
        "files that containers have made for other users. The exit status is that of the command, or 128 plus the "
        "number of the signal that killed it.",
        examples=("rootless unshare ls -l mybundle/rootfs/var", "rootless unshare chown -R 0:0 mybundle"),
    ),
    "rm-tree": Verb(
        "container.removal.rm_tree:rm_tree",
        "remove directories that have files of your subordinate ids",
        words=(Word("DIR", "directory"),),
        rest=Word("DIR", "args", optional=True),
        about="DIR, such as a bundle, is removed with everything below it: rm may not remove what containers have made "
        "for other users. DIR must be in a directory of yours. No symlink below it is followed, also while a container "
        "runs there, and nothing is removed from what is mounted below DIR.",
        examples=("rootless rm-tree mybundle",),
    ),
    "cp": Verb(
        "container.inside.cp:cp",
        "copy files into a running container or out of it",
        (),
        (Word("SOURCE", "source"), Word("TARGET", "target")),
        about="One of the two is CONTAINER:PATH, the other one a path of the host, or - for a tar archive on standard "
        "input or output. A directory is copied with everything below it: into TARGET if that is a directory, or else "
        "under that name. SOURCE/. stands for the contents of SOURCE. Copied files belong to you, or in the container "
        "to the user of its program.",
        examples=("rootless cp web:/etc/hosts .", "rootless cp site/. web:/srv", "rootless cp web:/srv - | tar -t"),
    ),
    "inspect": Verb(
        "cli.output:inspect",
        "print what is known of containers, as JSON",
        (),
        (CONTAINER,),
        rest=Word("CONTAINER", "args", optional=True),
        about="The properties of `rootless state`, the exit status, the options of `rootless run`, and process, mounts "
        "and resources of config.json; an array with an object for each container.",
        examples=("rootless inspect web1 | jq '.[0].process.env'",),
    ),
    "network": Verb(
        "cli.output:network",
        "manage networks that several containers share",
        (
            Flag("--subnet", VALUE, "CIDR", "create: subnet of the network (default: a free /24 of 10.89.0.0/16)"),
            Flag("-f --format", CHOICE, "table|json", "ls: output format (default: table)"),
            Flag("-q --quiet", SWITCH, "", "ls: print only names"),
        ),
        (
            Word("create|ls|inspect|reload|rm", "action", kind=CHOICE),
            Word("NETWORK", "container", optional=True),
        ),
        about="create creates a network, ls lists networks, inspect prints one network and its containers as JSON, rm "
        "removes an unused network. reload writes the host's present name servers into all running containers, and "
        "starts slirp4netns again for networks whose one has ended.\n\nContainers started with --network NETWORK "
        "reach each other by container id and host name, and they reach the internet. From outside, only published "
        "ports are reachable. A network needs no process while no container uses it.",
        examples=(
            "rootless network create backend",
            "rootless run -d --network backend db && rootless run --network backend -p 8080:80 web",
        ),
    ),
    "port": Verb(
        "cli.output:port",
        "list the published ports of a container",
        (),
        (CONTAINER,),
        examples=("rootless port web1",),
    ),
    "exec": ENGINE_VERBS["exec"],
    "ps": ENGINE_VERBS["ps"],
    "doctor": Verb(
        "cli.output:doctor",
        "check this host, and print how an administrator can fix what is missing",
        (
            Flag("--json", SWITCH, "", "print what works and what is missing as JSON"),
            Flag("--fix-script", SWITCH, "", "print a shell script of the fixes, for an administrator to read and run"),
        ),
        about="The checks try things out where they can. Each problem has its code, the evidence, what it costs and "
        "the fix. The exit status is 1 if no container can run here. Nothing is changed.",
        examples=(
            "rootless doctor",
            "rootless doctor --json | jq -r '.problems[].code'",
            "rootless doctor --fix-script",
        ),
    ),
}
"""The verbs that help lists first, in that order."""

VERBS = {
    **EVERYDAY_VERBS,
    **ENGINE_VERBS,
    "update": Verb(
        "container.control.update:update",
        "change the resource limits of a container",
        (
            REQUIRE_LIMITS,
            Flag("-r --resources", VALUE, "FILE", "read all limits from FILE, as JSON; - reads standard input"),
            Flag("--blkio-weight", VALUE, "WEIGHT", "block I/O weight"),
            Flag("--cpu-period", VALUE, "MICROSECONDS", "period of the CPU quota"),
            Flag("--cpu-quota", VALUE, "MICROSECONDS", "CPU time per period"),
            Flag("--cpu-burst", VALUE, "MICROSECONDS", "unused CPU time that may be accumulated"),
            Flag("--cpu-shares --cpu-share", VALUE, "SHARES", "CPU weight"),
            Flag("--cpu-rt-period", VALUE, "MICROSECONDS", "period of the realtime quota (cgroup v1)"),
            Flag("--cpu-rt-runtime", VALUE, "MICROSECONDS", "realtime quota (cgroup v1)"),
            Flag("--cpu-idle", VALUE, "0|1", "run only while the CPU is idle"),
            Flag("--cpus", VALUE, "NUMBER", "limit of CPU time, such as 1.5 CPUs; 0 for no limit"),
            Flag("--cpuset-cpus", VALUE, "LIST", "allowed CPUs, such as 0-3,7"),
            Flag("--cpuset-mems", VALUE, "LIST", "allowed memory nodes"),
            Flag("-m --memory", VALUE, "BYTES", "memory limit"),
            Flag("--memory-reservation", VALUE, "BYTES", "memory that is protected from reclaim"),
            Flag("--memory-swap", VALUE, "BYTES", "limit of memory and swap together; -1 for no limit"),
            Flag("--kernel-memory", VALUE, "BYTES", "deprecated; prints a warning, Linux no longer has this limit"),
            Flag("--kernel-memory-tcp", VALUE, "BYTES", "deprecated; prints a warning, cgroup v2 has no such limit"),
            Flag("--pids-limit", VALUE, "COUNT", "limit of processes and threads"),
            Flag("--l3-cache-schema", VALUE, "SCHEMA", "share of the L3 cache (Intel RDT)"),
            Flag("--mem-bw-schema", VALUE, "SCHEMA", "share of the memory bandwidth (Intel RDT)"),
        ),
        (CONTAINER,),
        examples=("rootless update -m 256M --cpus 1.5 --pids-limit 50 web1",),
    ),
    "events": Verb(
        "cli.output:events",
        "print resource usage and out-of-memory events of a container",
        (
            Flag("--interval", VALUE, "TIME", "interval, such as 500ms or 5s (default: 5s)"),
            Flag("--stats", SWITCH, "", "print the usage once"),
        ),
        (CONTAINER,),
        examples=("rootless events --stats web1",),
    ),
    "checkpoint": Verb(
        "container.checkpoint.dump:checkpoint",
        "save the processes of a container to disk, and stop it",
        (
            *_CHECKPOINT_FLAGS,
            Flag("--parent-path", VALUE, "DIR", "directory of an earlier --pre-dump, relative to --image-path"),
            Flag("--leave-running", SWITCH, "", "keep the container running"),
            Flag("--pre-dump", SWITCH, "", "save only the memory, and keep the container running"),
            Flag("--tcp-skip-in-flight", SWITCH, "", "leave out TCP connections that are not yet established"),
            Flag("--link-remap", SWITCH, "", "allow open files that have been removed"),
            Flag("--status-fd", NOT_YET),
            Flag("--page-server", VALUE, "ADDRESS:PORT", "send the memory to criu's page server at this address"),
        ),
        (CONTAINER,),
        about=_CRIU,
        examples=("rootless checkpoint --image-path saved web1",),
    ),
    "restore": Verb(
        "container.checkpoint.restore:restore",
        "create a container from a checkpoint",
        (
            BUNDLE,
            *_CHECKPOINT_FLAGS,
            PID_FILE,
            CONSOLE_SOCKET,
            DETACH,
            Flag("--tcp-close", SWITCH, "", "restore TCP connections in closed state"),
            Flag("--lsm-profile", VALUE, "TYPE:NAME", "use another security profile for the processes"),
            Flag("--lsm-mount-context", VALUE, "CONTEXT", "use another SELinux context for the mounts"),
            Flag("--no-pivot", SWITCH, "", "change the root without pivot_root", ignored="criu changes the root"),
            Flag("--no-new-keyring", SWITCH, "", "keep the caller's session keyring", ignored="criu creates none"),
            NO_SUBREAPER,
        ),
        (CONTAINER,),
        about=_CRIU,
        examples=("rootless restore --detach --bundle mybundle --image-path saved web1",),
    ),
    "features": Verb(
        "cli.output:features",
        "print the features of this runtime as JSON",
        about="features.md of the OCI runtime specification defines the format.",
        examples=("rootless features | jq .mountOptions",),
    ),
    "spec": Verb(
        "image.bundles.spec:spec",
        "write an example config.json",
        (
            Flag("-b --bundle", VALUE, "DIR", "directory of the file (default: the current directory)"),
            Flag("--rootless", SWITCH, "", "include your own uid and gid mappings", dest="rootless_spec"),
            Flag("-f --file", VALUE, "NAME", "name of the file (default: config.json)"),
        ),
        about="The file expects the root filesystem of the bundle in the directory rootfs. `rootless new` creates a "
        "complete bundle.",
        examples=("rootless spec --bundle mybundle",),
    ),
}
"""Every verb, in the order of the help."""

HIDDEN_VERBS = {
    "__complete": Verb(
        "cli.completion:complete",
        "print the words that can follow on a command line",
        rest=Word("WORD", "args", kind=LITERAL),
    ),
}
"""Verbs that programs of rootless call, and that no help names."""
