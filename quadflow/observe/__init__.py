"""What is reported of a solve and never changes it: events, stiffness, progress."""
