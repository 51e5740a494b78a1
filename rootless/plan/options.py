"""What the caller asked on the command line."""

from __future__ import annotations


class Options:
    """One attribute per flag or positional word, named by its `dest` in rootless/cli/flags.py; the defaults are here.

    An empty string means "not given".
    """

    verb: str = ""
    version: bool = False

    root: str = ""
    """Directory of the containers' state."""
    log: str = ""
    log_format: str = "text"
    log_level: str = ""
    """The least that is logged; by default "info" in a log file and "warning" on standard error."""
    debug: bool = False

    container: str = ""
    """The container's id."""
    bundle: str = ""
    """Directory that holds config.json."""
    config: str = ""
    """Another file in the place of config.json, relative to the caller's directory (crun)."""
    pid_file: str = ""
    console_socket: str = ""
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: int = 0
    """How many descriptors, from 3 on, the container gets besides its standard streams."""
    userns: str = ""
    """keep-id, root or single."""
    detach: bool = False
    keep: bool = False

    signal: int = 15
    all: bool = False
    regex: bool = False
    """`container` is a regular expression for several ids (crun)."""
    force: bool = False
    format: str = "table"
    quiet: bool = False

    directory: str = ""
    """Where `new` makes its bundle."""
    from_file: str = ""
    """The root filesystem archive that `new` unpacks."""
    args: tuple[str, ...] = ()
    """The command that `new` writes into process.args."""
    rootless_spec: bool = False
    """`spec` writes the user's own id mappings."""
    file: str = "config.json"
    """The name of the file that `spec` writes."""
    json: bool = False
