"""A short run of the fuzzer in front_door.c, from records of real states; test_executor.py has the variables."""

from __future__ import annotations

import base64
import os
import runpy
import subprocess
from pathlib import Path

import pytest

from rootless.container.operations.status_record import encode
from rootless.container.state.state import State

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent / "helpers/front"
SECONDS = int(os.environ.get("ROOTLESS_FUZZ_SECONDS", "10"))
FLAGS = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
)


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


def test_mutated_records_are_read_within_their_bounds(seeds, need, tmp_path):
    program = tmp_path / "fuzzer"
    runpy.run_path(str(SOURCES / "gen_flags.py"))["write"](tmp_path)
    sources = [HERE / "front_door.c", SOURCES / "record.c"]
    subprocess.run([need("clang"), *FLAGS, f"-I{SOURCES}", f"-I{tmp_path}", *sources, "-o", program], check=True)
    words = [f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/found-", "-print_final_stats=1", seeds]
    done = subprocess.run([program, *words], stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        found = [base64.b64encode(path.read_bytes()).decode() for path in tmp_path.glob("found-*")]
        pytest.fail(f"{done.stderr[-5000:]}\nThe input, in base64: {' '.join(found) or 'was not kept'}")
    assert int(done.stderr.partition("stat::number_of_executed_units:")[2].split()[0]) > 1000 * SECONDS, done.stderr
