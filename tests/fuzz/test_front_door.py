"""Short runs of the fuzzers of the front door, from records and cached Plans; test_executor.py has the variables."""

from __future__ import annotations

import base64
import os
import runpy
import subprocess
from pathlib import Path

import pytest

from rootless.container.operations.status_record import encode
from rootless.container.state.state import State
from rootless.plan import cached_ops, ops
from rootless.plan.encode import encode as encode_plan
from rootless.plan.ops import Op

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent / "helpers/front"
SECONDS = int(os.environ.get("ROOTLESS_FUZZ_SECONDS", "10"))
FLAGS = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
)


LISTS = {
    "identifiers": ["fedcba9876543210", "abcdefabcdef"],
    "text": ['{"env":[', '],"mounts":[', "]}"],
    "variables": ['"H=abcdefabcdef"', '"A=1"'],
    "mounts": ['{"s":"fedcba9876543210"}', "{}"],
}
"""Of CONFIG: what cached_plan.c compares, with other identifiers."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Return a directory of records."""
    directory = tmp_path_factory.mktemp("records")
    for number, parents in enumerate(([], ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a"])):
        state = State("c1")
        state.pid, state.start_time, state.boot_id = 4711, 123456, "0" * 36
        state.cgroup = "/sys/fs/cgroup/a/b/c1" if parents else ""
        state.annotations = {"name": "value"}
        (directory / str(number)).write_bytes(encode(state, (1, 2, 3), 7, 100, parents))
    return directory


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Return a directory of entries of the cache of Plans: one has an operation of each kind."""
    directory = tmp_path_factory.mktemp("entries")
    plan = encode_plan([Op(ops.COMMAND, [], ""), Op(ops.EXEC, [], ["A=1"])])
    for number, strings in enumerate(((b"", ""), (b"text\0t", "words"), (plan, "/bin"))):
        first = -1 if strings[0] == plan else 0  # of SPAWN: no secret, and the places of COMMAND and EXEC
        operations = [
            Op(kind, *range(first, first + len(kind.numbers)), *(_value(kind, name, *strings) for name in kind.strings))
            for kind in cached_ops.KINDS
        ]
        (directory / str(number)).write_bytes(encode_plan(operations, cached_ops.MAGIC))
    return directory


def _value(kind, name, raw, text):
    if name in kind.lists:
        return LISTS.get(name, [text, text])
    return raw if name in kind.raw else text


def run_fuzzer(source, sources, seeds, need, directory):
    """Run the fuzzer in `source`, and show the input on which it fails."""
    program = directory / "fuzzer"
    for name in ("gen_flags.py", "gen_cached.py"):
        runpy.run_path(str(SOURCES / name))["write"](directory)
    files = [HERE / source, *(SOURCES / name for name in sources)]
    subprocess.run([need("clang"), *FLAGS, f"-I{SOURCES}", f"-I{directory}", *files, "-o", program], check=True)
    words = [f"-max_total_time={SECONDS}", f"-artifact_prefix={directory}/found-", "-print_final_stats=1", seeds]
    done = subprocess.run([program, *words], stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        found = [base64.b64encode(path.read_bytes()).decode() for path in directory.glob("found-*")]
        pytest.fail(f"{done.stderr[-5000:]}\nThe input, in base64: {' '.join(found) or 'was not kept'}")
    assert int(done.stderr.partition("stat::number_of_executed_units:")[2].split()[0]) > 1000 * SECONDS, done.stderr


def test_mutated_records_are_read_within_their_bounds(seeds, need, tmp_path):
    run_fuzzer("front_door.c", ["record.c"], seeds, need, tmp_path)


def test_mutated_entries_are_read_within_their_bounds(entries, need, tmp_path):
    run_fuzzer("cached_plan.c", ["record.c", "entry.c", "holes.c", "plan.c"], entries, need, tmp_path)
