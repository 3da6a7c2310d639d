"""Cameras and microphones: streams and files, decoded in a process of their own."""
