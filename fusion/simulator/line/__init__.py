"""The lime line: its physics, machines, loops, laws and faults."""
