"""The caller's request for a container or a further process, as the planner reads it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless.host.running import Running
    from rootless.options import Options
    from rootless.plan.network.shared import Shared

AUTO = "auto"
"""The network mode of a caller who wants a network but names none."""


class Request:
    """The caller's options, with defaults filled in and names resolved (rootless/container/request.py).

    An empty string means that config.json decides.

    Attributes:
        verb: create, run, explain, restore or exec.
        container: the container's id.
        bundle: directory of its config.json; empty for the current one.
        config: another file to read instead of that config.json.
        systemd_cgroup, cgroup_manager: the manager of its cgroup.
        require_limits: whether a limit that cannot be enforced is an error.
        userns: keep-id, root, single or systemd.
        fake_chown: whether changes of owner only seem to succeed, with a single ID; for `exec`, whether they do.
        kept_ids: the uid and gid that keep-id maps the caller's own to; -1 for the same number.
        has_user: whether the command line names the program's user.
        no_input: whether the program's standard input is /dev/null.
        places: flags by the places in config.json that they have edited; errors name the flag.
        device_sources: paths of devices on the host, by their paths in the container; flags name them.
        no_pivot: whether the root is changed by chroot(2).
        no_new_keyring: whether the caller's session keyring is kept.
        keyring: the name of the session keyring; empty for the usual one, `_ses.ID`.
        network: auto, none, host, slirp4netns[:OPTIONS], pasta[:OPTIONS], container:ID or the name of a shared network.
        publish, add_host, dns, dns_search: as on the command line.
        network_files: directory of the resolv.conf and hosts that the container gets; empty for none.
        peer: the container whose network it joins.
        shared: the shared network that it joins.
        is_rank: whether a process manager of MPI has started this process (PMI, PMIx).
        join: the key of the group whose namespaces it shares; empty for none.
        preserve_fds: how many descriptors, from 3 on, the container inherits.
        environment: entries of process.env that the service manager of the caller adds.
        notify: whether the caller has a service manager that waits for sd_notify(3).
        seccomp_receiver: the socket of a seccomp agent, from RUN_OCI_SECCOMP_RECEIVER (crun).
        console_socket, pidfd_socket, pid_file: paths that the terminal, a pidfd and the process id go to.
        detach: whether the command returns as soon as the program runs.
        cgroup: the cgroup below the container's own that `exec` uses.
        keep: whether a container that has ended is kept.
        asked: the options and the current directory, for `restart` and `inspect`; empty if an engine calls.
        monitored: whether a monitor is the parent of the container's process: it notes the exit status.
        log_size: bytes of output that the monitor keeps; 0: the streams are the caller's.
        timeout: seconds that the container may run, or 0.
        init: whether process 1 is a reaper, whose child the program is.
        attended: whether the command waits for the container in the foreground.
        image: the word of the command line that names an image; empty for a bundle.
        overlay: where changes of the root go: "memory", or a directory in which they stay; empty for the root itself,
            or for memory where the root is an image.
    """

    __slots__ = (
        "add_host", "asked", "attended", "bundle", "cgroup", "cgroup_manager", "config", "console_socket", "container",
        "detach", "device_sources", "dns", "dns_search", "environment", "fake_chown", "has_user", "image", "init",
        "is_rank", "join", "keep", "kept_ids", "keyring", "log_size", "monitored", "network", "network_files",
        "no_input", "no_new_keyring", "no_pivot", "notify", "overlay", "peer", "pid_file", "pidfd_socket", "places",
        "preserve_fds", "publish", "require_limits", "seccomp_receiver", "shared", "systemd_cgroup", "timeout",
        "userns", "verb",
    )  # fmt: skip

    def __init__(self, options: Options) -> None:
        """Copy the options; nothing has been resolved yet."""
        self.verb = options.verb
        self.container = options.container
        self.bundle = options.bundle
        self.config = options.config
        self.systemd_cgroup = options.systemd_cgroup
        self.cgroup_manager = options.cgroup_manager
        self.require_limits = options.require_limits
        self.userns = options.userns
        self.fake_chown = options.fake_chown
        self.kept_ids = (-1, -1)
        self.has_user = False
        self.no_input = False
        self.places: dict[str, str] = {}
        self.device_sources: dict[str, str] = {}
        self.no_pivot = options.no_pivot
        self.no_new_keyring = options.no_new_keyring
        self.keyring = ""
        self.network = options.network
        self.publish = options.publish
        self.add_host = options.add_host
        self.dns = options.dns
        self.dns_search = options.dns_search
        self.network_files = ""
        self.peer: Running | None = None
        self.shared: Shared | None = None
        self.is_rank = False
        self.join = ""
        self.preserve_fds = 0
        self.environment: tuple[str, ...] = ()
        self.notify = False
        self.seccomp_receiver = ""
        self.console_socket = options.console_socket
        self.pidfd_socket = options.pidfd_socket
        self.pid_file = options.pid_file
        self.detach = options.detach
        self.keep = options.keep
        self.overlay = options.overlay
        self.image = ""
        self.cgroup = options.cgroup
        self.asked: dict[str, Any] = {}
        self.monitored = False
        self.log_size = 0
        self.timeout = options.timeout
        self.init = options.init
        self.attended = False
