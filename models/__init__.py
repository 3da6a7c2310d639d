"""The world model: features, linear core, encoders, mixer, predictor and readout."""

MARKER = "fusion-world-model"
