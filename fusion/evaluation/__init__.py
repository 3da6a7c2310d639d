"""Evaluation: what a model finds, forecasts and answers on recordings whose truth is known."""
