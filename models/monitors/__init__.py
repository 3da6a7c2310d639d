"""Monitors: residuals of the closed form, as energies."""
