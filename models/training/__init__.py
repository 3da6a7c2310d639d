"""Training of the networks: steps, validation, gauges, many processes."""
