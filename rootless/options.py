"""What the caller asked on the command line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

TRUE_WORDS = ("true", "1", "t", "T", "TRUE", "True")
FALSE_WORDS = ("false", "0", "f", "F", "FALSE", "False")
"""Truth values on the command line: those of Go's strconv.ParseBool, which runc's callers rely on."""


class Options:
    """What was asked, and nothing that is found out later: rootless/container/request.py fills in defaults.

    One attribute per flag or positional word, named by its `dest` in rootless/cli/flags.py. An empty string means "not
    given". Nothing changes after parsing.
    """

    def __init__(self, **asked: object) -> None:
        """Take the attributes that are not as they are here."""
        self.__dict__.update(asked)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: what was asked stays what was asked."""
        message = f"cannot set {name}: options do not change after parsing"
        raise AttributeError(message)

    def derived(self, **asked: object) -> Options:
        """Return the options in which these attributes are asked too: for a flag that stands for others."""
        return type(self)(**(vars(self) | asked))

    verb: str = ""
    help: bool = False
    version: bool = False

    root: str = ""
    """Directory of the containers' state."""
    log: str = ""
    log_format: str = "text"
    log_level: str = ""
    """The lowest level that is logged; by default "info" in a log file and "warning" on standard error."""
    debug: bool = False
    systemd_cgroup: bool = False
    cgroup_manager: str = ""
    """cgroupfs, systemd or disabled; by default the first one that enforces the requested limits."""
    criu: str = ""
    """The program that checkpoint and restore call."""

    container: str = ""
    """The container's id."""
    bundle: str = ""
    """Directory that holds config.json."""
    plan: str = ""
    """A Plan that explain --json wrote, to be run in place of a bundle's."""
    config: str = ""
    """Another file to read instead of config.json, relative to the caller's directory (crun)."""
    pid_file: str = ""
    console_socket: str = ""
    pidfd_socket: str = ""
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: int = 0
    """How many descriptors, from 3 on, the container inherits besides its standard streams."""
    require_limits: bool = False
    """A limit that cannot be enforced is an error."""
    userns: str = ""
    """keep-id, root, single or systemd."""
    fake_chown: bool = True
    """With a single ID, changes of owner and of user only seem to succeed."""
    network: str = ""
    """auto, none, host, slirp4netns[:OPTIONS], pasta[:OPTIONS], container:ID or the name of a network.

    Empty: config.json and the caller decide."""
    publish: tuple[str, ...] = ()
    add_host: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    subnet: str = ""
    """The subnet of a network that `network create` makes."""
    action: str = ""
    """create, ls, inspect or rm, of networks; rm, prune or inspect, of images."""
    detach: bool = False
    keep: bool = False
    init: bool = False
    """Process 1 is a reaper, and the program its child."""
    timeout: int = 0
    """Seconds that the container may run, or 0."""
    join: str = ""
    """The key of the group of containers that share namespaces, or step."""
    publish_all: bool = False
    """Publish the ports that the image exposes."""
    overlay: str = ""
    """memory, or the directory that keeps what the container changes in its root file system."""

    signal: int = 15
    all: bool = False
    regex: bool = False
    """`container` is a regular expression for several ids (crun)."""
    force: bool = False
    format: str = "table"
    quiet: bool = False

    directory: str = ""
    """Where `new` makes its bundle."""
    from_file: str = ""
    """The root filesystem archive or image that `new` unpacks."""
    squashfs: bool = False
    """`new` puts the image into the bundle as it is."""
    args: tuple[str, ...] = ()
    """The command of `run`, `new` or `exec`; options of the ps program for `ps`."""
    rootless_spec: bool = False
    """`spec` writes the user's own id mappings."""
    file: str = "config.json"
    """The name of the file that `spec` writes."""
    json: bool = False
    fix_script: bool = False

    # The process of `exec` and `run`.
    env: tuple[str, ...] = ()
    env_file: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    """USER or USER:GROUP, each a name or an id."""
    additional_gids: tuple[str, ...] = ()
    tty: bool = False
    cap: tuple[str, ...] = ()
    no_new_privs: bool = False
    apparmor: str = ""
    process_label: str = ""
    process: str = ""
    """A file with a process object."""
    ignore_paused: bool = False
    cgroup: str = ""
    """A cgroup below the container's own."""

    # Images and registries.
    image: str = ""
    """A reference to an image."""
    platform: str = ""
    """os/architecture[/variant] of an image."""
    pull: str = ""
    """missing, always or never: when a registry is asked for an image."""
    store: str = ""
    """Directory of the images."""
    output: str = ""
    """The file that an image is written to; after ``oci-archive:``, an archive for other engines."""
    registry: str = ""
    """The registry to log in to."""
    username: str = ""
    password_stdin: bool = False

    image_path: str = ""
    """Directory of a checkpoint."""
    work_path: str = ""
    """Directory for criu's logs."""
    parent_path: str = ""
    """Directory of an earlier pre-dump, relative to `image_path`."""
    leave_running: bool = False
    pre_dump: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    tcp_skip_in_flight: bool = False
    link_remap: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    page_server: str = ""
    """ADDRESS:PORT"""
    auto_dedup: bool = False
    manage_cgroups_mode: str = ""
    network_lock: str = ""
    empty_ns: str = ""
    lsm_profile: str = ""
    lsm_mount_context: str = ""

    dry_run: bool = False
    source: str = ""
    target: str = ""
    """Words of `cp`: CONTAINER:PATH, a path of the host, or - for a tar stream."""
    time: int = 10
    """Seconds from the signal of `stop` to SIGKILL."""
    tail: str = ""
    """The number of lines that `logs` prints, or all."""
    since: str = ""
    """A time, or a duration before now."""
    follow: bool = False
    timestamps: bool = False

    # What `run` changes in config.json, besides the above, the limits of `update` and `args`.
    env_file0: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    """The last one counts; an empty one stands for none."""
    interactive: bool = False
    group_add: tuple[str, ...] = ()
    ulimit: tuple[str, ...] = ()
    hostname: str = ""
    label: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    volume: tuple[str, ...] = ()
    mount: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    read_only: bool = False
    read_only_tmpfs: bool = True
    shm_size: str = ""
    device: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    cpus: str = ""
    blkio_weight_device: tuple[str, ...] = ()
    device_read_bps: tuple[str, ...] = ()
    device_write_bps: tuple[str, ...] = ()
    device_read_iops: tuple[str, ...] = ()
    device_write_iops: tuple[str, ...] = ()

    name: str = ""
    """The id of the container that `run` makes."""
    slurm: str = ""
    """The environment file of a task of Slurm, whose container `run` makes."""
    step_env: tuple[str, ...] = ()
    """Its variables, which those of the image or bundle precede."""

    once: bool = False
    interval: str = ""
    """The interval of `events` and `top`, with its unit: 500ms, 5s, 1m."""
    stats: bool = False

    # The limits of `update`, as the caller wrote them.
    resources: str = ""
    """A file of limits (config-linux.md, resources); - is standard input."""
    blkio_weight: str = ""
    cpu_period: str = ""
    cpu_quota: str = ""
    cpu_burst: str = ""
    cpu_share: str = ""
    cpu_rt_period: str = ""
    cpu_rt_runtime: str = ""
    cpu_idle: str = ""
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory: str = ""
    memory_reservation: str = ""
    memory_swap: str = ""
    kernel_memory: str = ""
    kernel_memory_tcp: str = ""
    pids_limit: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""


EDITS = frozenset((
    "annotation", "args", "blkio_weight", "blkio_weight_device", "cap_add", "cap_drop", "cpu_period", "cpu_quota",
    "cpu_share", "cpus", "cpuset_cpus", "cpuset_mems", "cwd", "device", "device_read_bps", "device_read_iops",
    "device_write_bps", "device_write_iops", "entrypoint", "env", "env_file", "env_file0", "gpus", "group_add",
    "hostname", "interactive", "join", "label", "memory", "memory_reservation", "memory_swap", "mount", "pids_limit",
    "read_only", "read_only_tmpfs", "security_opt", "shm_size", "tmpfs", "tty", "ulimit", "user", "volume",
))  # fmt: skip
"""The attributes that, asked of `run`, edit config.json."""


def has_edits(options: Options) -> bool:
    """Whether the caller asks `run` or `explain` for any edit of config.json."""
    return not EDITS.isdisjoint([name for name, value in vars(options).items() if value != ()])
