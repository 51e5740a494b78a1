"""Layers of images that attack the merge: each has a defined outcome, and only the image file is ever written."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.image.merge import build, layers
from rootless.image.merge.build import build_image
from rootless.image.merge.layers import Layer, LayerFile
from rootless.image.merge.merged_tar import write_tar
from rootless.image.merge.tree import Tree
from tests.lib.layers import DEVICE, DIRECTORY, FIFO, HARD, LINK, entry, packed

ENTRY = "RL-ARCHIVE-ENTRY: unpack the entry "
DAMAGED = "RL-ARCHIVE: read layer 1: damaged, cut short"
LARGE = "RL-IMAGE: make the image: its files have more than 256 GiB"


def raw(kind=tarfile.REGTYPE, size=0, name="x", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def records(**values):
    """Return a pax header with arbitrary records, followed by a file."""
    text = b""
    for key, value in values.items():
        rest = b" " + key.replace("_", ".").encode() + b"=" + value + b"\n"
        length = len(rest) + 1
        while length != len(rest) + len(str(length)):
            length = len(rest) + len(str(length))
        text += str(length).encode() + rest
    return raw(tarfile.XHDTYPE, len(text), "pax") + text + bytes(-len(text) % 512) + raw()


def sized(octets):
    header = bytearray(raw())
    header[124:136] = octets
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def holes(table, realsize):
    sparse = {"GNU_sparse_major": b"1", "GNU_sparse_minor": b"0", "GNU_sparse_name": b"x"}
    pax = records(**sparse, GNU_sparse_realsize=realsize)[:-512]
    return pax + raw(size=len(table)) + table + bytes(-len(table) % 512)


OUTCOMES = {
    "name_above_the_root": (packed(entry("../x")), ENTRY + "../x: ../x leads out of the root filesystem"),
    "name_above_the_root_inside": (packed(entry("a/../../x")), ENTRY + "a/../../x: a/../../x leads out of the root"),
    "absolute_name": (packed(entry("/etc/x", data=b"1")), ["etc", "etc/x"]),
    "slashes_and_dots": (packed(entry(".//./a///b/.", DIRECTORY)), ["a", "a/b"]),
    "file_through_an_absolute_symlink": (packed(entry("l", LINK, "/tmp"), entry("l/x")), ["l", "tmp", "tmp/x"]),
    "file_through_a_symlink_upwards": (packed(entry("l", LINK, "../.."), entry("l/x")), ["l", "x"]),
    "file_through_a_chain_of_symlinks": (
        packed(*(entry(f"l{number}", LINK, f"l{number + 1}") for number in range(50)), entry("l0/x")),
        ENTRY + "l0/x: l0 is a loop of symbolic links",
    ),
    "file_through_a_file": (packed(entry("a"), entry("a/x")), ENTRY + "a/x: it would be written through a file"),
    "file_through_a_pipe": (packed(entry("a", FIFO), entry("a/x")), ENTRY + "a/x: it would be written through a named"),
    "symlink_to_nothing": (packed(entry("l", LINK, "")), ENTRY + "l: it is a symbolic link to nothing"),
    "hard_link_outside": (packed(entry("h", HARD, "../../etc/passwd")), ENTRY + "h: ../../etc/passwd leads out"),
    "hard_link_to_a_host_file": (packed(entry("h", HARD, "/etc/passwd")), ENTRY + "h: it is a hard link to etc/passwd"),
    "hard_link_through_a_symlink": (
        packed(entry("l", LINK, "/"), entry("h", HARD, "l/etc/passwd")),
        ENTRY + "h: it is a hard link to l/etc/passwd, which is not in the image",
    ),
    "hard_links_in_a_circle": (packed(entry("a", HARD, "b"), entry("b", HARD, "a")), ENTRY + "a: it is a hard link to"),
    "device_nodes": (packed(entry("sda", DEVICE), entry("tty", tarfile.BLKTYPE), entry("x")), ["x"]),
    "whiteout_device": (packed(entry("x", DEVICE, devmajor=0, devminor=0), entry("y")), ["y"]),
    "whiteout_of_the_root": (packed(entry(".wh..")), ENTRY + ".wh..: it is a whiteout of nothing that has a name"),
    "whiteout_of_the_parent": (packed(entry(".wh...")), ENTRY + ".wh...: it is a whiteout of nothing that has a name"),
    "whiteout_without_name": (packed(entry("a/.wh.")), ENTRY + "a/.wh.: it is a whiteout of nothing that has a name"),
    "whiteout_of_a_whiteout": (packed(entry("x"), entry(".wh..wh.x")), ["x"]),
    "whiteout_through_a_symlink": (packed(entry("l", LINK, "/tmp"), entry("l/.wh.x")), ["l"]),
    "whiteout_above_the_root": (packed(entry("../.wh.x")), ENTRY + "../.wh.x: ../.wh.x leads out"),
    "file_below_a_whiteout": (packed(entry(".wh.a/x")), ENTRY + ".wh.a/x: it is below .wh.a, which is a whiteout"),
    "same_name_twice": (packed(entry("x", data=b"1"), entry("x", DIRECTORY), entry("x", data=b"3")), ["x"]),
    "root_as_a_file": (packed(entry(".")), ENTRY + ".: the root of the image is a file"),
    "root_as_a_symlink": (packed(entry("/", LINK, "/tmp")), ENTRY + ".: the root of the image is a symbolic link"),
    "name_that_is_not_utf8": (packed(entry("\udcff\udcfe")), [b"\xff\xfe"]),
    "name_with_terminal_escapes": (packed(entry("\x1b]0;x\x07\n")), [b"\x1b]0;x\x07\n"]),
    "name_with_nul": (records(path=b"a\0b") + bytes(1024), ENTRY + "a\\x00b: there is a NUL in its name"),
    "target_with_nul": (records(linkpath=b"a\0b")[:-512] + raw(tarfile.SYMTYPE) + bytes(1024), ENTRY + "x: there is"),
    "long_name_component": (packed(entry("n" * 256)), ENTRY + "n" * 60 + "…: a part of its name has"),
    "long_directory_name": (packed(entry("n" * 256 + "/x")), ENTRY + "n" * 60 + "…: a part of its name has"),
    "long_name": (packed(entry("n/" * 2500 + "x")), ENTRY + "n/" * 30 + "…: its name has more than 4095 bytes"),
    "deep_name": (packed(entry("n/" * 1500 + "x")), 1501),
    "size_beyond_the_end": (raw(size=1 << 20) + bytes(1024), DAMAGED),
    "size_of_yottabytes": (sized(b"\x80" + b"\x7f" * 11), LARGE),
    "negative_size": (sized(b"\xff" * 10 + b"\xfc\x00"), DAMAGED),
    "size_that_is_no_number": (records(size=b"-1e9") + bytes(1024), ["x"]),
    "sparse_bomb": (holes(b"0\n", b"9" * 15) + bytes(1024), LARGE),
    "holes_that_overlap": (holes(b"2\n0\n9\n5\n9\n", b"20") + bytes(1024), ENTRY + "x: the table of its holes"),
    "holes_beyond_the_end": (holes(b"1\n50\n9\n", b"20") + bytes(1024), ENTRY + "x: the table of its holes"),
    "owner_out_of_range": (records(uid=b"4294967295") + bytes(1024), ENTRY + "x: its uid 4294967295 is not possible"),
    "negative_owner": (records(gid=b"-1") + bytes(1024), ENTRY + "x: its gid -1 is not possible"),
    "time_that_is_no_number": (records(mtime=b"nan") + bytes(1024), DAMAGED),
    "infinite_time": (records(mtime=b"inf") + bytes(1024), DAMAGED),
    "time_far_in_the_past": (records(mtime=b"-1e17") + bytes(1024), ["x"]),
    "unknown_entry_type": (raw(b"Z") + bytes(1024), ENTRY + "x: entries of type b'Z' are not known"),
    "part_of_another_volume": (raw(b"M") + bytes(1024), ENTRY + "x: entries of type b'M' are not known"),
    "no_end_marker": (raw(), ["x"]),
    "data_after_the_end": (raw() + bytes(1024) + b"x" * 10_000, ["x"]),
    "long_headers": (raw(tarfile.XHDTYPE, 2 << 20) + bytes(2 << 20), "RL-ARCHIVE: read layer 1: the headers"),
}  # fmt: skip


SEALED = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
chmod 777 "$1"
cat > "$1/layer"
mount -o remount,bind,ro /
for place in /tmp /var /home /dev/shm; do mountpoint -q $place && mount -o remount,bind,ro $place; done
cd "$1"
exec "$2" -c "$3"
"""
"""Runs Python where only a tmpfs is writable."""

