"""Checks that test by doing, and the command that mends what they find."""
