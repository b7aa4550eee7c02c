"""quadflow.analysis: problems with known solutions, and measurements of order and of error."""

from .convergence import OrderMeasurement, measured_order
from .problems import Problem, get_problem, problems
from .sampling import TrajectoryErrors, trajectory_errors

__all__ = [
    "OrderMeasurement",
    "Problem",
    "TrajectoryErrors",
    "get_problem",
    "measured_order",
    "problems",
    "trajectory_errors",
]
