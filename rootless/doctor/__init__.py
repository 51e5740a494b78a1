"""Checks of the host that try each operation, with the command that fixes each problem."""
