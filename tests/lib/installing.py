"""install.sh as a user calls it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SHARED_FILES = (
    "man/man1/rootless.1",
    "man/man1/rootless-run.1",
    "bash-completion/completions/rootless",
    "zsh/site-functions/_rootless",
    "fish/vendor_completions.d/rootless.fish",
)
"""Some of the manual pages and completion scripts, below share/."""


HOOK = """\
unset BASH_ENV
set -o functrace
hook() {
    case $BASH_COMMAND in
    find_python)
        [ -z "$COPIES" ] || make_environment() {
            cp -a -- "$before/." "$1"
            LC_ALL=C sed -i "s/${before##*/}/${1##*/}/g" "$1/bin/rootless" "$1/bin/rootless.py"
        }
        ;;
    esac
    if [[ $BASH_COMMAND == "$MOMENT"* ]]; then eval "$EVENT"; fi
}
trap hook DEBUG
"""
"""Has bash run $EVENT before each command of install.sh that begins with $MOMENT; with $COPIES, an upgrade copies the
present environment, whose path is as long, instead of building the same again."""


def pip_settings(user):
    """Return the settings that pip has here, for the test user, with a cache that outlasts the test."""
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "SSL_CERT_FILE"}
    return passed | {"PIP_CACHE_DIR": str(user.home / ".cache" / "pip")}


@pytest.fixture
def pip_environment(user):
    """The same, as a fixture."""
    return pip_settings(user)


@pytest.fixture
def install(user, pip_environment, need):
    """A function that runs install.sh with a new home directory whose name contains a blank."""
    need("gcc")
    home = user.tmp / "my home"
    user.run(["mkdir", "-m", "700", home], check=True)

    def run(*arguments, umask=0o077, checkout=CHECKOUT, shell=(), options=None, **environment):
        environment = pip_environment | {"HOME": str(home)} | environment
        words = ["sh", "-c", f'umask {umask:o}; exec "$@"', "sh", *shell, checkout / "install.sh", *arguments]
        return user.run(words, env=environment, timeout=600, **(options or {}))

    def stepped(moment="", event=":", *, copies=True, **environment):
        """Run it by bash with HOOK, in a process group of its own."""
        hook = user.tmp / "hook"
        hook.write_text(HOOK)
        environment |= {"BASH_ENV": str(hook), "COPIES": "yes" * copies, "MOMENT": moment, "EVENT": event}
        return run(shell=["bash"], options={"start_new_session": True}, **environment)

    run.stepped = stepped
    run.home = home
    run.command = home / ".local" / "bin" / "rootless"
    run.environments = lambda: sorted((home / ".local" / "share" / "rootless").glob("env-*"))
    return run
