"""LiDAR: packets over UDP and series of files, as point clouds."""
