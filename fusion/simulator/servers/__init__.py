"""Servers of the simulated line: real protocols on loopback ports."""
