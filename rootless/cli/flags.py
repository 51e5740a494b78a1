"""The declaration of the command line: every verb, flag and positional word, in runc's dialect and in crun's.

parse.py and people.py are both made from these tables, so a new flag is added here or in verbs.py, and its default in
rootless/options.py.
"""

from __future__ import annotations

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

TRUE_WORDS = ("true", "1", "t", "T", "TRUE", "True")
FALSE_WORDS = ("false", "0", "f", "F", "FALSE", "False")
"""What a switch may be given after `=`; the same words as Go's strconv.ParseBool, which runc's callers rely on."""

MAX_DIGITS = 9


class Flag:
    """One flag of the command line.

    Attributes:
        names: all spellings, the long one last: ``("-b", "--bundle")``.
        kind: SWITCH, VALUE, INTEGER, CHOICE or REPEATED.
        metavar: what help shows for the value; for CHOICE the choices themselves, as in ``table|json``.
        help: one line for people.
        dest: the attribute of Options; unless given, the long name.
        ignored: why it is harmless to accept this flag and do nothing; empty for a flag that does something.
        later: its feature does not exist yet and ignoring it would be wrong: refused.
    """

    __slots__ = ("dest", "help", "ignored", "kind", "later", "metavar", "names")

    def __init__(
        self,
        names: str,
        kind: str,
        metavar: str,
        help: str,  # noqa: A002 - the word that every command line library uses
        *,
        dest: str = "",
        ignored: str = "",
        later: bool = False,
    ) -> None:
        self.names = tuple(names.split())
        self.kind = kind
        self.metavar = metavar
        self.help = help
        self.dest = dest or self.names[-1][2:].replace("-", "_")
        self.ignored = ignored
        self.later = later


class Word:
    """One positional word: its name in help, the attribute of Options that it sets, whether it may be left out."""

    __slots__ = ("dest", "kind", "metavar", "optional")

    def __init__(self, metavar: str, dest: str, *, kind: str = VALUE, optional: bool = False) -> None:
        self.metavar = metavar
        self.dest = dest
        self.kind = kind
        self.optional = optional


class Verb:
    """One verb.

    Attributes:
        summary: one line for the list of verbs.
        flags: its own flags; before and after the verb there may be global ones (AFTER_VERB).
        words: its positional words; flags may stand between them and after them.
        rest: what takes all words after `words`, or None; where it begins, flags end.
        in_order: the rest begins right after `words`, even where it looks like a flag.
        everyday: a verb for people; the others are mostly called by container engines.
        about: more paragraphs for ``rootless VERB --help``.
        examples: command lines for the same.
    """

    __slots__ = ("about", "everyday", "examples", "flags", "in_order", "rest", "summary", "words")

    def __init__(
        self,
        summary: str,
        flags: Sequence[Flag] = (),
        words: Sequence[Word] = (),
        *,
        rest: Word | None = None,
        in_order: bool = False,
        everyday: bool = False,
        about: str = "",
        examples: Sequence[str] = (),
    ) -> None:
        self.summary = summary
        self.flags = flags
        self.words = words
        self.rest = rest
        self.in_order = in_order
        self.everyday = everyday
        self.about = about
        self.examples = examples


HELP = Flag("-h --help", SWITCH, "", "show this help")

GLOBAL_FLAGS = (
    Flag("--root", VALUE, "DIR", "where the state of containers is kept"),
    Flag("--log", VALUE, "FILE", "append warnings and errors to FILE"),
    Flag("--log-format", CHOICE, "text|json", "how the log is written"),
    Flag(
        "--log-level",
        CHOICE,
        "error|warning|info|debug",
        "the least that is logged; default: info in a log file, else warning",
    ),
    Flag("--debug", SWITCH, "", "log everything, as it happens; show where an internal error comes from"),
    Flag("-v -V --version", SWITCH, "", "print the version"),
    Flag("--systemd-cgroup", SWITCH, "", "let systemd make the cgroup"),
    Flag("--cgroup-manager", CHOICE, "cgroupfs|systemd|disabled", "who makes the cgroup; default: who can"),
    Flag(
        "--rootless",
        CHOICE,
        "true|false|auto",
        "whether a refused cgroup is an error",
        ignored="a limit that cannot be kept is a warning for everyone",
    ),
    Flag("--criu", VALUE, "PATH", "the criu program, for checkpoint and restore"),
)

AFTER_VERB = tuple(flag for flag in GLOBAL_FLAGS if "--version" not in flag.names)
"""The global flags that may follow the verb as well, where it has no flag of that name."""

