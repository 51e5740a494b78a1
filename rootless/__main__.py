"""Run the command line of the `rootless` command and exit with its status."""

from __future__ import annotations

import posix
import sys

from rootless import log, paths, signals
from rootless.cli.parser import parse, verb_named
from rootless.errors import EXIT_FAILURE, RootlessError, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from rootless.options import Options
else:
    import _signal


_AFTER_RUN = "container.removal.delete:remove_after_run"
"""How a foreground `run` ends that has not waited itself: see rootless/container/terminal/attend.py."""


def main() -> int:
    """Run the command line of this process and return its exit status: 128+n if signal n interrupts it."""
    try:
        status = _tell_outcome()
        signals.disallow()
    except signals.Interrupted as interrupted:
        return 128 + interrupted.number
    else:
        return status


def _tell_outcome() -> int:
    try:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # a caller that ignores it would hide every exit status
        posix.umask(posix.umask(0) & 0o077)  # it may restrict other users, not the owner
        signals.allow()
        _open_closed_streams()
        return _carry_out(sys.argv[1:])
    except RootlessError as error:
        log.fail(error)
        return error.status
    except Exception as error:  # noqa: BLE001 - whatever it is, engines and people get one line
        log.fail(_unforeseen(error))
        return EXIT_FAILURE
    finally:
        log.flush()


def main_and_exit() -> None:
    """Run the command line and end this process without Python's clean-up, which takes 2 ms to free memory."""
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_FAILURE
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = status or EXIT_FAILURE
    posix._exit(status)  # noqa: SLF001 - public in `os`, whose import takes 3 ms


def _carry_out(argv: list[str]) -> int:
    options = parse(argv, _configure_log)
    if options.help:
        from rootless.cli.click_app import show_help

        show_help(options.verb)
        return 0
    if options.version:
        from rootless.cli.compat import version
        from rootless.cli.output import put

        put(version(options))
        return 0
    run = _AFTER_RUN if "ended" in sys._xoptions else verb_named(options.verb).run  # noqa: SLF001 - documented so
    module, _, function = run.partition(":")
    try:
        return getattr(__import__(f"rootless.{module}", None, None, (function,)), function)(options) or 0
    except Exception as error:  # noqa: BLE001 - as above, and the status is the verb's
        from rootless.cli.compat import worded

        raise worded(error if isinstance(error, RootlessError) else _unforeseen(error), options) from None


def _configure_log(options: Options) -> None:
    level = "debug" if options.debug else options.log_level or ("info" if options.log else "warning")
    log.configure(options.log, as_json=options.log_format == "json", level=level)


def _open_closed_streams() -> None:
    """Put /dev/null where the caller left standard input, output or error closed, as Go's runtime does for runc.

    Otherwise the next file that is opened becomes, say, standard error, and messages end up in it.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:
            posix.set_inheritable(posix.open("/dev/null", posix.O_RDWR), True)  # noqa: FBT003 - the signature of the standard library


def _unforeseen(error: Exception) -> RootlessError:
    """Return the error for an unexpected exception."""
    if log.is_debug():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError | MemoryError):
        return refused(error)
    if isinstance(error, ImportError):
        return RootlessError(
            "cannot load a part of the program",
            cause=str(error),
            fix="reinstall rootless, or raise the limit of open files: ulimit -n",
            code="RL-SYSTEM",
        )
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({paths.name(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})" if trace else ""
    return RootlessError(
        "internal error",
        cause=f"{type(error).__name__}: {error}{place}",
        fix="report this, with the output of --debug",
        code="RL-INTERNAL",
    )


if __name__ == "__main__":
    sys.exit(main())
