"""The plan *sweeps*."""
