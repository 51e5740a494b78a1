"""Help and completion, by click, from the same declaration of the command line that parser.py uses."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from rootless.cli.commands import EVERYDAY_VERBS, VERBS
from rootless.cli.compat import PROGRAM
from rootless.cli.flags import (
    AFTER_VERB,
    CHOICE,
    GLOBAL_FLAGS,
    HELP,
    NETWORK_MODES,
    NOT_YET,
    OPTIONAL,
    REPEATED,
    SWITCH,
    USERNS,
    Flag,
    Verb,
    Word,
)
from rootless.errors import RootlessError
from rootless.linux import CAPABILITIES, RLIMITS
from rootless.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ABOUT = """Run containers as an ordinary user, without root.

A container runs from a bundle: a directory with a config.json and a root filesystem, as defined by the OCI runtime
specification. Bundles made for root run as well: `rootless explain BUNDLE` shows how rootless adapts one, and why.
"""

EXAMPLES = (
    "rootless new mybundle        # create a bundle from this host's own programs",
    "rootless explain mybundle    # show what would happen",
    "rootless run mybundle        # run a shell in a container",
    "podman --runtime rootless run -it debian",
)

EXIT_STATUSES = (
    ("0", "success; for run, the program in the container exited with 0"),
    ("1", "failure; one line on standard error says what, where, why and how to fix it"),
    ("3", "unknown verb"),
    ("other", "run and exec return the program's own status, or 128+N if signal N killed it"),
)


_WORDS = {
    # by metavar: what such a value may be, or begin with
    USERNS.metavar: ("keep-id", "keep-id:uid=", "root", "single"),
    "CAPABILITY": ("ALL", *sorted(CAPABILITIES)),
    "NAME=SOFT[:HARD]": ("host", *(f"{name.lower()}=" for name in sorted(RLIMITS))),
    "type=TYPE,…": tuple(f"type={kind}," for kind in ("bind", "devpts", "ramfs", "tmpfs")),
    "OPTION": (
        *("apparmor=", "label=disable", "mask=", "no-new-privileges", "proc-opts=", "seccomp=", "seccomp=unconfined"),
        *("systempaths=unconfined", "unmask="),
    ),
}


def show_help(verb: str) -> None:
    """Print the help of a verb, or of the program if `verb` is empty; answer a shell that asks for completion."""
    _program().main([verb, "--help"] if verb else ["--help"], prog_name=PROGRAM, standalone_mode=False)


class _Kind(click.ParamType):  # type: ignore[type-arg, unused-ignore] # generic since click 8.5
    """The type of a flag or a word: what completes it."""

    def __init__(self, declared: Flag | Word) -> None:
        self.declared = declared
        self.name = declared.kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del param
        metavar = self.declared.metavar
        if self.declared.kind == CHOICE:
            return [CompletionItem(choice) for choice in metavar.split("|") if choice.startswith(incomplete)]
        if metavar in _WORDS:
            typed = incomplete.upper() if metavar == "CAPABILITY" else incomplete
            return [CompletionItem(word) for word in _WORDS[metavar] if word.startswith(typed)]
        known = self._known(ctx)
        if known is not None:
            return [CompletionItem(name) for name in known if name.startswith(incomplete)]
        if metavar.startswith(("DIR", "BUNDLE")):
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(incomplete, type="file")]

    def _known(self, ctx: click.Context) -> Sequence[str] | None:
        """Return the names of the user's containers, networks or images; None if the value is none of these."""
        metavar = self.declared.metavar
        if metavar == "CONTAINER":
            return _container_ids(ctx)
        if metavar == "NETWORK":
            return _networks() if isinstance(self.declared, Word) else [*NETWORK_MODES, *_networks()]
        return _images(ctx) if metavar == "IMAGE" else None


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
            with formatter.section("Accepted for compatibility, without effect"):
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
        type=None if flag.kind == SWITCH else _Kind(flag),
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
        type=_Kind(word),
        metavar=metavar + (" ..." if count < 0 else ""),
    )


def _container_ids(ctx: click.Context) -> list[str]:
    from rootless.container.observe.listing import list_containers

    options = Options(root=ctx.find_root().params.get("flag_root") or "")
    try:
        return [str(each["id"]) for each in list_containers(options)]
    except RootlessError:
        return []


def _networks() -> list[str]:
    from rootless.container.network import registry

    try:
        return registry.names()
    except RootlessError:
        return []


def _images(ctx: click.Context) -> list[str]:
    from rootless.image.store.contents import list_images

    try:
        return [each.reference for each in list_images(ctx.params.get("flag_store") or "") if each.is_name]
    except RootlessError:
        return []
