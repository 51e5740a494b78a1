"""The libraries that a program needs, read from its file and never by running it: ld.so(8), elf(5)."""

from __future__ import annotations

import glob
import itertools
import os
import struct

from rootless.launch.elf_header import MAGIC, PT_DYNAMIC, PT_LOAD, ElfHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29


class Elf:
    """One ELF file as the dynamic loader sees it.

    Attributes:
        kind: class, byte order and machine; the loader skips libraries of another kind.
        interpreter: the dynamic loader that the kernel starts; empty for libraries and static programs.
        needed: names of the libraries, as written (usually without a directory).
        rpath: directories searched first, for the libraries' own libraries too; ignored when there is a `runpath`.
        runpath: directories searched first, for this file's own libraries only.
    """

    __slots__ = ("interpreter", "kind", "needed", "rpath", "runpath")

    def __init__(self, kind: tuple[int, int, int]) -> None:
        self.kind = kind
        self.interpreter = ""
        self.needed: list[str] = []
        self.rpath: list[str] = []
        self.runpath: list[str] = []


def read_elf(path: str) -> Elf | None:
    """Return the ELF file at `path`; None for another or a damaged file.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        image = file.read(4)
        if image != MAGIC:
            return None
        image += file.read()
    try:
        return _parse(image, os.path.dirname(path))
    except (IndexError, OverflowError, ValueError, struct.error):
        return None


def _parse(image: bytes, origin: str) -> Elf:
    header = ElfHeader(image)
    if not header.is_whole:
        raise ValueError(origin)
    elf = Elf((image[4], image[5], header.machine))
    elf.interpreter = os.fsdecode(header.interpreter())
    loads: list[tuple[int, int, int]] = []
    tags: list[tuple[int, int]] = []
    entry = struct.Struct(("<" if header.byteorder == "little" else ">") + ("qQ" if header.wide else "iI"))
    for kind, offset, address, size in header.segments():
        if kind == PT_LOAD:
            loads.append((address, offset, size))
        elif kind == PT_DYNAMIC:
            tags.extend(entry.iter_unpack(image[offset : offset + size - size % entry.size]))
    tags = list(itertools.takewhile(lambda pair: pair[0] != _DT_NULL, tags))
    strings = next((_file_offset(loads, value) for tag, value in tags if tag == _DT_STRTAB), 0)
    names: dict[int, list[str]] = {_DT_NEEDED: [], _DT_RPATH: [], _DT_RUNPATH: []}
    for tag, value in tags:
        if tag in names:
            start = strings + value
            names[tag].append(os.fsdecode(image[start : image.index(b"\0", start)]))
    elf.needed = names[_DT_NEEDED]
    elf.runpath = _expanded(names[_DT_RUNPATH], origin, wide=header.wide)
    elf.rpath = [] if elf.runpath else _expanded(names[_DT_RPATH], origin, wide=header.wide)
    return elf


def _file_offset(loads: list[tuple[int, int, int]], address: int) -> int:
    for start, offset, size in loads:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError(address)


def _expanded(paths: list[str], origin: str, *, wide: bool) -> list[str]:
    """Return the directories in RPATH or RUNPATH strings, with the tokens of ld.so(8) expanded."""
    text = ":".join(paths)
    for token, value in (("ORIGIN", origin), ("LIB", "lib64" if wide else "lib")):
        text = text.replace(f"${{{token}}}", value).replace(f"${token}", value)
    return [directory for directory in text.split(":") if directory]


class Libraries:
    """Finds libraries as this host's loader does; directories that it searches without a cache come first.

    `beyond_default` becomes true once a library was found only because of ld.so.conf: the loader will then need the
    cache (/etc/ld.so.cache) to find it again.
    """

    def __init__(self) -> None:
        self.beyond_default = False
        self._default = [
            *sorted(glob.glob("/lib/*-linux-*") + glob.glob("/usr/lib/*-linux-*")),
            *("/lib64", "/usr/lib64", "/lib", "/usr/lib"),
        ]
        self._configured = [*_ld_so_conf("/etc/ld.so.conf"), "/usr/local/lib"]
        for musl in glob.glob("/etc/ld-musl-*.path"):
            with open(musl, encoding="utf-8", errors="surrogateescape") as file:
                self._default.extend(file.read().replace(":", "\n").split())
        self._seen: dict[str, Elf | None] = {}

    def closure(self, program: str) -> list[str] | None:
        """Return the paths of all files that `program` needs to start, itself first.

        None when it is not a readable ELF program, or one of its libraries is missing.
        """
        found: list[str] = []
        todo: list[tuple[str, list[str]]] = [(program, [])]
        while todo:
            path, inherited = todo.pop()
            if path in found:
                continue
            elf = self.read(path)
            if elf is None:
                return None
            found.append(path)
            if elf.interpreter:
                todo.append((elf.interpreter, []))
            inherited = elf.rpath + inherited
            for name in elf.needed:
                library = self.find(name, elf, inherited)
                if library is None:
                    return None
                todo.append((library, inherited))
        return found

    def find(self, name: str, elf: Elf, inherited: list[str] | None = None) -> str | None:
        """Return where `elf` finds the library `name`, with `inherited` the RPATHs of what loaded it."""
        if "/" in name:
            return name
        named = elf.runpath or inherited or elf.rpath
        for directories in (named, self._default, self._configured):
            for directory in directories:
                path = os.path.join(directory, name)
                candidate = self.read(path)
                if candidate is not None and candidate.kind == elf.kind:
                    self.beyond_default |= directories is self._configured
                    return path
        return None

    def read(self, path: str) -> Elf | None:
        """Return the ELF file at `path`, read once; None when it is not a readable ELF file."""
        if path not in self._seen:
            try:
                self._seen[path] = read_elf(path)
            except (OSError, ValueError):
                self._seen[path] = None
        return self._seen[path]


def _ld_so_conf(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        text = line.partition("#")[0].strip()
        if text.startswith("include "):
            for included in sorted(glob.glob(os.path.join(os.path.dirname(path), text[8:].strip()))):
                yield from _ld_so_conf(included)
        elif text:
            yield text
