"""The edits of one `run` or `explain`, in their order."""

from __future__ import annotations

import posix

from rootless import files, log, paths
from rootless.bundle.check import check
from rootless.bundle.edit import environment, mounts, process, resources, security
from rootless.bundle.edit.accounts import group_id, identity
from rootless.bundle.edit.values import STEERING_ANNOTATIONS, changed, misused, pair
from rootless.bundle.load import Bundle
from rootless.container.edits.ranks import NONE
from rootless.errors import RootlessError
from rootless.jsontext import parse, render
from rootless.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.bundle.cdi.devices import chosen
    from rootless.bundle.cdi.edits import Edited
    from rootless.bundle.edit.accounts import Read
    from rootless.bundle.edit.values import Config
    from rootless.container.edits.devices import devices, numbers_of
    from rootless.container.edits.inside_root import image_reader, reader
    from rootless.options import Options
    from rootless.plan.plan import Plan
    from rootless.plan.request import Request
else:
    chosen = lazy("rootless.bundle.cdi.devices", "chosen")
    Edited = lazy("rootless.bundle.cdi.edits", "Edited")
    devices = lazy("rootless.container.edits.devices", "devices")
    numbers_of = lazy("rootless.container.edits.devices", "numbers_of")
    image_reader = lazy("rootless.container.edits.inside_root", "image_reader")
    reader = lazy("rootless.container.edits.inside_root", "reader")

_KEEP_GROUPS = "keep-groups"
_MOST_BYTES = 4 << 20


def edit(
    bundle: Bundle, request: Request, options: Options, *, read: Read | None = None, entrypoint: Sequence[str] = ()
) -> Bundle:
    """Return the bundle that the caller asks for; set what of `request` depends on the same flags.

    Args:
        bundle: what was loaded.
        request: the caller's.
        options: the command line.
        read: returns a file of the root file system, by its path in the container; for an image that is open already.
        entrypoint: the words that go before a COMMAND, of an image that has such; none for a bundle.

    Raises:
        RootlessError: `RL-USAGE`, `RL-USER`, `RL-CONFIG`: a flag is wrong; the error names it.
    """
    read = read or (image_reader if bundle.is_image else reader)(bundle.rootfs)
    edits = _Edits(bundle.config, options, read, entrypoint)
    edits.run()
    # an error is about the innermost edited place
    request.places = dict(sorted(edits.places.items(), key=lambda entry: -len(entry[0])))
    request.has_user = bool(options.user)
    request.device_sources = edits.sources
    request.no_input = edits.decides_streams and not options.interactive
    try:
        check(edits.config)
    except RootlessError as error:
        raise name_flag(error, request.places) from None
    text = render(edits.config).encode("utf-8", "surrogateescape")
    edited = Bundle(bundle.directory, edits.config, text)
    edited.rootfs, edited.is_image = bundle.rootfs, bundle.is_image
    return edited


def name_flag(error: RootlessError, places: dict[str, str]) -> RootlessError:
    """Let an error about an edited place of config.json name the flag."""
    error.where = _flag_at(error.where, places)
    return error


def name_flags(plan: Plan, places: dict[str, str]) -> Plan:
    """Let what a Plan does and notes about edited places of config.json name the flags; return the Plan."""
    for op in plan.ops:
        op.where = _flag_at(op.where, places)
    for note in plan.notes:
        note.where = _flag_at(note.where, places)
    return plan


def _flag_at(where: str, places: dict[str, str]) -> str:
    for place in places if where else ():
        if where == place or where.startswith((f"{place}.", f"{place}[")):
            return places[place]
    return where


def variables(options: Options) -> list[str]:
    """Return the variables of --env-file, --env-file0 and --env, as NAME=VALUE; later ones count.

    Raises:
        RootlessError: `RL-USAGE`: a file cannot be read, or a word has no name.
    """
    own = _Own()
    found: list[str] = []
    for path in options.env_file:
        words = environment.lines_of(asked_file("--env-file", path, "a file of variables, one a line"), path)
        found += environment.entries("--env-file", words, own)
    for path in options.env_file0:
        words = environment.records_of(
            asked_file("--env-file0", path, "a file of variables, with a NUL after each"), path
        )
        found += environment.entries("--env-file0", words, own)
    found += environment.entries("--env", options.env, own)
    return found


class _Own:
    """The variables of this process."""

    get = staticmethod(paths.set_variable)

    @staticmethod
    def items() -> list[tuple[str, str]]:
        """Return all names and values."""
        return [(name, value) for name, _, value in (entry.partition("=") for entry in paths.environment())]


