"""Condition through time: slow quantities of a plant, their trend, and when it reaches a limit."""
