"""A shell script of fixes: the steps of root, those of the user, and those for which a person has to decide.

Fixes of optional problems are comments, because some of them permit every user of the host what few containers need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootless.doctor.problem import OPTIONAL
from rootless.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootless.doctor.problem import Problem

_HEAD = """\
#!/bin/sh
# Fixes for the problems that `rootless doctor` has found for {user}. Read it, and remove what you do not want.
# Commands after `#:` are optional: few containers need them. Remove the `#:` of those that you want.
#
#   sh FILE root    the steps of root
#   sh FILE user    the steps of {user}
set -eu

"""
_TAIL = """\
case ${1-} in
root) as_root ;;
user) as_user ;;
*)
    echo "usage: sh $0 root|user" >&2
    exit 2
    ;;
esac
"""


def script(problems: Sequence[Problem], user: str) -> str:
    """Return the script; each step follows the problem that it fixes."""
    root = [problem for problem in problems if problem.fix.by_root]
    own = [problem for problem in problems if problem.fix.commands and not problem.fix.by_root]
    by_hand = [problem for problem in problems if not problem.fix.commands]
    parts = [_HEAD.format(user=one_line(user))]
    for problem in by_hand:
        parts += [*_comment(problem, ""), f"#   by hand: {problem.fix}", ""]
    return "\n".join(
        [*parts, *_function("as_root", root, "nothing needs root"), *_function("as_user", own, "nothing to do"), _TAIL]
    )


def _function(name: str, problems: Iterable[Problem], nothing: str) -> list[str]:
    lines = [f"{name}() {{"]
    done: set[tuple[str, ...]] = set()
    for problem in problems:
        lines += _comment(problem, "    ")
        mark = "#: " if problem.level == OPTIONAL else ""
        if problem.fix.commands not in done:  # such as a package with two programs
            lines += [f"    {mark}{command}" for command in problem.fix.script]
        if not mark:
            done.add(problem.fix.commands)
    return [*lines, *([] if done else [f"    echo '{nothing}'"]), "}", ""]


def _comment(problem: Problem, indent: str) -> list[str]:
    return [f"{indent}# {problem.condition.code}: {problem.condition.what}", f"{indent}#   {problem.evidence}"]
