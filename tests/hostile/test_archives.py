"""Archives for `rootless new --from` that try to exhaust memory or time: each is refused quickly, in one line."""

from __future__ import annotations

import gzip
import os
import signal
import tarfile

import pytest

from tests.lib.bundles import base_config, own

MB = 1 << 20
MOST = 150
"""MB of resident memory; an ordinary archive takes about 30."""
ADDRESSES = 1500 * MB
"""A limit of the address space, so that an unbounded program does not exhaust the machine's memory."""
PATIENCE = 60


def header(kind, size, name="x", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data):
    return data + bytes(-len(data) % 512)


def extension(kind, data):
    return header(kind, len(data)) + padded(data)


def record(key, value):
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def long_name():
    yield header(tarfile.GNUTYPE_LONGNAME, 200 * MB)
    yield from (b"a" * MB for _ in range(200))


def long_link():
    yield header(tarfile.GNUTYPE_LONGLINK, 200 * MB)
    yield from (b"a" * MB for _ in range(200))


def long_record():
    yield header(tarfile.XHDTYPE, 200 * MB)
    yield b"209715200 comment="
    yield from (b"a" * MB for _ in range(200))


def many_global_records():
    for number in range(100):
        yield extension(tarfile.XGLTYPE, b"".join(record(b"%d.%d" % (number, key), b"") for key in range(50000)))
        yield header(tarfile.REGTYPE, 0)


def table_of_holes():
    """The old sparse format of GNU tar: each block of the table says whether another one follows."""
    first = bytearray(header(tarfile.GNUTYPE_SPARSE, 0))
    first[386:410] = b"00000000000\x0000000000000\x00"
    first[482] = 1
    first[148:156] = b"        "
    first[148:156] = b"%06o\0 " % sum(first)
    yield bytes(first)
    block = b"".join(b"%011o\0%011o\0" % (7 + hole, 1) for hole in range(21)) + b"\1" + bytes(7)
    yield from (block * 2048 for _ in range(60))


def table_of_holes_in_the_data():
    records = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.name", b"x")
    yield extension(tarfile.XHDTYPE, records + record(b"GNU.sparse.realsize", b"1"))
    yield header(tarfile.REGTYPE, 60 * MB)
    yield b"400000000\n" + b"1\n" * 251
    yield from (b"1\n" * (MB // 2) for _ in range(60))


def number_without_end():
    records = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.name", b"x")
    yield extension(tarfile.XHDTYPE, records + record(b"GNU.sparse.realsize", b"1"))
    yield header(tarfile.REGTYPE, MB) + b"x" * (MB // 2) + b"\n" * (MB // 2)


def components():
    name = b"a/" * 100_000
    yield extension(tarfile.GNUTYPE_LONGNAME, name) + header(tarfile.REGTYPE, 0)


def link_target():
    yield extension(tarfile.GNUTYPE_LONGLINK, b"a/" * 100_000) + header(tarfile.SYMTYPE, 0)


def hard_links_in_the_wrong_order():
    for number in range(20_000):
        yield header(tarfile.LNKTYPE, 0, f"l{number}", linkname=f"l{number + 1}")
    yield header(tarfile.REGTYPE, 0, "l20000")
    yield header(tarfile.LNKTYPE, 0, "last", linkname="nowhere")


BOMBS = {
    long_name: "read bomb.tar.gz: the headers of one entry take more than 1 MB; fix: ",
    long_link: "read bomb.tar.gz: the headers of one entry take more than 1 MB; fix: ",
    long_record: "read bomb.tar.gz: the headers of one entry take more than 1 MB; fix: ",
    many_global_records: "read bomb.tar.gz: the headers for all entries take more than 64 kB; fix: ",
    table_of_holes: "read bomb.tar.gz: the headers of one entry take more than 1 MB; fix: ",
    table_of_holes_in_the_data: "read bomb.tar.gz: the headers of one entry take more than 1 MB; fix: ",
    number_without_end: "read bomb.tar.gz: damaged, cut short, or no tar archive: ",
    components: f"unpack the entry {'a/' * 30}…: its name has more than 4095 bytes",
    link_target: "unpack the entry x: its target has more than 4095 bytes",
    hard_links_in_the_wrong_order: "unpack the entry last: it is a hard link to nowhere, which is not in the archive",
}


MEASURED = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Prints a program's peak memory in KiB. A child of pytest would count pytest's memory at the fork."""


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_an_archive_bomb_is_refused_with_little_memory(user, rootless_command, need, bomb):
    with gzip.open(user.tmp / "bomb.tar.gz", "wb", compresslevel=1) as file:
        for piece in bomb():
            file.write(piece)
        file.write(bytes(1024))
    own(user, user.tmp / "bomb.tar.gz")
    words = [need("prlimit"), f"--as={ADDRESSES}", "timeout", "--signal=KILL", str(PATIENCE)]
    words += [rootless_command, "new", "bundle", "--from", "bomb.tar.gz"]
    process = user.run(["/usr/bin/python3", "-ISc", MEASURED, *words])
    complaint = process.stderr
    assert process.returncode != 128 + signal.SIGKILL
    assert int(process.stdout.splitlines()[-1]) / 1024 < MOST, complaint
    assert complaint.startswith(f"rootless: {BOMBS[bomb]}"), complaint[:300]
    assert complaint.count("\n") == 1
    assert len(complaint) < 500
    assert process.returncode == 1
    assert not (user.tmp / "bundle").exists()


def test_a_deep_tree_is_removed_after_a_refused_entry(user, rootless_command):
    """The tree is unpacked before the entry that is refused."""
    with gzip.open(user.tmp / "deep.tar.gz", "wb") as file:
        file.write(extension(tarfile.GNUTYPE_LONGNAME, b"d/" * 2000 + b"f") + header(tarfile.REGTYPE, 0))
        file.write(header(tarfile.REGTYPE, 0, "../x") + bytes(1024))
    own(user, user.tmp / "deep.tar.gz")
    done = user.run([rootless_command, "new", "bundle", "--from", "deep.tar.gz"])
    assert done.stderr == "rootless: unpack the entry ../x: ../x leads out of the root filesystem\n"
    assert sorted(os.listdir(user.tmp)) == ["deep.tar.gz"]


def test_a_state_directory_of_many_path_components_is_created(box):
    """PATH_MAX is 4096 bytes, so 2,000 components are a valid path."""
    top = box.user.tmp / "state"
    path = f"{top}/" + "d/" * ((3900 - len(str(top))) // 2) + "r"
    done = box.run(base_config(), "echo it runs", global_flags=["--root", path])
    assert (done.returncode, done.stdout, done.stderr) == (0, "it runs\n", "")
    box.user.run(["rm", "-rf", top], check=True)
