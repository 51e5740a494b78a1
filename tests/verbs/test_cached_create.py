"""`create` and `run --detach` from cached Plans: the next container of an engine has other identifiers."""

from __future__ import annotations

import json
import random
import re
import secrets
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_rootfs, own
from tests.lib.cgroup2 import InView, cgroup2
from tests.lib.containers import Rootless, await_end, until
from tests.lib.native import CHANGING, HOSTILE_ENTRIES, Runs, without_numbers

__all__ = ["cgroup2"]  # the fixture

OFF = {"ROOTLESS_FRONT": "0"}
NUMBER = "123456789012"
SCRIPT = "hostname; echo $HOSTNAME; cat /etc/hosts /run/.containerenv; exit 3"


def _identifier():
    """Return an identifier, but none that begins like a number: those are rare, and make no entry for others."""
    return f"a{secrets.token_hex(32)[1:]}"


class Engine:
    """Bundles and command lines as podman makes them.

    Attributes:
        native: whether the last command needed no Python.
        complaints: its standard error.
        prefix: the words before it.
        rootfs: the root file system of all containers, each by a path of its own.
    """

    def __init__(self, rootless, need, *, prefix=(), options=None):
        self.rootless = rootless
        self.user = rootless.user
        plain = Rootless(self.user, rootless.command)  # the prefix comes before strace
        plain.root = rootless.root
        self.runs = Runs(plain, need)
        self.native = False
        self.complaints = ""
        self.prefix = prefix
        self._options = options or {}
        self.rootfs = make_rootfs(self.user.tmp / "rootfs")
        own(self.user, self.rootfs)

    def container(self, script=SCRIPT, *, order=(0, 1, 2), **changes) -> str:
        """Make the files of a container, and return its id."""
        name, layer_name = _identifier(), _identifier()
        layer = self.user.tmp / "overlay" / layer_name
        layer.mkdir(parents=True)
        (layer / "merged").symlink_to(self.rootfs)
        directory = self.directory(name)
        directory.mkdir(parents=True)
        files = [("/etc/hosts", "hosts"), ("/run/.containerenv", "env"), ("/etc/hostname", "hostname")]
        for _, file in files:
            (directory / file).write_text(f"{file} of {name}\n")
        config = base_config("sh", "-c", script)
        config["root"]["path"] = str(layer / "merged")
        config["hostname"] = name[:12]
        variables = ["PATH=/bin", f"HOSTNAME={name[:12]}", "container=podman"]
        config["process"]["env"] = [variables[place] for place in order]
        mounts = [
            {"destination": to, "type": "bind", "source": str(directory / file), "options": ["bind"]}
            for to, file in files
        ]
        config["mounts"] += [mounts[place] for place in order]
        config |= changes
        (directory / "config.json").write_text(json.dumps(config, separators=(",", ":")))
        own(self.user, self.user.tmp / "containers")
        return name

    def directory(self, name) -> Path:
        """Return the directory of a container."""
        return self.user.tmp / "containers" / name / "userdata"

    def edit(self, name, function) -> None:
        """Change the config.json of a container."""
        path = self.directory(name) / "config.json"
        config = json.loads(path.read_text())
        function(config)
        path.write_text(json.dumps(config, separators=(",", ":")))

    def words(self, name, *flags, verb=("create",)) -> list[str]:
        """Return the command line for a container."""
        directory = self.directory(name)
        return [*verb, "--bundle", str(directory), "--pid-file", str(directory / "pidfile"), *flags, name]

    def __call__(self, words, *, strace=(), **options) -> int:
        """Run a command line to its end and return its status."""
        with (self.user.tmp / "err").open("w+b") as err, (self.user.tmp / "out").open("ab") as out:
            options = {"stdout": out, "stderr": err} | self._options | options
            done, self.native = self.runs(*words, strace=strace, prefix=self.prefix, **options)
            err.seek(0)
            self.complaints = err.read().decode()
        return done.returncode

    def create(self, name, *flags, **options) -> int:
        """Run `create`."""
        return self(self.words(name, *flags), **options)

    def warm(self, *flags, script=SCRIPT) -> None:
        """Create and delete containers until Python takes no part."""
        for _ in range(3):
            name = self.container(script)
            assert self.create(name, *flags) == 0, self.complaints
            self.delete(name)
        assert self.native

    def entries(self) -> list[Path]:
        """Return the files of cached Plans."""
        plans = self.user.runtime_dir / "rootless/@plans"
        return [path for path in plans.iterdir() if path.name != "seen"]

    def entry(self) -> Path:
        """Return the file of the only cached Plan."""
        (entry,) = self.entries()
        return entry

    def kept_entry(self) -> tuple[Path, bytes]:
        """Return the file of the only cached Plan, and its content."""
        return self.entry(), self.entry().read_bytes()

    def restore(self, kept) -> None:
        """Make an entry the only one again, as Python has written it."""
        for each in self.entries():
            each.unlink()
        path, content = kept
        path.write_bytes(content)
        path.chmod(0o600)
        own(self.user, path)

    def delete(self, name) -> None:
        """Delete a container."""
        self.rootless("delete", "--force", name, check=True)

    def files(self, name):
        """Return the files of a container, without what differs for each process and each container."""
        directory = self.rootless.root / name
        found = {}
        for path in directory.iterdir():
            content = path.read_bytes() if path.is_file() else b""
            config = json.loads((directory / "config.json").read_text())
            layer = Path(config["root"]["path"]).parent.name
            for old, new in ((name, "I" * 64), (name[:12], "I" * 12), (layer, "L" * 64)):
                content = content.replace(old.encode(), new.encode())
            found[path.name] = (oct(path.stat().st_mode), content)
        return without_numbers(found)


