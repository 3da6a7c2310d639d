"""Fleets: plants to learn from, training across them, and what that is worth on a plant never seen."""
