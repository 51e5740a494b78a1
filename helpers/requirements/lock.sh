#!/bin/sh
# Writes the requirements that install.sh installs: what pyproject.toml asks for, pinned, with the hash of every file that
# PyPI has of it. It needs uv (`pip install uv`); run the tests of install.sh afterwards.
set -eu

cd -- "$(dirname -- "$0")/../.."

lock() { # FILE, the requirements on standard input
    uv --quiet pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command helpers/requirements/lock.sh --output-file "helpers/requirements/$1" -
}

required() { # KEY…, which lead to a list in pyproject.toml
    python3 -c '
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    found = tomllib.load(file)
for key in sys.argv[1:]:
    found = found[key]
print(*found, sep="\n")' "$@"
}

required project dependencies | lock run.txt
required build-system requires | lock build.txt
required project optional-dependencies test | grep '^ziglang' | lock zig.txt