@pytest.fixture
def engine(rootless, need):
    """An engine, and an empty cache."""
    shutil.rmtree(rootless.user.runtime_dir / "rootless/@plans", ignore_errors=True)
    return Engine(rootless, need)


def test_containers_with_other_identifiers_need_no_python(engine, rootless):
    seen, native = [], []
    for env in ({}, {}, {}, {}, OFF):
        name = engine.container()
        assert (engine.create(name, env=env), engine.complaints) == (0, "")
        native.append(engine.native)
        state = rootless.state(name)
        assert (state["id"], state["status"], state["bundle"]) == (name, "created", str(engine.directory(name)))
        assert (engine.directory(name) / "pidfile").read_text() == str(state["pid"])
        seen.append(engine.files(name))
        out = engine.user.tmp / "out"
        out.write_text("")
        rootless.start(name)
        await_end(state["pid"])
        assert out.read_text() == f"{name[:12]}\n{name[:12]}\nhosts of {name}\nenv of {name}\n"
        rootless("delete", name, check=True)
    assert native == [False, False, True, True, False]
    assert all(each == seen[0] for each in seen[1:])
    assert list(rootless.root.iterdir()) == []


def test_verbs_on_such_a_container_need_no_python(engine):
    engine.warm(script="sleep 100")
    name = engine.container("sleep 100")
    assert (engine.create(name), engine.native) == (0, True)
    for words in (
        ["state", name],
        ["start", name],
        ["kill", name, "CONT"],
        ["list", "-q"],
        ["delete", "--force", name],
    ):
        assert (engine(words), engine.native) == (0, True), words


def test_order_that_has_no_meaning_may_differ(engine, rootless):
    engine.warm()
    for order in ((2, 0, 1), (1, 2, 0), (2, 1, 0)):
        name = engine.container(order=order)
        assert (engine.create(name), engine.native) == (0, True)
        rootless.start(name)
        stored = json.loads((rootless.root / name / "config.json").read_text())
        assert stored == json.loads((engine.directory(name) / "config.json").read_text())
        engine.delete(name)


def _swapped_mounts(config):
    places = [each["destination"] for each in config["mounts"]]
    one, other = places.index("/dev"), places.index("/dev/pts")
    mounts = config["mounts"]
    mounts[one], mounts[other] = mounts[other], mounts[one]


def _last(config):
    return config["mounts"][-1]


