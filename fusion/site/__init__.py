"""A site: the folder of one plant, what is found on its network, and whether all of it fits together."""
