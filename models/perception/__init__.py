"""Frozen perception: image networks that somebody else trained on far more pictures than a plant has."""
