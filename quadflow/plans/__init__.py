"""Plans of where func is evaluated in a step, their interpolants, their registry."""
