"""Write the module archive of an installed `rootless`, which rootless/module_archive.py loads.

``python3 rootless/installation/archive.py rootless``: the interpreter that will read the archive must write it.

The file consists of:

1. the magic number of the interpreter's bytecode, 4 bytes;
2. the length of the head in bytes, 4 bytes, little-endian;
3. the head, marshalled: the code object of rootless/module_archive.py, the modules to load for each verb, the name of
   the package, and the index of all modules; the second and the last are marshalled once more;
4. for each verb, the code objects that it loads together, as a marshalled tuple;
5. for each module, its marshalled code object.

Offsets count from the end of the head.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import marshal
import os
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

LOADER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "module_archive.py")

SPAWNED = "bundle.check container.operations.record launch.spawn plan.encode"
MADE = f"{SPAWNED} host.delegation launch.write_idmaps"
GROUP_MADE = "container.operations.cgroup plan.cgroup.manager plan.cgroup.limits cgroup.make"
IMPORTED = {
    "create": (f"container.create {MADE}", GROUP_MADE),
    "run": (f"container.run container.terminal.relay {MADE}", f"{GROUP_MADE} container.operations.cgroup_cleanup"),
    "exec": (f"container.inside.exec container.terminal.relay {SPAWNED}", "container.operations.cgroup"),
    "start": ("container.control.start", ""),
    "kill": ("container.control.kill", "cgroup.group"),
    "delete": ("container.removal.delete", "container.operations.cgroup_cleanup"),
    "state": ("cli.output container.observe.listing jsontext cli.compat", ""),
    "list": ("cli.output container.observe.listing jsontext", ""),
    "ps": ("cli.output container.observe.listing jsontext container.state.processes", "cgroup.group"),
    "pause": ("container.control.pause", ""),
    "resume": ("container.control.pause", ""),
    "update": ("container.control.update cli.commands host.delegation cgroup.make", ""),
}
"""By verb that engines call: modules that it always imports, besides rootless.__main__, and modules that it imports for
a container with its own cgroup. Their own imports follow from them; all other modules are imported one by one."""


class _OnlyForTypes(ast.NodeTransformer):
    """Remove what only type checkers read: annotations outside classes, and the branches of TYPE_CHECKING."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [kept if isinstance(kept, ast.AnnAssign) else self.visit(kept) for kept in node.body]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return ast.Assign([node.target], node.value) if node.value else ast.Pass()


def compiled(source: str) -> CodeType:
    """Return the code object of a source file without what only people and type checkers read.

    Docstrings and annotations would be half of the archive. ``from __future__ import annotations`` becomes a compiler
    flag, so that the command does not import __future__.
    """
    with open(source, "rb") as file:
        module = ast.parse(file.read())
    kept = [node for node in module.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    flags = __future__.annotations.compiler_flag if len(kept) < len(module.body) else 0
    module.body = kept
    module = ast.fix_missing_locations(_OnlyForTypes().visit(module))
    code: CodeType = compile(module, source, "exec", flags=flags, dont_inherit=True, optimize=2)
    return code


def sources(package: str) -> Iterator[tuple[str, str]]:
    """Yield the full name of each module that the command can import, and its source file."""
    for directory, directories, files in os.walk(package):
        if "installation" in directories:
            directories.remove("installation")
        for file in sorted(files):
            if file.endswith(".py"):
                source = os.path.join(directory, file)
                name = os.path.relpath(source, os.path.dirname(package)).removesuffix(".py").replace("/", ".")
                yield name.removesuffix(".__init__"), source


class Recorder(PathFinder):
    """A finder that records the order in which the imports of modules end."""

    order: ClassVar[list[str]] = []

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec with a loader that records the end of its import."""
        spec = super().find_spec(name, path, target)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Recording(spec.loader.name, spec.loader.path)
        return spec


class _Recording(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        Recorder.order.append(module.__name__)


def loaded(package: str, names: Iterable[str]) -> list[str]:
    """Import modules; return the modules of the package that this imports, each after those that it imports itself."""
    own = os.path.basename(package)
    for module in list(sys.modules):
        if module.partition(".")[0] == own:
            del sys.modules[module]
    Recorder.order.clear()
    for name in names:
        importlib.import_module(f"{own}.{name}")
    return [module for module in Recorder.order if module.partition(".")[0] == own]


def archive(package: str) -> bytes:
    """Return the content of the archive for the package in the directory `package`."""
    own = os.path.basename(package)
    codes = {name: compiled(source) for name, source in sources(package)}
    content = bytearray()

    def put(thing: CodeType | tuple[CodeType, ...]) -> tuple[int, int]:
        """Append a code object or a tuple of them; return its offset and length."""
        begin = len(content)
        content.extend(marshal.dumps(thing))
        return begin, len(content) - begin

    places: dict[tuple[str, ...], tuple[int, int]] = {}

    def together(order: Sequence[str]) -> tuple[tuple[str, ...], int, int]:
        """Append the code objects of modules; return their names, the offset and the length."""
        names = tuple(order)
        if names not in places:
            places[names] = put(tuple([codes[name] for name in names]))
        return names, *places[names]

    verbs = {}
    for verb, (at_once, later) in IMPORTED.items():
        wanted = [[name for name in names.split() if f"{own}.{name}" in codes] for names in (at_once, later)]
        first = loaded(package, ["__main__", *wanted[0]])
        both = loaded(package, ["__main__", *wanted[0], *wanted[1]])
        verbs[verb] = marshal.dumps((together(first), together(both[len(first) :])))
    index = marshal.dumps({name: put(code) for name, code in codes.items()})
    head = marshal.dumps((compiled(LOADER), verbs, own, index))
    return MAGIC_NUMBER + len(head).to_bytes(4, "little") + head + content


def main() -> None:
    """Write the archive into the package's __pycache__, atomically."""
    package = os.path.abspath(sys.argv[1])
    sys.path.insert(0, os.path.dirname(package))
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, Recorder)
    directory = os.path.join(package, "__pycache__")
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f"modules.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(archive(package))
    os.replace(temporary, os.path.join(directory, "modules.archive"))


if __name__ == "__main__":
    main()
