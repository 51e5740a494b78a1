"""Verbs that say what containers are and do."""
