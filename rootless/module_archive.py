"""Import the modules of the package from one file, the module archive, in the installed command.

rootless/installation writes the archive. The command opens it instead of some fifty files and searches no
directory: on a network file system each of those is a round trip, and on every system the import system's search costs
as much as the modules. The modules that a verb always imports are read and loaded together without a search, in an
order in which none imports a later one. That takes 2 µs per module instead of 25. The modules that a verb needs for a
container with its own cgroup are loaded together when the first of them is imported.
"""

from __future__ import annotations

import posix
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import FileIO
    from types import CodeType, ModuleType
    from typing import Any

    Together = tuple[Sequence[str], int, int]
    """Names of modules, and the offset and length of the marshalled sequence of their code objects."""
    Verbs = dict[str, bytes]
    """By verb, marshalled: the modules to load at the start, and those to load together when the first of them is
    imported."""
    Places = dict[str, tuple[int, int]]
    """By full name of a module: the offset and length of its marshalled code object."""
else:
    ModuleType = type(sys)

_PACKAGE = "/__init__.py"
"""The end of the path of a package's source."""


class ModuleArchive:
    """The modules of an archive; a finder and loader for the import system.

    Attributes:
        archive: the path of the file.
        identity: its device, inode and mtime (ns), when it was opened.
        later: the modules to load together when the first of them is imported.
    """

    def __init__(self, file: FileIO, package: str, index: bytes) -> None:
        """Use `file`, whose position is the one from which offsets count; `index` is the marshalled Places."""
        self._package = package
        self._index = index
        self._places: Places | None = None
        self.archive = str(file.name)
        self.identity = _identity(file)
        self._begin = file.tell()
        self.later: Together = ((), 0, 0)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a module's spec; None if it is not in the archive or an upgrade has replaced the file."""
        del path, target
        if name.partition(".")[0] != self._package:
            return None
        if self._places is None:
            self._places = loads(self._index)  # noqa: S302 - rootless/installation wrote it
        if name not in self._places:
            return None
        code = None
        try:
            with open(self.archive, "rb", 0) as file:
                if _identity(file) != self.identity:
                    return None
                if name in self.later[0]:
                    later, self.later = self.later, ((), 0, 0)
                    self.load(file, later)
                    source = str(sys.modules[name].__file__)
                else:
                    code = self._read(file, *self._places[name])
                    source = code.co_filename
        except OSError:
            return None
        return ModuleSpec(name, self, origin=source, loader_state=code, is_package=source.endswith(_PACKAGE))  # type: ignore[arg-type] # has all methods that are used

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module if it was loaded with others, or None, so that the import system creates it."""
        return sys.modules.get(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the code of a module in its namespace, unless it was loaded with others."""
        code = module.__spec__.loader_state  # type: ignore[union-attr] # the import system has set it
        if code:
            _execute(code, module)

    def load(self, file: FileIO, together: Together) -> None:
        """Import modules, none of which imports a later one."""
        names, begin, length = together
        for name, code in zip(names, self._read(file, begin, length), strict=True):
            module = sys.modules[name] = ModuleType(name)
            parent, _, own = name.rpartition(".")
            module.__package__ = name if code.co_filename.endswith(_PACKAGE) else parent
            _execute(code, module)
            if parent:
                setattr(sys.modules[parent], own, module)

    def _read(self, file: FileIO, begin: int, length: int) -> Any:  # noqa: ANN401 - a code object or a sequence of them
        file.seek(self._begin + begin)
        return loads(file.read(length))  # noqa: S302 - rootless/installation wrote it


def _execute(code: CodeType, module: ModuleType) -> None:
    module.__file__ = code.co_filename
    if code.co_filename.endswith(_PACKAGE):
        module.__path__ = [code.co_filename.removesuffix(_PACKAGE)]
    exec(code, module.__dict__)  # noqa: S102 - rootless/installation wrote it


def _identity(file: FileIO) -> tuple[int, int, int]:
    status = posix.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_mtime_ns


def use(file: FileIO, verbs: Verbs, package: str, index: bytes) -> None:
    """Import modules from the archive from now on, and immediately those of the verb on the command line."""
    archive = ModuleArchive(file, package, index)
    sys.meta_path.insert(0, archive)
    verb = next((word for word in sys.argv if word in verbs), None)
    if verb:
        at_once, archive.later = loads(verbs[verb])  # noqa: S302 - rootless/installation wrote it
        archive.load(file, at_once)
