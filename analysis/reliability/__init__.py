"""Whether error estimates are true, and what solvers make of short inputs."""
