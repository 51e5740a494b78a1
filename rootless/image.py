"""Imports every module of the package from one file, as the installed command does; helpers/image.py writes it.

A start opens one file in the place of some fifty and looks into no directory: on a network file system each of those is
a round trip, and on any the import system's search costs as much as what it finds. What a verb is known to import is
loaded without any search, each module after those that it imports: 2 µs instead of 25.
"""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    Modules = dict[str, tuple[str, bool, int, int]]
    """By full name: the source file, whether it is a package, where its marshalled code begins and ends."""
else:
    ModuleType = type(sys)


class Image:
    """The modules of an image; a finder and loader of the import system."""

    def __init__(self, modules: Modules, codes: memoryview) -> None:
        self._modules = modules
        self._codes = codes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None for what is not in the image."""
        del path, target
        if name not in self._modules:
            return None
        source, is_package, _, _ = self._modules[name]
        return ModuleSpec(name, self, origin=source, is_package=is_package)  # type: ignore[arg-type] # has all that is used

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave making the module to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the code of a module in its namespace."""
        source, is_package, begin, end = self._modules[module.__name__]
        module.__file__ = source
        if is_package:
            module.__path__ = [source.rpartition("/")[0]]
        exec(loads(self._codes[begin:end]), module.__dict__)  # noqa: S102, S302 - the launcher vouches for it

    def load(self, names: Sequence[str]) -> None:
        """Import modules, of which none imports one that comes after it."""
        for name in names:
            module = sys.modules[name] = ModuleType(name)
            parent, _, own = name.rpartition(".")
            module.__package__ = name if self._modules[name][1] else parent
            self.exec_module(module)
            if parent:
                setattr(sys.modules[parent], own, module)


def use(modules: Modules, orders: dict[str, Sequence[str]], codes: memoryview) -> None:
    """Import what the image has from there, and at once what the verb on the command line needs."""
    image = Image(modules, codes)
    sys.meta_path.insert(0, image)
    image.load(next((orders[word] for word in sys.argv if word in orders), ()))