BUNDLE = Flag("-b --bundle", VALUE, "DIR", "directory that holds config.json; default: the current one")
CONFIG = Flag("-f --config", VALUE, "FILE", "read FILE in the place of the bundle's config.json")
USERNS = Flag(
    "--userns",
    CHOICE,
    "keep-id|root|single",
    "how ids are mapped: you stay yourself inside; you are root inside; only your own id exists inside",
)
REQUIRE_LIMITS = Flag("--require-limits", SWITCH, "", "fail when a limit of resources cannot be enforced")

NETWORK_MODES = ("auto", "none", "host", "slirp4netns", "pasta", "container:")
NETWORK_FLAGS = (
    Flag(
        "--net --network",
        VALUE,
        "NETWORK",
        "auto, none, host, slirp4netns[:OPTIONS], pasta[:OPTIONS], container:CONTAINER, or one that `rootless network "
        "create` made; default: auto for a BUNDLE that is named, else what config.json says",
    ),
    Flag(
        "-p --publish",
        REPEATED,
        "[[IP:]HOST:]PORT[/udp]",
        "lead a port of the host, any that is free without HOST, or a range to one of the container",
    ),
    Flag("--add-host", REPEATED, "NAME:IP", "let the container find IP, or the host by host-gateway, by NAME"),
    Flag("--dns", REPEATED, "IP", "ask this server for names, not the host's"),
    Flag("--dns-search", REPEATED, "DOMAIN", "look for names in this domain, not the host's"),
)

_CREATE_FLAGS = (
    BUNDLE,
    CONFIG,
    USERNS,
    *NETWORK_FLAGS,
    REQUIRE_LIMITS,
    Flag("--pid-file", VALUE, "FILE", "write the process id of the container's first process to FILE"),
    Flag("--console-socket", VALUE, "SOCKET", "send the terminal's descriptor to this unix socket"),
    Flag("--preserve-fds", INTEGER, "N", "pass N more descriptors, from 3 on, to the container"),
    Flag("--no-pivot", SWITCH, "", "change the root without pivot_root, for bundles on a ramdisk"),
    Flag("--no-new-keyring", SWITCH, "", "keep the caller's session keyring"),
    Flag("--pidfd-socket", VALUE, "SOCKET", "send a pidfd of the container to this unix socket"),
    Flag(
        "--no-subreaper",
        SWITCH,
        "",
        "do not reap orphans of the container",
        ignored="who reaps the orphans of a container never depends on it",
    ),
)

_EXEC_FLAGS = (
    Flag("-e --env", REPEATED, "NAME=VALUE", "set a variable, besides those of the container's own process"),
    Flag("--cwd", VALUE, "DIR", "working directory; default: that of the container's own process"),
    Flag("-u --user", VALUE, "UID[:GID]", "run as these ids"),
    Flag("-g --additional-gids", REPEATED, "GID", "add a supplementary group"),
    Flag("-t --tty", SWITCH, "", "give the command a terminal"),
    Flag("-d --detach", SWITCH, "", "return as soon as the command runs"),
    Flag("-c --cap", REPEATED, "CAPABILITY", "add a capability"),
    Flag("--no-new-privs", SWITCH, "", "let the command gain no privileges by execve"),
    Flag("--apparmor", VALUE, "PROFILE", "the command's AppArmor profile"),
    Flag("--process-label", VALUE, "LABEL", "the command's SELinux label"),
    Flag("-p --process", VALUE, "FILE", "what to run: the process object of a config.json, in FILE"),
    Flag("--pid-file", VALUE, "FILE", "write the process id of the command to FILE"),
    Flag("--console-socket", VALUE, "SOCKET", "send the terminal's descriptor to this unix socket"),
    Flag("--pidfd-socket", VALUE, "SOCKET", "send a pidfd of the command to this unix socket"),
    Flag("--preserve-fds", INTEGER, "N", "pass N more descriptors, from 3 on, to the command"),
    Flag("--ignore-paused", SWITCH, "", "begin even in a paused container"),
    Flag("--cgroup", VALUE, "PATH", "run it in this cgroup below the container's"),
    Flag(
        "--no-subreaper",
        SWITCH,
        "",
        "do not reap orphans of the command",
        ignored="who reaps the orphans of a container never depends on it",
    ),
)

CONTAINER = Word("CONTAINER", "container")
_REGEX = Flag("-r --regex", SWITCH, "", "CONTAINER is a regular expression: every container in whose id it is found")
_PAUSED = "A paused container's processes stand still, in the freezer of its cgroup, until resume."
_LIFECYCLE = (
    "The life of a container: create makes it and holds it before its program, start lets the program run, "
    "kill sends it a signal, delete removes what is left. run is create, start, wait and delete in one."
)

