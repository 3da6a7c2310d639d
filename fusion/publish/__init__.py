"""Publishing: records as MQTT messages that survive a lost broker."""
