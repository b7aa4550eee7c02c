"""The loop from step to step: fixed grids, adaptive steps, steps of its own for every sample."""
