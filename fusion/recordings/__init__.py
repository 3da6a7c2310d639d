"""Recordings: everything that arrived, at rest, in open formats."""
