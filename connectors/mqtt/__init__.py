"""MQTT: numbers and JSON from any broker, as columns."""
