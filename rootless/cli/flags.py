"""The declaration of the command line: flags, positional words and verbs, in runc's dialect and in crun's.

The parser, the help and the completion all read these tables. run_flags.py has the flags that people give to `run`,
commands.py and image_verbs.py have other verbs, and rootless/options.py has the defaults.
"""

from __future__ import annotations

from rootless.options import FALSE_WORDS, TRUE_WORDS
from rootless.signals import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SWITCH = "switch"
VALUE = "value"
INTEGER = "integer"
CHOICE = "choice"
SIGNAL = "signal"
REPEATED = "repeated"
"""A value each time that the flag is given."""
OPTIONAL = "optional"
"""A value behind `=`; without one the first word of the metavar is meant."""
NOT_YET = "not yet"
"""A flag of runc or crun that is refused, because its feature does not exist and ignoring it would do harm."""
LITERAL = "literal"
"""Of words: they are taken as they are, even where they look like flags."""

MAX_DIGITS = 9


class Flag:
    """One flag of the command line.

    Attributes:
        names: all spellings, the long one last: ``("-b", "--bundle")``.
        kind: SWITCH, VALUE, INTEGER, CHOICE, REPEATED, OPTIONAL or NOT_YET.
        metavar: what help shows for the value; for CHOICE the choices themselves, as in ``table|json``.
        help: one line for people.
        dest: the attribute of Options; unless given, the long name.
        ignored: why the flag is accepted and does nothing; empty for a flag that does something.
    """

    __slots__ = ("dest", "help", "ignored", "kind", "metavar", "names")

    def __init__(
        self,
        names: str,
        kind: str,
        metavar: str = "",
        help: str = "",  # noqa: A002 - the word that every command line library uses
        *,
        dest: str = "",
        ignored: str = "",
    ) -> None:
        self.names = tuple(names.split())
        self.kind = kind
        self.metavar = metavar
        self.help = help
        self.dest = dest or self.names[-1][2:].replace("-", "_")
        self.ignored = ignored


class Word:
    """One positional word: its name in help, the attribute of Options that it sets, whether it is optional."""

    __slots__ = ("dest", "kind", "metavar", "optional")

    def __init__(self, metavar: str, dest: str, *, kind: str = VALUE, optional: bool = False) -> None:
        self.metavar = metavar
        self.dest = dest
        self.kind = kind
        self.optional = optional


class Verb:
    """One verb.

    Attributes:
        run: the function that carries it out, as ``module:function`` below rootless. It takes the Options and returns
            the exit status, or None for 0.
        summary: one line for the list of verbs.
        flags: its own flags; global ones (AFTER_VERB) are accepted as well.
        sections: where all of its flags are, by the title that help has for them, if `flags` are only those of engines:
            ``module:NAME`` below rootless. The file is not read for a command line that engines write.
        words: its positional words; flags may stand between them and after them.
        rest: the name of all words after `words`, or None. Flags end where they begin; with LITERAL they begin right
            after `words`.
        about: more paragraphs for ``rootless VERB --help``.
        examples: command lines for the same.
    """

    __slots__ = ("about", "examples", "flags", "rest", "run", "sections", "summary", "words")

    def __init__(
        self,
        run: str,
        summary: str,
        flags: Sequence[Flag] = (),
        words: Sequence[Word] = (),
        *,
        rest: Word | None = None,
        sections: str = "",
        about: str = "",
        examples: Sequence[str] = (),
    ) -> None:
        self.run = run
        self.summary = summary
        self.flags = flags
        self.sections = sections
        self.words = words
        self.rest = rest
        self.about = about
        self.examples = examples

    def every_section(self) -> dict[str, Sequence[Flag]]:
        """Return all flags by the titles of their sections; without sections they have one title."""
        if not self.sections:
            return {"Flags": self.flags}
        module, _, name = self.sections.partition(":")
        found: dict[str, Sequence[Flag]] = getattr(__import__(f"rootless.{module}", None, None, (name,)), name)
        return found

    def every_flag(self) -> list[Flag]:
        """Return all flags, those of the sections too."""
        return [flag for flags in self.every_section().values() for flag in flags]


HELP = Flag("-h --help", SWITCH, "", "show this help")
VERSION = Flag("-v -V --version", SWITCH, "", "print the version")

