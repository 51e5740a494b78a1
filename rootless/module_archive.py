"""Imports every module of the package from one file, as the installed command does.

helpers/module_archive.py writes that file. A start opens it instead of some fifty files and searches no directory. On a
network file system each of those is a round trip, and everywhere the search of the import system costs as much as the
modules. The modules that a verb is known to import are read and loaded together, without any search, each after those
that it imports: 2 µs instead of 25. Those that it needs for a container with a cgroup of its own follow together when
one of them is imported.
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
    """Modules, where the marshalled sequence of their codes begins, and its length."""
    Verbs = dict[str, tuple[Together, Together]]
    """By the word on the command line: what is loaded at once, and what follows when one of it is imported."""
    Places = dict[str, tuple[int, int]]
    """By full name of a module: where its marshalled code begins, and its length."""
else:
    ModuleType = type(sys)

_PACKAGE = "/__init__.py"
"""What the path of a package's source ends with."""


class ModuleArchive:
    """The modules of the archive; a finder and loader of the import system.

    Attributes:
        later: what is loaded together when the first of it is imported.
    """

    def __init__(self, file: FileIO, package: str, index: bytes) -> None:
        """Use a file that is read up to where places are counted from; `index` has the Places, marshalled."""
        self._package = package
        self._index = index
        self._places: Places | None = None
        self._path = str(file.name)
        self._identity = _identity(file)
        self._begin = file.tell()
        self.later: Together = ((), 0, 0)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None for what is not in the archive, or no longer: the package was upgraded."""
        del path, target
        if name.partition(".")[0] != self._package:
            return None
        if self._places is None:
            self._places = loads(self._index)  # noqa: S302 - the launcher vouches for it
        if name not in self._places:
            return None
        code = None
        try:
            with open(self._path, "rb", 0) as file:
                if _identity(file) != self._identity:
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
        return ModuleSpec(name, self, origin=source, loader_state=code, is_package=source.endswith(_PACKAGE))  # type: ignore[arg-type] # has all that is used

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module that has been loaded with others; otherwise leave making it to the import system."""
        return sys.modules.get(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the code of a module in its namespace, unless it was loaded with others."""
        code = module.__spec__.loader_state  # type: ignore[union-attr] # the import system has set it
        if code:
            _execute(code, module)

    def load(self, file: FileIO, together: Together) -> None:
        """Import modules, of which none imports one that comes after it."""
        names, begin, length = together
        for name, code in zip(names, self._read(file, begin, length), strict=True):
            module = sys.modules[name] = ModuleType(name)
            parent, _, own = name.rpartition(".")
            module.__package__ = name if code.co_filename.endswith(_PACKAGE) else parent
            _execute(code, module)
            if parent:
                setattr(sys.modules[parent], own, module)

    def _read(self, file: FileIO, begin: int, length: int) -> Any:  # noqa: ANN401 - one code or a sequence of them
        file.seek(self._begin + begin)
        return loads(file.read(length))  # noqa: S302 - the launcher vouches for it


def _execute(code: CodeType, module: ModuleType) -> None:
    module.__file__ = code.co_filename
    if code.co_filename.endswith(_PACKAGE):
        module.__path__ = [code.co_filename.removesuffix(_PACKAGE)]
    exec(code, module.__dict__)  # noqa: S102 - the launcher vouches for it


def _identity(file: FileIO) -> tuple[int, int, int]:
    status = posix.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_mtime_ns


def use(file: FileIO, verbs: Verbs, package: str, index: bytes) -> None:
    """Import what the archive has from there, and at once what the verb on the command line needs."""
    archive = ModuleArchive(file, package, index)
    sys.meta_path.insert(0, archive)
    verb = next((word for word in sys.argv if word in verbs), None)
    if verb:
        at_once, archive.later = verbs[verb]
        archive.load(file, at_once)
