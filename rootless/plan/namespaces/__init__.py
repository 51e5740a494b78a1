"""Namespaces of a container: new, joined, or shared by a group."""