AFTER_VERB = (
    Flag("--root", VALUE, "DIR", "directory of the containers' state"),
    Flag("--log", VALUE, "FILE", "append warnings and errors to FILE"),
    Flag("--log-format", CHOICE, "text|json", "format of the log (default: text)"),
    Flag(
        "--log-level",
        CHOICE,
        "error|warning|info|debug",
        "lowest level that is logged (default: info in a log file, else warning)",
    ),
    Flag("--debug", SWITCH, "", "log each step; on an internal error, print the traceback"),
    Flag("--systemd-cgroup", SWITCH, "", "have systemd create the cgroup"),
    Flag(
        "--cgroup-manager",
        CHOICE,
        "cgroupfs|systemd|disabled",
        "cgroup manager (default: the first one that works)",
    ),
    Flag(
        "--rootless",
        CHOICE,
        "true|false|auto",
        "whether an unenforceable limit is an error",
        ignored="it is a warning for every caller; see --require-limits",
    ),
    Flag("--criu", VALUE, "PATH", "criu program for checkpoint and restore"),
)
"""The global flags that may also follow the verb, where it has no flag of that name."""
GLOBAL_FLAGS = (*AFTER_VERB, VERSION)

BUNDLE = Flag("-b --bundle", VALUE, "DIR", "directory that holds config.json (default: the current directory)")
CONFIG = Flag("-f --config", VALUE, "FILE", "read FILE instead of the bundle's config.json")
USERNS = Flag(
    "--userns",
    VALUE,
    "keep-id[:uid=N,gid=N]|root|single|systemd",
    "user namespace: keep-id keeps your own ids inside or makes you N, root makes you root inside, single maps only "
    "your own id, systemd lends an image 65536 ids without yours",
)
FAKE_CHOWN = Flag(
    "--fake-chown",
    SWITCH,
    "",
    "whether changes of owner and of user seem to succeed in a container that has only your own id (default: true)",
)
REQUIRE_LIMITS = Flag("--require-limits", SWITCH, "", "fail if a resource limit cannot be enforced")
PID_FILE = Flag("--pid-file", VALUE, "FILE", "write the process id of the container's first process to FILE")
CONSOLE_SOCKET = Flag("--console-socket", VALUE, "SOCKET", "send the terminal's file descriptor to this Unix socket")
KEEP = Flag("--keep", SWITCH, "", "keep the stopped container; rootless delete removes it")
PLAN = Flag("--plan", VALUE, "FILE", "run the plan that explain --json wrote (for debugging)")
DETACH = Flag("-d --detach", SWITCH, "", "return as soon as the program runs")
ENV = Flag("-e --env", REPEATED, "NAME[=VALUE]", "set an environment variable, or pass on your own")
ENV_FILE = Flag("--env-file", REPEATED, "FILE", "set the environment variables in FILE, one a line")
TTY = Flag("-t --tty", SWITCH, "", "allocate a terminal")
NO_SUBREAPER = Flag(
    "--no-subreaper", SWITCH, "", "do not become a subreaper", ignored="rootless never acts as a subreaper"
)
LIST_FORMAT = Flag("-f --format", CHOICE, "table|json", "output format (default: table)")

NETWORK_MODES = ("auto", "none", "host", "slirp4netns", "pasta", "container:")
NETWORK_FLAGS = (
    Flag(
        "--net --network",
        VALUE,
        "NETWORK",
        "auto, none, host, slirp4netns[:OPTIONS], pasta[:OPTIONS], container:CONTAINER, or the name of a network from "
        "`rootless network create` (default: auto if a BUNDLE is named, otherwise config.json decides)",
    ),
    Flag(
        "-p --publish",
        REPEATED,
        "[[IP:]HOST:]PORT[/udp]",
        "publish a container port or a range of ports on the host; without HOST, on a free port",
    ),
    Flag(
        "--add-host",
        REPEATED,
        "NAME:IP",
        "add NAME to the container's /etc/hosts; the IP host-gateway stands for the host",
    ),
    Flag("--dns", REPEATED, "IP", "use this DNS server instead of the host's"),
    Flag("--dns-search", REPEATED, "DOMAIN", "use this DNS search domain instead of the host's"),
)

