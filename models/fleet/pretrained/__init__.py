"""The fleet models that this package brings; see the MODEL_CARD.md of each."""
