"""Imports every module of the package from one file, as the installed command does.

helpers/module_archive.py writes that file. A start opens it instead of some fifty files and searches no directory. On a
network file system each of those is a round trip, and everywhere the search of the import system costs as much as the
modules. The modules that a verb is known to import are read and loaded at once, without any search, each after those
that it imports: 2 µs instead of 25.
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

    Verbs = dict[str, tuple[Sequence[str], int, int]]
    """By the word on the command line: modules, where the marshalled sequence of their codes begins, and its length."""
    Modules = dict[str, tuple[str, bool, int, int]]
    """By full name: the source file, whether it is a package, where its marshalled code begins, and its length."""
else:
    ModuleType = type(sys)


class ModuleArchive:
    """The modules of the archive; a finder and loader of the import system."""

    def __init__(self, file: FileIO, modules: Modules) -> None:
        """Use a file that is read up to where places are counted from."""
        self._modules = modules
        self._path = str(file.name)
        self._identity = _identity(file)
        self._begin = file.tell()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None for what is not in the archive, or no longer: the package was upgraded."""
        del path, target
        if name not in self._modules:
            return None
        source, is_package, begin, length = self._modules[name]
        try:
            with open(self._path, "rb", 0) as file:
                if _identity(file) != self._identity:
                    return None
                file.seek(self._begin + begin)
                code = file.read(length)
        except OSError:
            return None
        return ModuleSpec(name, self, origin=source, loader_state=code, is_package=is_package)  # type: ignore[arg-type] # has all that is used

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave making the module to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the code of a module in its namespace."""
        self._execute(loads(module.__spec__.loader_state), module)  # type: ignore[union-attr] # noqa: S302 - the launcher vouches for it

    def load(self, names: Sequence[str], codes: Sequence[CodeType]) -> None:
        """Import modules, of which none imports one that comes after it."""
        for name, code in zip(names, codes, strict=True):
            module = sys.modules[name] = ModuleType(name)
            parent, _, own = name.rpartition(".")
            module.__package__ = name if self._modules[name][1] else parent
            self._execute(code, module)
            if parent:
                setattr(sys.modules[parent], own, module)

    def _execute(self, code: CodeType, module: ModuleType) -> None:
        source, is_package, _, _ = self._modules[module.__name__]
        module.__file__ = source
        if is_package:
            module.__path__ = [source.rpartition("/")[0]]
        exec(code, module.__dict__)  # noqa: S102 - the launcher vouches for it


def _identity(file: FileIO) -> tuple[int, int, int]:
    status = posix.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_mtime_ns


def use(file: FileIO, verbs: Verbs, modules: Modules) -> None:
    """Import what the archive has from there, and at once what the verb on the command line needs."""
    archive = ModuleArchive(file, modules)
    sys.meta_path.insert(0, archive)
    verb = next((word for word in sys.argv if word in verbs), None)
    if verb:
        names, begin, length = verbs[verb]
        file.seek(file.tell() + begin)
        archive.load(names, loads(file.read(length)))  # noqa: S302 - the launcher vouches for it
