"""Training: recordings in, a checkpoint and its report out."""
