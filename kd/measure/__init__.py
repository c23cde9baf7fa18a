"""Measure a model: predictions, metrics, cost, energy, significance."""