DIFFERENCES = {
    "order of nested mounts": _swapped_mounts,
    "another value": lambda config: config["process"]["env"].__setitem__(0, "PATH=/bin:"),
    "another variable": lambda config: config["process"]["env"].append("A=1"),
    "a variable less": lambda config: config["process"]["env"].pop(),
    "a variable twice": lambda config: config["process"]["env"].append("PATH=/bin"),
    "a mount less": lambda config: config["mounts"].pop(),
    "a mount twice": lambda config: config["mounts"].append(_last(config)),
    "another destination": lambda config: _last(config).update(destination="/etc/other"),
    "another option": lambda config: _last(config).update(options=["bind", "ro"]),
    "another source": lambda config: _last(config).update(source="/etc/hosts"),
    "capital digits": lambda config: config.update(hostname="ABCDEF012345"),
    "no digits": lambda config: config.update(hostname="../../../../"),
    "another hostname": lambda config: config.update(hostname="0" * 12),
    "other arguments": lambda config: config["process"]["args"].append("x"),
}


def test_other_differences_are_pythons(engine):
    engine.warm()
    kept = engine.kept_entry()
    for what, change in DIFFERENCES.items():
        name = engine.container()
        engine.edit(name, change)
        engine.create(name)
        assert not engine.native, what
        engine.restore(kept)  # Python may have replaced it
        name = engine.container()
        assert (engine.create(name), engine.native) == (0, True), what


def test_digits_elsewhere_are_no_identifier(engine):
    native = []
    for annotation in ("abcdef012345",) * 3 + ("abcdef012346",):
        name = engine.container(annotations={"key": annotation})
        assert engine.create(name) == 0
        native.append(engine.native)
        assert engine.rootless.state(name)["annotations"] == {"key": annotation}
        engine.delete(name)
    assert native == [False, False, True, False]


def test_two_identifiers_that_have_become_one_are_pythons(engine):
    engine.warm()
    name = engine.container()
    merged = engine.user.tmp / "overlay" / name
    merged.mkdir()
    engine.edit(name, lambda config: config["root"].update(path=shutil.move(config["root"]["path"], merged)))
    assert (engine.create(name), engine.native) == (0, False)


def _has_key(engine, name, identifier):
    path = engine.directory(name) / "config.json"
    path.write_text(f'{path.read_text()[:-1]},"annotations":{{"{NUMBER}":"","{identifier}":""}}}}')


def _has_variable(engine, name, identifier):
    variables = [f"{identifier}=1", f"{NUMBER}=2"]
    engine.edit(name, lambda config: config["process"]["env"].extend(variables))


@pytest.mark.parametrize("change", [_has_key, _has_variable])
def test_identifier_that_has_become_other_text_of_the_request_is_pythons(engine, change):
    outcomes = []
    for identifier in ("a" * 12, "b" * 12, "c" * 12, NUMBER, NUMBER):
        name = engine.container()
        engine.edit(name, lambda config, value=identifier: config["process"]["env"].append(f"X={value}"))
        change(engine, name, identifier)
        status = engine.create(name, env=OFF if len(outcomes) > 3 else {})
        outcomes.append((status, engine.native))
        if status == 0:
            engine.delete(name)
    assert outcomes[:3] == [(0, False), (0, False), (0, True)]
    assert outcomes[3] == outcomes[4] == (outcomes[4][0], False)


def test_boot_is_no_identifier(engine, rootless):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for place in (boot, boot, boot, str(uuid.uuid4())):
        name = engine.container()
        assert engine(["--log", str(engine.directory(name) / place), *engine.words(name)]) == 0
        assert engine.rootless.status(name) == "created"
        assert json.loads((rootless.root / name / "state.json").read_text())["bootId"] == boot
        engine.delete(name)


def test_escaped_identifier_keeps_its_value(engine, rootless):
    for digits in ("abcdef012345",) * 3 + ("fedcba543210",):
        name = engine.container("hostname", hostname="HOSTNAME")
        directory = engine.directory(name)
        path = directory / "config.json"
        path.write_text(path.read_text().replace("HOSTNAME", r"abcd\u0065f012345"))
        assert engine(["create", "--bundle", str(directory), "--pid-file", str(directory / digits), name]) == 0
        pid = rootless.pid(name)
        rootless.start(name)
        await_end(pid)
        engine.delete(name)
    assert set((engine.user.tmp / "out").read_text().splitlines()) == {"abcdef012345"}


@pytest.mark.parametrize("harm", ["symlink to a directory", "nothing", "file"])
def test_root_that_is_another_is_pythons(engine, harm):
    engine.warm()
    name = engine.container()
    config = json.loads((engine.directory(name) / "config.json").read_text())
    root = Path(config["root"]["path"])
    root.rename(root.with_name("away"))
    if harm == "file":
        root.write_text("x")
    elif harm != "nothing":
        root.symlink_to("/etc")
    engine.create(name)
    assert not engine.native


