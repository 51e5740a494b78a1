"""The words of the help and the manual about the program as a whole."""

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

WITHOUT_EFFECT = "Accepted for compatibility, without effect"
"""The title of the section for flags that are ignored."""
