"""The verbs of images: pull, list, remove and inspect them; log in to registries."""

from __future__ import annotations

import posix
import sys
import time

from rootless import log
from rootless.cli.output import STDOUT, columns, put
from rootless.errors import RootlessError
from rootless.jsontext import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless.image.store.contents import Listed
    from rootless.options import Options

_HEAD = ("REFERENCE", "PLATFORM", "DIGEST", "CREATED", "SIZE")
_DIGEST = slice(7, 19)
_LONGEST_PASSWORD = 1 << 16


def pull(options: Options) -> None:
    """Download an image and print its name and digest; of one that no registry has, the file that was made.

    Raises:
        RootlessError: it is a file, or cannot be had.
    """
    from rootless.image.obtain import ALWAYS, obtained
    from rootless.image.reference import FILE, REGISTRY, parse

    reference = parse(options.image)
    if reference.kind == FILE:
        raise RootlessError(
            f"pull {reference}", cause="it is an image file already", fix=f"rootless run {reference}", code="RL-USAGE"
        )
    found = obtained(
        reference,
        pull=ALWAYS,
        platform=options.platform,
        store=options.store,
        output=options.output,
        quiet=options.quiet,
    )
    has_name = reference.kind == REGISTRY and not options.output
    put(f"{found.reference.partition('@')[0]}@{found.digest}\n" if has_name else f"{found.path}\n")


def images(options: Options) -> None:
    """Print the images of all stores."""
    from rootless.image.store.contents import list_images

    found = list_images(options.store)
    if options.quiet:
        put("".join(f"{digest}\n" for digest in dict.fromkeys(each.digest for each in found)))
    elif options.format == "json":
        put(render([each.as_data() for each in found], 2 if posix.isatty(STDOUT) else None) + "\n")
    else:
        put(columns([_HEAD, *map(_row, found)]))


def image(options: Options) -> None:
    """Remove or inspect images.

    Raises:
        RootlessError: `RL-USAGE`: the action needs images, or takes none.
    """
    if (options.action == "prune") is bool(options.args):
        raise RootlessError(
            f"image {options.action}",
            cause="it takes no image" if options.args else "it needs an image",
            fix="run rootless image --help",
            code="RL-USAGE",
        )
    _ACTIONS[options.action](options)


def login(options: Options) -> None:
    """Ask for user and password, have the registry check them, and remember them."""
    from rootless.image.registry.login import log_in, named

    registry = named(options.registry)
    user = options.username or _ask(f"user name for {registry}", "--username USER")
    password = _read_password() if options.password_stdin else _ask(f"password for {user}", "--password-stdin")
    if not user or ":" in user or not password:
        cause = "the user name or the password is empty, or the user name has a colon"
        raise RootlessError(f"log in to {registry}", cause=cause, fix="check both", code="RL-USAGE")
    put(f"{registry}: logged in; the password is in {log_in(registry, user, password)}\n")


def logout(options: Options) -> None:
    """Forget the password for a registry, or for all.

    Raises:
        RootlessError: `RL-REGISTRY-CREDENTIALS`: there is none.
    """
    from rootless.image.registry.login import log_out, named

    registry = "" if options.all else named(options.registry)
    if not log_out(registry):
        what = f"log out of {registry or 'all registries'}"
        raise RootlessError(what, cause="you are not logged in", code="RL-REGISTRY-CREDENTIALS")
    put(f"{registry or 'all registries'}: logged out\n")


def _remove(options: Options) -> None:
    from rootless.image.store.contents import remove_images

    put("".join(f"{each}\n" for each in remove_images(options.store, _selected(options))))


def _prune(options: Options) -> None:
    from rootless.container.observe.listing import list_containers
    from rootless.container.state.root import state_root
    from rootless.image.bundles.unpacked import prune_unpacked
    from rootless.image.store.contents import prune
    from rootless.options import Options

    def uses(root: str, rootfs: str) -> bool:
        asked = Options(**{**vars(options), "root": root})
        try:
            return any(each["rootfs"] == rootfs for each in list_containers(asked))
        except RootlessError as error:
            log.warning(f"{rootfs} stays: it may be in use: {error}")
            return True

    removed, freed = prune(options.store)
    removed += prune_unpacked(options.store, state_root(options.root).path, uses)
    put("".join(f"{each}\n" for each in removed) + f"{freed / 1e6:.1f} MB freed\n")


def _inspect(options: Options) -> None:
    from rootless.image.store.contents import inspect

    put(render([inspect(each) for each in _selected(options)]) + "\n")


def _selected(options: Options) -> list[Listed]:
    from rootless.image.platform import wanted_platform
    from rootless.image.store.contents import list_images, select

    found = list_images(options.store)
    if options.platform:
        platform = str(wanted_platform(options.platform))
        found = [each for each in found if each.platform == platform]
    return [each for word in options.args for each in select(found, word)]


_ACTIONS: dict[str, Callable[[Options], None]] = {"rm": _remove, "prune": _prune, "inspect": _inspect}


def _row(each: Listed) -> tuple[str, ...]:
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created))
    return each.reference, each.platform, each.digest[_DIGEST], created, f"{each.size / 1e6:.1f} MB"


def _read_password() -> str:
    return sys.stdin.read(_LONGEST_PASSWORD).rstrip("\r\n")


def _ask(what: str, flag: str) -> str:
    """Ask on the terminal; a password is not shown.

    Raises:
        RootlessError: `RL-USAGE`: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise RootlessError(f"ask for the {what}", cause="there is no terminal", fix=f"use {flag}", code="RL-USAGE")
    if what.startswith("password"):
        from getpass import getpass

        return getpass(f"{what}: ")
    sys.stderr.write(f"{what}: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()