ENGINE_VERBS = {
    "run": Verb(
        "run a bundle: its program is in the foreground until it ends",
        (
            *_CREATE_FLAGS,
            Flag("-d --detach", SWITCH, "", "return as soon as the program runs"),
            Flag("--keep", SWITCH, "", "keep the stopped container; rootless delete removes it"),
        ),
        (Word("BUNDLE|CONTAINER", "container"),),
        everyday=True,
        about="BUNDLE is a directory that holds config.json; the container is named after it. With --bundle, or when "
        "there is a config.json in the current directory, the word is the name of the container instead.\n\n"
        "The exit status is the program's own, or 128 plus the number of the signal that ended it.",
        examples=(
            "rootless run mybundle",
            "rootless run -d --bundle mybundle web1",
            "rootless run -d -p 8080:80 mybundle",
            "rootless run --network slirp4netns:allow_host_loopback=true mybundle",
        ),
    ),
    "exec": Verb(
        "run another command in a running container",
        _EXEC_FLAGS,
        (CONTAINER,),
        rest=Word("COMMAND", "args", optional=True),
        everyday=True,
        about="The command has the environment, the limits, the rights and the seccomp filter of the container's own "
        "process, as config.json has it, unless flags say otherwise. Flags end where COMMAND begins.\n\n"
        "The exit status is the command's own, 128 plus the number of the signal that ended it, or 255 when it could "
        "not be run.",
        examples=("rootless exec -t web1 sh", "rootless exec --user 1000 --env A=1 web1 env"),
    ),
    "create": Verb(
        "create a container, its program held until start",
        _CREATE_FLAGS,
        (CONTAINER,),
        about=_LIFECYCLE,
        examples=("rootless create --bundle mybundle web1 && rootless start web1",),
    ),
    "start": Verb("let the program of a created container run", (), (CONTAINER,), about=_LIFECYCLE),
    "state": Verb(
        "print the state of a container as JSON",
        (),
        (CONTAINER,),
        examples=("rootless state web1",),
    ),
    "kill": Verb(
        "send a signal to a container",
        (
            Flag("-a --all", SWITCH, "", "send it to every process of the container"),
            _REGEX,
        ),
        (CONTAINER, Word("SIGNAL", "signal", kind=SIGNAL, optional=True)),
        about="SIGNAL is a name such as TERM or SIGKILL, a number, or RTMIN+3; default: TERM.",
        examples=("rootless kill web1", "rootless kill --all web1 KILL"),
    ),
    "delete": Verb(
        "remove a stopped container",
        (
            Flag("-f --force", SWITCH, "", "kill it first if it runs; no error if there is no such container"),
            _REGEX,
        ),
        (CONTAINER,),
        examples=("rootless delete web1", "rootless delete --force --regex '^web'"),
    ),
    "list": Verb(
        "list your containers",
        (
            Flag("-f --format", CHOICE, "table|json", "how the list is written"),
            Flag("-q --quiet", SWITCH, "", "print ids only"),
        ),
        everyday=True,
    ),
    "ps": Verb(
        "list the processes of a container",
        (Flag("-f --format", CHOICE, "table|json", "how the list is written"),),
        (CONTAINER,),
        rest=Word("PS-OPTION", "args", optional=True),
        in_order=True,
        everyday=True,
        about="The table is that of the ps program; PS-OPTIONs are passed to it, default: -ef. "
        "Process ids are those of the host.",
        examples=("rootless ps web1", "rootless ps web1 -o pid,user,args", "rootless ps --format json web1"),
    ),
    "pause": Verb("stop all processes of a container for a while", (), (CONTAINER,), about=_PAUSED),
    "resume": Verb("let a paused container go on", (), (CONTAINER,), about=_PAUSED),
}
"""What container engines call; the other verbs are in verbs.py, so that these need not wait for them."""


def convert(declared: Flag | Word, text: str) -> bool | int | str:
    """Return the value that `text` stands for.

    Raises:
        ValueError: `text` is not such a value; the message says what is expected.
    """
    kind = declared.kind
    if kind in (VALUE, REPEATED):
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


def signal_number(text: str) -> int:
    """Return the number of the signal that `text` names, or -1: ``9``, ``KILL``, ``sigkill``, ``RTMIN+3``, ``RTMAX-1``.

    0 is a signal here: it asks whether the process is there, kill(2).
    """
    import _signal  # type: ignore[import-not-found] # the C half of signal, which typeshed leaves out

    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= MAX_DIGITS else -1
        return number if number < _signal.NSIG else -1
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+" if name.startswith("RTMIN") else "-")
    found = getattr(_signal, "SIG" + base, None) if base.isalnum() else None
    if found is None:
        return -1
    number = int(found)
    if sign:
        if base not in ("RTMIN", "RTMAX") or not (offset.isascii() and offset.isdigit()) or len(offset) > MAX_DIGITS:
            return -1
        number += int(offset) if sign == "+" else -int(offset)
        if not _signal.SIGRTMIN <= number <= _signal.SIGRTMAX:
            return -1
    return number