def test_log_has_the_same_lines(engine):
    logs = []
    for env in ({}, {}, {}, OFF):
        name = engine.container(annotations={"org.systemd.property.KillSignal": "15"})
        log = engine.directory(name) / "oci-log"
        words = ["--log-format=json", "--log", str(log), *engine.words(name)]
        assert engine(words, env=env) == 0
        logs.append([(line.pop("time")[:16], line) for line in map(json.loads, log.read_text().splitlines())])
        assert oct(log.stat().st_mode) == "0o100644"
        engine.delete(name)
    assert not engine.native
    assert "KillSignal" in logs[0][-1][1]["msg"]
    assert all([line for _, line in each] == [line for _, line in logs[0]] for each in logs)
    assert engine(["--log", "/nowhere/log", *engine.words(engine.container())]) == 1
    assert "/nowhere/log" in engine.complaints


def test_log_without_python(engine, rootless):
    def create(make_log=str):
        name = engine.container()
        log = engine.directory(name) / "log"
        make_log(log)
        return name, engine(["--log", str(log), *engine.words(name)])

    for _ in range(3):
        name, status = create()
        assert status == 0
        engine.delete(name)
    assert engine.native
    for harm in (lambda log: log.symlink_to("/nowhere/log"), Path.mkdir):
        _, status = create(harm)
        assert (status, engine.native) == (1, False)
        assert "--log: open" in engine.complaints
    assert list(rootless.root.iterdir()) == []


def test_removed_directory_needs_python(engine):
    engine.prefix = ["sh", "-ec", 'cd "$(mktemp -d)"; rmdir "$PWD"; exec "$@"', "sh"]
    for _ in range(3):
        name = engine.container()
        assert (engine.create(name), engine.native, engine.complaints) == (0, False, "")
        engine.delete(name)


def test_pid_file_is_replaced_and_its_error_is_pythons(engine, rootless):
    engine.warm()
    name = engine.container()
    path = engine.directory(name) / "pidfile"
    path.write_text("old and longer")
    assert (engine.create(name), engine.native) == (0, True)
    assert path.read_text() == str(rootless.pid(name))
    engine.delete(name)
    name = engine.container()
    (engine.directory(name) / "pidfile").mkdir()
    assert (engine.create(name), engine.native) == (1, False)
    assert "--pid-file: cannot write" in engine.complaints
    assert list(rootless.root.iterdir()) == []


def test_hostile_entry_is_not_followed(engine, require_root):
    engine.warm()
    kept = engine.kept_entry()
    for kind, harm in HOSTILE_ENTRIES.items():
        name = engine.container()
        assert (engine.create(name), engine.native) == (0, True), kind
        harm(engine.entry())
        name = engine.container()
        assert (engine.create(name), engine.native, engine.complaints) == (0, False, ""), kind
        engine.restore(kept)


def test_taken_id_is_refused_as_by_python(engine):
    engine.warm()
    name = engine.container()
    assert engine.create(name) == 0
    answers = [(engine.create(name, env=env), engine.complaints) for env in ({}, OFF)]
    assert answers[0] == answers[1]
    assert (answers[0][0], "already exists" in answers[0][1]) == (1, True)
    assert engine.rootless.status(name) == "created"


def calls_of(trace) -> dict[str, int]:
    """Return how often each call that changes something occurs in a trace."""
    names = [line.partition("(")[0] for line in trace.read_text().splitlines()]
    return {name: names.count(name) for name in (*CHANGING, "bind", "listen", "linkat", "fchmod") if name in names}


