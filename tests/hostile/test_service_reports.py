"""A container reports to the service manager of its caller (sd_notify(3)) about itself only."""

from __future__ import annotations

import shutil

import pytest

from tests.lib.bundles import base_config
from tests.lib.reports import Manager, tell

__all__ = ["tell"]  # fixture

PASSED_ON = ("STATUS=well", "RELOADING=1", "MONOTONIC_USEC=1", "ERRNO=2", "EXIT_STATUS=3", "WATCHDOG=1", "STOPPING=1")
LEFT_OUT = (
    "MAINPID=1",
    "MAINPIDFDID=1",
    "MAINPIDFD=1",
    "NOTIFYACCESS=all",
    "FDSTORE=1",
    "FDSTOREREMOVE=1",
    "FDNAME=x",
    "FDPOLL=0",
    "BARRIER=1",
    "WATCHDOG_USEC=0",
    "EXTEND_TIMEOUT_USEC=86400000000",
    "READYX=1",
    "X_UNKNOWN=1",
    "no line at all",
    "=",
)


@pytest.mark.parametrize("in_one", [True, False])
def test_a_container_reports_about_itself_only(box, tell, in_one):
    shutil.copy(tell, box.rootfs / "bin/tell")
    (box.rootfs / "bin/tell").chmod(0o755)
    reports = [line for pair in zip(PASSED_ON, LEFT_OUT, strict=False) for line in pair]
    reports += LEFT_OUT[len(PASSED_ON) :]
    words = [" ".join(f"'{line}'" for line in reports)] if in_one else [f"'{line}'" for line in reports]
    script = [f"tell {line}" for line in words]
    with Manager(box.user) as manager:
        box.run(base_config(), *script, env=manager.env, check=True)
        if in_one:
            assert manager.report() == [*PASSED_ON]
        else:
            assert [manager.report() for _ in PASSED_ON] == [[line] for line in PASSED_ON]
        assert manager.silent()
