"""The conventions of the code, each checked by a tool."""

from __future__ import annotations

import ast
import graphlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rootless.cli.commands import VERBS
from rootless.installation.archive import IMPORTED

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "rootless"
TOOLS = Path(sysconfig.get_path("scripts"))

LAYERS = (
    ("errors", "paths", "lazy", "options"),
    ("log", "files", "signals", "jsontext", "linux"),
    ("procfs", "xdg"),
    ("bundle", "host"),
    ("plan",),
    ("launch", "cgroup"),
    ("image", "network"),
    ("container", "doctor"),
    ("cli",),
    ("__main__", "module_archive", "installation"),
)
"""From the bottom up: a room imports from itself and from rooms below. The package's version is lowest."""

PURE = {
    "__future__", "_socket.AF_INET", "_socket.AF_INET6", "_socket.inet_pton", "_stat", "_struct", "errno", "ipaddress",
    "math", "rootless.OCI_VERSION", "rootless.jsontext.render", "rootless.lazy.lazy", "rootless.paths.normal", "struct",
    "sys.byteorder",
}  # fmt: skip
"""Modules and functions that plan/ may import besides its own and the errors; none has side effects."""


def run(*words):
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(words, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}", pytrace=False)


# --- The linters ------------------------------------------------------------------------------------------------------


def test_ruff_finds_nothing():
    run(sys.executable, "-m", "ruff", "check", ".")


def test_the_code_is_formatted():
    run(sys.executable, "-m", "ruff", "format", "--diff", ".")


def test_the_types_are_strict_and_right():
    run(sys.executable, "-m", "mypy")


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_c_compilers_warn_of_nothing(compiler, need):
    if compiler == "gcc":
        need("gcc")
    run(sys.executable, "helpers/init/build.py", "--check", "--compiler", compiler)


def test_the_c_code_is_formatted():
    files = [path for top in ("helpers", "tests") for path in sorted((CHECKOUT / top).rglob("*.[ch]"))]
    run(TOOLS / "clang-format", "--dry-run", "--Werror", *files)


def test_the_c_analyzers_find_nothing(need, tmp_path):
    for generator in ("helpers/init/gen_ops.py", "helpers/front/gen_flags.py", "helpers/front/gen_cached.py"):
        run(sys.executable, generator, tmp_path)
    language = ["-std=gnu11", "-D_GNU_SOURCE", f"-I{CHECKOUT}/helpers/init", f"-I{tmp_path}"]
    sources = [*sorted((CHECKOUT / "helpers").rglob("*.c")), tmp_path / "ops.c"]
    for source in sources:
        run(need("gcc"), *language, "-O2", "-fanalyzer", "-Werror", "-c", source, "-o", tmp_path / "object.o")
    # whatever versions of GCC the host has
    run(TOOLS / "clang-tidy", "--quiet", *sources, "--", *language, "-Wno-gcc-install-dir-libstdcxx")


def test_no_files_of_the_executor_call_each_other(need, tmp_path):
    run(sys.executable, "helpers/init/gen_ops.py", tmp_path)
    sources = [*sorted((CHECKOUT / "helpers/init").glob("*.c")), tmp_path / "ops.c"]
    language = ["-std=gnu11", "-D_GNU_SOURCE", f"-I{CHECKOUT}/helpers/init", f"-I{tmp_path}"]
    subprocess.run([need("gcc"), *language, "-c", *sources], cwd=tmp_path, check=True)
    defined, used = {}, {}
    for source in sources:
        words = ["nm", "--format=posix", f"{source.stem}.o"]
        for line in subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines():
            name, sort = line.split()[:2]
            if sort == "U":
                used.setdefault(source.stem, set()).add(name)
            elif sort.isupper():
                defined[name] = source.stem
    graph = {file: {defined[name] for name in names if name in defined} for file, names in used.items()}
    assert "ops" in graph["run"]
    graph["hooks"].remove("run")  # a hook runs operations
    tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    "script",
    ["install.sh", "tests/run", ".ci/run", "helpers/containerd/in-rootlesskit.sh", "helpers/completion/rootless.bash"],
)
def test_shellcheck_finds_nothing(script, need):
    run(need("shellcheck"), script)


# --- Structure --------------------------------------------------------------------------------------------------------


