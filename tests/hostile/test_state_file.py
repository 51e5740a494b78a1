"""state.json is damaged, edited by hand or of another release: no verb is confused, and no process is left running."""

from __future__ import annotations

import errno
import json
import os

import pytest

from tests.lib.boxes import make_volume
from tests.lib.bundles import base_config, make_bundle, own, write_config
from tests.lib.cgroup2 import InView, cgroup2
from tests.lib.containers import await_end, executors, until
from tests.lib.states import VALUES, edited, full_state, places

__all__ = ["cgroup2"]


@pytest.fixture(params=["pid namespace", "the host's processes"])
def bundle(request, user):
    """A bundle whose program has a child; with a pid namespace, the child ends with the program."""
    config = base_config("sh", "-c", "sleep 1000 & exec sleep 1000")
    if request.param != "pid namespace":
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    return make_bundle(user, config)


def _newer(text):
    return json.dumps(json.loads(text) | {"format": 1000, "pid": json.loads(text)["pid"], "user": "somebody"})


def _without(name):
    return lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != name})


DAMAGES = {
    "a newer release": _newer,
    "cut off": lambda text: text[: text.index('"rootfs"')],
    "overwritten at its end": lambda text: text[:-20] + "\0" * 20,
    "a property is missing": _without("user"),
    "another type": lambda text: text.replace('"keyring":true', '"keyring":"yes"'),
    "not UTF-8": lambda text: text.encode().replace(b'"owner":"', b'"owner":"\xff'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_delete_force_ends_a_container_whose_state_is_damaged(rootless, bundle, damage):
    rootless.create("bad", bundle)
    rootless.start("bad")
    pids = json.loads(rootless("ps", "--format", "json", "bad").stdout)
    file = rootless.root / "bad/state.json"
    damaged = DAMAGES[damage](file.read_text())
    assert damaged != file.read_text()
    file.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    done = rootless("kill", "bad", "KILL")
    assert (done.returncode, done.stderr.startswith(f"rootless: cannot use {file}: ")) == (1, True)
    done = rootless("delete", "--force", "bad")
    why = "a newer release has written its state" if damage == "a newer release" else "its state is damaged"
    assert done.returncode == 0
    assert done.stderr == f"rootless: warning: container bad: {why}: no poststop hook is run\n"
    for pid in pids:
        await_end(pid)
    assert list(rootless.root.iterdir()) == []
    until(lambda: not executors(rootless.user), "the end of the executors")


def test_delete_force_ends_the_cgroup_of_a_container_with_empty_state(user, rootless_command, cgroup2, bundle):
    """The container's own cgroup is noted in another file, and its removal ends its processes."""
    with InView(cgroup2, user, rootless_command) as runs:
        runs.create("bad", bundle)
        runs.start("bad")
        pids = json.loads(runs("ps", "--format", "json", "bad").stdout)
        (runs.root / "bad/state.json").write_text("")
        assert runs("delete", "--force", "bad").returncode == 0
        for pid in pids:
            await_end(pid)
        assert list(runs.root.iterdir()) == []


@pytest.mark.parametrize("data", ["{}", '{"path":"/"}', '{"certainty":"own"}', '{"certainty":[],"path":{}}'])
def test_delete_force_fails_if_state_and_undo_note_are_damaged(rootless, user, data):
    bundle = make_bundle(user, base_config("sleep", "1000"))
    rootless.create("bad", bundle)
    file = rootless.root / "bad/state.json"
    whole = file.read_bytes()
    file.write_text("")
    boot = json.loads(whole)["bootId"]
    (rootless.root / "bad/undo").write_text(f'["cgroup","{boot}",{data}]\n')
    done = rootless("delete", "--force", "bad")
    assert (done.returncode, done.stderr.startswith("rootless: cannot end container bad: ")) == (1, True), done.stderr
    file.write_bytes(whole)


def test_delete_force_reads_no_cgroup_from_annotations(user, rootless_command, cgroup2):
    """An image's labels become annotations: they must not replace properties that a damaged state has lost."""
    config = base_config("sleep", "1000")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    bundle = make_bundle(user, config)
    with InView(cgroup2, user, rootless_command) as runs:
        runs.create("victim", bundle)
        victim = json.loads((runs.root / "victim/state.json").read_text())
        write_config(bundle, config | {"annotations": {"cgroup": victim["cgroup"]}})
        runs.create("bad", bundle)
        file = runs.root / "bad/state.json"
        text = file.read_text()
        file.write_text(text[: text.index('"owner"')])
        runs("delete", "--force", "bad")
        assert runs.status("victim") == "created"


@pytest.mark.parametrize("name", ["network.sock", "undo", "state.json.new"])
def test_killed_command_leaves_its_id_usable(rootless, bundle, name):
    rootless.create("c1", bundle)
    (rootless.root / "c1" / name).touch()
    assert rootless("delete", "--force", "c1").returncode == 0
    rootless.create("c1", bundle)
    rootless.start("c1")
    left = rootless.root / "c2"
    left.mkdir()
    (left / name).touch()
    own(rootless.user, left)
    rootless.create("c2", bundle)


@pytest.mark.parametrize("of", ["another boot", "another process", "an ended process"])
def test_delete_force_of_a_damaged_state_ends_no_other_process(rootless, user, bundle, of):
    """After a reboot, or later, a PID means another process: only the directory is removed."""
    rootless.create("bad", bundle)
    pid = rootless.pid("bad")
    file = rootless.root / "bad/state.json"
    state = _without("user")(file.read_text())
    bystander = user.popen(["sleep", "1000"])
    try:
        changes = {
            "another boot": {"pid": bystander.pid, "bootId": "another"},
            "another process": {"pid": bystander.pid},
            "an ended process": {"pid": 2**22 - 1},
        }[of]
        file.write_text(json.dumps(json.loads(state) | changes))
        assert rootless("delete", "--force", "bad").returncode == 0
        assert not file.exists()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        os.kill(pid, 9)
        await_end(pid)


def test_no_verb_is_confused_by_hand_edited_state(rootless, user):
    """Each verb reports the damage or works. `list` shows the other containers in any case."""
    bundle = make_bundle(user, base_config("sleep", "1000"))
    rootless.create("good", bundle)
    rootless.create("bad", bundle)
    file = rootless.root / "bad/state.json"
    whole = file.read_text()
    state = full_state(json.loads(whole))
    verbs = ("state bad", "ps bad", "exec bad true", "port bad", "list")
    command = " ".join(rootless.argv())
    for number, path in enumerate(places(state)):
        for value in VALUES[number % 5 :: 5]:
            file.write_text(json.dumps(edited(state, path, value)))
            script = f"{command} list -q 2>&1; {command} {verbs[number % len(verbs)]} 2>&1"
            said = user.run(["sh", "-c", script]).stdout
            assert "internal error" not in said, (path, value)
            assert "\ngood\n" in f"\n{said}", (path, value, said)
    file.write_text(json.dumps(state | {"network": {}}))
    done = rootless("list")
    assert "good" in done.stdout
    assert done.stderr.startswith(
        f"rootless: warning: cannot use {file}: it does not hold the state of a container; fix: "
    )
    file.write_text(whole)


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_descriptor_limit_during_creation_leaves_nothing(rootless, user, verb):
    """Whichever call is the first to get no descriptor, the claim of the ID is undone."""
    bundle = make_bundle(user, base_config("true"))
    rootless.create("other", bundle)
    refused = 0
    for limit in range(4, 18):
        words = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *rootless.argv(verb, "-b", bundle, "c1")]
        with (user.tmp / "said").open("w+b") as said:
            status = user.run(words, stdout=said, stderr=said).returncode
        text = (user.tmp / "said").read_text()
        if verb == "create" and status == 0:
            assert rootless("delete", "--force", "c1").returncode == 0
        assert sorted(path.name for path in rootless.root.iterdir()) == ["other"], (limit, text)
        assert status == 0 or os.strerror(errno.EMFILE).lower() in text.lower(), (limit, text)
        refused += status != 0
    assert refused > 3


@pytest.mark.parametrize(
    ("name", "verb", "status"),
    [("state.json", "kill c1 KILL", 1), ("config.json", "exec c1 true", 255), ("undo", "delete --force c1", 1)],
)
def test_symlink_instead_of_a_file_is_refused(rootless, user, name, verb, status):
    """It points to the very file that the verb needs. With the file restored, the verb works."""
    rootless.create("c1", make_bundle(user, base_config("sleep", "1000")))
    rootless.start("c1")
    victim = make_volume(user, "victim")
    file = rootless.root / "c1" / name
    if name == "undo":
        boot = json.loads((rootless.root / "c1/state.json").read_text())["bootId"]
        file.write_text(f'["resctrl","{boot}",{{"directories":["{victim}"]}}]\n')
    target = user.tmp / "target"
    file.rename(target)
    content = target.read_bytes()
    file.symlink_to(target)
    done = rootless(*verb.split())
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"rootless: cannot keep state in {file}: {os.strerror(errno.ELOOP).lower()}; fix: ")
    assert (target.read_bytes(), file.is_symlink(), victim.exists()) == (content, True, True)
    target.rename(file)
    assert rootless(*verb.split(), check=True).stderr == ""
    assert victim.exists() == (name != "undo")
