"""MQTT: the settings of a broker, one connection to it, and a thread that keeps one."""
