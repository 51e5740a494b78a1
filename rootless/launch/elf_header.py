"""The header of an ELF file and its segments: elf(5)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

MAGIC = b"\x7fELF"
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
_WIDE = b"\x02"
_BIG_ENDIAN = b"\x02"


class ElfHeader:
    """An ELF file of either width and byte order, or its beginning; bytes beyond it read as zeros.

    Attributes:
        data: the bytes.
        wide: it has 64 bits.
        byteorder: its name for int.from_bytes.
        machine: the number of its architecture.
    """

    __slots__ = ("byteorder", "data", "machine", "wide")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.wide = data[4:5] == _WIDE
        self.byteorder: Literal["big", "little"] = "big" if data[5:6] == _BIG_ENDIAN else "little"
        self.machine = self.number(18, 2)

    @property
    def is_whole(self) -> bool:
        """Whether the data has the headers of all segments."""
        return 0 < self._table().stop <= len(self.data)

    def segments(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield type, file offset, address and size in the file of every segment whose header is in the data."""
        fields = ((8, 8), (16, 8), (32, 8)) if self.wide else ((4, 4), (8, 4), (16, 4))
        table = self._table()
        for at in range(table.start, min(table.stop, len(self.data)), table.step):
            offset, address, size = (self.number(at + place, length) for place, length in fields)
            yield self.number(at, 4), offset, address, size

    def _table(self) -> range:
        """Return where the headers of the segments are."""
        table, count, entry = ((32, 8), (56, 2), 56) if self.wide else ((28, 4), (44, 2), 32)
        first = self.number(*table)
        return range(first, first + entry * self.number(*count), entry)

    def interpreter(self) -> bytes:
        """Return the path of the dynamic loader that the kernel starts; empty where the data has none."""
        found = ((offset, size) for kind, offset, _, size in self.segments() if kind == PT_INTERP)
        offset, size = next(found, (0, 0))
        return self.data[offset : offset + size].split(b"\0")[0]

    def number(self, offset: int, size: int) -> int:
        """Return the unsigned number of `size` bytes at `offset`."""
        return int.from_bytes(self.data[offset : offset + size], self.byteorder)
