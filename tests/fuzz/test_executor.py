"""A short run of the fuzzer in executor.c: the executor reads any bytes as a Plan within their bounds.

ROOTLESS_FUZZ_SECONDS makes it a long run, which starts with the kept corpus and fails like the short one:

    ROOTLESS_FUZZ_SECONDS=3600 tests/run tests/fuzz -o faulthandler_timeout=0

ROOTLESS_FUZZ_CORPUS names a directory for inputs that the fuzzer keeps. tests/fuzz/corpus is such a directory after
libFuzzer's -merge=1, which drops inputs that reach no new code.
"""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

from rootless.bundle.load import Bundle
from rootless.errors import RootlessError
from rootless.options import Options
from rootless.plan.compile import compile_plan
from rootless.plan.encode import encode
from rootless.plan.request import Request
from tests.lib.configurations import CALLERS, CONFIGURATIONS
from tests.lib.ops_header import SOURCES, includes

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
SECONDS = int(os.environ.get("ROOTLESS_FUZZ_SECONDS", "20"))
LARGEST = 16384
MOST_CORPUS_BYTES = 200_000

FLAGS = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
    # libFuzzer has its own main; mappings get exact bounds
    *("-Dmain=executor_main", "-Dmmap=exact_mmap"),
)


@pytest.fixture(scope="session")
def fuzz(tmp_path_factory, need):
    """Return a function that runs the fuzzer with options and directories, and shows the input on which it fails."""
    directory = tmp_path_factory.mktemp("fuzz")
    program = directory / "fuzzer"
    found = includes(directory)
    sources = [HERE / "executor.c", directory / "ops.c", *sorted(SOURCES.glob("*.c"))]
    subprocess.run([need("clang"), *FLAGS, *found, *sources, "-o", program], check=True)

    def run(*words) -> str:
        words = [program, f"-artifact_prefix={directory}/found-", f"-max_len={LARGEST}", "-timeout=10", *words]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        if done.returncode:
            found = [base64.b64encode(path.read_bytes()).decode() for path in directory.glob("found-*")]
            pytest.fail(f"{done.stderr[-5000:]}\nThe input, in base64: {' '.join(found) or 'was not kept'}")
        return done.stderr

    return run


@pytest.fixture(scope="session")
def seeds(tmp_path_factory):
    """Return a directory of Plans that are compiled from real configurations."""
    directory = tmp_path_factory.mktemp("seeds")
    for name, config in CONFIGURATIONS.items():
        for number, facts in enumerate(CALLERS.values()):
            request = Request(Options(container="c1"))
            try:
                plan = compile_plan(Bundle("/home/user/bundle", config), facts, request)
            except RootlessError:
                continue
            (directory / f"{name}-{number}").write_bytes(encode([op for _, op in plan.executor_part()]))
    return directory


def test_corpus_and_seeds_are_read_within_their_bounds(fuzz, seeds):
    assert f"Done {len(list(CORPUS.iterdir())) + len(list(seeds.iterdir())) + 1} runs" in fuzz("-runs=0", CORPUS, seeds)


def test_mutated_plans_are_read_within_their_bounds(fuzz, seeds, tmp_path):
    found = Path(os.environ.get("ROOTLESS_FUZZ_CORPUS", tmp_path))
    told = fuzz(f"-max_total_time={SECONDS}", "-print_final_stats=1", found, CORPUS, seeds)
    assert int(told.partition("stat::number_of_executed_units:")[2].split()[0]) > 1000 * SECONDS, told


def test_the_corpus_is_small():
    assert 0 < sum(path.stat().st_size for path in CORPUS.iterdir()) < MOST_CORPUS_BYTES
