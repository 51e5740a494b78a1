"""Root file systems from programs of the host: their libraries, and the places of the files."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.image.bundles import from_host
from rootless.image.bundles.elf import Libraries, read_elf
from rootless.image.bundles.from_host import _Copy

SHELL = os.path.realpath("/bin/sh")


@pytest.mark.parametrize("name", ["sh", "ls", "grep", "mount", "tar", "find"])
def test_the_libraries_are_those_that_ldd_names(name, need):
    program = os.path.realpath(need(name))
    ldd = subprocess.run([need("ldd"), program], capture_output=True, text=True, check=True).stdout
    named = {word for word in ldd.split() if word.startswith("/")}
    closure = Libraries().closure(program)
    assert closure[0] == program
    assert {os.path.realpath(path) for path in closure} == {os.path.realpath(path) for path in {program, *named}}
    assert len(closure) == len(set(closure))


def test_a_static_program_needs_nothing(need):
    path = os.path.realpath(need("busybox"))
    elf = read_elf(path)
    if elf.interpreter:
        pytest.skip("needs busybox-static, provided by CI")
    assert (elf.needed, Libraries().closure(path)) == ([], [path])


@pytest.mark.parametrize(
    ("flag", "found"),
    [("-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib", False), ("-Wl,--disable-new-dtags,-rpath,${ORIGIN}/lib", True)],
)
def test_runpath_is_for_direct_libraries_and_rpath_for_all(tmp_path, need, flag, found):
    """`program` needs libone.so, which needs libtwo.so, both in a directory that only `program` names."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "two.c").write_text("int two(void) { return 2; }")
    (tmp_path / "one.c").write_text("int two(void); int one(void) { return two(); }")
    (tmp_path / "main.c").write_text("int one(void); int main(void) { return one(); }")
    for words in (
        "-shared -o lib/libtwo.so two.c",
        "-shared -o lib/libone.so one.c -Llib -ltwo",
        f"{flag} -o program main.c -Llib -lone -Wl,--allow-shlib-undefined",
    ):
        subprocess.run([need("gcc"), "-fPIC", "-Wl,--no-as-needed", *words.split()], cwd=tmp_path, check=True)
    program = str(tmp_path / "program")
    assert (subprocess.run([program], capture_output=True, check=False).returncode == 2) == found
    closure = Libraries().closure(program)
    assert (closure is not None) == found
    if found:
        assert {f"{tmp_path}/lib/libone.so", f"{tmp_path}/lib/libtwo.so"} < set(closure)


