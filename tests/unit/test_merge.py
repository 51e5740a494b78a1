"""The merge of layers: the image specification's rules one by one, and a slower merge of another kind as the oracle."""

from __future__ import annotations

import io
import tarfile
import tempfile
from contextlib import ExitStack

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rootless.errors import RootlessError
from rootless.image.archive.tar_read import Reader
from rootless.image.merge import tree as merge
from rootless.image.merge.merged_tar import write_tar
from rootless.image.merge.tree import Tree
from tests.lib.layers import DEVICE, DIRECTORY, FIFO, FILE, HARD, LINK, entry, packed


def merged(*layers):
    """Return the tar archive of the merged layers, each a list of entries."""
    tree = Tree()
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in layers]
        for number, (file, entries) in enumerate(zip(files, layers, strict=True), 1):
            file.write(packed(*entries))
            file.seek(0)
            tree.apply(Reader(file, f"layer {number}", seekable=True), number)
        sink = io.BytesIO()
        write_tar(tree, files, sink)
    return sink.getvalue()


def seen(archive):
    """Return what is in an archive, by name: the kind's letter, and a file's content or a link's target."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as opened:
        for info in opened:
            if info.isreg():
                found[info.name] = "f " + opened.extractfile(info).read().decode()
            elif info.islnk():
                found[info.name] = "h " + info.linkname
            else:
                found[info.name] = {DIRECTORY: "d", FIFO: "p", LINK: "l " + info.linkname}[info.type]
    return found


def tree(*layers):
    return seen(merged(*layers))


def refused(*layers):
    with pytest.raises(RootlessError) as caught:
        merged(*layers)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def file(name, data=b"", **attributes):
    return entry(name, FILE, data=data, **attributes)


def directory(name, **attributes):
    return entry(name, DIRECTORY, **attributes)


LOWER = [directory("a"), file("a/x", b"1"), directory("a/sub"), file("a/sub/y", b"1"), file("b", b"1")]
ALL = {"a": "d", "a/x": "f 1", "a/sub": "d", "a/sub/y": "f 1", "b": "f 1"}


def without(*names):
    return {name: kind for name, kind in ALL.items() if name not in names}


def test_layers_add_and_replace_files():
    assert tree(LOWER, [file("a/x", b"2"), file("c", b"2")]) == ALL | {"a/x": "f 2", "c": "f 2"}


def test_a_whiteout_removes_a_file_or_a_whole_directory():
    assert tree(LOWER, [file("a/.wh.x")]) == without("a/x")
    assert tree(LOWER, [file(".wh.a")]) == {"b": "f 1"}
    assert tree(LOWER, [file(".wh.nothing"), file("nothing/.wh.x"), file("b/.wh.x")]) == ALL


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_hides_lower_layers_only_whatever_the_order(order):
    assert tree(LOWER, [file(".wh.b"), file("b", b"2")][::order]) == ALL | {"b": "f 2"}
    assert tree(LOWER, [file("a/.wh.sub"), file("a/sub/z", b"2")][::order]) == without("a/sub/y") | {"a/sub/z": "f 2"}
    opaque = [file("a/.wh..wh..opq"), file("a/sub/z", b"2")][::order]
    assert tree(LOWER, opaque) == without("a/x", "a/sub/y") | {"a/sub/z": "f 2"}


def test_an_opaque_directory_keeps_nothing_of_lower_layers():
    assert tree(LOWER, [file("a/.wh..wh..opq")]) == {"a": "d", "b": "f 1"}
    assert tree(LOWER, [file(".wh..wh..opq"), file("c")]) == {"c": "f "}
    assert tree(LOWER, [file("a/.wh..wh..opq"), file("a/n", b"2")], [file("a/m", b"3")]) == {
        "a": "d",
        "a/m": "f 3",
        "a/n": "f 2",
        "b": "f 1",
    }


def test_whiteouts_of_whiteouts_remove_nothing():
    assert tree(LOWER, [file(".wh..wh.b"), file("a/.wh..wh.x")]) == ALL


def test_whiteouts_leave_no_trace():
    assert not any(".wh." in name for name in tree([file(".wh.x"), file("a/.wh..wh..opq"), file("b")]))


def test_what_aufs_kept_in_a_layer_is_left_out():
    assert tree(LOWER, [directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"), file(".wh..wh.aufs")]) == ALL


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."])
def test_a_whiteout_of_no_name_is_refused(name):
    assert f"unpack the entry {name}: it is a whiteout of nothing" in refused(LOWER, [file(name)])


def test_entries_below_a_whiteout_are_refused():
    assert refused(LOWER, [file(".wh.a/x")]) == "unpack the entry .wh.a/x: it is below .wh.a, which is a whiteout"


def test_a_directory_keeps_what_is_in_it_and_gets_new_attributes():
    archive = merged(LOWER, [directory("a", mode=0o2711, uid=5)])
    assert seen(archive) == ALL
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert (opened.getmember("a").mode, opened.getmember("a").uid) == (0o2711, 5)


def test_another_kind_replaces_a_directory_with_all_that_is_in_it():
    assert tree(LOWER, [file("a", b"2")]) == {"a": "f 2", "b": "f 1"}
    assert tree(LOWER, [entry("a", LINK, "b")], [directory("a")]) == {"a": "d", "b": "f 1"}
    assert tree(LOWER, [directory("b"), file("b/x")]) == ALL | {"b": "d", "b/x": "f "}


def test_the_last_entry_of_a_name_counts():
    assert tree([file("x", b"1"), file("x", b"2"), directory("x"), entry("x", LINK, "y")]) == {"x": "l y"}


def test_missing_directories_belong_to_root():
    archive = merged([file("a/b/c", uid=7)])
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        made = opened.getmember("a/b")
    assert (made.mode, made.uid, made.mtime, made.isdir()) == (0o755, 0, 0, True)


def test_a_directory_hides_a_symlink_of_a_lower_layer():
    assert tree([directory("usr/lib"), entry("lib", LINK, "usr/lib")], [file("lib/x", b"2")]) == {
        "lib": "d",
        "lib/x": "f 2",
        "usr": "d",
        "usr/lib": "d",
    }


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "../../usr/lib", "usr/../usr/./lib//"])
def test_a_symlink_of_the_same_layer_is_followed_inside_the_image(target):
    assert tree([directory("usr/lib"), entry("lib", LINK, target), file("lib/x", b"1")]) == {
        "lib": "l " + target,
        "usr": "d",
        "usr/lib": "d",
        "usr/lib/x": "f 1",
    }


def test_a_file_through_a_symlink_to_the_outside_stays_inside():
    found = tree(
        [entry("out", LINK, "../../../../etc"), file("out/passwd", b"1"), entry("up", LINK, "/"), file("up/x")]
    )
    assert found == {"etc": "d", "etc/passwd": "f 1", "out": "l ../../../../etc", "up": "l /", "x": "f "}


def test_loops_and_files_as_directories_are_refused():
    loop = [entry("a", LINK, "b"), entry("b", LINK, "a"), file("a/x")]
    assert refused(loop) == "unpack the entry a/x: a is a loop of symbolic links"
    assert refused([file("a"), file("a/x")]) == "unpack the entry a/x: it would be written through a file"
    assert tree([file("a")], [file("a/x")]) == {"a": "d", "a/x": "f "}  # a directory hides a lower file


def test_hard_links_reach_into_lower_layers():
    assert tree(LOWER, [entry("c", HARD, "b")]) == ALL | {"c": "h b"}
    assert tree(LOWER, [entry("c", HARD, "b"), file(".wh.b")]) == without("b") | {"c": "f 1"}
    assert tree(LOWER, [entry("c", HARD, "b")], [file("b", b"3")]) == ALL | {"b": "f 3", "c": "f 1"}
    assert tree(LOWER, [entry("c", HARD, "a/x"), file(".wh.a")]) == {"b": "f 1", "c": "f 1"}


def test_replacing_one_of_two_hard_links_keeps_the_other():
    linked = [file("m", b"1"), entry("n", HARD, "m")]
    assert tree(linked) == {"m": "f 1", "n": "h m"}
    assert tree(linked, [file("m", b"2")]) == {"m": "f 2", "n": "f 1"}
    assert tree(linked, [file("n", b"2")]) == {"m": "f 1", "n": "f 2"}
    assert tree(linked, [file("m", b"2"), entry("n", HARD, "m")]) == {"m": "f 2", "n": "h m"}


def test_a_hard_link_of_an_opaque_directory_stays():
    assert tree(LOWER, [entry("a/l", HARD, "b"), file("a/.wh..wh..opq")]) == {"a": "d", "a/l": "f 1", "b": "h a/l"}


def test_hard_links_come_before_their_target_too():
    assert tree([entry("c", HARD, "b"), entry("b", HARD, "a"), file("a", b"1")]) == {"a": "f 1", "b": "h a", "c": "h a"}


def test_hard_links_to_symlinks_pipes_and_themselves():
    assert tree([entry("s", LINK, "x"), entry("h", HARD, "s"), entry("p", FIFO), entry("q", HARD, "p")]) == {
        "h": "l x",
        "p": "p",
        "q": "h p",
        "s": "h h",
    }
    assert tree([file("a", b"1"), entry("a", HARD, "a")]) == {"a": "f 1"}


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("nowhere", "it is a hard link to nowhere, which is not in the image"),
        ("../etc/passwd", "../etc/passwd leads out of the root filesystem"),
        ("/etc/../../x", "/etc/../../x leads out of the root filesystem"),
        ("a", "it is a hard link to the directory a"),
        (".", "it is a hard link to the directory ."),
        ("a/.wh.x", "it is a hard link to a/.wh.x, which is not in the image"),
    ],
)
def test_a_hard_link_to_no_file_of_the_image_is_refused(target, cause):
    assert refused(LOWER, [entry("l", HARD, target)]) == f"unpack the entry l: {cause}"


def test_names_that_lead_out_are_refused_and_absolute_ones_begin_at_the_root():
    assert "leads out" in refused([file("../x")])
    assert "leads out" in refused([file("a/../../x")])
    assert tree([file("/etc/x", b"1"), file("./y")]) == {"etc": "d", "etc/x": "f 1", "y": "f "}


def test_device_nodes_are_left_out_and_replace_what_was_there():
    assert tree(LOWER, [entry("b", DEVICE), entry("dev/null", DEVICE)]) == without("b") | {"dev": "d"}
    assert tree([entry("d", DEVICE), entry("e", HARD, "d")]) == {}


def test_the_root_is_a_directory():
    assert refused([file("./")]) == "unpack the entry .: the root of the image is a file"
    assert refused([file("x"), entry(".", HARD, "x")]) == "unpack the entry .: the root of the image is a hard link"


@pytest.mark.parametrize("number", [-1, (1 << 32) - 1, 1 << 40])
def test_owners_that_no_file_can_have_are_refused(number):
    assert f"its uid {number} is not possible" in refused([file("x", pax_headers={"uid": str(number)})])


def test_large_owners_and_times_survive():
    archive = merged([file("x", uid=(1 << 32) - 2, gid=70_000, mtime=1 << 40), file("y", mtime=-5)])
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        x, y = opened
    assert (x.uid, x.gid, x.mtime, y.mtime) == ((1 << 32) - 2, 70_000, (1 << 32) - 1, 0)


def test_extended_attributes_that_steer_an_overlay_are_left_out():
    names = ("user.a", "user.overlay.opaque", "trusted.overlay.redirect", "security.capability", "security.selinux")
    archive = merged([file("x", pax_headers={"SCHILY.xattr." + name: "v" for name in names})])
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        kept = sorted(opened.getmember("x").pax_headers)
    assert kept == ["SCHILY.xattr.security.capability", "SCHILY.xattr.user.a"]


def test_a_name_of_256_bytes_is_refused():
    assert tree([file("é" * 127 + "x")])
    assert "a part of its name has more than 255 bytes" in refused([file("é" * 128)])


def test_a_negative_size_is_refused():
    info, _ = file("x")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-1024 & (1 << 96) - 1).to_bytes(12, "big")  # base-256, as GNU tar writes large numbers
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    data = io.BytesIO(bytes(header) + bytes(1024))
    with pytest.raises(tarfile.TarError):
        Tree().apply(Reader(io.BufferedReader(data), "layer", seekable=True), 1)


def test_memory_and_sizes_have_limits(monkeypatch):
    monkeypatch.setattr(merge, "_MOST_MEMORY", 10_000)
    assert "the names of its files take more than" in refused([file(f"x{number}") for number in range(100)])
    assert "the names of its files take more than" in refused([file("a/" * 100 + "x")])
    monkeypatch.undo()
    monkeypatch.setattr(merge, "LARGEST_IMAGE", 10)
    assert "its files have more than" in refused([file("x", b"123456"), file("y", b"123456")])
    monkeypatch.setattr(merge, "_MOST_OWNERS", 10)
    assert "its files have more than 10 owners" in refused([file(f"x{uid}", uid=uid) for uid in range(20)])


NAMES = st.sampled_from(["a", "b", "a/b", "a/c", "a/b/c", "b/a", "b/c"])
CHANGES = st.one_of(
    st.builds(lambda name, data: ("f", name, data), NAMES, st.sampled_from(["1", "2", "3"])),
    st.builds(lambda name: ("d", name, ""), NAMES),
    st.builds(lambda name, target: ("l", name, target), NAMES, st.sampled_from(["a", "/a/b", "../b", "..", "c"])),
    st.builds(lambda name, target: ("h", name, target), NAMES, NAMES),
    st.builds(lambda name: ("w", name, ""), NAMES),
    st.builds(lambda name: ("o", name, ""), NAMES),
)


def as_entry(change):
    kind, name, more = change
    parent, _, base = name.rpartition("/")
    prefix = parent + "/" if parent else ""
    return {
        "f": lambda: file(name, more.encode()),
        "d": lambda: directory(name),
        "l": lambda: entry(name, LINK, more),
        "h": lambda: entry(name, HARD, more),
        "w": lambda: file(f"{prefix}.wh.{base}"),
        "o": lambda: file(f"{name}/.wh..wh..opq"),
    }[kind]()


class ImpossibleError(Exception):
    pass


OPAQUE = "/"


def overlaid(lower, upper):
    """Return two trees as overlayfs shows them: directories are merged, the rest of the upper one hides the lower."""
    result = {} if upper.get(OPAQUE) else dict(lower)
    for name, node in upper.items():
        if isinstance(node, dict):
            below = result.get(name)
            result[name] = overlaid(below if isinstance(below, dict) else {}, node)
        elif name != OPAQUE:
            result[name] = node
    return result


def cleared(tree, whiteouts):
    """Return a tree without what whiteouts name: paths, and directories that keep nothing."""

    def copy(node, path):
        if not isinstance(node, dict):
            return node
        if ("o", path) in whiteouts:
            return {}
        return {
            name: copy(child, (*path, name)) for name, child in node.items() if ("w", (*path, name)) not in whiteouts
        }

    return copy(tree, ())


def steps(tree, path, *, make=False):
    """Return the names that lead to a directory without symlinks; None if there is no way."""
    trail, todo, links = [], path.split("/")[::-1], 0
    while todo:
        name = todo.pop()
        if name == "..":
            trail = trail[:-1]
        if name in {"", "..", "."}:
            continue
        here = node_of(tree, trail)
        node = here.get(name) if isinstance(here, dict) else None
        if isinstance(node, tuple) and node[0] == "l":
            links += 1
            if links > 40:
                return None
            trail = [] if node[1].startswith("/") else trail
            todo += node[1].split("/")[::-1]
            continue
        if make:
            if node is None:
                here[name] = {}
            elif not isinstance(node, dict):
                return None
        trail.append(name)
    return trail


def node_of(tree, trail):
    for name in trail:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


class Upper:
    """A layer in the making: a tree of its own, and what it hides in the tree below it."""

    def __init__(self, lower):
        self.lower, self.tree, self.whiteouts = lower, {}, set()

    def merged(self):
        return overlaid(cleared(self.lower, self.whiteouts), self.tree)

    def place(self, name, node):
        parent, _, base = name.rpartition("/")
        trail = steps(self.tree, parent, make=True)
        if trail is None:
            raise ImpossibleError
        here = node_of(self.tree, trail)
        if isinstance(node, dict) and base in here:
            node = here[base] if isinstance(here[base], dict) else {OPAQUE: True}
        here[base] = node

    def link(self, name, target):
        view = self.merged()
        parent, _, base = target.rpartition("/")
        trail = steps(view, parent)
        found = node_of(view, [*trail, base]) if trail is not None else None
        if isinstance(found, dict):
            raise ImpossibleError
        if found is not None:
            self.place(name, found)
        return found is not None

    def hide(self, kind, name):
        parent, _, base = name.rpartition("/")
        trail = steps(self.tree, name if kind == "o" else parent)
        if trail is not None:
            self.whiteouts.add((kind, (*trail, base) if kind == "w" else tuple(trail)))


def oracle(*layers):
    """Merge layers in another way than the product: each into a tree of its own, then by overlaying the trees."""
    merged = {}
    for changes in layers:
        upper, early = Upper(merged), []
        for kind, name, more in changes:
            if kind in "wo":
                upper.hide(kind, name)
            elif kind == "h":
                early += [] if upper.link(name, more) else [(name, more)]
            else:
                upper.place(name, {} if kind == "d" else (kind, more, object()))
        assume(len(early) < 2)
        for name, target in early:
            if not upper.link(name, target):
                raise ImpossibleError
        merged = upper.merged()
    return merged


def flattened(tree, prefix=""):
    """Return a tree as `seen` does."""
    first, found = {}, {}

    def add(tree, prefix):
        for name in sorted(tree):
            node = tree[name]
            path = prefix + name
            if isinstance(node, dict):
                found[path] = "d"
                add(node, path + "/")
            elif first.setdefault(id(node[2]), path) != path:
                found[path] = "h " + first[id(node[2])]
            else:
                found[path] = f"{node[0]} {node[1]}"

    add(tree, "")
    return found


@settings(max_examples=600)
@given(st.lists(st.lists(CHANGES, max_size=6), max_size=4))
def test_the_merge_is_that_of_overlaid_trees(layers):
    try:
        expected = flattened(oracle(*layers))
    except ImpossibleError:
        expected = None
    entries = [[as_entry(change) for change in layer] for layer in layers]
    if expected is None:
        refused(*entries)
    else:
        assert tree(*entries) == expected
