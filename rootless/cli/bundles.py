"""The verbs that make bundles."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless.options import Options


def new(options: Options) -> int:
    """Carry out `rootless new`."""
    from shlex import quote

    from rootless.cli.output import put
    from rootless.image.new import new as make

    contents = make(options)
    put(f"{options.directory}: {contents}\nrun it with: rootless run {quote(options.directory)}\n")
    return 0


def spec(options: Options) -> int:
    """Carry out `rootless spec`."""
    from rootless.image.spec import write_spec

    write_spec(options.bundle or ".", rootless=options.rootless_spec, file_name=options.file)
    return 0


VERBS = {"new": new, "spec": spec}