def test_killed_at_any_call_nothing_stays_that_delete_does_not_remove(cgroup2, user, rootless_command, need):
    shutil.rmtree(user.runtime_dir / "rootless/@plans", ignore_errors=True)
    with InView(cgroup2, user, rootless_command) as rootless:
        engine = Engine(rootless, need, prefix=cgroup2.prefix(), options=cgroup2.options)
        linux = base_config()["linux"] | {"cgroupsPath": f"{cgroup2.path}/box"}

        def create(**options):
            name = engine.container(linux=linux)
            engine(engine.words(name), **options)
            return name

        for _ in range(3):
            engine.delete(create(strace=["-e", "trace=all"]))
        assert engine.native, engine.complaints
        counts = calls_of(user.tmp / "execve")
        assert counts.keys() >= {"bind", "linkat", "renameat", "mkdir"}
        for call, count in counts.items():
            for when in range(1, count + 1, 1 + count // 4):
                name = create(strace=["-e", f"inject={call}:signal=SIGKILL:when={when}"])
                done = rootless("delete", "--force", name)
                assert done.returncode == 0 or "does not exist" in done.stderr, (call, when, done)
                assert list(rootless.root.iterdir()) == [], (call, when)
                until(lambda: cgroup2.cgroups() == [], f"no cgroup after {call} {when}")
        engine.delete(create())
        assert engine.native


def test_cgroup_named_after_its_container_needs_no_look_at_others(cgroup2, user, rootless_command, need):
    shutil.rmtree(user.runtime_dir / "rootless/@plans", ignore_errors=True)
    with InView(cgroup2, user, rootless_command) as rootless:
        engine = Engine(rootless, need, prefix=cgroup2.prefix(), options=cgroup2.options)

        def create(env):
            name = engine.container("sleep 100")
            linux = base_config()["linux"] | {"cgroupsPath": f"{cgroup2.path}/box-{name}"}
            engine.edit(name, lambda config: config.update(linux=linux))
            assert engine.create(name, env=env, strace=["-s", "4096"]) == 0, engine.complaints
            return name

        others = [create({}) for _ in range(3)]
        assert engine.native
        for env in ({}, OFF):
            name = create(env)
            assert engine.native == (env != OFF)
            trace = (user.tmp / "execve").read_text()
            assert name in trace
            assert not any(other in trace for other in others)


FAILING = (
    "mkdirat",
    "openat",
    "open",
    "flock",
    "memfd_create",
    "sendfile",
    "pipe2",
    "write",
    "renameat",
    "poll",
    "read",
)
FAILING += ("fstat", "newfstatat", "fcntl", "clone", "socket", "bind", "listen", "fchmod", "linkat", "signalfd4")


def test_each_failed_call_has_the_same_outcome(engine, rootless):
    engine.warm()
    name = engine.container()
    assert engine.create(name, strace=["-e", "trace=all"]) == 0
    names = [line.partition("(")[0] for line in (engine.user.tmp / "execve").read_text().splitlines()]
    engine.delete(name)
    kept = engine.kept_entry()
    for call in FAILING:
        count = names.count(call)
        for when in range(1, count + 1, 1 + count // 3):
            name = engine.container()
            assert engine.create(name, strace=["-e", f"inject={call}:error=ENOMEM:when={when}"]) == 0, (call, when)
            assert rootless.status(name) == "created", (call, when)
            engine.delete(name)
            engine.restore(kept)  # a failure removes it
    name = engine.container()
    assert (engine.create(name), engine.native) == (0, True)
    engine.delete(name)
    assert list(rootless.root.iterdir()) == []


@pytest.mark.parametrize("call", ["mkdirat", "sendfile", "linkat"])
def test_signal_ends_the_command_or_comes_too_late(engine, rootless, call):
    engine.warm()
    name = engine.container()
    status = engine.create(name, strace=["-e", f"inject={call}:signal=SIGTERM:when=1"])
    assert engine.native
    if call == "linkat":
        assert (status, rootless.status(name)) == (0, "created")
        engine.delete(name)
    assert status in (0, 128 + signal.SIGTERM)
    assert list(rootless.root.iterdir()) == []


# --- run --detach -----------------------------------------------------------------------------------------------------


def test_detached_run_needs_no_python(engine, rootless):
    seen, native = [], []
    for env in ({}, {}, {}, {}, OFF):
        name = engine.container("echo up; sleep 100")
        assert (engine(engine.words(name, verb=("run", "--detach")), env=env), engine.complaints) == (0, "")
        native.append(engine.native)
        state = rootless.state(name)
        assert state["status"] == "running"
        assert (engine.directory(name) / "pidfile").read_text() == str(state["pid"])
        until(lambda: (engine.user.tmp / "out").read_text().endswith("up\n"), "its output")
        seen.append(engine.files(name))
        assert rootless("exec", name, "echo", "inside", check=True).stdout == "inside\n"
        engine.delete(name)
    assert native == [False, False, True, True, False]
    assert all(each == seen[0] for each in seen[1:])


def test_warning_that_a_session_ends_the_container_comes_in_its_cgroup(cgroup2, user, rootless_command, need):
    shutil.rmtree(user.runtime_dir / "rootless/@plans", ignore_errors=True)
    session = cgroup2.directory / f"user@{user.uid}.service"
    session.mkdir()
    with InView(cgroup2, user, rootless_command) as rootless:
        engine = Engine(rootless, need, prefix=cgroup2.prefix(), options=cgroup2.options)
        for path, native in ((cgroup2.path, False), (cgroup2.path, False), (cgroup2.path, True), (None, False)):
            engine.prefix = cgroup2.prefix(path=path or f"{cgroup2.path}/{session.name}")
            name = engine.container("sleep 100")
            assert engine(["--cgroup-manager", "disabled", *engine.words(name, verb=("run", "--detach"))]) == 0
            assert (engine.native, "when you log out" in engine.complaints) == (native, path is None)
            engine.delete(name)


def test_foreground_run_with_other_identifiers_needs_no_python(engine, rootless):
    native = []
    for _ in range(4):
        name = engine.container()
        assert (engine(engine.words(name, verb=("run",))), engine.complaints) == (3, "")
        native.append(engine.native)
        assert (engine.directory(name) / "pidfile").read_text().isdecimal()
    assert (engine.user.tmp / "out").read_text().endswith(f"hosts of {name}\nenv of {name}\n")
    assert native == [False, False, True, True]
    assert list(rootless.root.iterdir()) == []


def test_detached_program_that_is_missing_is_reported_as_by_python(engine, rootless):
    command = ["/bin/program"]

    def run(env):
        name = engine.container(process=base_config(*command)["process"])
        status = engine(engine.words(name, verb=("run", "-d")), env=env)
        if status == 0:
            engine.delete(name)
        return status, re.sub(r"[0-9a-f]{12,}", "ID", engine.complaints)

    program = engine.rootfs / "bin/program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert [run({}) for _ in range(3)] == [(0, "")] * 3
    assert engine.native
    program.write_bytes(b"\x7fELF nothing")
    assert run({}) == run(OFF)
    assert list(rootless.root.iterdir()) == []


def test_a_hundred_at_once(engine, rootless):
    engine.warm(script="sleep 1000")
    names = [engine.container("sleep 1000") for _ in range(100)]
    nothing = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    running = [rootless.popen(*engine.words(name), **nothing) for name in names]
    assert [process.wait(60) for process in running] == [0] * len(names)
    assert sorted(each["id"] for each in rootless.list()) == sorted(names)
    rootless("delete", "--force", "--regex", ".*", check=True)
    assert list(rootless.root.iterdir()) == []


def test_creates_race_with_deletes_and_are_killed(engine, rootless):
    engine.warm()
    chance = random.Random(16)
    for _ in range(10):
        name = engine.container()
        assert engine.create(name) == 0
        pid = rootless.pid(name)
        delete = ["delete", "--force", name]
        with (engine.user.tmp / "race").open("w+b") as errors:
            racing = [
                rootless.popen(*words, env=chance.choice(({}, OFF)), stdout=subprocess.DEVNULL, stderr=errors)
                for words in (delete, engine.words(name), chance.choice((delete, engine.words(name))))
            ]
            victim = chance.choice([*racing, None])
            if victim:
                time.sleep(chance.random() * 0.02)  # any moment
                victim.kill()
            for process in racing:
                assert process.wait(30) in (0, 1, -signal.SIGKILL if process is victim else 0)
            errors.seek(0)
            assert b"internal error" not in errors.read()
        pids = {pid, *(each["pid"] for each in rootless.list())} - {0}  # of what a killed command has left
        rootless(*delete, check=True, env=chance.choice(({}, OFF)))
        for each in pids:
            await_end(each)
        assert list(rootless.root.iterdir()) == []


def test_one_of_two_gets_the_id(engine, rootless):
    engine.warm()
    for _ in range(12):
        name = engine.container()
        nothing = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        both = [rootless.popen(*engine.words(name), env=env, **nothing) for env in ({}, OFF)]
        assert sorted(process.wait(30) for process in both) == [0, 1]
        assert rootless.status(name) == "created"
        engine.delete(name)
    assert list(rootless.root.iterdir()) == []
