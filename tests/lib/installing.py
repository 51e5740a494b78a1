"""install.sh as a user calls it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lib.accounts import CHECKOUT, RUN
from tests.lib.bundles import own

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
        [ -z "$COPIED" ] || make_environment() {
            copied=${before:-$COPIED}
            cp -a -- "$copied/." "$1"
            if [ ${#copied} = ${#1} ]; then
                LC_ALL=C sed -i "s/${copied##*/}/${1##*/}/g" "$1/bin/rootless" "$1/bin/rootless.py"
            else
                "$1/bin/python3" -I -m rootless.installation "$1/bin/rootless"
            fi
        }
        ;;
    esac
    if [[ $BASH_COMMAND == "$MOMENT"* ]]; then eval "$EVENT"; fi
}
trap hook DEBUG
"""
"""Has bash run $EVENT before each command of install.sh that begins with $MOMENT; with $COPIED, install.sh copies the
present environment or, without one, $COPIED, instead of building the same again."""


def pip_settings(user):
    """Return the settings that pip has here, for the test user, with a cache that outlasts the test."""
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "SSL_CERT_FILE"}
    return passed | {"PIP_CACHE_DIR": str(user.home / ".cache" / "pip")}


class Installer:
    """install.sh for a user, with a home directory of its own.

    Attributes:
        home: the home directory, whose name contains a blank.
        command: the command that it installs there.
    """

    def __init__(self, user, home: Path) -> None:
        self._user = user
        self.home = home
        self.command = home / ".local/bin/rootless"
        if not home.exists():
            home.mkdir(mode=0o700)
            own(user, home)

    def __call__(self, *arguments, umask=0o077, checkout=CHECKOUT, shell=(), options=None, **environment):
        """Run it to the end."""
        environment = pip_settings(self._user) | {"HOME": str(self.home)} | environment
        words = ["sh", "-c", f'umask {umask:o}; exec "$@"', "sh", *shell, checkout / "install.sh", *arguments]
        return self._user.run(words, env=environment, timeout=600, **(options or {}))

    def stepped(self, moment="", event=":", *, copied="", **environment):
        """Run it by bash with HOOK, in a process group of its own."""
        hook = self._user.tmp / "hook"
        hook.write_text(HOOK)
        environment |= {"BASH_ENV": str(hook), "COPIED": str(copied), "MOMENT": moment, "EVENT": event}
        return self(shell=["bash"], options={"start_new_session": True}, **environment)

    def environments(self) -> list[Path]:
        """Return the environments, sorted."""
        return sorted((self.home / ".local/share/rootless").glob("env-*"))


@pytest.fixture
def install(user, need):
    """install.sh with a new home directory."""
    need("gcc")
    return Installer(user, user.tmp / "my home")


@pytest.fixture
def installed(user, need):
    """An installation that the tests of a run share, and only look at or copy."""
    need("gcc")
    shared = Installer(user, Path(RUN or user.tmp) / f"installed by {user.name}")
    if not shared.command.exists():
        done = shared()
        assert done.returncode == 0, done.stderr
    return shared
