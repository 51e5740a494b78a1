"""Arguments in, exit status out."""

from __future__ import annotations

import os
import sys

from rootless import OCI_VERSION, __version__, log
from rootless.cli.parse import parse
from rootless.errors import EXIT_FAILURE, RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.plan.options import Options

EXIT_INTERRUPTED = 128 + 2


def main() -> int:
    """Carry out the command line of this process and return its exit status."""
    try:
        _open_closed_streams()
        return _carry_out(sys.argv[1:])
    except RootlessError as error:
        log.fail(error)
        return error.status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, engines and people get one line
        log.fail(_internal_error(error))
        return EXIT_FAILURE
    finally:
        log.flush()


def _carry_out(argv: list[str]) -> int:
    options = parse(argv)
    if options is None:
        from rootless.cli import people

        options = people.ask(argv, _configure_log)
        if options is None:
            return 0
    else:
        _configure_log(options)
    if options.version:
        from rootless.cli.output import put

        put(f"rootless version {__version__}\nspec: {OCI_VERSION}\n")
        return 0
    if options.verb == "explain":
        from rootless.cli.explain import VERBS
    elif options.verb in ("new", "spec"):
        from rootless.cli.bundles import VERBS
    else:
        from rootless.cli.lifecycle import VERBS
    return VERBS[options.verb](options)


def _configure_log(options: Options) -> None:
    level = "debug" if options.debug else options.log_level or ("info" if options.log else "warning")
    log.configure(options.log, as_json=options.log_format == "json", level=level)


def _open_closed_streams() -> None:
    """Put /dev/null where the caller left standard input, output or error closed, as Go's runtime does for runc.

    Otherwise the next file that is opened becomes, say, standard error, and messages end up in it.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - the signature of the standard library


def _internal_error(error: Exception) -> RootlessError:
    if log.is_debug():
        import traceback

        traceback.print_exception(error)
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""
    return RootlessError(
        "internal error",
        cause=f"{type(error).__name__}: {error}{place}",
        fix="please report this, with what --debug prints",
        code="RL-INTERNAL",
    )


if __name__ == "__main__":
    sys.exit(main())
