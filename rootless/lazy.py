"""Imports that are made on first use, for whatever most calls do without: an import is most of what a verb costs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def lazy(module: str, name: str) -> Callable[..., Any]:
    """Return a callable that imports the function or class `name` of `module` on its first call, and calls it.

    A file imports `name` for type checkers and assigns this in the ``else`` branch, so that types stay exact.
    """
    found: Callable[..., Any] | None = None

    def call(*args: object, **more: object) -> object:
        nonlocal found
        if found is None:
            found = getattr(__import__(module, None, None, (name,)), name)
        return found(*args, **more)

    return call
