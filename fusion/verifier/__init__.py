"""The verifier: the one process that writes to a plant, small, without a model, with its own credentials."""
