"""Certificates of order, and the faults that they have to find."""
