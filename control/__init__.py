"""From energies and forecasts to anomalies and advice; knows the model only through a Protocol."""

MARKER = "fusion-world-model"
