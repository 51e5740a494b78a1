"""Tar archives: read without trust, decompressed, written, unpacked in a user namespace."""
