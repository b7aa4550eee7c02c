"""Short inputs, late ones and odd scales: what solvers make of them at their own defaults."""