class _Edits:
    """The edits of one command line.

    Attributes:
        config: the configuration so far.
        places: flags with their values, by the places that they have edited; an empty text for COMMAND.
        sources: paths of device nodes on the host, by their paths in the container.
        decides_streams: whether the flags decide about the terminal and standard input, not config.json.
    """

    def __init__(self, config: Config, options: Options, read: Read, entrypoint: Sequence[str]) -> None:
        self.config = config
        self.places: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self._mounted: dict[str, str] = {}  # flags by destinations of mounts
        self._nodes: dict[str, str] = {}  # flags by paths of devices
        self._options = options
        self._entrypoint = entrypoint
        self._read = read
        self._asked = {name for name, value in vars(options).items() if value != ()}
        self.decides_streams = not self._asked.isdisjoint(("args", "entrypoint", "interactive", "tty"))

    def run(self) -> None:
        """Make them all, those first that others depend on."""
        for step in (
            self._program,
            self._user,
            self._rlimits,
            self._names,
            self._mounts,
            self._limits,
            self._rights,
            self._devices,
        ):
            step()
        self._label("mounts", self.config.get("mounts"), "destination", self._mounted)
        self._label("linux.devices", (self.config.get("linux") or {}).get("devices"), "path", self._nodes)

    def _label(self, place: str, elements: Sequence[Config] | None, key: str, flags: dict[str, str]) -> None:
        """Note the flags of elements: they move while others are added before them."""
        for index, element in enumerate(elements or ()):
            if element[key] in flags:
                self.places[f"{place}[{index}]"] = flags[element[key]]

    def _program(self) -> None:
        options = self._options
        if options.args or options.entrypoint:
            words = process.entrypoint_words(options.entrypoint[-1]) if options.entrypoint else self._entrypoint
            if not (words or options.args):
                raise misused("--entrypoint", "", "there is no COMMAND either", "name a program to run")
            self.config = process.set_command(self.config, options.args, words)
            self.places["process.args"] = "--entrypoint" if any(options.entrypoint[-1:]) else ""
        if options.step_env:
            self.config = environment.add_variables(self.config, options.step_env)
        if variables_asked := variables(options):
            self.config = environment.set_variables(self.config, variables_asked)
            names = {entry.partition("=")[0] for entry in variables_asked}
            for index, entry in enumerate(self.config["process"]["env"]):
                name = entry.partition("=")[0]
                if name in names:
                    self.places[f"process.env[{index}]"] = f"--env {name}"
        if options.cwd:
            self.config = process.set_cwd(self.config, "--workdir", options.cwd)
            self.places["process.cwd"] = f"--workdir {options.cwd}"
        if self.decides_streams:
            self.config = process.set_terminal(self.config, terminal=options.tty)
            self.places["process.terminal"] = "--tty"

    def _user(self) -> None:
        options = self._options
        if options.user:
            self.config = process.set_user(self.config, identity("--user", options.user, self._read))
            self.places["process.user"] = f"--user {options.user}"
        if _KEEP_GROUPS in options.group_add:
            if len(options.group_add) > 1:
                raise misused("--group-add", _KEEP_GROUPS, "it excludes other groups", "remove the others")
            self.config = changed(self.config, "annotations", **{process.KEEP_ORIGINAL_GROUPS: "1"})
        elif options.group_add:
            gids = [group_id("--group-add", text, self._read) for text in options.group_add]
            self.config = process.add_groups(self.config, gids)
            self.places["process.user.additionalGids"] = "--group-add"

    def _rlimits(self) -> None:
        asked = self._options.ulimit
        if not asked:
            return
        self.config = process.set_rlimits(self.config, asked, _own_rlimits() if "host" in asked else {})
        for index, limit in enumerate(self.config["process"]["rlimits"]):
            name = limit["type"].removeprefix("RLIMIT_").lower()
            if any(text.lower().removeprefix("rlimit_").startswith(f"{name}=") for text in asked):
                self.places[f"process.rlimits[{index}]"] = f"--ulimit {name}"

    def _names(self) -> None:
        options = self._options
        if options.hostname:
            self.config = process.set_hostname(self.config, options.hostname)
            self.places["hostname"] = f"--hostname {options.hostname}"
        for flag, asked in (("--label", options.label), ("--annotation", options.annotation)):
            for text in asked:
                name, value = pair(flag, text, "NAME=VALUE") if flag == "--annotation" else _label(text)
                self.config = changed(self.config, "annotations", **{name: value})

    def _mounts(self) -> None:
        options = self._options
        if options.join not in ("", NONE):
            if options.shm_size:
                raise misused("--shm-size", options.shm_size, "with --join /dev/shm is the host's", "leave it out")
            self.config = mounts.share_shm(self.config)
        if options.shm_size:
            self.config = mounts.set_shm_size(self.config, options.shm_size)
        cwd = posix.getcwd()
        asked = [(mounts.of_volume(text, cwd), f"--volume {text}") for text in options.volume]
        asked += [(mounts.of_mount(text, cwd), f"--mount {text}") for text in options.mount]
        asked += [(mounts.of_tmpfs(text), f"--tmpfs {text}") for text in options.tmpfs]
        if twice := mounts.duplicate([mount for mount, _ in asked]):
            raise misused("--volume", twice, "two mounts have this destination", "remove one of them")
        for mount, flag in asked:
            if mount["type"] == "bind" and not paths.lexists(mount["source"]):
                cause = f"{mount['source']} does not exist"
                raise RootlessError(flag, cause=cause, fix="create it first, or correct the path", code="RL-USAGE")
        _warn_of_labels(options)
        self.config = mounts.add_mounts(self.config, [mount for mount, _ in asked])
        if options.read_only:
            self.config = mounts.set_read_only(self.config, tmpfs=options.read_only_tmpfs)
        self._mounted = {mount["destination"]: flag for mount, flag in asked}

    def _limits(self) -> None:
        options = self._options
        had_none = not (self.config.get("linux") or {}).get("resources")
        if options.memory or options.memory_swap or options.memory_reservation:
            self.config = resources.set_memory(
                self.config,
                limit=options.memory,
                swap=options.memory_swap,
                reservation=options.memory_reservation,
            )
        if options.cpus and (options.cpu_period or options.cpu_quota):
            raise misused("--cpus", options.cpus, "--cpu-period and --cpu-quota say the same", "give only one")
        if options.cpus:
            self.config = resources.set_cpus(self.config, options.cpus)
        for attribute in resources.LIMITS:
            if text := getattr(options, attribute):
                self.config = resources.set_limit(self.config, attribute, text)
        for flag in resources.IO_LIMITS:
            if texts := getattr(options, flag[2:].replace("-", "_")):
                self.config = resources.add_io_limits(self.config, flag, texts, numbers_of(flag))
        asked = [pair for attribute, pair in resources.places().items() if attribute in self._asked]
        self.places |= {f"linux.resources.{place}": flag for place, flag in asked}
        if asked and had_none:  # a warning is about all limits together
            self.places["linux.resources"] = ", ".join(flag for _, flag in asked)

    def _rights(self) -> None:
        options = self._options
        if options.cap_add or options.cap_drop:
            self.config = security.set_capabilities(self.config, options.cap_add, options.cap_drop)
            self.places["process.capabilities"] = "--cap-add" if options.cap_add else "--cap-drop"
        if options.security_opt:
            path = security.seccomp_file(options.security_opt)
            seccomp = _seccomp(path, self.config) if path else None
            self.config = security.set_security_options(self.config, options.security_opt, seccomp)
            if path:
                self.places["linux.seccomp"] = f"--security-opt seccomp={path}"
            if any(text.startswith("apparmor") for text in options.security_opt):
                self.places["process.apparmorProfile"] = "--security-opt apparmor"

    def _devices(self) -> None:
        options = self._options
        named = [text for text in options.device if security.is_device_name(text)]
        words = [each for text in options.device if text not in named for each in devices(text)]
        if words:
            self.config = security.add_devices(self.config, [(device, access) for device, access, _ in words])
            self._nodes |= {device["path"]: f"--device {device['path']}" for device, _, _ in words}
            self.sources |= {device["path"]: source for device, _, source in words}
        if named or options.gpus:
            paths.noted(paths.UNKNOWN, "CDI specs")
            # the last of all edits, as in podman
            edited = Edited(self.config, chosen(named, options.gpus))
            self.config = edited.config
            self.places |= edited.places
            self._mounted |= edited.mounts
            self._nodes |= edited.nodes
            self.sources |= edited.sources


