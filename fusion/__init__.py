"""The roof and the foundation of the world model; importing this package imports nothing else."""

MARKER = "fusion-world-model"