def imports(path):
    """Yield the full names that a file of the package imports at run time, without imports for types only."""
    todo = [ast.parse(path.read_bytes())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            todo += node.orelse
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides which room it comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy":
            yield ".".join(ast.literal_eval(word) for word in node.args)


def room(module):
    """Return the room of a name in the package: `rootless.plan.ops.Op` is in `plan`, `rootless.__version__` in none."""
    name = module.split(".")[1] if "." in module else ""
    return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() else ""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"), path


def assert_none(violations):
    found = "\n".join(violations)
    if found:
        pytest.fail(found, pytrace=False)


def test_imports_only_go_down():
    level = {name: number for number, names in enumerate(LAYERS) for name in names} | {"": -1}
    assert_none(
        f"{module} imports {name}"
        for module, path in modules()
        for name in imports(path)
        if name.partition(".")[0] == "rootless"
        if room(name) != room(module) and level[room(name)] >= level[room(module)]
    )


def test_no_files_import_each_other():
    """Imports inside functions and by lazy() count; only imports for types may form a cycle."""
    files = dict(modules())
    graph = {
        module: {name if name in files else name.rpartition(".")[0] for name in imports(path)} & files.keys()
        for module, path in files.items()
    }
    undo = "rootless.container.operations.undo"  # its table names the undo functions, which read the notes
    graph[undo] = {name for name in graph[undo] if not name.startswith("rootless.container.operations.")}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])), pytrace=False)


def test_rooms_of_container_have_few_imports_downwards():
    folder = PACKAGE / "container"
    ways = {}
    for path in folder.rglob("*.py"):
        room_of_file = path.relative_to(folder).parts[0].removesuffix(".py")
        for name in imports(path):
            other = name.removeprefix("rootless.container.").partition(".")[0]
            if name.startswith("rootless.container.") and other != room_of_file:
                ways.setdefault(room_of_file, set()).add(other)
    tuple(graphlib.TopologicalSorter(ways).static_order())
    assert sum(map(len, ways.values())) <= 42


def test_plan_imports_nothing_that_touches_the_machine():
    assert_none(
        f"{module} imports {name}"
        for module, path in modules()
        if room(module) == "plan"
        for name in imports(path)
        if name.rpartition(".")[0] not in PURE and name not in PURE
        if name.partition(".")[0] != "rootless" or room(name) not in ("plan", "errors", "linux")
    )


def calls(path):
    """Yield the names of all functions and classes that a file of the package calls by name."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_one_file_makes_requests_and_fills_in_defaults():
    makers = {module for module, path in modules() if "Request" in calls(path)}
    assert makers == {"rootless.container.request"}


def test_only_the_command_line_makes_options():
    makers = {module for module, path in modules() if "Options" in calls(path)}
    assert {room(module) for module in makers} == {"cli"}


def test_every_room_is_a_package():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert all((PACKAGE / name / "__init__.py").exists() for name in rooms)


def test_tests_share_code_through_helpers_only():
    files = (path for path in (CHECKOUT / "tests").rglob("*.py") if "__pycache__" not in path.parts)
    assert_none(
        f"{path.relative_to(CHECKOUT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    )


def test_modules_that_an_installed_verb_loads_at_once_exist():
    known = {module for module, _ in modules()}
    for verb, (at_once, later) in IMPORTED.items():
        assert {f"rootless.{name}" for name in f"{at_once} {later}".split()} <= known
        assert at_once.split()[0] == VERBS[verb].run.partition(":")[0]


def test_top_level_of_the_checkout_has_no_other_files():
    expected = {"rootless", "helpers", "tests", "docs", "pyproject.toml", "README.md", "install.sh"}
    expected |= {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md"}
    names = {path.name for path in CHECKOUT.iterdir() if not path.name.startswith(".")}
    assert names <= expected | {"build", "dist"}, "a new file at the top level needs a good reason"


# --- The launcher -----------------------------------------------------------------------------------------------------


def launcher(directory, *, front=False):
    """Write a command for this interpreter in `directory`, and a stand-in for the package beside it."""
    (directory / "rootless/launch/bin").mkdir(parents=True)
    if front:
        program = f"rootless/launch/bin/front-{os.uname().machine}"
        shutil.copy(CHECKOUT / program, directory / program)
    body = "    print(sys.argv, sys.flags.isolated, sys.flags.no_site)\n    sys.exit(7)\n"
    main = f"import sys\ndef main_and_exit():\n{body}"
    (directory / "rootless" / "__main__.py").write_text(main)
    python = directory / "python3"
    python.symlink_to(os.path.realpath(sys.executable))
    command = directory / "command"
    words = [sys.executable, "-m", "rootless.installation", "--python", python, "--path", directory, command]
    return command, subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("name", ["plain", "with blanks", 'quote\'s "and" $dollar `tick` ünd', "long" * 40])
def test_command_starts_python_isolated_in_every_directory(tmp_path, name, front):
    command, _ = launcher(tmp_path / name, front=front)
    assert command.with_name("command.py").exists() is front
    link = tmp_path / "runc"
    link.symlink_to(command)
    done = subprocess.run([link, "a b", "*"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{[str(link), 'a b', '*']} 1 1\n", "")


@pytest.mark.parametrize("name", ["back\\slash", "new\nline"])
def test_command_with_an_unreadable_path_is_refused(tmp_path, name):
    command, done = launcher(tmp_path / name)
    assert done.returncode == 1
    assert not command.exists()
    assert "fix: install to another directory" in done.stderr
