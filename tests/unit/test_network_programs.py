"""Helpers of the host that do not do what they should: programs of the test's own in their place."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from rootless.errors import RootlessError
from rootless.network import hostports, programs
from rootless.plan.network_helpers import Helper
from rootless.plan.ports import Port


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a shell script as a helper."""

    def start_program(name, script):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        network = SimpleNamespace(ports=(), sandbox=True, owned=True)
        return programs.Program(Helper(name, str(program), []), network, keeper, str(tmp_path))

    watched, end = os.pipe()
    keeper = SimpleNamespace(pid=os.getpid(), end=watched)
    yield start_program
    os.close(watched)
    os.close(end)


@pytest.mark.parametrize("name", ["slirp4netns", "pasta"])
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("exec sleep 1000", "it is not ready after 0 s"),
        ("echo first; echo no such thing >&2; exit 1", "first; no such thing"),
        ("exit 1", "it ended without a word"),
        ("kill -KILL $$", "it ended without a word"),
    ],
)
def test_a_helper_that_does_not_serve_is_ended_and_its_last_words_are_told(start, monkeypatch, name, script, cause):
    monkeypatch.setattr(programs, "_PATIENCE", 900 if "sleep" in script else 20_000)
    program = start(name, script)
    started = program.pid
    with pytest.raises(RootlessError) as caught:
        program.await_ready()
    assert (caught.value.code, caught.value.cause) == ("RL-NETWORK", cause)
    with pytest.raises(ChildProcessError):
        os.waitpid(started, os.WNOHANG)


def test_a_helper_that_cannot_be_executed(tmp_path):
    network, keeper = SimpleNamespace(ports=(), owned=True), SimpleNamespace(pid=1, end=-1)
    with pytest.raises(RootlessError) as caught:
        programs.Program(Helper("pasta", str(tmp_path), []), network, keeper, str(tmp_path))
    assert (caught.value.code, caught.value.cause) == ("RL-NETWORK", "permission denied")


def reserve(*ports, first_port=1024):
    with pytest.raises(RootlessError) as caught:
        hostports.reserve(ports, first_port, lambda _: "")
    assert caught.value.code == "RL-PUBLISH"
    return caught.value


@pytest.mark.parametrize("number", [0, 8080])
def test_an_address_that_the_host_does_not_have(number):
    error = reserve(Port("tcp", "192.0.2.77", number, 80))
    assert error.cause == "the host has no address 192.0.2.77"


@pytest.mark.parametrize(
    ("outside", "first_port", "free"), [(80, 1024, 8080), (80, 10_000, 10_000), (60_000, 61_000, 61_000)]
)
def test_a_port_for_root_comes_with_one_that_everybody_may_have(monkeypatch, outside, first_port, free):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hostports, "_bind", refuse)
    assert reserve(Port("tcp", "", outside, 80), first_port=first_port).fix.startswith(f"use port {free}, or ")
