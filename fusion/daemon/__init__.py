"""The daemon: sources, timeline, inference and publisher as one service."""
