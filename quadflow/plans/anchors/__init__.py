"""The plan *anchors*."""
