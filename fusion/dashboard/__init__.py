"""The operator page: one more MQTT subscriber, in its own process."""
