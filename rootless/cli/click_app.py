"""The help, by click, from the same declaration of the command line that parser.py uses."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from rootless.cli.about import ABOUT, EXAMPLES, EXIT_STATUSES, WITHOUT_EFFECT
from rootless.cli.commands import EVERYDAY_VERBS, VERBS
from rootless.cli.compat import PROGRAM
from rootless.cli.flags import (
    AFTER_VERB,
    GLOBAL_FLAGS,
    HELP,
    NOT_YET,
    OPTIONAL,
    REPEATED,
    SWITCH,
    Flag,
    Verb,
    Word,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def show_help(verb: str) -> None:
    """Print the help of a verb, or of the program if `verb` is empty."""
    _program().main([verb, "--help"] if verb else ["--help"], prog_name=PROGRAM, standalone_mode=False)


class _Command(click.Command):
    """A command whose help lists flags, ignored flags and examples."""

    sections: Mapping[str, Sequence[Flag]] = MappingProxyType({})
    examples: Sequence[str] = ()

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option:
            option.help = HELP.help
        return option

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        titles = {flag.names[-1]: title for title, flags in self.sections.items() for flag in flags}
        records: dict[str, list[tuple[str, str]]] = {title: [] for title in self.sections}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record:  # --help itself is in none
                records[titles.get(option.opts[-1], next(reversed(records)))].append(record)
        for title, found in records.items():
            with formatter.section(title):
                formatter.write_dl(found)
        every = (flag for flags in self.sections.values() for flag in flags)
        ignored = [(", ".join(flag.names), f"{flag.help}: {flag.ignored}") for flag in every if flag.ignored]
        if ignored:
            with formatter.section(WITHOUT_EFFECT):
                formatter.write_dl(ignored)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(" " * formatter.current_indent + example + "\n")


class _Program(_Command, click.Group):
    """The global flags and all verbs."""

    sections = MappingProxyType({"Flags": GLOBAL_FLAGS})
    examples = EXAMPLES

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        others = {name: verb for name, verb in VERBS.items() if name not in EVERYDAY_VERBS}
        for title, verbs in (("Everyday verbs", EVERYDAY_VERBS), ("Verbs that container engines call", others)):
            with formatter.section(title):
                formatter.write_dl([(name, verb.summary) for name, verb in verbs.items()])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        _Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit status"):
            formatter.write_dl(EXIT_STATUSES)


def _program() -> _Program:
    return _Program(
        PROGRAM,
        params=[_option(flag) for flag in GLOBAL_FLAGS if flag.kind != NOT_YET],
        commands={name: _command(name, verb) for name, verb in VERBS.items()},
        help=ABOUT,
        options_metavar="[FLAGS]",
        subcommand_metavar="VERB ...",
        context_settings={"help_option_names": list(HELP.names)},
    )


def _command(name: str, verb: Verb) -> _Command:
    sections = {
        title: [flag for flag in flags if flag.kind != NOT_YET] for title, flags in verb.every_section().items()
    }
    flags = [flag for each in sections.values() for flag in each]
    own = {each for flag in verb.every_flag() for each in flag.names}
    parameters: list[click.Parameter] = [_option(flag) for flag in flags]
    parameters += [_option(flag, hidden=True) for flag in AFTER_VERB if own.isdisjoint(flag.names)]
    parameters += [_argument(word) for word in verb.words]
    if verb.rest:
        parameters.append(_argument(verb.rest, count=-1))
    command = _Command(
        name,
        params=parameters,
        help="\n\n".join(filter(None, (f"{verb.summary[0].upper()}{verb.summary[1:]}.", verb.about))),
        short_help=verb.summary,
        options_metavar="[FLAGS]",
        context_settings={"help_option_names": list(HELP.names)},
    )
    command.sections, command.examples = sections, verb.examples
    return command


def _option(flag: Flag, *, hidden: bool = False) -> click.Option:
    return click.Option(
        [*flag.names, f"flag_{flag.dest}"],  # `explain` has a flag and a word with one dest
        is_flag=True if flag.kind == SWITCH else None,  # False would make the value optional, in click 8.5
        multiple=flag.kind == REPEATED,
        type=None if flag.kind == SWITCH else str,
        metavar=f"[={flag.metavar}]" if flag.kind == OPTIONAL else flag.metavar or None,
        help=flag.help,
        hidden=hidden or bool(flag.ignored),
    )


def _argument(word: Word, count: int = 1) -> click.Argument:
    metavar = f"[{word.metavar}]" if word.optional else word.metavar
    return click.Argument(
        [f"word_{word.dest}"],
        required=not word.optional,
        nargs=count,
        metavar=metavar + (" ..." if count < 0 else ""),
    )
