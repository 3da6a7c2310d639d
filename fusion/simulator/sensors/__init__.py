"""Sensors of the simulated line: pictures, sound and point clouds."""
