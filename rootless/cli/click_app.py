"""The command line as people meet it: help, errors and completion by click, made from the declaration in flags.py."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from rootless.cli.compat import PROGRAM, bad_flag_status, unknown_verb_status
from rootless.cli.flags import (
    AFTER_VERB,
    CHOICE,
    GLOBAL_FLAGS,
    HELP,
    NETWORK_MODES,
    REPEATED,
    SWITCH,
    Flag,
    Verb,
    Word,
    convert,
)
from rootless.cli.parser import UNKNOWN_FLAG, FlagError, split, words_before_rest
from rootless.cli.verbs import LATER_VERBS, VERBS
from rootless.errors import EXIT_FAILURE, RootlessError
from rootless.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ABOUT = """Runs containers as you, without root.

A container is made from a bundle: a directory with a config.json and a root filesystem, as the OCI runtime
specification has it. Bundles made for root run too: `rootless explain BUNDLE` shows what is done with one and why.
"""

EXAMPLES = (
    "rootless new mybundle        # a bundle made from this host's own programs",
    "rootless explain mybundle    # what would happen",
    "rootless run mybundle        # a shell in a container",
    "podman --runtime rootless run -it debian",
)

EXIT_STATUSES = (
    ("0", "done; for run, the program in the container ended with 0"),
    ("1", "it failed, or a flag is unknown: one line on standard error says what, where, why and the fix"),
    ("3", "there is no such verb"),
    ("other", "run passes on the status of the program, 128+N when signal N ended it"),
)


_COUNTERPARTS = {
    "rm": "delete",
    "ls": "list",
    "unpause": "resume",
    "stats": "events --stats",
    "stop": "kill",
    "cp": "",
}
"""What engines call it, where one slip would make another verb of it; empty: there is nothing of the kind."""


def ask(argv: Sequence[str], configure_log: Callable[[Options], None]) -> Options | None:
    """Return what `argv` asks, or None when that was help or completion, which are printed.

    Args:
        argv: the command line without the program's name.
        configure_log: called with the global flags before anything else can be wrong, so that the log gets the error.

    Raises:
        RootlessError: the command line is wrong; the message says how, `fix` names the help to read.
    """
    arguments = list(argv) or ["--help"]
    if arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"]
    options = Options()
    command = _Program(configure_log)
    try:
        outcome = command.main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=options)
    except click.UsageError as error:
        raise _misuse(error) from None
    return options if options.version or outcome is None else None


class _Kind(click.ParamType):  # type: ignore[type-arg, unused-ignore] # generic since click 8.5
    """What a flag or a word takes, as the declaration has it."""

    def __init__(self, declared: Flag | Word) -> None:
        self.declared = declared
        self.name = declared.kind

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        try:
            return convert(self.declared, str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del param
        metavar = self.declared.metavar
        if self.declared.kind == CHOICE:
            return [CompletionItem(choice) for choice in metavar.split("|") if choice.startswith(incomplete)]
        if metavar == "CONTAINER":
            return [CompletionItem(name) for name in _container_ids(ctx) if name.startswith(incomplete)]
        if metavar == "NETWORK":
            known = _networks() if isinstance(self.declared, Word) else [*NETWORK_MODES, *_networks()]
            return [CompletionItem(name) for name in known if name.startswith(incomplete)]
        if metavar.startswith(("DIR", "BUNDLE")):
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(incomplete, type="file")]


class _Command(click.Command):
    """A click command whose flags are spelled as Go and getopt have them, and which fills in the Options."""

    flags: Sequence[Flag]
    words: Sequence[Word] = ()
    rest: Word | None = None
    words_before_rest: int | None = None
    in_order = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        left = super().parse_args(ctx, self._in_spelling_of_click(ctx, args))
        options = ctx.find_object(Options)
        declarations: tuple[Flag | Word, ...] = (*self.flags, *self.words)
        for declared in declarations:
            name = _parameter(declared)
            if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
                continue
            if isinstance(declared, Flag) and declared.later:
                raise RootlessError(
                    f"{declared.names[-1]}: not supported yet",
                    fix=f"call {ctx.info_name} without it",
                    code="RL-NOT-YET",
                )
            if not (isinstance(declared, Flag) and declared.ignored):
                vars(options)[declared.dest] = ctx.params[name]
        if self.rest:
            vars(options)[self.rest.dest] = tuple(ctx.params[_parameter(self.rest)])
        return left

    def _in_spelling_of_click(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """Return `args` with each flag as ``--name`` or ``--name=value`` and in front of the words."""
        try:
            parts = split(args, self.flags, words_before_rest=self.words_before_rest, in_order=self.in_order)
        except FlagError as error:
            raise _misused_flag(error, ctx) from None
        spelled = []
        words = [text for flag, text in parts if flag is None]
        for flag, text in parts:
            if flag is None:
                continue
            name = flag.names[-1]
            if flag.kind != SWITCH:
                spelled.append(f"{name}={text}")
                continue
            try:
                is_on = convert(flag, text)
            except ValueError as error:
                raise click.UsageError(f"{name}: {error}", ctx) from None
            spelled = [each for each in spelled if each != name]
            if is_on:
                spelled.append(name)
        return [*spelled, "--", *words] if words else spelled

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option:
            option.help = HELP.help
        return option

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = [flag for flag in self.flags if flag not in AFTER_VERB or not isinstance(self, _VerbCommand)]
        hidden = {_parameter(flag) for flag in self.flags if flag.ignored}
        records = [
            record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and parameter.name not in hidden
            if (record := parameter.get_help_record(ctx))
        ]
        with formatter.section("Flags"):
            formatter.write_dl(records)
        ignored = [(", ".join(flag.names), f"{flag.help}: {flag.ignored}") for flag in shown if flag.ignored]
        if ignored:
            with formatter.section("Accepted for callers of other runtimes, without effect"):
                formatter.write_dl(ignored)


class _VerbCommand(_Command):
    """One verb."""

    def __init__(self, name: str, verb: Verb, configure_log: Callable[[Options], None]) -> None:
        own = _names(verb.flags)
        common = [flag for flag in AFTER_VERB if flag.names[-1][2:] not in own]
        parameters: list[click.Parameter] = [_option(flag) for flag in verb.flags]
        parameters += [_option(flag, hidden=True) for flag in common]
        parameters += [_argument(word) for word in verb.words]
        if verb.rest:
            parameters.append(_argument(verb.rest, count=-1))
        super().__init__(
            name,
            params=parameters,
            help="\n\n".join(filter(None, (_sentence(verb.summary), verb.about))),
            short_help=verb.summary,
            options_metavar="[FLAGS]",
            context_settings={"help_option_names": list(HELP.names)},
        )
        self.flags = (*common, *verb.flags)
        self.configure_log = configure_log
        self.words = verb.words
        self.rest = verb.rest
        self.words_before_rest = words_before_rest(verb)
        self.in_order = verb.in_order
        self.examples = verb.examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        left = super().parse_args(ctx, args)
        options = ctx.find_object(Options)
        if options and not ctx.resilient_parsing:
            self.configure_log(options)
        return left

    def invoke(self, ctx: click.Context) -> None:
        options = ctx.find_object(Options)
        if options:
            vars(options)["verb"] = self.name or ""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        _write_examples(formatter, self.examples)


class _Program(_Command, click.Group):
    """The global flags and all verbs."""

    words_before_rest = 0

    def __init__(self, configure_log: Callable[[Options], None]) -> None:
        super().__init__(
            PROGRAM,
            params=[_option(flag) for flag in GLOBAL_FLAGS],
            commands={name: _VerbCommand(name, verb, configure_log) for name, verb in VERBS.items()},
            help=ABOUT,
            options_metavar="[FLAGS]",
            subcommand_metavar="VERB ...",
            no_args_is_help=False,
            context_settings={"help_option_names": list(HELP.names)},
        )
        self.flags = GLOBAL_FLAGS
        self.configure_log = configure_log

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        left = super().parse_args(ctx, args)
        options = ctx.find_object(Options)
        if options and not ctx.resilient_parsing:
            self.configure_log(options)
            if options.version:
                ctx.exit()
        return left

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise _unknown_verb(args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for title, everyday in (("Everyday", True), ("Step by step, as container engines call it", False)):
            with formatter.section(title):
                formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items() if verb.everyday is everyday])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        _Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        _write_examples(formatter, EXAMPLES)
        with formatter.section("Exit status"):
            formatter.write_dl(EXIT_STATUSES)


def _option(flag: Flag, *, hidden: bool = False) -> click.Option:
    return click.Option(
        [*flag.names, _parameter(flag)],
        is_flag=True if flag.kind == SWITCH else None,  # False would make the value optional, in click 8.5
        multiple=flag.kind == REPEATED,
        type=None if flag.kind == SWITCH else _Kind(flag),
        metavar=flag.metavar or None,
        help=flag.help,
        hidden=hidden or flag.later,
    )


def _argument(word: Word, count: int = 1) -> click.Argument:
    metavar = f"[{word.metavar}]" if word.optional else word.metavar
    return click.Argument(
        [_parameter(word)],
        required=not word.optional,
        nargs=count,
        type=_Kind(word),
        metavar=metavar + (" ..." if count < 0 else ""),
    )


def _parameter(declared: Flag | Word) -> str:
    """Return click's name for a flag or a word: `explain` has a flag and a word with one dest."""
    return ("flag_" if isinstance(declared, Flag) else "word_") + declared.dest


