"""What is solved: layouts of states, the velocity checked and counted, differentiable times."""