def test_other_files_than_programs_have_no_libraries(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert Libraries().closure(str(script)) is None
    assert Libraries().closure(str(tmp_path / "missing")) is None
    assert read_elf(str(script)) is None


@pytest.mark.parametrize("length", [4, 5, 20, 57, 64, 100])
def test_truncated_program_is_no_program(tmp_path, length):
    (tmp_path / "program").write_bytes(IMAGE[:length])
    assert read_elf(str(tmp_path / "program")) is None


with open(SHELL, "rb") as file:
    IMAGE = file.read(4096)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_program_is_no_program(tmp_path_factory, data):
    image = bytearray(IMAGE[: data.draw(st.integers(4, len(IMAGE)))])
    for _ in range(data.draw(st.integers(0, 5))):
        image[data.draw(st.integers(4, len(image) - 1)) if len(image) > 4 else 3] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "program"
    path.write_bytes(image)
    elf = read_elf(str(path))
    assert elf is None or isinstance(elf.needed, list)


@pytest.fixture
def host(tmp_path):
    """A part of a host with a merged /usr, alternatives and both kinds of symlink; its path is the same in the copy."""
    host = tmp_path / "host"
    for directory in ("usr/bin", "etc/alternatives", "opt"):
        (host / directory).mkdir(parents=True)
    (host / "bin").symlink_to("usr/bin")
    (host / "usr/bin/mawk").write_text("mawk")
    (host / "usr/bin/mawk").chmod(0o4711)
    os.link(host / "usr/bin/mawk", host / "usr/bin/hard")
    (host / "etc/alternatives/awk").symlink_to(host / "usr/bin/mawk")
    (host / "usr/bin/awk").symlink_to("../../etc/alternatives/awk")
    (host / "loop").symlink_to("loop")
    return host


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


def test_symlinks_on_the_path_are_copied(host, root):
    copy = _Copy(str(root))
    copy.add(f"{host}/bin/awk")
    inside = root / str(host).lstrip("/")
    found = {str(path.relative_to(inside)): path.is_symlink() and os.readlink(path) for path in inside.rglob("*")}
    assert found == {
        "bin": "usr/bin",
        "usr": False,
        "usr/bin": False,
        "usr/bin/awk": "../../etc/alternatives/awk",
        "etc": False,
        "etc/alternatives": False,
        "etc/alternatives/awk": f"{host}/usr/bin/mawk",
        "usr/bin/mawk": False,
    }
    assert (inside / "usr/bin/mawk").stat().st_mode & 0o7777 == 0o755
    assert copy.size == 4


def test_hard_links_stay_one_file(host, root):
    copy = _Copy(str(root))
    for name in ("mawk", "hard", "awk"):
        copy.add(f"{host}/usr/bin/{name}")
    inside = root / str(host).lstrip("/") / "usr/bin"
    assert (inside / "mawk").stat().st_ino == (inside / "hard").stat().st_ino
    assert copy.size == 4


def test_symlink_loop_ends(host, root):
    with pytest.raises(RootlessError, match="too many symlinks"):
        _Copy(str(root)).add(f"{host}/loop")


def test_absolute_symlink_does_not_lead_out_of_the_copy(tmp_path, root):
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "etc").symlink_to(outside)
    copy = _Copy(str(root))
    copy.write("/etc/passwd", "root")
    copy.make_directory("/etc/x/../y")
    copy.link("/etc/z/link", "target")
    assert list(outside.iterdir()) == []
    inside = root / str(outside).lstrip("/")
    assert sorted(path.name for path in inside.iterdir()) == ["passwd", "x", "y", "z"]


def test_tool_in_an_unusual_place_gets_a_symlink(tmp_path, root, monkeypatch, need):
    """As on hosts whose programs are in a store; a tool that is in no directory of PATH is left out."""
    store = tmp_path / "store"
    store.mkdir()
    shutil.copy(os.path.realpath(need("true")), store / "in-a-store")
    monkeypatch.setattr(from_host, "TOOLS", "sh in-a-store nowhere")
    monkeypatch.setenv("PATH", f"relative:{store}")
    made = from_host.make_rootfs(str(root))
    assert made.programs == 2
    assert os.readlink(root / "usr/bin/in-a-store") == f"{store}/in-a-store"
    assert (root / str(store).lstrip("/") / "in-a-store").exists()
    assert os.access(root / "tmp", os.W_OK)
    assert made.size == sum(
        path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink()
    )


def test_busybox_replaces_missing_programs_of_the_host(root, monkeypatch, need):
    busybox = need("busybox")
    monkeypatch.setattr(from_host, "TOOLS", "sh vi nowhere")
    monkeypatch.setattr(from_host, "_find", {"sh": SHELL, "busybox": busybox}.get)
    assert from_host.make_rootfs(str(root)).programs == 2
    assert os.readlink(root / "usr/bin/vi") == busybox
    assert (root / busybox.lstrip("/")).exists()
    assert not (root / "usr/bin/nowhere").exists()


def test_a_host_without_a_shell(root, monkeypatch):
    monkeypatch.setattr(from_host, "_find", lambda _name: None)
    with pytest.raises(RootlessError, match="no usable `sh`; fix: make the bundle from an archive"):
        from_host.make_rootfs(str(root))
