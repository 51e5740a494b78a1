"""``python -m rootless.doctor``: what this host lacks, for whoever runs it."""

from __future__ import annotations

import argparse
import sys

from rootless.doctor.host_checks import report


def main() -> int:
    """Print what lacks; return 1 when containers cannot run at all without it."""
    parser = argparse.ArgumentParser(prog="rootless.doctor", description="Tell what this host lacks, and the fix.")
    parser.add_argument("--command", default="", metavar="PATH", help="the installed command, for an AppArmor profile")
    text, status = report(parser.parse_args().command)
    sys.stdout.write(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
