"""Reference solutions by closed forms and by solvers that are not quadflow's."""