BUILD = """
import os, sys
from rootless.errors import RootlessError
from rootless.image.merge.build import build_image
from rootless.image.merge.layers import LayerFile
try:
    build_image([LayerFile("layer")], config=b"{}", manifest_digest="", reference="", output="image.sqsh")
except RootlessError as error:
    print(f"{error.code}: {error}")
print(sorted(os.listdir(".")))
"""


@pytest.mark.parametrize("name", OUTCOMES)
def test_hostile_layer_has_its_defined_outcome(name, tmp_path):
    layer, outcome = OUTCOMES[name]
    path = tmp_path / "layer"
    path.write_bytes(layer)
    output = tmp_path / "output"
    output.mkdir()
    error = failure(built, path, output)
    if isinstance(outcome, str):
        assert error.startswith(outcome)
        assert os.listdir(output) == []
        return
    assert not error
    assert os.listdir(output) == ["image.sqsh"]
    found = names(output / "image.sqsh", tmp_path / "tree")
    if isinstance(outcome, int):
        assert len(found) == outcome
    else:
        assert found == sorted(name if isinstance(name, bytes) else name.encode() for name in outcome)


def failure(function, *arguments):
    """Return the code and message of the error that a function raises, or an empty string."""
    try:
        function(*arguments)
    except RootlessError as error:
        return f"{error.code}: {error}"
    return ""


