"""Step control: tolerances, norms, the first step, step sizes, and how far a step may go unseen."""
