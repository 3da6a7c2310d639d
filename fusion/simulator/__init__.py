"""The simulated plant: physics, sensors, faults, and the real servers it speaks through."""