def built(path, output):
    build_image([LayerFile(str(path))], config=b"{}", manifest_digest="", reference="", output=f"{output}/image.sqsh")


def names(image, directory):
    """Return the names in an image, unpacked by unsquashfs."""
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", directory, image], check=True)
    listed = subprocess.run(["find", ".", "-mindepth", "1", "-print0"], cwd=directory, capture_output=True, check=True)
    return sorted(name.removeprefix(b"./") for name in listed.stdout.split(b"\0") if name)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("file_through_an_absolute_symlink", ["image.sqsh", "layer"]),
        ("file_through_a_symlink_upwards", ["image.sqsh", "layer"]),
        ("device_nodes", ["image.sqsh", "layer"]),
        ("hard_link_outside", ["layer"]),
        ("name_above_the_root", ["layer"]),
    ],
)
def test_nothing_is_written_outside_the_output(tmp_path, name, left, compress):
    if os.geteuid() != 0:
        pytest.skip("needs root: seals the file systems")
    layer, outcome = OUTCOMES[name]
    command = ["unshare", "--mount", "sh", "-ec", SEALED, "sh", tmp_path, sys.executable, BUILD]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, input=compress(layer), capture_output=True, check=True, env=environment)
    *message, listing = done.stdout.decode().splitlines()
    assert listing == str(left)
    assert not message or message[0].startswith(outcome)


def test_a_layer_beyond_the_size_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "LARGEST_IMAGE", 10 << 20)
    path = tmp_path / "layer"
    path.write_bytes(gzip.compress(bytes(50 << 20)))
    (tmp_path / "output").mkdir()
    assert "its layers have more than" in failure(built, path, tmp_path / "output")
    assert os.listdir(tmp_path / "output") == []


