"""The plan *stages*."""
