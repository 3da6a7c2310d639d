"""Advice: from a rollout and limits to a recommendation, or a reason to hold."""
