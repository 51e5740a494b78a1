"""install.sh, as a user calls it."""

from __future__ import annotations

import subprocess

import pytest

from tests.lib.installing import SHARED_FILES, install, installed

__all__ = ["install", "installed"]  # fixtures

ASK_BASH = """
PATH=$HOME/.local/bin:$PATH
source "$HOME/.local/share/bash-completion/completions/rootless"
compopt() { :; } # it works while a line is completed only
COMP_WORDS=(rootless del) COMP_CWORD=1 COMP_WORDBREAKS=$' :='
_rootless
echo "${COMPREPLY[@]}"
"""


def tree(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_an_ordinary_user_installs_runs_upgrades_and_removes(user, install):
    user.run(["mkdir", install.home / ".local"], check=True)
    before = tree(install.home)

    first = install("--try")
    assert first.returncode == 0, first.stdout + first.stderr
    assert f'export PATH="{install.command.parent}:$PATH"' in first.stdout
    assert "$ rootless run hello" in first.stdout
    assert "uid=0(root)" in first.stdout.partition("$ rootless run hello")[2]
    [environment] = install.environments()
    for name in SHARED_FILES:
        assert (install.home / ".local/share" / name).resolve().is_relative_to(environment), name
    completed = user.run(["bash", "-c", ASK_BASH], env={"HOME": str(install.home), "TERM": "xterm"})
    assert completed.stdout == "delete\n", completed.stderr

    # A running container survives an upgrade and has its modules to the end; the next upgrade removes them.
    user.run([install.command, "new", "waits", "--", "sh", "-c", "read line; exit $line"], check=True)
    with user.popen([install.command, "run", "waits"], stdin=subprocess.PIPE) as running:
        again = install(PATH=f"{user.env['PATH']}:{install.command.parent}")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "export PATH" not in again.stdout
        assert environment in install.environments()
        assert len(install.environments()) == 2
        assert environment not in install.command.resolve().parents
        running.communicate("7\n", timeout=60)
    assert running.returncode == 7
    assert install.stepped(copied="the present one").returncode == 0
    [environment] = install.environments()
    assert install.command.resolve().parent.parent == environment
    for name in SHARED_FILES:
        assert (install.home / ".local/share" / name).resolve().is_relative_to(environment), name

    gone = install("--uninstall")
    assert gone.returncode == 0, gone.stderr
    assert tree(install.home) == before
    assert install("--uninstall").returncode == 0


def test_the_installed_command_starts_python_isolated_and_imports_little(user, installed):
    assert installed.command.read_bytes().startswith(b"\x7fELF")
    script = installed.command.resolve().with_name("rootless.py")
    assert b" -IS" in script.read_bytes()
    python = installed.command.resolve().parent / "python3"
    words = [python, "-IS", "-X", "importtime", script, "--version"]
    done = user.run(words, env={"PYTHONPATH": "/nonexistent", "PYTHONSTARTUP": "/nonexistent"}, check=True)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "rootless.__main__" in names
    assert not names & {"site", "typing", "re", "json", "click", "pathlib", "subprocess"}
    # Root installs for users who cannot write there: nothing is left to compile.
    sources = list((installed.environments()[0] / "lib").rglob("rootless/**/*.py"))
    assert sources
    assert all(list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")) for path in sources)


def test_install_keeps_foreign_files_where_pages_and_scripts_belong(user, install, installed):
    script, no_directory = (install.home / ".local/share" / SHARED_FILES[2], install.home / ".local/share/man")
    user.run(["mkdir", "-p", script.parent], check=True)
    for foreign in (script, no_directory):
        user.run(["cp", "/bin/true", foreign], check=True)
    before = tree(install.home), script.stat(), no_directory.stat()
    done = install.stepped(copied=installed.environments()[0])
    assert done.returncode == 0
    [environment] = install.environments()
    assert f"(Some manual pages or completion scripts cannot be put into {no_directory.parent}; " in done.stdout
    assert (install.home / ".local/share" / SHARED_FILES[3]).resolve() == environment / "share" / SHARED_FILES[3]
    assert install("--uninstall").returncode == 0
    assert (tree(install.home), script.stat(), no_directory.stat()) == before


def test_install_keeps_a_foreign_command(user, install):
    user.run(["mkdir", "-p", install.command.parent], check=True)
    user.run(["cp", "/bin/true", install.command], check=True)
    done = install()
    assert done.returncode == 1
    assert done.stderr == f"install.sh: {install.command} exists and does not belong to rootless; fix: move it away\n"
    assert install("--uninstall").returncode == 0
    assert install.command.exists()


def test_python_that_is_too_old_is_reported_with_a_fix(user, install):
    old = user.tmp / "python3"
    user.run(["sh", "-c", "echo 'echo Python 3.9.2 is too old; exit 1' >python3; chmod +x python3"], check=True)
    done = install(PYTHON=str(old))
    assert done.returncode == 1
    assert done.stderr.startswith(f"install.sh: no Python 3.11 or newer: {old}: Python 3.9.2 is too old; fix: ")
    assert done.stderr.count("\n") == 1
    assert install.environments() == []


def test_a_python_without_venv_and_without_uv_is_one_line(user, install):
    python = user.tmp / "python3"
    script = '#!/bin/sh\ncase "$*" in *" -m "*) exit 1 ;; *) echo "$0" ;; esac\n'
    user.run(["sh", "-c", "cat >python3; chmod +x python3"], input=script, check=True)
    done = install(PYTHON=str(python), PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert done.stderr.startswith(f"install.sh: {python} cannot create an environment: the venv module and ")
    assert "; fix: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert install.environments() == []


@pytest.mark.parametrize("words", [["--nonsense"], ["--try", "more"]])
def test_unknown_arguments_are_refused(install, words):
    done = install(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")


def test_help_creates_nothing(install):
    done = install("--help")
    assert done.stdout.startswith("Usage: ")
    assert tree(install.home) == []
