"""The store of images on disk: temporary files, blobs, references, shared stores, and what is removed."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading

import pytest

from rootless.errors import RootlessError
from rootless.image.store import blobs, store, temporary
from rootless.image.store.blobs import Blob, add_blob, has_blob, open_blob, put_blob, read_blob
from rootless.image.store.store import BLOBS, REFERENCES, open_store, shared_stores
from rootless.image.store.temporary import Temporary, has_writers, left_behind

CONTENT = b"0123456789" * 1000
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
OTHER = "sha256:" + "a" * 64


@pytest.fixture
def own(tmp_path):
    with open_store(str(tmp_path / "store"), create=True) as opened:
        yield opened


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def left_by_dead_process(directory, subject, content):
    """Leave a temporary file as a process does that is killed while it writes."""
    code = (
        "import os, sys\nfrom rootless.image.store.temporary import Temporary\n"
        "file = Temporary(os.open(sys.argv[1], os.O_RDONLY), sys.argv[2])\n"
        "file.write(sys.argv[3].encode())\nos.kill(os.getpid(), 9)"
    )
    path = os.readlink(f"/proc/self/fd/{directory}")
    subprocess.run([sys.executable, "-c", code, path, subject, content], check=False, env={"PYTHONPATH": os.getcwd()})


# --- temporary files


def test_a_file_appears_whole_or_not_at_all(directory, tmp_path):
    with Temporary(directory, "a") as file:
        file.write(b"content")
        assert [name[:3] for name in os.listdir(tmp_path)] == [".a."]
        file.publish("a")
    assert (tmp_path / "a").read_bytes() == b"content"
    with Temporary(directory, "b") as file:
        file.write(b"content")
    assert os.listdir(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_continued_by_one_only(directory, tmp_path):
    left_by_dead_process(directory, "a", "half")
    left_by_dead_process(directory, "b", "other")
    assert len(left_behind(directory)) == 2
    with Temporary(directory, "a", resume=True) as file:
        assert os.pread(file.fd, 100, 0) == b"half"
        assert len(left_behind(directory)) == 1
        file.publish("a")
    with Temporary(directory, "a", resume=True) as file:
        assert os.pread(file.fd, 100, 0) == b""
    assert (tmp_path / "a").read_bytes() == b"half"


def test_a_file_of_a_living_process_is_left_alone(directory):
    with Temporary(directory, "a") as file:
        assert left_behind(directory) == []
        assert has_writers(directory)
        name = file.name
        os.utime(name, (0, 0), dir_fd=directory)  # of another machine, it would be old enough
        assert left_behind(directory) == [name]


def test_a_file_of_another_machine_is_not_continued_and_is_left_for_a_day(directory, tmp_path):
    name = f".a.{'0' * 32}.4026531836.12.34"
    (tmp_path / name).write_bytes(b"theirs")
    with Temporary(directory, "a", resume=True) as file:
        assert os.pread(file.fd, 100, 0) == b""
    assert left_behind(directory) == []
    assert has_writers(directory)
    os.utime(tmp_path / name, (0, 0))
    assert left_behind(directory) == [name]


@pytest.mark.parametrize(
    "name", [".a", ".a.b.c.d.e", "a.b.c.d.e.f", ".a.1.2.3.4.5", "sha256-x.sqsh", ".rootless-tmp-1"]
)
def test_other_files_are_no_temporary_ones(directory, tmp_path, name):
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (0, 0))
    assert left_behind(directory) == ([name] if name == ".a.b.c.d.e" else [])


# --- blobs


def fill(own, digest, size, content):
    with Blob(own, digest, size) as blob:
        blob.resume(lambda _: None)
        blob.write(content[blob.done :])
        blob.finish()


def test_a_blob_is_published_when_it_is_right(own):
    assert not has_blob(own, DIGEST, len(CONTENT))
    with Blob(own, DIGEST, len(CONTENT)) as blob:
        blob.write(CONTENT[:5000])
        assert not has_blob(own, DIGEST, len(CONTENT))
        blob.write(CONTENT[5000:])
        blob.finish()
    assert has_blob(own, DIGEST, len(CONTENT))
    assert not has_blob(own, DIGEST, 3)
    assert read_blob(own, DIGEST, 1 << 20) == CONTENT
    with pytest.raises(RootlessError, match="more than 10 bytes"):
        read_blob(own, DIGEST, 10)


@pytest.mark.parametrize(
    ("digest", "size", "content", "words"),
    [
        (OTHER, len(CONTENT), CONTENT, "its digest is sha256:"),
        (DIGEST, len(CONTENT) + 1, CONTENT, "it has 10000 bytes, not 10001"),
        (DIGEST, len(CONTENT) - 1, CONTENT, "more than its 9999 bytes"),
    ],
)
def test_a_wrong_blob_leaves_nothing(own, digest, size, content, words):
    with pytest.raises(RootlessError, match=words) as raised:
        fill(own, digest, size, content)
    assert raised.value.code == "RL-IMAGE-DIGEST"
    assert os.listdir(own.directory(BLOBS)) == []


def test_an_interrupted_blob_is_continued(own):
    left_by_dead_process(own.directory(BLOBS), DIGEST.partition(":")[2], CONTENT[:700].decode())
    seen = []
    with Blob(own, DIGEST, len(CONTENT)) as blob:
        blob.resume(seen.append)
        assert (blob.done, sum(seen)) == (700, 700)
        blob.write(CONTENT[700:])
        blob.finish()
    assert read_blob(own, DIGEST, 1 << 20) == CONTENT
    assert len(os.listdir(own.directory(BLOBS))) == 1


def test_what_is_too_much_of_an_interrupted_blob_is_cut_off(own):
    left_by_dead_process(own.directory(BLOBS), DIGEST.partition(":")[2], CONTENT.decode() + "more")
    with Blob(own, DIGEST, len(CONTENT)) as blob:
        blob.resume(lambda _: None)
        assert blob.done == len(CONTENT)
        blob.finish()
    assert read_blob(own, DIGEST, 1 << 20) == CONTENT


def test_a_full_disk_keeps_no_part(own, monkeypatch):
    def full(_fd, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    left_by_dead_process(own.directory(BLOBS), DIGEST.partition(":")[2], CONTENT[:10].decode())
    monkeypatch.setattr(temporary.posix, "write", full)
    with pytest.raises(RootlessError, match=r"no space left on device.*free some space") as raised:
        fill(own, DIGEST, len(CONTENT), CONTENT)
    assert raised.value.code == "RL-STORE"
    assert os.listdir(own.directory(BLOBS)) == []


def test_small_blobs_and_streams(own, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    assert put_blob(own, CONTENT) == DIGEST
    assert put_blob(own, CONTENT) == DIGEST
    with (tmp_path / "file").open("rb") as file:
        assert add_blob(own, file) == (DIGEST, len(CONTENT))
    assert os.listdir(own.directory(BLOBS)) == [DIGEST.partition(":")[2]]
    os.close(open_blob(own, DIGEST))
    with pytest.raises(RootlessError, match="it was removed meanwhile"):
        open_blob(own, OTHER)


@pytest.mark.parametrize("kind", ["symlink", "pipe", "writable"])
def test_what_is_no_file_of_the_callers_is_not_used(own, tmp_path, kind):
    path = f"/proc/self/fd/{own.directory(BLOBS)}/{DIGEST.partition(':')[2]}"
    if kind == "symlink":
        (tmp_path / "file").write_bytes(CONTENT)
        os.symlink(tmp_path / "file", path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        put_blob(own, CONTENT)
        os.chmod(path, 0o666)
    with pytest.raises(RootlessError) as raised:
        open_blob(own, DIGEST)
    assert raised.value.code == "RL-STORE"


# --- references and images


def test_references_by_name_and_platform(own):
    own.note("a.test/b:1", "a.test/b:1", "linux/amd64", DIGEST)
    own.note("a.test/b:1", "a.test/b:1", "linux/arm64", OTHER)
    own.note("b:1", "a.test/b:1", "linux/amd64", DIGEST)
    assert own.noted("a.test/b:1", "linux/amd64").digest == DIGEST
    assert own.noted("a.test/b:1", "linux/arm64").digest == OTHER
    assert own.noted("a.test/b:1", "linux/arm") is None
    assert own.noted("b:1", "linux/amd64").reference == "a.test/b:1"
    own.note("a.test/b:1", "a.test/b:1", "linux/amd64", OTHER)
    assert own.noted("a.test/b:1", "linux/amd64").digest == OTHER
    assert [(note.name, note.platform) for note in own.notes()] == [
        ("a.test/b:1", "linux/amd64"),
        ("a.test/b:1", "linux/arm64"),
        ("b:1", "linux/amd64"),
    ]
    own.forget(own.noted("b:1", "linux/amd64"))
    assert own.noted("b:1", "linux/amd64") is None


def test_the_longest_name_has_a_reference(own):
    name = "a.test/" + "b" * 240 + ":" + "t" * 128
    own.note(name, name, "linux/amd64", DIGEST)
    assert own.noted(name, "linux/amd64").digest == DIGEST
    assert [note.name for note in own.notes()] == [name]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not JSON", b'{"name": 1}', b"x" * 100000])
def test_a_damaged_reference_counts_as_none(own, content):
    own.note("a:1", "a:1", "linux/amd64", DIGEST)
    path = f"/proc/self/fd/{own.directory(REFERENCES)}/a:1,linux+amd64"
    with open(path, "wb") as file:
        file.write(content)
    assert own.noted("a:1", "linux/amd64") is None
    assert own.notes() == []


def test_a_reference_under_another_name_is_not_believed(own):
    own.note("a:1", "a:1", "linux/amd64", DIGEST)
    fd = own.directory(REFERENCES)
    os.rename("a:1,linux+amd64", "b:1,linux+amd64", src_dir_fd=fd, dst_dir_fd=fd)
    assert own.noted("b:1", "linux/amd64") is None


def test_references_are_never_missing_while_they_change(own):
    own.note("a:1", "a:1", "linux/amd64", DIGEST)
    stop = threading.Event()

    def rewrite():
        while not stop.is_set():
            own.note("a:1", "a:1", "linux/amd64", OTHER)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert all(own.noted("a:1", "linux/amd64") for _ in range(500))
    finally:
        stop.set()
        writer.join()


def test_the_store_is_private_and_others_may_not_change_it(tmp_path):
    with open_store(str(tmp_path / "a/b"), create=True):
        assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a/b").chmod(0o770)
    with pytest.raises(RootlessError, match="others can write to it") as raised:
        open_store(str(tmp_path / "a/b"), create=True)
    assert raised.value.code == "RL-STORE"
    assert open_store(str(tmp_path / "none"), create=False) is None


def test_the_store_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setattr(store.paths, "variable", lambda name: f"{tmp_path}/x" if name == "ROOTLESS_IMAGES" else "")
    with open_store("", create=True) as opened:
        assert opened.path == f"{tmp_path}/x"
    monkeypatch.setattr(store.paths, "variable", lambda _: "")
    monkeypatch.setattr(store.xdg, "data", lambda: f"{tmp_path}/data")
    with open_store("", create=True) as opened:
        assert opened.path == f"{tmp_path}/data/rootless/images"
    monkeypatch.setattr(store.xdg, "data", lambda: "")
    with pytest.raises(RootlessError, match="HOME is not set"):
        open_store("", create=True)


def test_shared_stores_are_read_and_belong_to_root_or_the_caller(tmp_path, monkeypatch):
    paths = f"{tmp_path}/missing:{tmp_path}/site"
    monkeypatch.setattr(store.paths, "variable", lambda _: paths)
    assert list(shared_stores()) == []
    with open_store(str(tmp_path / "site"), create=True) as site:
        site.note("a:1", "a:1", "linux/amd64", DIGEST)
    (tmp_path / "site").chmod(0o555)
    [found] = shared_stores()
    with found:
        assert found.noted("a:1", "linux/amd64").digest == DIGEST
        assert not found.has_image(DIGEST)
        assert not has_blob(found, DIGEST, 1)
    (tmp_path / "site").chmod(0o777)
    with pytest.raises(RootlessError, match="does not belong to you or root alone"):
        list(shared_stores())


def test_blobs_of_one_digest_in_two_threads_do_not_meet(own):
    """Threads of one process share its identity; the second finds the name taken, instead of writing to one file."""
    with Blob(own, DIGEST, len(CONTENT)), pytest.raises(RootlessError, match="exists"):
        Blob(own, DIGEST, len(CONTENT))
    assert blobs.BLOBS == BLOBS


def test_an_image_that_is_there_is_found_without_costly_modules(tmp_path):
    """`run IMAGE` pays for each module; a short name was resolved when it was pulled."""
    with open_store(str(tmp_path / "store"), create=True) as own:
        own.note("a.test/b:latest", "a.test/b:latest", "linux/amd64", DIGEST)
        own.note("b:latest", "a.test/b:latest", "linux/amd64", OTHER)
        with open(own.image_path(DIGEST), "wb") as file:
            file.write(CONTENT)
    code = (
        "import sys\nsys.path.insert(0, sys.argv[1])\nbefore = set(sys.modules)\n"
        "from rootless.image.obtain import find\nfrom rootless.image.platform import Platform\n"
        "from rootless.image.reference import parse\n"
        "found = find(parse('b'), Platform('linux', 'amd64'), sys.argv[2])\n"
        "print(found.reference, found.digest)\nprint(*set(sys.modules) - before)"
    )
    words = [sys.executable, "-IS", "-c", code, os.getcwd(), str(tmp_path / "store")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found, modules = done.stdout.splitlines()
    assert found == f"a.test/b:latest {DIGEST}"
    costly = {"re", "json", "hashlib", "subprocess", "tomllib", "urllib3", "tempfile", "threading", "rich", "typing"}
    assert not costly & set(modules.split())
