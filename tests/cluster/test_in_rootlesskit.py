"""helpers/containerd/in-rootlesskit.sh: what it asks rootlesskit to do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "helpers/containerd/in-rootlesskit.sh"
CALL = """
mount --bind "$1" /sys/fs/cgroup
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p "$cgroup"
touch "$cgroup/cgroup.subtree_control"
printf '%s\\n' $$ $3 >"$cgroup/cgroup.procs"
exec "$2" true
"""


@pytest.mark.parametrize("others", ["", "1"])
def test_processes_of_other_commands_stay_in_their_cgroup(tmp_path, require_root, others):
    (tmp_path / "rootlesskit").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "rootlesskit").chmod(0o755)
    (tmp_path / "cgroup").mkdir()
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    words = ["unshare", "--mount", "sh", "-euc", CALL, "sh", tmp_path / "cgroup", SCRIPT, others]
    words = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.split()
    assert ("--evacuate-cgroup2=daemon" in words) is (not others)
    assert "--net=slirp4netns" in words
