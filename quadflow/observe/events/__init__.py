"""Events: zeros of functions of time and state along the solution."""
