"""Verbs that remove containers and what they leave."""
