"""Features: what a picture, a sound or a point cloud says, as numbers with names."""
