"""`rootless run`: the program behaves like a child of the caller, and nothing is left afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.containers import Reader, await_end, executors
from tests.lib.waiting import each_waiter

__all__ = ["each_waiter"]

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


@pytest.fixture
def runs(rootless, user):
    """Return a function that runs a command in a container c1."""
    bundle = make_bundle(user)

    def run(*args, flags=(), **options) -> subprocess.CompletedProcess:
        write_config(bundle, base_config(*args))
        return rootless("run", "--bundle", bundle, *flags, "c1", **options)

    return run


def nothing_is_left(rootless):
    assert rootless.list() == []
    assert list(rootless.root.iterdir()) == []
    assert executors(rootless.user) == set()


# --- status ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_waiter")
@pytest.mark.parametrize("status", [0, 1, 2, 7, 126, 127, 128, 137, 254, 255])
def test_the_exit_status_is_the_programs(runs, rootless, status):
    done = runs("sh", "-c", f"exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    nothing_is_left(rootless)


@pytest.mark.parametrize("sign", ["KILL", "TERM", "SEGV", "ABRT", "RTMIN+5"])
def test_status_of_a_signalled_program_is_128_more(rootless, user, sign):
    number = int(signal.SIGRTMIN) + 5 if "RT" in sign else int(getattr(signal, f"SIG{sign}"))
    # process 1 of a pid namespace ignores signals that it sends to itself
    config = base_config("sh", "-c", f"kill -{number} $$")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    done = rootless("run", "--bundle", make_bundle(user, config), "c1")
    assert (done.returncode, done.stderr) == (128 + number, "")
    nothing_is_left(rootless)


@pytest.mark.usefixtures("each_waiter")
def test_status_of_a_killed_program_is_128_more(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; sleep 1000 & wait"))
    with rootless.popen("run", "--bundle", bundle, "c1", stdout=subprocess.PIPE) as run:
        container = Reader(run.stdout)
        assert container.line() == "ready"
        os.kill(rootless.pid("c1"), signal.SIGKILL)
        assert run.wait(timeout=30) == 137
        assert container.rest() == b"", "the end of process 1 has ended the rest of its namespace"
    nothing_is_left(rootless)


def test_the_children_of_the_program_end_with_it(runs, rootless):
    done = runs("sh", "-c", "sleep 1000 & sleep 1000 & echo done")
    assert (done.returncode, done.stdout) == (0, "done\n")
    nothing_is_left(rootless)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_waiter")
def test_the_streams_are_the_callers(runs):
    done = runs("sh", "-c", "cat; echo to stderr >&2", input="over a pipe\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "over a pipe\n", "to stderr\n")


def test_streams_that_are_files_stay_the_same_files(runs, user):
    given, taken = user.tmp / "in", user.tmp / "out"
    given.write_bytes(bytes(range(256)) * 10)
    taken.write_bytes(b"before\n")
    own(user, taken)
    with given.open("rb") as stdin, taken.open("ab") as stdout:
        done = runs("sh", "-c", "cat; echo end", stdin=stdin, stdout=stdout)
    assert done.returncode == 0
    assert taken.read_bytes() == b"before\n" + given.read_bytes() + b"end\n"


@pytest.mark.usefixtures("each_waiter")
def test_streams_that_are_closed_are_null_in_the_container(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "ls -l /proc/self/fd >/data/fds; echo lost; echo lost >&2; cat"))
    words = " ".join(rootless.argv("run", "--bundle", bundle, "c1"))
    done = user.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"])
    assert done.returncode == 0
    links = dict(re.findall(r" (\d) -> (.*)", (bundle / "rootfs/data/fds").read_text()))
    assert links["0"] == links["2"] == "/dev/null"


def test_reopened_stream_is_the_same_stream(rootless, user):
    script = "echo to stdout >/dev/stdout; echo to stderr >/dev/stderr; cat /dev/stdin"
    words = " ".join(rootless.argv("run", "-b", make_bundle(user, base_config("sh", "-c", script)), "c1"))
    done = user.run(["sh", "-c", f"(echo stdin | {words} | sed s/^/1:/) 2>&1 | sed s/^/2:/"])
    assert sorted(done.stdout.splitlines()) == ["2:1:stdin", "2:1:to stdout", "2:to stderr"]


@pytest.mark.usefixtures("each_waiter")
def test_large_output_is_complete(runs):
    size = 64 << 20
    done = runs("sh", "-c", f"head -c {size} /dev/zero; echo end", text=False)
    assert len(done.stdout) == size + 4
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(bytes(size) + b"end\n").digest()


@pytest.mark.usefixtures("each_waiter")
def test_large_input_is_complete(runs):
    data = os.urandom(1 << 20) * 16
    done = runs("sh", "-c", "cat", input=data, text=False)
    assert done.stdout == data


@pytest.mark.usefixtures("each_waiter")
def test_closed_output_ends_the_program(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "while echo line; do :; done; exit 9"))
    with rootless.popen("run", "--bundle", bundle, "c1", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert Reader(run.stdout).line() == "line"
        run.stdout.close()
        assert run.wait(timeout=30) in (9, 128 + signal.SIGPIPE)
    nothing_is_left(rootless)


@pytest.mark.usefixtures("each_waiter")
def test_unread_input_is_left_for_other_programs(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", 'read line; echo "<$line>"'))
    words = " ".join(rootless.argv("run", "-b", bundle, "c1"))
    done = user.run(["sh", "-c", f"{words}; {words}; cat"], input="one\ntwo\nthree\nfour\n")
    assert done.stdout == "<one>\n<two>\nthree\nfour\n"


def test_output_is_only_the_programs(runs):
    done = runs("true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_waiter")
@pytest.mark.parametrize(
    "sign", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT", "TSTP", "RTMIN"]
)
def test_signals_are_forwarded(rootless, user, sign):
    number = int(getattr(signal, f"SIG{sign}"))
    script = f"trap 'echo got it; exit 42' {number}; echo ready; sleep 1000 & wait; wait"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    with rootless.popen("run", "--bundle", bundle, "c1", stdout=subprocess.PIPE) as run:
        container = Reader(run.stdout)
        assert container.line() == "ready"
        run.send_signal(number)
        assert container.line() == "got it"
        assert run.wait(timeout=30) == 42
    nothing_is_left(rootless)


@pytest.mark.parametrize("call", ["pidfd_open", "poll|ppoll"])
def test_early_signal_ends_only_the_program(rootless, user, need, call):
    """It arrives after the program may run and before everything is ready for its end."""
    bundle = make_bundle(user, base_config("sh", "-c", "exit 7"))
    calls = ",".join(f"?{name}" for name in call.split("|"))
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=TERM:when=1"]
    done = user.run([need("strace"), "-o", user.tmp / "strace", *inject, *rootless.argv("run", "-b", bundle, "c1")])
    assert "SIGTERM" in (user.tmp / "strace").read_text()
    assert done.returncode in (7, 128 + signal.SIGTERM)
    nothing_is_left(rootless)


@pytest.mark.usefixtures("each_waiter")
def test_a_signal_that_the_program_does_not_handle_does_not_end_process_1(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; read line; echo $line"))
    with rootless.popen("run", "-b", bundle, "c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        container = Reader(run.stdout)
        assert container.line() == "ready"
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGHUP)
        run.stdin.write("still here\n")
        run.stdin.flush()
        assert container.line() == "still here"
        assert run.wait(timeout=30) == 0


@pytest.mark.usefixtures("each_waiter")
def test_ignored_signals_stay_ignored(rootless, user):
    script = "trap 'echo hup' HUP; trap 'echo usr1; exit 0' USR1; echo ready; sleep 1000 & while :; do wait; done"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    words = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *rootless.argv("run", "-b", bundle, "c1")]
    with user.popen(words, stdout=subprocess.PIPE) as run:
        container = Reader(run.stdout)
        assert container.line() == "ready"
        run.send_signal(signal.SIGHUP)  # as under nohup(1)
        run.send_signal(signal.SIGUSR1)
        assert container.line() == "usr1"
        assert run.wait(timeout=30) == 0


@pytest.mark.usefixtures("each_waiter")
def test_control_c_goes_to_the_program_once(rootless, user):
    """The caller's terminal interrupts its foreground process group, which does not include the container."""
    driver = """
import os, pty, signal, sys
child, master = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
out = b""
while b"ready" not in out:
    out += os.read(master, 1000)
os.write(master, b"\\x03")
try:
    while more := os.read(master, 1000):
        out += more
except OSError:
    pass
sys.stdout.buffer.write(out)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    script = "trap 'echo int; exit 42' INT; echo ready; sleep 1000 & wait; wait"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    done = user.run([sys.executable, "-c", driver, *rootless.argv("run", "-b", bundle, "c1")], timeout=30)
    assert done.returncode == 42, done
    assert done.stdout.split() == ["ready", "^Cint"]
    nothing_is_left(rootless)


@pytest.mark.usefixtures("each_waiter")
def test_remains_of_a_killed_run_can_be_deleted(rootless, user):
    script = "echo $(ls /proc/self/fd | wc -l); sleep 1000 & wait"
    bundle = make_bundle(user, base_config("sh", "-c", script))
    mounts = Path("/proc/self/mountinfo").read_text()
    with rootless.popen("run", "-b", bundle, "c1", stdout=subprocess.PIPE) as run:
        Reader(run.stdout).line()
        run.kill()
        assert run.wait(timeout=30) == -signal.SIGKILL
    state = rootless.state("c1")
    assert state["status"] == "running", "the program continues"
    assert rootless("delete", "--force", "c1").returncode == 0
    assert not Path(f"/proc/{state['pid']}/root/bin").exists()
    nothing_is_left(rootless)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert rootless("run", "-b", make_bundle(user, name="again"), "c1").returncode == 0


@pytest.mark.usefixtures("each_waiter")
def test_run_of_a_container_that_another_command_deletes(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; sleep 1000 & wait"))
    with rootless.popen("run", "-b", bundle, "c1", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert Reader(run.stdout).line() == "ready"
        assert rootless("delete", "--force", "c1").returncode == 0
        assert run.wait(timeout=30) == 137
        assert run.stderr.read() == ""
    nothing_is_left(rootless)


# --- cleaning up -----------------------------------------------------------------------------------------------------


def test_running_container_is_listed(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; read line"))
    with rootless.popen("run", "-b", bundle, "c1", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert Reader(run.stdout).line() == "ready"
        state = rootless.state("c1")
        assert (state["status"], state["bundle"]) == ("running", str(bundle))
        assert "cannot start an already running container" in rootless("start", "c1").stderr
        second = rootless("run", "-b", bundle, "c1")
        assert second.returncode == 1
        assert "container with given ID already exists" in second.stderr
        run.stdin.close()
        assert run.wait(timeout=30) == 1
    nothing_is_left(rootless)


def test_keep_keeps_the_stopped_container(runs, rootless):
    assert runs("sh", "-c", "exit 5", flags=["--keep"]).returncode == 5
    state = rootless.state("c1")
    assert (state["status"], state["pid"]) == ("stopped", 0)
    assert rootless("delete", "c1").returncode == 0
    nothing_is_left(rootless)


def test_failed_run_leaves_nothing(runs, rootless):
    for flags in ([], ["--keep"], ["--detach"]):
        done = runs("/nope", flags=flags, stdout=subprocess.DEVNULL)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        nothing_is_left(rootless)


def test_detach_returns_while_the_program_runs(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "echo ready; cat; exit 3"))
    pid_file = user.tmp / "pid"
    words = ("run", "-d", "-b", bundle, "--pid-file", pid_file, "c1")
    with rootless.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.wait(timeout=30) == 0
        container = Reader(run.stdout)
        assert container.line() == "ready"
        state = rootless.state("c1")
        assert state["status"] == "running"
        assert pid_file.read_text() == str(state["pid"])
        parent = int(Path(f"/proc/{state['pid']}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent != run.pid
        run.stdin.write("over the pipe\n")
        run.stdin.close()
        assert container.rest() == b"over the pipe\n", "the streams are still those of the caller"
        await_end(state["pid"])
    assert rootless.status("c1") == "stopped", "no process is left to remove it"
    assert rootless("delete", "c1").returncode == 0


def test_pid_file_exists_before_the_program_runs(rootless, user):
    config = base_config("sh", "-c", "cat /pid/file")
    bundle = make_bundle(user, config)
    directory = user.tmp / "pid"
    directory.mkdir()
    own(user, directory)
    config["mounts"].append({"destination": "/pid", "source": str(directory), "options": ["rbind"]})
    write_config(bundle, config)
    done = rootless("run", "-b", bundle, "--pid-file", directory / "file", "c1")
    assert done.returncode == 0
    assert done.stdout.isdigit()


# --- which bundle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--bundle", "BUNDLE", "c1"], "."),
        (["-b", "BUNDLE", "c1"], "."),
        (["c1", "--bundle", "BUNDLE"], "."),
        (["c1", "-bBUNDLE"], "."),
        (["--bundle=BUNDLE", "c1"], "."),
        (["-bundle", "BUNDLE", "c1"], "."),
        (["c1"], "BUNDLE"),
        (["-b", ".", "c1"], "BUNDLE"),
        (["-b", "BUNDLE", "--config", "BUNDLE/config.json", "c1"], "."),
        (["-f", "config.json", "c1"], "BUNDLE"),
    ],
)
def test_the_argument_names_the_container_with_a_bundle_flag(rootless, user, words, where):
    bundle = make_bundle(user, base_config("echo", "hello"), name="its-bundle")
    words = [word.replace("BUNDLE", str(bundle)) for word in words]
    done = rootless("run", "--keep", *words, cwd=user.tmp / where.replace("BUNDLE", "its-bundle"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    assert [state["id"] for state in rootless.list()] == ["c1"]
    assert rootless.state("c1")["bundle"] == str(bundle)


@pytest.mark.parametrize(
    ("word", "where", "name"),
    [
        ("mybundle", ".", "mybundle"),
        ("./mybundle", ".", "mybundle"),
        ("mybundle/", ".", "mybundle"),
        ("{tmp}/mybundle", "/", "mybundle"),
        (".", "mybundle", "mybundle"),
        ("..", "mybundle/rootfs", "mybundle"),
        ("link", ".", "mybundle"),
        ("odd näme", ".", "odd_n_me"),
    ],
)
def test_the_argument_names_the_bundle_otherwise(rootless, user, word, where, name):
    bundle = make_bundle(user, base_config("echo", "hello"), name="odd näme" if "odd" in word else "mybundle")
    (user.tmp / "link").symlink_to("mybundle")
    done = rootless("run", "--keep", word.format(tmp=user.tmp), cwd=user.tmp / where)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    path = rootless.state(name)["bundle"]
    assert (os.path.isabs(path), os.path.realpath(path)) == (True, str(bundle))


def test_argument_that_is_neither_bundle_nor_id(rootless, user):
    done = rootless("run", "nowhere")
    assert done.returncode == 1
    assert done.stderr == (
        "rootless: run nowhere: no such file or directory: nowhere/config.json, and there is no config.json here; "
        "fix: rootless new nowhere makes a bundle; rootless run docker://nowhere runs an image; "
        "--bundle DIR says where the bundle of container nowhere is\n"
    )


def test_config_flag_names_another_file(rootless, user):
    bundle = make_bundle(user, base_config("echo", "of the bundle"))
    other = user.tmp / "other.json"
    other.write_text(json.dumps(base_config("echo", "of the other file")))
    for words in (("--config", other), ("-f", "other.json"), ("--config=other.json",)):
        done = rootless("run", "--bundle", bundle, *words, "c1", cwd=user.tmp)
        assert (done.returncode, done.stdout) == (0, "of the other file\n")
    (bundle / "config.json").unlink()
    assert rootless("run", "-b", bundle, "-f", other, "c1", cwd=user.tmp).stdout == "of the other file\n"


# --- options ---------------------------------------------------------------------------------------------------------


def test_container_has_its_own_session_keyring_by_default(rootless, user):
    """session-keyring(7): engines pass --no-new-keyring, because a user may have only 200 keys."""
    bundle = make_bundle(user, base_config("grep", "-o", " _ses[.][^:]*", "/proc/keys"))
    done = rootless("run", "-b", bundle, "with-its-own")
    assert " _ses.with-its-own" in done.stdout.splitlines()
    done = rootless("run", "-b", bundle, "--no-new-keyring", "without-its-own")
    assert " _ses.without-its-own" not in done.stdout.splitlines()


def test_no_pivot_changes_the_root_too(runs):
    script = "ls / | tr '\\n' ' '; ls /..; awk '$5 == \"/\"' /proc/self/mountinfo | wc -l; umount -l / 2>&1; ls /bin/sh"
    for flags in ([], ["--no-pivot"]):
        done = runs("sh", "-c", script, flags=flags)
        assert done.stdout.startswith("bin data dev etc proc root sys tmp bin\n"), done
        assert done.stdout.endswith("/bin/sh\n")


def test_flags_of_other_runtimes_are_accepted(rootless, user):
    bundle = make_bundle(user, base_config("echo", "hello"))
    for before, after in (
        (["--systemd-cgroup", "--log-level", "info"], ["--no-subreaper"]),
        (["--cgroup-manager", "disabled", "--rootless", "true"], ["--no-new-keyring", "--preserve-fds", "0"]),
        (["--cgroup-manager=cgroupfs", "--rootless=auto", "--criu", "criu"], ["--no-pivot"]),
    ):
        done = rootless(*before, "run", *after, "--bundle", bundle, "c1")
        assert (done.returncode, done.stdout) == (0, "hello\n"), done


def test_preserved_descriptors_have_the_same_numbers(rootless, user):
    bundle = make_bundle(user, base_config("sh", "-c", "cat <&3; echo over five >&5; ls /proc/self/fd | tr '\\n' ' '"))
    (user.tmp / "three").write_text("from three\n")
    words = " ".join(rootless.argv("run", "--preserve-fds", 3, "-b", bundle, "c1"))
    redirect = f"3<{user.tmp}/three 4</dev/null 5>{user.tmp}/five 6</dev/null 9</dev/null"
    done = user.run(["sh", "-c", f"{words} {redirect}"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "from three\n0 1 2 3 4 5 6 "
    assert (user.tmp / "five").read_text() == "over five\n"


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def warned(user):
    """A bundle with an unsupported property and a missing program."""
    config = base_config("/nope")
    config["linux"]["resources"] = {"memory": {"limit": 1 << 30}}
    return make_bundle(user, config, name="warned")


def _records(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(RFC3339.fullmatch(record["time"]) for record in records)
    assert all(type(record["msg"]) is str for record in records)
    return records


def test_a_failure_is_one_object_with_its_warnings_in_it(rootless, user, warned):
    log = user.tmp / "log"
    done = rootless("--log", log, "--log-format", "json", "run", "-b", warned, "c1")
    assert done.returncode == 1
    (record,) = _records(log)
    assert record["level"] == "error"
    assert done.stderr == f"rootless: {record['msg']}\n"
    assert (record["what"], record["where"], record["code"]) == (
        'exec: "/nope"',
        "process.args[0]",
        "RL-EXEC-NOT-FOUND",
    )
    (warning,) = record["warnings"]
    assert (warning["level"], warning["where"]) == ("warning", "linux.resources")
    assert json.loads(log.read_text()) == record, "podman reads the whole file as one object"


def test_commands_append_to_one_log(rootless, user, warned):
    log = user.tmp / "log"
    log.write_text("")
    own(user, log)
    for _ in range(2):
        rootless("--log", log, "--log-format", "json", "run", "-b", warned, "c1")
    write_config(warned, json.loads((warned / "config.json").read_text()) | {"process": base_config("true")["process"]})
    done = rootless("--log", log, "--log-format", "json", "run", "-b", warned, "c1")
    assert (done.returncode, done.stderr) == (0, "")
    levels = [record["level"] for record in _records(log)]
    assert levels[:2] == ["error", "error"]
    assert set(levels[2:]) == {"info", "warning"}


def test_the_log_as_text(rootless, user, warned):
    log = user.tmp / "log"
    rootless("--log", log, "run", "-b", warned, "c1")
    levels = [re.match(r'time="[^"]+" level=(\w+) msg="', line)[1] for line in log.read_text().splitlines()]
    assert levels.count("warning") == levels.count("error") == 1
    assert levels[-1] == "error"


def test_the_log_by_another_name(rootless, user, warned):
    log = user.tmp / "log"
    rootless(f"--log=file:{log}", "--log-format=json", "run", "-b", warned, "c1")
    assert len(_records(log)) == 1
    done = rootless("--log=journald:c1", "run", "-b", warned, "c1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "journald:c1" in done.stderr


def test_errors_go_to_standard_error_without_a_log(rootless, warned):
    done = rootless("run", "-b", warned, "c1")
    warning, error = done.stderr.splitlines()
    assert warning.startswith("rootless: warning: ")
    assert "not enforced: memory.limit: " in warning
    assert error.startswith('rootless: exec: "/nope": stat /nope: no such file or directory')

    done = rootless("--log-format", "json", "run", "-b", warned, "c1")
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["warnings"]


def test_levels(rootless, user, warned):
    write_config(warned, json.loads((warned / "config.json").read_text()) | {"process": base_config("true")["process"]})

    def levels(*flags):
        log = user.tmp / "log"
        log.unlink(missing_ok=True)
        rootless("--log", log, "--log-format=json", *flags, "run", "-b", warned, "c1")
        return {record["level"] for record in _records(log)}

    assert levels("--log-level=error") == set()
    assert levels("--log-level=warning") == {"warning"}
    assert levels("--log-level=info") == levels() == {"warning", "info"}, "the log includes adaptations"
    assert levels("--debug") >= {"warning", "info"}


def test_a_log_that_cannot_be_written_is_an_error_before_anything_happens(rootless, user):
    bundle = make_bundle(user, base_config("touch", "/data/ran"))
    done = rootless("--log", "/nonexistent/log", "run", "-b", bundle, "c1")
    assert done.returncode == 1
    assert done.stderr.startswith("rootless: --log: open /nonexistent/log: No such file or directory; fix: ")
    assert not (bundle / "rootfs/data/ran").exists()


def test_the_log_does_not_reach_the_container(rootless, user):
    bundle = make_bundle(user, base_config("ls", "/proc/self/fd"))
    done = rootless("--log", user.tmp / "log", "--debug", "run", "-b", bundle, "c1")
    assert done.stdout.split() == ["0", "1", "2", "3"]