MEASURE = """
import os, sys
from rootless.image.merge.layers import Layer
from rootless.image.merge.tree import Tree
from rootless.image.merge import build
tree = Tree()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
build._apply(tree, Layer(open(sys.argv[1], "rb"), "layer 1", "", 1), 1)
print((resident() - before) / tree._cost)
"""


def test_counted_memory_matches_used_memory(tmp_path):
    """The memory limit therefore holds for a million names."""
    path = tmp_path / "layer"
    with open(path, "wb") as file:
        file.writelines(raw(name=f"{number}/{number}") for number in range(20_000))
        file.write(bytes(1024))
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    assert 0.3 < float(done.stdout) < 1.1


def opaque_directories(count):
    """A directory with many files that is made opaque again and again."""
    many = [entry(f"d/{number}") for number in range(count)]
    return packed(*many, *(entry("d/.wh..wh..opq") for _ in range(count)))


def links_in_the_wrong_order(count):
    return packed(*(entry(f"l{number}", HARD, f"l{number + 1}") for number in range(count)), entry(f"l{count}"))


def names_again(count):
    return packed(*(entry(f"d/{number % 10}", (DIRECTORY, FIFO)[number % 2]) for number in range(2 * count)))


@pytest.mark.parametrize("layer", [opaque_directories, links_in_the_wrong_order, names_again])
def test_merge_time_is_linear_in_the_number_of_entries(layer):
    """Ten times as many entries take about ten times as long, not a hundred times."""

    def seconds(count):
        data = layer(count)
        import time

        before = time.process_time()
        applied(data)
        return time.process_time() - before

    seconds(100)
    assert seconds(10_000) < 40 * max(seconds(1000), 0.02)


def applied(data):
    tree = Tree()
    build._apply(tree, Layer(io.BufferedReader(io.BytesIO(data)), "layer 1", "", 1), 1)
    return tree


@pytest.fixture(scope="module")
def real():
    """Real layers, as GNU tar packs them in two formats, and one with long names and times."""
    found = []
    for words in ([], ["--format=pax"]):
        command = ["tar", "--create", *words, "-C", "/etc", "pam.d", "alternatives"]
        found.append(subprocess.run(command, capture_output=True, check=True).stdout[: 1 << 18])
    found.append(packed(entry("a", DIRECTORY), entry("a/é" + "x" * 120, data=b"1", mtime=1.5), entry("l", LINK, "a")))
    return found


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32), changes=st.integers(1, 8))
def test_a_mutated_layer_gives_an_error_or_a_safe_image(real, seed, changes):
    chance = random.Random(seed)
    data = bytearray(chance.choice(real))
    for _ in range(changes):
        block = chance.randrange(len(data) // 512) * 512
        place = min(block + chance.randrange(512), len(data) - 1)
        data[place] = chance.choice([0, 0x2E, 0x2F, 0x35, 0x37, 0x80, 0xFF, chance.randrange(256)])
        if chance.random() < 0.8 and block + 512 <= len(data):  # a header with a correct checksum gets further
            data[block + 148 : block + 156] = b"        "
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        tree, sink = Tree(), io.BytesIO()
        error = failure(build._apply, tree, Layer(file, "layer 1", "", len(data)), 1)
        error = error or failure(write_tar, tree, [file], sink)
    if error:
        assert error.startswith(("RL-ARCHIVE", "RL-IMAGE"))
        assert "\n" not in error
        return
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue()), errors="surrogateescape") as archive:
        seen = set()
        for info in archive:
            assert info.name not in seen
            assert not {"", ".", ".."} & set(info.name.split("/"))
            assert not info.islnk() or info.linkname in seen
            assert info.type in (tarfile.REGTYPE, DIRECTORY, LINK, HARD, FIFO, tarfile.GNUTYPE_SPARSE)
            seen.add(info.name)
