"""Measured orders: at the end, between steps, of estimates, of events and of gradients."""
