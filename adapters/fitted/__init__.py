"""Samplers fitted to a backbone: a classical multistep method plus learned parts."""
