"""What many plants have in common: forecasts for a plant of which only minutes are known."""
