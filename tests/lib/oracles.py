"""Helpers for tests that run with every runtime: known failures, and refusals."""

from __future__ import annotations

import json

import pytest

from tests.lib.boxes import SHORT
from tests.lib.containers import until

IGNORED = "it is not known, and is ignored"


def differs(runtime, sentence):
    """Mark a test or a case as one that a runtime fails, with the sentence of the specification that it breaks."""
    return pytest.mark.differs(runtime, sentence)


def assert_refused(box, config, *words):
    """Check that the container is refused, with an error that contains one of these words."""
    done = box.run(config, "echo ran")
    assert (done.returncode != 0, done.stdout) == (True, ""), done
    assert any(word in done.stderr.lower() for word in words), done.stderr


SLEEP = "exec sleep 1000"


def call(box, *words, **options):
    """Run a verb to its end."""
    return box.user.run([*box.command, *words], timeout=SHORT, **box.options | options)


def state(box, name="held"):
    """Return the state of a container."""
    return json.loads(call(box, "state", name, check=True).stdout)


def stop(box):
    """End the container's program."""
    call(box, "kill", "held", "KILL", check=True)
    until(lambda: state(box)["status"] == "stopped", "the program ends")