CREATE_FLAGS = (
    BUNDLE,
    CONFIG,
    USERNS,
    FAKE_CHOWN,
    *NETWORK_FLAGS,
    REQUIRE_LIMITS,
    PID_FILE,
    CONSOLE_SOCKET,
    Flag("--preserve-fds", INTEGER, "N", "pass N more file descriptors to the container, from 3 on"),
    Flag("--no-pivot", SWITCH, "", "change the root without pivot_root, for bundles on a ramdisk"),
    Flag("--no-new-keyring", SWITCH, "", "keep the caller's session keyring"),
    Flag("--pidfd-socket", VALUE, "SOCKET", "send a pidfd of the container to this Unix socket"),
    NO_SUBREAPER,
)

_EXEC_FLAGS = (
    ENV,
    ENV_FILE,
    Flag("-w --workdir --cwd", VALUE, "DIR", "working directory (default: that of the container's own process)"),
    Flag("-u --user", VALUE, "USER[:GROUP]", "run the command as this user, by name or by id"),
    Flag("-i --interactive", SWITCH, "", "keep standard input open", ignored="it always is"),
    Flag("-g --additional-gids", REPEATED, "GID", "add a supplementary group"),
    TTY,
    Flag("-d --detach", SWITCH, "", "return as soon as the command runs"),
    Flag("-c --cap", REPEATED, "CAPABILITY", "add a capability"),
    Flag("--no-new-privs", SWITCH, "", "forbid the command to gain privileges by execve"),
    Flag("--apparmor", VALUE, "PROFILE", "AppArmor profile of the command"),
    Flag("--process-label", VALUE, "LABEL", "SELinux label of the command"),
    Flag("-p --process", VALUE, "FILE", "read the command from FILE, a process object as in config.json"),
    Flag("--pid-file", VALUE, "FILE", "write the process id of the command to FILE"),
    CONSOLE_SOCKET,
    Flag("--pidfd-socket", VALUE, "SOCKET", "send a pidfd of the command to this Unix socket"),
    Flag("--preserve-fds", INTEGER, "N", "pass N more file descriptors to the command, from 3 on"),
    Flag("--ignore-paused", SWITCH, "", "accept a paused container"),
    Flag("--cgroup", VALUE, "PATH", "run the command in this cgroup below the container's"),
    NO_SUBREAPER,
)

CONTAINER = Word("CONTAINER", "container")
_REGEX = Flag("-r --regex", SWITCH, "", "treat CONTAINER as a regular expression; act on every matching id")
_PAUSED = "The freezer of the container's cgroup holds all processes of a paused container until resume."
_LIFECYCLE = (
    "Lifecycle: create sets up the container and stops before its program, start runs the program, kill sends a "
    "signal, delete removes the container. run does create, start, wait and delete in one."
)

