"""install.sh as a user calls it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pip_environment(user):
    """The settings that pip has here, for the test user, with a cache that outlasts the test."""
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "SSL_CERT_FILE"}
    return passed | {"PIP_CACHE_DIR": str(user.home / ".cache" / "pip")}


@pytest.fixture
def install(user, pip_environment, need):
    """A function that runs install.sh with a new home directory whose name contains a blank."""
    need("gcc")
    home = user.tmp / "my home"
    user.run(["mkdir", "-m", "700", home], check=True)

    def run(*arguments, umask=0o077, checkout=CHECKOUT, options=None, **environment):
        environment = pip_environment | {"HOME": str(home)} | environment
        words = ["sh", "-c", f'umask {umask:o}; exec "$@"', "sh", checkout / "install.sh", *arguments]
        return user.run(words, env=environment, timeout=600, **(options or {}))

    run.home = home
    run.command = home / ".local" / "bin" / "rootless"
    run.environments = lambda: sorted((home / ".local" / "share" / "rootless").glob("env-*"))
    return run
