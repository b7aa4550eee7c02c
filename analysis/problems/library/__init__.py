"""The registered problems, a module for each origin."""