ENGINE_VERBS = {
    "run": Verb(
        "container.run:run",
        "run a bundle or an image in the foreground",
        (
            *CREATE_FLAGS,
            DETACH,
            KEEP,
            PLAN,
        ),
        (Word("BUNDLE|IMAGE|CONTAINER", "container"),),
        rest=Word("COMMAND", "args", optional=True),
        sections="cli.run_flags:RUN",
        about="BUNDLE is a directory that holds config.json; the container is named after it. IMAGE is a reference "
        "such as docker://debian:13, or an image file; the container is named after it, with random digits. With "
        "--bundle, or if the current directory holds a config.json, the argument is the name of the container.\n\n"
        "COMMAND and its arguments replace those of config.json. Flags end where it begins, or at --. The program then "
        "has a terminal with -t and your standard input with -i only; without COMMAND, config.json decides.\n\n"
        "The exit status is that of the program, or 128 plus the number of the signal that killed it.",
        examples=(
            "rootless run mybundle",
            "rootless run docker://debian:13 cat /etc/os-release",
            "rootless run -it -v .:/src -w /src -e CI=1 -m 512M mybundle make",
            "rootless run -d --bundle mybundle web1",
            "rootless run -d -p 8080:80 mybundle",
            "rootless run --network slirp4netns:allow_host_loopback=true mybundle",
        ),
    ),
    "exec": Verb(
        "container.inside.exec:execute",
        "run another command in a running container",
        _EXEC_FLAGS,
        (CONTAINER,),
        rest=Word("COMMAND", "args", optional=True),
        about="The command gets the environment, limits, capabilities and seccomp filter of the container's own "
        "process from config.json, unless flags change them. Flags end where COMMAND begins.\n\n"
        "The exit status is that of the command, 128 plus the number of the signal that killed it, or 255 if the "
        "command could not be run.",
        examples=("rootless exec -t web1 sh", "rootless exec --user 1000 --env A=1 web1 env"),
    ),
    "create": Verb(
        "container.create:create",
        "create a container and stop before its program",
        CREATE_FLAGS,
        (CONTAINER,),
        about=_LIFECYCLE,
        examples=("rootless create --bundle mybundle web1 && rootless start web1",),
    ),
    "start": Verb(
        "container.control.start:start",
        "start the program of a created container",
        (),
        (CONTAINER,),
        about=_LIFECYCLE,
        examples=("rootless start web1",),
    ),
    "state": Verb(
        "cli.output:state",
        "print the state of a container as JSON",
        (),
        (CONTAINER,),
        examples=("rootless state web1",),
    ),
    "kill": Verb(
        "container.control.kill:kill",
        "send a signal to a container",
        (Flag("-a --all", SWITCH, "", "send it to every process of the container"), _REGEX),
        (CONTAINER, Word("SIGNAL", "signal", kind=SIGNAL, optional=True)),
        about="SIGNAL is a name such as TERM or SIGKILL, a number, or RTMIN+3 (default: TERM).",
        examples=("rootless kill web1", "rootless kill --all web1 KILL"),
    ),
    "delete": Verb(
        "container.removal.delete:delete",
        "remove a stopped container",
        (
            Flag("-f --force", SWITCH, "", "kill a running container first; ignore a missing one"),
            _REGEX,
        ),
        (CONTAINER,),
        examples=("rootless delete web1", "rootless delete --force --regex '^web'"),
    ),
    "list": Verb(
        "cli.output:list_containers",
        "list your containers",
        (LIST_FORMAT, Flag("-q --quiet", SWITCH, "", "print only ids")),
        examples=("rootless list", "rootless list --format json | jq '.[].status'"),
    ),
    "ps": Verb(
        "cli.output:ps",
        "list the processes of a container",
        (LIST_FORMAT,),
        (CONTAINER,),
        rest=Word("PS-OPTION", "args", kind=LITERAL, optional=True),
        about="The table comes from the ps program, which gets every PS-OPTION (default: -ef). The process ids are "
        "those of the host.",
        examples=("rootless ps web1", "rootless ps web1 -o pid,user,args", "rootless ps --format json web1"),
    ),
    "pause": Verb(
        "container.control.pause:pause",
        "freeze all processes of a container",
        (),
        (CONTAINER,),
        about=_PAUSED,
        examples=("rootless pause web1",),
    ),
    "resume": Verb(
        "container.control.pause:resume",
        "thaw a paused container",
        (),
        (CONTAINER,),
        about=_PAUSED,
        examples=("rootless resume web1",),
    ),
}
"""The verbs that container engines call; commands.py has the others, which these do not wait for."""


def convert(declared: Flag | Word, text: str) -> bool | int | str:
    """Return the value that `text` stands for.

    Raises:
        ValueError: `text` is not such a value; the message says what is expected.
    """
    kind = declared.kind
    if kind in (VALUE, REPEATED, OPTIONAL, LITERAL):
        return text
    if kind == SWITCH:
        if text in TRUE_WORDS:
            return True
        if text in FALSE_WORDS:
            return False
        message = f"{text!r} is neither true nor false"
    elif kind == INTEGER:
        if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
            return int(text)
        message = f"{text!r} is not a number of 0 or more"
    elif kind == CHOICE:
        choices = declared.metavar.split("|")
        if text in choices:
            return text
        message = f"{text!r} is not one of {', '.join(choices)}"
    else:
        number = signal_number(text)
        if number >= 0:
            return number
        message = f"unknown signal {text!r}: name one such as TERM, SIGKILL, 9 or RTMIN+3"
    raise ValueError(message)
