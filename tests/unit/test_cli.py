"""The command line: the meaning of every spelling, the words of refusals, help, and exit statuses."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootless.cli import click_app, output, parser
from rootless.cli.commands import EVERYDAY_VERBS, VERBS
from rootless.cli.flags import (
    AFTER_VERB,
    CHOICE,
    ENGINE_VERBS,
    GLOBAL_FLAGS,
    HELP,
    INTEGER,
    LITERAL,
    NOT_YET,
    OPTIONAL,
    REPEATED,
    SIGNAL,
    SWITCH,
    VALUE,
    signal_number,
)
from rootless.cli.usage import _COUNTERPARTS, _NOT_YET
from rootless.container.request import choose_bundle
from rootless.errors import RootlessError
from rootless.options import Options
from rootless.plan.request import Request

ROOT = Path(__file__).resolve().parents[2]


def parse(argv):
    return parser.parse(argv, lambda _: None)


def refusal(argv):
    with pytest.raises(RootlessError) as caught:
        parse(argv)
    return caught.value


PROGRAM = [sys.executable, "-m", "rootless"]


def rootless(*argv, program=PROGRAM, cwd=None, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [*program, *argv],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


# The declaration


def declared():
    for flag in GLOBAL_FLAGS:
        yield "", flag
    for name, verb in VERBS.items():
        for flag in verb.every_flag():
            yield name, flag


@pytest.mark.parametrize("flag", [pytest.param(flag, id=verb + flag.names[-1]) for verb, flag in declared()])
def test_every_stored_flag_is_an_option_of_its_type(flag):
    assert flag.names[-1].startswith("--")
    if not flag.ignored and flag.kind != NOT_YET:
        expected = {SWITCH: bool, INTEGER: int, REPEATED: tuple}.get(flag.kind, str)
        assert type(getattr(Options, flag.dest)) is expected
    if flag.kind == SWITCH:
        assert not flag.metavar
        is_on = flag.dest in ("fake_chown", "read_only_tmpfs")
        assert getattr(Options, flag.dest, is_on) is is_on, "no other switch is on by default"


def test_an_optional_value_may_be_missing_and_not_empty():
    """An empty variable of a script must not mean another place for the changes."""
    assert parse(["run", "--overlay", "box"]).overlay == "memory"
    assert parse(["run", "--overlay=changes", "box"]).overlay == "changes"
    for verb in ("run", "explain"):
        error = refusal([verb, "--overlay=", "box"])
        assert (error.code, "flag needs an argument: --overlay=" in error.what + error.cause) == ("RL-USAGE", True)


def test_options_do_not_change_after_parsing():
    options = parse(["run", "box"])
    with pytest.raises(AttributeError, match="network"):
        options.network = "none"


@pytest.mark.parametrize("name", VERBS)
def test_no_name_is_declared_twice(name):
    names = [spelling for flag in (*VERBS[name].every_flag(), HELP) for spelling in flag.names]
    assert len(names) == len(set(names))
    optional = [word.optional for word in VERBS[name].words]
    assert optional == sorted(optional), "an optional word comes last"


@pytest.mark.parametrize("name", VERBS)
def test_the_flags_of_engines_are_among_those_of_the_sections(name):
    assert set(VERBS[name].flags) <= set(VERBS[name].every_flag())


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_a_function(name):
    module, _, function = VERBS[name].run.partition(":")
    assert callable(getattr(importlib.import_module(f"rootless.{module}"), function))


def test_every_verb_is_listed_once():
    assert ENGINE_VERBS.items() <= VERBS.items()
    assert EVERYDAY_VERBS.items() <= VERBS.items()
    assert not set(_NOT_YET) & set(VERBS)


# Command lines of callers of runc and crun, as recorded by a wrapper

FROM_CALLERS = [
    # podman with conmon
    "--log-format=json --log /run/oci-log create --bundle /b --pid-file /p c1",
    "--log-format=json --log /l --cgroup-manager disabled create --bundle /b --pid-file /p --preserve-fds 2 c1",
    "--systemd-cgroup create --bundle /b --pid-file /p --no-pivot --no-new-keyring --console-socket /s c1",
    "start c1",
    "kill c1 15",
    "kill --all c1 9",
    "delete --force c1",
    "--version",
    # buildah
    "create --bundle /b --pid-file /p --no-pivot --no-new-keyring --console-socket /s c1",
    "state c1",
    "delete c1",
    "kill c1 SIGKILL",
    "kill c1",
    # containerd's shim, dockerd
    "--root /r/k8s.io --log /l/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /p c1",
    "--root /r/moby --log /l/log.json --log-format json start c1",
    "--root /r --log /l --log-format json kill --all c1 9",
    "--root /r --log /l --log-format json delete --force c1",
    # CRI-O
    "--root /r --systemd-cgroup state c1",
    "--root=/r kill c1 TERM",
    "--root=/r kill -a c1 9",
    # BuildKit
    "--log /l/runc-log.json --log-format json run --bundle /b --no-pivot --keep c1",
    "run --bundle /b --keep -no-subreaper --detach c1",
    # Slurm's documented patterns
    "--rootless=true --root=/run/user/1000/ state n1.root.5.4294967291.0",
    "--rootless=true --root=/run/user/1000/ kill -a n1.root.5.4294967291.0",
    "--rootless=true --root=/run/user/1000/ delete --force n1.root.5.4294967291.0",
    "--rootless=true --root=/run/user/1000/ run n1.root.5.4294967291.0 -b /spool/oci-job5-batch/task-0",
    "--rootless=true --root=/run/user/1000/ create n1.root.5.4294967291.0 -b /spool/oci-job5-batch/task-0",
    "--rootless=true --root=/run/user/1000/ start n1.root.5.4294967291.0",
    # flags of crun
    "--cgroup-manager=systemd --debug --log=file:/l --log-level=debug --rootless=auto create -f /c.json -b /b c1",
    "kill -r web.* KILL",
    "delete -fr web.*",
    "list -f json",
    "list -q",
    "spec -f other.json --rootless -b /b",
    "run -db /b c1",
    # exec, by conmon, containerd's shim and CRI-O
    "--log-format=json --log /l exec --pid-file /p --process /f --detach --preserve-fds 1 c1",
    "--log-format=json --log /l exec --pid-file /p --process /f --console-socket /s c1",
    "--root /r --log /l --log-format json exec --process /f --console-socket /s --detach --pid-file /p c1",
    "--root=/r exec --process /f c1",
    # other command lines of podman, containerd and CRI-O
    "pause c1",
    "resume c1",
    "--root /r --log /l --log-format json ps --format json c1",
    "update --resources=/f c1",
    "--root /r update --resources - c1",
    "--root /r --log /l --log-format json update --resources=- c1",
    "checkpoint --image-path /i --work-path /w --leave-running --tcp-established --file-locks --parent-path ../p c1",
    "checkpoint --image-path /i --work-path /w --pre-dump c1",
    "restore --bundle /b --pid-file /p --detach --image-path /i --work-path /w --no-pivot --no-new-keyring c1",
    "restore --image-path /i --ext-unix-sk --shell-job --empty-ns network -no-subreaper --detach --bundle /b c1",
    "checkpoint --image-path /i --ext-unix-sk --shell-job --empty-ns network --parent-path ../p c1",
    "checkpoint --file-locks --image-path /i --work-path /w c1",
    "restore --bundle /b --pid-file /p --detach --image-path /i --work-path /w --tcp-close --lsm-profile apparmor:x c1",
    "restore --bundle /b --image-path /i --work-path /w --lsm-mount-context x --tcp-established --file-locks c1",
    "restore --image-path /i --work-path /w -no-subreaper --detach --pid-file /p --bundle /b c1",
    "features",
    # runc's and crun's documentation
    "ps c1 -o pid,cmd",
    "ps -f json c1",
    "events --stats c1",
    "events --interval=500ms c1",
    "update --memory 256m --memory-swap -1 --cpu-quota=-1 --pids-limit 10 --kernel-memory 1 c1",
    # runc up to 1.1
    "--criu /usr/sbin/criu run -d -bundle=/b c1",
]


@pytest.mark.parametrize("line", FROM_CALLERS)
def test_command_lines_of_callers_are_parsed(line):
    argv = line.split()
    options = parse(argv)
    words = [word for word in argv if word.startswith(("c1", "n1.", "web"))]
    assert [options.container] == words or not words


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("run --network slirp4netns:mtu=1500,cidr=10.1.0.0/24 b", {"network": "slirp4netns:mtu=1500,cidr=10.1.0.0/24"}),
        ("create --net=container:c0 c1", {"network": "container:c0"}),
        ("run -p8080:80 -p [::1]:53:53/udp --publish=9 b", {"publish": ("8080:80", "[::1]:53:53/udp", "9")}),
        ("run --add-host db:192.0.2.1 -add-host=h:host-gateway b", {"add_host": ("db:192.0.2.1", "h:host-gateway")}),
        (
            "explain --dns 192.0.2.1 --dns ::1 --dns-search a.test b",
            {"dns": ("192.0.2.1", "::1"), "dns_search": ("a.test",)},
        ),
        ("network create --subnet 10.1.0.0/24 n", {"action": "create", "subnet": "10.1.0.0/24", "container": "n"}),
        ("network ls -qf json", {"action": "ls", "quiet": True, "format": "json"}),
        ("port c1", {"container": "c1"}),
    ],
)
def test_flags_of_networks(line, asked):
    options = parse(line.split())
    assert {name: getattr(options, name) for name in asked} == asked


def test_a_create_of_podman_in_detail():
    options = parse(FROM_CALLERS[1].split())
    assert vars(options) == {
        "verb": "create",
        "log_format": "json",
        "log": "/l",
        "bundle": "/b",
        "pid_file": "/p",
        "preserve_fds": 2,
        "cgroup_manager": "disabled",
        "container": "c1",
    }


UNION = {
    "": "--debug --log --log-format --log-level --root --rootless --systemd-cgroup --cgroup-manager --criu -v "
    "-V --version -h --help",
    "create": "-b --bundle --console-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --pidfd-socket -f "
    "--config --no-subreaper",
    "run": "-b --bundle --console-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --pidfd-socket -f "
    "--config --no-subreaper -d --detach --keep",
    "start": "",
    "state": "",
    "pause": "",
    "resume": "",
    "exec": "--console-socket --pidfd-socket --cwd -e --env -t --tty -u --user -g --additional-gids -p --process "
    "-d --detach --pid-file --process-label --apparmor --no-new-privs -c --cap --preserve-fds --cgroup "
    "--ignore-paused",
    "kill": "-a --all -r --regex",
    "delete": "-f --force -r --regex",
    "list": "-f --format -q --quiet",
    "ps": "-f --format",
    "events": "--interval --stats",
    "update": "-r --resources --blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period "
    "--cpu-rt-runtime --cpuset-cpus --cpuset-mems --cpu-idle --memory --memory-reservation --memory-swap "
    "--kernel-memory --kernel-memory-tcp --pids-limit --l3-cache-schema --mem-bw-schema",
    "checkpoint": "--image-path --work-path --parent-path --leave-running --tcp-established --tcp-skip-in-flight "
    "--link-remap --ext-unix-sk --shell-job --lazy-pages --status-fd --page-server --file-locks --pre-dump "
    "--manage-cgroups-mode --empty-ns --auto-dedup --network-lock",
    "restore": "--console-socket --image-path --work-path --tcp-established --tcp-close --ext-unix-sk --shell-job "
    "--file-locks --manage-cgroups-mode -b --bundle -d --detach --pid-file --no-subreaper --no-pivot "
    "--empty-ns --auto-dedup --lazy-pages --lsm-profile --lsm-mount-context --network-lock",
    "spec": "-b --bundle --rootless -f --file",
    "features": "",
}
"""Every flag of runc (up to 1.3) and crun (up to 1.21), by verb; the verb "" has the global ones."""


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in UNION.items() for name in names.split()])
def test_every_flag_of_runc_and_crun_does_something_or_is_ignored_or_refused_in_words(verb, name):
    [flag] = [flag for flag in (*(VERBS[verb].flags if verb else GLOBAL_FLAGS), HELP) if name in flag.names]
    words = ["c1"] if verb and VERBS[verb].words else []
    value = {SWITCH: "true", CHOICE: flag.metavar.split("|")[0], INTEGER: "1"}.get(flag.kind, "x")
    name = name.lstrip("-")
    for own in ([f"-{name}={value}"], [f"--{name}={value}"], [f"--{name}", value], [f"-{name}", value]):
        if flag.kind == SWITCH:
            own = own[:1]  # noqa: PLW2901 - its value is never a word of its own
        argv, without = ([verb, *own, *words], [verb, *words]) if verb else ([*own, "list"], ["list"])
        if flag.kind == NOT_YET:
            error = refusal(argv)
            assert (error.code, flag.names[-1] in error.what) == ("RL-NOT-YET", True)
        elif flag is HELP:
            assert parse(argv).help
        else:
            options = parse(argv)
            assert vars(options).keys() - vars(parse(without)).keys() == (set() if flag.ignored else {flag.dest})


def test_no_verb_of_runc_and_crun_is_missing():
    assert UNION.keys() - {""} <= VERBS.keys()


# Generated command lines

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=6) | st.sampled_from(
    ["--", "-", "-b", "--bundle", "=", "", "-1", "true", "run", "--help"]
)
TRUTHS = {"true": True, "1": True, "T": True, "false": False, "0": False, "False": False}
SIGNALS = {"TERM": 15, "SIGKILL": 9, "sigint": 2, "0": 0, "64": 64, "RTMIN+3": 37, "SIGRTMAX-1": 63}


def values(kind, metavar):
    """Texts for one value, with their meanings."""
    if kind == INTEGER:
        return st.integers(0, 10**8).map(lambda number: (str(number), number))
    if kind == CHOICE:
        return st.sampled_from(metavar.split("|")).map(lambda choice: (choice, choice))
    if kind == SIGNAL:
        return st.sampled_from(sorted(SIGNALS.items()))
    assert kind in (VALUE, REPEATED)
    return TEXT.map(lambda text: (text, text))


@st.composite
def spelled_flag(draw, flag, known):
    """Arguments that spell `flag`, and its resulting value."""
    name = draw(st.sampled_from(flag.names))
    bare = name.lstrip("-")
    dashes = draw(st.sampled_from(["-", "--"]))
    if flag.kind == OPTIONAL:
        text = draw(st.none() | TEXT)
        word = flag.metavar.partition("|")[0] if text is None else text
        return [f"{dashes}{bare}" + ("" if text is None else f"={text}")], word
    if flag.kind == SWITCH:
        text = draw(st.sampled_from([None, *TRUTHS]))
        return [f"{dashes}{bare}" + (f"={text}" if text else "")], TRUTHS[text] if text else True
    text, value = draw(values(flag.kind, flag.metavar))
    forms = [[f"{dashes}{bare}={text}"], [f"{dashes}{bare}", text]]
    attached = bare + text
    if len(bare) == 1 and text and attached.partition("=")[0] not in known:
        forms.append([f"-{attached}"])
    return draw(st.sampled_from(forms)), value


@st.composite
def spelled_flags(draw, flags):
    """Draw a list of ``(arguments, dest or None, value)``."""
    known = {name.lstrip("-") for flag in (*flags, HELP) for name in flag.names}
    usable = [flag for flag in flags if flag.kind != NOT_YET and flag.dest != "version"]
    if not usable:
        return []
    chosen = draw(st.lists(st.sampled_from(usable), max_size=5))
    return [(*draw(spelled_flag(flag, known)), flag) for flag in chosen]


@st.composite
def command_lines(draw):
    """Draw a well-formed command line and the attributes of its Options."""
    name = draw(st.sampled_from(sorted(VERBS)))
    verb = VERBS[name]
    meant = {"verb": name}
    argv = []
    for arguments, value, flag in draw(spelled_flags(GLOBAL_FLAGS)):
        argv += arguments
        if not flag.ignored:
            meant[flag.dest] = value
    argv += draw(st.sampled_from([[name], ["--", name]]))

    groups = []
    for arguments, value, flag in draw(spelled_flags(verb.every_flag())):
        groups.append(arguments)
        if flag.kind == REPEATED:
            meant[flag.dest] = (*meant.get(flag.dest, ()), value)
        elif not flag.ignored:
            meant[flag.dest] = value
    words = []
    for word in verb.words:
        if word.optional and draw(st.booleans()):
            break
        text, value = draw(values(word.kind, word.metavar))
        words.append(text)
        meant[word.dest] = value
    rest = draw(st.lists(TEXT, max_size=3)) if verb.rest and len(words) == len(verb.words) else []
    if verb.rest:
        meant[verb.rest.dest] = tuple(rest)

    ordered = draw(arranged(verb, groups, words, rest))
    return [*argv, *(argument for group in ordered for argument in group)], meant


@st.composite
def arranged(draw, verb, groups, words, rest):
    """Draw an order of the groups of arguments (flags, words and the rest) that does not change the meaning."""
    if any(is_like_a_flag(word) for word in words) or draw(st.booleans()):
        return [*groups, ["--", *words, *rest]]
    if verb.rest and verb.rest.kind == LITERAL:
        return [*groups, words, ["--", *rest] if rest[:1] == ["--"] or draw(st.booleans()) else rest]
    order = draw(st.permutations([True] * len(groups) + [False] * len(words)))
    of_flags, of_words = iter(groups), iter(words)
    ordered = [next(of_flags) if is_flag else [next(of_words)] for is_flag in order]
    return [*ordered, ["--", *rest] if is_like_a_flag(*rest[:1]) or draw(st.booleans()) else rest]


def is_like_a_flag(text=""):
    return text.startswith("-") and text != "-"


@given(command_lines())
@example((["run", "x", "-b", "d"], {"verb": "run", "container": "x", "bundle": "d", "args": ()}))
@example((["explain", "here", "-b", "there"], {"verb": "explain", "bundle": "here", "args": ()}))
@example(
    (
        ["run", "-itv", ".:/src", "-m512M", "-eA=B=c", "-v=a:/b:ro", "x", "make", "-j2", "--", "-t"],
        dict(
            verb="run",
            interactive=True,
            tty=True,
            volume=(".:/src", "a:/b:ro"),
            memory="512M",
            env=("A=B=c",),
            container="x",
            args=("make", "-j2", "--", "-t"),
        ),
    )
)
@example((["run", "x", "-t=false", "--", "-t"], dict(verb="run", tty=False, container="x", args=("-t",))))
@example(
    (
        ["run", "-pids-limit=3", "-blkio-weight", "10", "x"],
        dict(verb="run", pids_limit="3", blkio_weight="10", container="x", args=()),
    )
)
@example((["new", "d", "ls", "--from"], {"verb": "new", "directory": "d", "args": ("ls", "--from")}))
@example((["ps", "c", "-f", "json", "--"], {"verb": "ps", "container": "c", "args": ("-f", "json", "--")}))
@example(
    (
        ["exec", "-e", "A=1", "--env=B", "c", "env", "-i"],
        dict(verb="exec", env=("A=1", "B"), container="c", args=("env", "-i")),
    )
)
@example((["new", "d", "--from", "x", "--", "-l"], dict(verb="new", directory="d", from_file="x", args=("-l",))))
@example((["delete", "--force", "--force=false", "x"], {"verb": "delete", "force": False, "container": "x"}))
def test_every_spelling_has_its_meaning(line):
    argv, meant = line
    assert vars(parse(argv)) == meant


ODD = """-- - x = --bundle=x -bx -fq -qf json 9 TERM -9 --force=perhaps -no-pivot --nonsense -Z ---x --=x -=
    --preserve-fds=-1 --preserve-fds=x --keep=false exec --b=x -h=false --help=true"""
SNIPPETS = st.sampled_from([*VERBS, *(name for _, flag in declared() for name in flag.names), *ODD.split()])


@given(st.lists(SNIPPETS | TEXT, max_size=7))
@example(["--version", "nonsense"])
@example(["--debug=false"])
@example(["restore", "--lazy-pages", "x"])
def test_any_command_line_is_understood_or_refused_in_words(argv):
    configured = []
    try:
        found = parser.parse(argv, configured.append)
    except RootlessError as error:
        found = error
    assert len(configured) == 1, "the log is configured once"
    if isinstance(found, RootlessError):
        assert found.what
        assert found.fix or found.code == "RL-NOT-YET"
        assert found.status in (1, 3)
    else:
        assert configured == [found]
        assert found.help or found.version or found.verb in VERBS


@given(TEXT)
def test_no_text_confuses_the_signals(text):
    assert -1 <= signal_number(text) <= 64


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *SIGNALS.items(),
        ("rtmin", 34),
        ("RTMAX", 64),
        ("RTMIN+30", 64),
        ("RTMIN+31", -1),
        ("RTMAX-31", -1),
        ("RTMIN-1", -1),
        ("RTMIN+", -1),
        ("TERM+1", -1),
        ("65", -1),
        ("-1", -1),
        ("_DFL", -1),
        ("SIG", -1),
        ("", -1),
        ("KILLED", -1),
        ("²", -1),
    ],
)
def test_signals(text, number):
    assert signal_number(text) == number


# Refusals and their words


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("list --nope", "list: unknown flag: --nope; fix: see rootless list --help"),
        ("delete --forse x", "delete: unknown flag: --forse; fix: did you mean --force?"),
        ("--nope list", "unknown flag: --nope; fix: see rootless --help"),
        ("--keep run x", "unknown flag: --keep; fix: it goes after the verb: rootless VERB --keep …"),
        ("create --bundle", "create: flag needs an argument: --bundle; fix: see rootless create --help"),
        ("--root", "flag needs an argument: --root; fix: see rootless --help"),
        (
            "restore --lsm-mount-context",
            "restore: flag needs an argument: --lsm-mount-context; fix: see rootless restore --help",
        ),
        ("--debug", "missing command; fix: see rootless --help"),
        ("state", "state: CONTAINER is missing; fix: see rootless state --help"),
        ("state a b", "state: got unexpected extra argument (b); fix: see rootless state --help"),
        ("list -f yaml", "list: --format: 'yaml' is not one of table, json; fix: see rootless list --help"),
        ("list -f jsn", "list: --format: 'jsn' is not one of table, json; fix: did you mean json?"),
        (
            "network crate x",
            (
                "network: create|ls|inspect|reload|rm: 'crate' is not one of create, ls, inspect, reload, rm; "
                "fix: did you mean create?"
            ),
        ),
        ("list -q=x", "list: --quiet: 'x' is neither true nor false; fix: see rootless list --help"),
        (
            "run --preserve-fds -1 x",
            "run: --preserve-fds: '-1' is not a number of 0 or more; fix: see rootless run --help",
        ),
        (
            "kill x FOO",
            (
                "kill: SIGNAL: unknown signal 'FOO': name one such as TERM, SIGKILL, 9 or RTMIN+3; "
                "fix: see rootless kill --help"
            ),
        ),
    ],
)
def test_wrong_flags_and_words(line, text):
    error = refusal(line.split())
    assert str(error) == text
    assert (error.status, error.code) == (1, "RL-USAGE")


@pytest.mark.parametrize(
    ("line", "text", "status"),
    [
        ("mounts add c1 f", "mounts: not supported yet", 3),
        ("restore --lazy-pages c1", "--lazy-pages: not supported yet; fix: call restore without it", 1),
    ],
)
def test_flags_that_are_not_supported_yet(line, text, status):
    error = refusal(line.split())
    assert str(error) == text
    assert (error.status, error.code) == (status, "RL-NOT-YET")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("delte x", "unknown verb: delte; fix: did you mean rootless delete?"),
        ("exce x", "unknown verb: exce; fix: did you mean rootless exec?"),
        ("stat x", "unknown verb: stat; fix: did you mean rootless start or state?"),
        ("rm x", "unknown verb: rm; fix: did you mean rootless delete?"),
        ("qqq", "unknown verb: qqq; fix: rootless --help lists the verbs"),
    ],
)
def test_unknown_verbs(line, text):
    error = refusal(line.split())
    assert str(error) == text
    assert (error.status, error.code) == (3, "RL-USAGE")


OF_OTHER_PROGRAMS = (
    "attach auto-update build builder commit compose container context diff export farm generate "
    "healthcheck history import info init kube load manifest mount "
    "play plugin pod prune push rename rm rmi search secret service shell sign stack "
    "stats swarm system tag test trust umount unmount unpause untag version volume "
    "apply cache capability delegate instance key oci overlay plugins remote sif mounts reset ls cat edit "
    "show status shutdown poweroff copy move clone destroy snapshot monitor "
)


@pytest.mark.parametrize("name", sorted(OF_OTHER_PROGRAMS.split()))
def test_verb_of_another_program_suggests_no_unrelated_verb(name):
    same = {
        "rm": "delete", "ls": "list", "unpause": "resume", "stats": "events --stats", "rmi": "image rm",
    }  # fmt: skip
    fix = refusal([name]).fix
    assert fix.removeprefix("did you mean rootless ").removesuffix("?") == same.get(name, fix)
    assert ("did you mean" in fix) == (name in same)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_misspelt_verb_suggests_the_right_one(verb):
    places = range(len(verb))
    slips = {verb[:at] + verb[at + 1 :] for at in places} | {verb[:at] + "q" + verb[at:] for at in places}
    slips |= {verb[:at] + "q" + verb[at + 1 :] for at in places}
    slips |= {verb[:at] + verb[at + 1 : at + 2] + verb[at] + verb[at + 2 :] for at in places}
    for slip in slips - VERBS.keys() - _COUNTERPARTS.keys() - {""}:
        found = refusal([slip]).fix.removeprefix("did you mean rootless ").removesuffix("?")
        assert verb in found.split(" or "), slip


GLOBAL_FLAGS_IN_ORDER = [
    ("run -d --systemd-cgroup x", {"systemd_cgroup": True, "detach": True}),
    ("list --root /r -q", {"root": "/r", "quiet": True}),
    ("exec --log=l --debug c ls --root /x", {"log": "l", "debug": True, "args": ("ls", "--root", "/x")}),
    ("state c --log-format json", {"log_format": "json", "container": "c"}),
    ("--root /a state --root /b c", {"root": "/b"}),
    ("network ls --root /r", {"root": "/r"}),
    ("new d --debug", {"debug": True}),
]


@pytest.mark.parametrize(("line", "expected"), GLOBAL_FLAGS_IN_ORDER, ids=[line for line, _ in GLOBAL_FLAGS_IN_ORDER])
def test_global_flags_may_follow_the_verb(line, expected):
    found = parse(line.split())
    assert {name: getattr(found, name) for name in expected} == expected


def test_flag_of_the_verb_takes_precedence():
    own = [(name, each) for name, verb in VERBS.items() for flag in verb.every_flag() for each in flag.names]
    common = {each for flag in AFTER_VERB for each in flag.names}
    assert [(name, each) for name, each in own if each in common] == [("spec", "--rootless")]
    assert parse(["spec", "--rootless"]).rootless_spec is True


@pytest.mark.parametrize("line", ["list --log l", "list --log l --nope", "--log l nope", "--log l", "state --log l"])
def test_the_log_gets_an_error_though_its_flag_follows_the_verb(line):
    configured = []
    with contextlib.suppress(RootlessError):
        parser.parse(line.split(), lambda options: configured.append(options.log))
    assert configured == ["l"]


def test_a_bundle_instead_of_a_verb(tmp_path, monkeypatch):
    (tmp_path / "mybundle").mkdir()
    (tmp_path / "mybundle/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert refusal(["mybundle"]).fix == "rootless run mybundle"


# The argument of run


@pytest.fixture
def here(tmp_path, monkeypatch):
    bundle = tmp_path / "my bündle"
    bundle.mkdir()
    (bundle / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(**asked):
    options = Options(**asked)
    request = Request(options)
    choose_bundle(request, options)
    return request.bundle or request.image, request.container


def test_a_directory_with_a_config_is_a_bundle(here):
    assert chosen(container="my bündle") == ("my bündle", "my_b_ndle")
    assert chosen(container="./my bündle/") == ("./my bündle/", "my_b_ndle")
    assert chosen(container=f"{here}/my bündle") == (f"{here}/my bündle", "my_b_ndle")


def test_in_a_bundle_the_argument_names_the_container(here, monkeypatch):
    monkeypatch.chdir(here / "my bündle")
    assert chosen(container="web1") == ("", "web1")
    assert chosen(container=".") == (".", "my_b_ndle")


@pytest.mark.usefixtures("here")
def test_with_a_bundle_flag_the_argument_names_the_container():
    assert chosen(container="my bündle", bundle="d") == ("d", "my bündle")
    assert chosen(container="my bündle", config="c.json") == ("", "my bündle")


@pytest.mark.usefixtures("here")
def test_neither_bundle_nor_id():
    with pytest.raises(RootlessError, match="no such file or directory") as caught:
        chosen(container="nope")
    assert "rootless run docker://nope runs an image" in caught.value.fix
    # bundle/load.py reports what is wrong with a directory.
    assert chosen(container="./nope") == ("./nope", "nope")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("debian:13", "debian"),
        ("docker://registry.test:5000/a/my.image:1", "my.image"),
        ("quay.test/x/y@sha256:" + "0" * 64, "y"),
        ("oci:layout/dir:tag", "dir"),
        ("docker-archive:some/box.tar", "box"),
        ("./my image.v1.sqsh", "my_image"),
    ],
)
def test_what_is_no_bundle_is_an_image_with_a_name_of_its_own(here, word, name):
    (here / "my image.v1.sqsh").touch()
    image, container = chosen(container=word)
    assert image == word
    assert re.fullmatch(re.escape(name) + "-[0-9a-f]{12}", container)


@pytest.mark.usefixtures("here")
def test_a_wrong_reference_is_no_misspelled_bundle():
    with pytest.raises(RootlessError) as caught:
        chosen(container="http://example.test/image")
    assert caught.value.code == "RL-IMAGE-REFERENCE"


# Output


def test_table_has_the_layout_of_runc():
    state = {"id": "a", "pid": 7, "status": "running", "bundle": "/very/long/bundle", "created": "now", "owner": "root"}
    assert output.table([]) == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert output.table([state]).splitlines() == [
        "ID          PID         STATUS      BUNDLE              CREATED     OWNER",
        "a           7           running     /very/long/bundle   now         root",
    ]


# The process


def test_version():
    done = rootless("--version")
    assert done.returncode == 0
    name, spec = done.stdout.splitlines()
    assert name.startswith("rootless version ")
    assert spec == "spec: 1.3.0"


@pytest.mark.parametrize("argv", [[], ["--help"], ["help"], ["-h"]])
def test_help_names_every_verb_and_flag(argv):
    done = rootless(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    for name in [*VERBS, *(flag.names[-1] for flag in GLOBAL_FLAGS)]:
        assert name in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("asked", ["{} --help", "help {}", "{} -h"])
def test_help_of_a_verb(name, asked, capsys):
    options = parse(asked.format(name).split())
    assert options.help
    click_app.show_help(options.verb)
    shown = capsys.readouterr().out
    for title in VERBS[name].every_section():
        assert f"\n{title}:\n" in shown
    for flag in VERBS[name].every_flag():
        assert (flag.names[-1] in shown) is (flag.kind != NOT_YET)
    assert VERBS[name].examples
    for sample in VERBS[name].examples:
        assert sample in shown


@pytest.mark.parametrize("line", [line for verb in VERBS.values() for line in verb.examples])
def test_examples_in_help_parse(line):
    commands = [shlex.split(command) for part in line.split("&&") for command in re.split("[;|]", part)]
    ours = [command[1:] for command in commands if command[0] == "rootless"]
    assert ours
    assert all(parse(argv).verb == next(word for word in argv if word in VERBS) for argv in ours)


def test_an_error_is_one_line_and_the_log_has_it(tmp_path):
    done = rootless("--log", "log", "--log-format", "json", "list", "--no\npe", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rootless: list: unknown flag: --no\\npe; fix: see rootless list --help\n"
    logged = json.loads((tmp_path / "log").read_text())
    assert logged["msg"] == done.stderr.removeprefix("rootless: ").strip()


def test_a_full_disk_is_an_error():
    with Path("/dev/full").open("w") as full:
        done = rootless("--version", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "rootless: write standard output: No space left on device\n"


def test_closed_pipe_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = rootless("--version", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, "")


def test_a_closed_standard_error_does_not_become_the_log(tmp_path):
    log = tmp_path / "log"
    without_error = ["/bin/sh", "-c", 'exec "$0" "$@" 2>&-', *PROGRAM]
    done = rootless("--log", log, "--log-format=json", "list", "--nope", program=without_error)
    assert (done.returncode, done.stdout) == (1, "")
    assert [json.loads(line)["level"] for line in log.read_text().splitlines()] == ["error"]


@pytest.mark.parametrize("line", ["list", "--debug list"])
def test_an_internal_error_is_one_line_unless_debugging(line):
    script = (
        "import sys; from rootless import __main__ as program; from rootless.cli import output;"
        "output.list_containers = lambda options: 1 // 0; sys.exit(program.main())"
    )
    done = rootless(*line.split(), program=[sys.executable, "-c", script])
    assert done.returncode == 1
    *trace, message = done.stderr.splitlines()
    assert message.startswith("rootless: internal error: ZeroDivisionError: ")
    assert bool(trace) is ("--debug" in line)
