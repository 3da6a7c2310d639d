"""Operating states of a plant, and what is normal in each."""
