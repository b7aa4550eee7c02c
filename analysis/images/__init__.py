"""Samplers of images judged: features, distances, error budgets, other libraries' samplers."""
