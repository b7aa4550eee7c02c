"""Backbones: networks that are velocity fields of a flow."""