def _misused_flag(error: FlagError, ctx: click.Context) -> RootlessError:
    verb = ctx.info_name if ctx.parent else ""
    name = error.flag.partition("=")[0].lstrip("-")
    fix = ""
    if error.problem == UNKNOWN_FLAG:
        alike = get_close_matches(name, _names(VERBS[verb].flags if verb else GLOBAL_FLAGS), 1)
        if not verb and any(name in _names(each.flags) for each in VERBS.values()):
            fix = f"it goes after the verb: {PROGRAM} VERB --{name} …"
        elif alike:
            fix = f"did you mean --{alike[0]}?"
    return _usage_error(ctx, str(error), fix, bad_flag_status())


def _names(flags: Iterable[Flag]) -> list[str]:
    return [name[2:] for flag in flags for name in flag.names if name.startswith("--")]


def _unknown_verb(name: str) -> RootlessError:
    if name in LATER_VERBS:
        return RootlessError(f"{name}: not supported yet", code="RL-NOT-YET", status=unknown_verb_status())
    alike = [_COUNTERPARTS[name]] if name in _COUNTERPARTS else [verb for verb in VERBS if _is_slip(name, verb)]
    if os.path.exists(os.path.join(name, "config.json")):
        fix = f"{PROGRAM} run {name}"
    elif alike and alike[0]:
        fix = f"did you mean {PROGRAM} {' or '.join(alike)}?"
    else:
        fix = f"{PROGRAM} --help lists the verbs"
    return RootlessError(f"unknown verb: {name}", fix=fix, code="RL-USAGE", status=unknown_verb_status())


