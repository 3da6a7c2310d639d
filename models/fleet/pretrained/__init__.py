"""The fleet model that this package brings; see MODEL_CARD.md beside it."""
