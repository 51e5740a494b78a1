"""Hatch's build hook: a wheel carries the executor and the front door for every architecture it is meant for.

It also carries the manual pages and the completion scripts, as files below share/.

``ROOTLESS_BUILD_INIT=native`` builds for this machine alone and needs no zig where the system's compiler will do: what
install.sh asks for. An editable install is always for this machine alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from types import ModuleType

sys.dont_write_bytecode = True  # root may build in the checkout of another user, who could not remove it
ZIG = "ziglang>=0.14"
INSIDE = "rootless/launch/bin"
HELPERS = Path(__file__).parent.parent
COMPLETION = {
    "rootless.bash": "share/bash-completion/completions/rootless",
    "_rootless": "share/zsh/site-functions/_rootless",
    "rootless.fish": "share/fish/vendor_completions.d/rootless.fish",
}
"""The scripts in helpers/completion, and the place of each below the environment or /usr."""


def _module(path: str) -> ModuleType:
    # Not `import build`: hatch loads this file by its path, and PyPI has another package of that name.
    spec = importlib.util.spec_from_file_location(f"rootless_{Path(path).stem}", HELPERS / path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _builder() -> ModuleType:
    return _module("init/build.py")


class InitHook(BuildHookInterface[Any]):
    """Compiles the static programs, makes the manual pages, and puts them into the wheel."""

    def _native_only(self) -> bool:
        return os.environ.get("ROOTLESS_BUILD_INIT") == "native"

    def dependencies(self) -> list[str]:
        """Return what the build environment needs: zig, unless this machine's own compiler is enough."""
        if self.target_name != "wheel":
            return []
        builder = _builder()
        if self._native_only():
            try:
                builder.choose(builder.native_arch())
            except builder.BuildError:
                return [ZIG]
            return []
        return [ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the files are collected; the sdist carries the sources and no program."""
        if self.target_name != "wheel":
            return
        builder = _builder()
        if version == "editable":
            builder.build(builder.native_arch())
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="rootless-init-")
        scratch = Path(self._scratch.name)
        architectures = (builder.native_arch(),) if self._native_only() else builder.WHEEL_ARCHES
        for arch in architectures:
            for program in (builder.build(arch, scratch), builder.build_front(arch, scratch)):
                build_data["force_include"][str(program)] = f"{INSIDE}/{program.name}"
        for page in _module("manual/gen_pages.py").write(scratch):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"
        for name, place in COMPLETION.items():
            build_data["shared_data"][str(HELPERS / "completion" / name)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 (hatch's signature)
        """Remove the programs: the wheel has them."""
        if self.target_name == "wheel" and version != "editable":
            self._scratch.cleanup()
