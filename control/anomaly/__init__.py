"""Anomaly detection: calibrated energies in, anomalies with their evidence out."""
