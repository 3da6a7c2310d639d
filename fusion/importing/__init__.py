"""Importing: what a historian exports, as recordings, a proposed plant and a report."""