def _is_slip(name: str, verb: str) -> bool:
    """Whether one key struck wrong, left out, added, or exchanged with its neighbour makes `name` of `verb`.

    More would find verbs that do something else: `prune` is not `run`, nor `save` `state`.
    """
    same = 0
    while same < min(len(name), len(verb)) and name[same] == verb[same]:
        same += 1
    typed, meant = name[same:], verb[same:]
    exchanged = meant[1:2] + meant[:1] + meant[2:]
    return typed[1:] == meant[1:] or typed == meant[1:] or typed[1:] == meant or typed == exchanged


def _misuse(error: click.UsageError) -> RootlessError:
    """Return click's own error as one of ours."""
    parameter = error.param if isinstance(error, click.BadParameter) else None
    if isinstance(error, click.MissingParameter) and parameter:
        problem = f"{parameter.metavar} is missing"
    elif parameter and isinstance(parameter.type, _Kind):
        declared = parameter.type.declared
        problem = f"{declared.names[-1] if isinstance(declared, Flag) else declared.metavar}: {error.message}"
    else:
        problem = error.message[:1].lower() + error.message[1:].rstrip(".")
    return _usage_error(error.ctx, problem)


def _usage_error(ctx: click.Context | None, problem: str, fix: str = "", status: int = EXIT_FAILURE) -> RootlessError:
    path = ctx.command_path if ctx else PROGRAM
    verb = path.removeprefix(PROGRAM).lstrip()
    what = f"{verb}: {problem}" if verb else problem
    return RootlessError(what, fix=fix or f"see {path} --help", code="RL-USAGE", status=status)


def _container_ids(ctx: click.Context) -> list[str]:
    from rootless.container import verbs

    options = Options(root=ctx.find_root().params.get("flag_root") or "")
    try:
        return [str(each["id"]) for each in verbs.list_containers(options)]
    except RootlessError:
        return []


def _networks() -> list[str]:
    from rootless.container.network import registry

    try:
        return registry.names()
    except RootlessError:
        return []


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(" " * formatter.current_indent + example + "\n")


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."