def _label(text: str) -> tuple[str, str]:
    """Return the name and value of a label, which becomes an annotation and must not act as one of a runtime's."""
    name, _, value = text.partition("=")
    if not name:
        raise misused("--label", text, "there is no name", "write NAME=VALUE")
    if name.startswith(STEERING_ANNOTATIONS):
        raise misused(
            "--label", text, "runtimes act upon annotations of this name", "write --annotation if you mean it"
        )
    return name, value


def _warn_of_labels(options: Options) -> None:
    asked = any(word in ("z", "Z") for text in options.volume for word in text.split(":")[-1].split(","))
    if (asked or any("relabel=" in text for text in options.mount)) and paths.exists("/sys/fs/selinux/enforce"):
        fix = "run chcon -R -t container_file_t on the directory"
        log.warning("--volume: the option z or Z has no effect: rootless does not change SELinux labels", fix=fix)


def _own_rlimits() -> dict[int, tuple[int, int]]:
    """Return the caller's soft and hard limits; -1 is no limit."""
    import resource

    from rootless.linux import RLIMITS

    paths.noted(paths.UNKNOWN, "limits")
    return {number: resource.getrlimit(number) for number in range(len(RLIMITS))}


def _seccomp(path: str, config: Config) -> Config:
    from rootless.bundle.edit.seccomp_profile import linux_seccomp
    from rootless.host.facts import kernel_version

    text = asked_file("--security-opt", path, "a seccomp profile", f"seccomp={path}")
    uname = posix.uname()
    capabilities = ((config.get("process") or {}).get("capabilities") or {}).get("bounding") or ()
    return linux_seccomp(parse(text, path), path, uname.machine, kernel_version(uname.release), capabilities)


def asked_file(flag: str, path: str, kind: str, value: str = "") -> bytes:
    """Return the content of a file that the caller names, which is at most 4 MiB long."""
    text = b""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES + 1)
            files.note_identity(path, file.fileno())
        cause = "it is longer than 4 MiB" if len(text) > _MOST_BYTES else ""
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
    if cause:
        raise misused(flag, value or path, cause, f"name {kind}")
    return text
