"""Samplers, grids of times and noise, and editing by inversion."""
