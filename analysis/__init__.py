"""quadflow.analysis: the convergence laboratory, and the judging of samplers."""

from .certificates import BlackBoxCertificate, Certificate, certify, certify_solver
from .convergence import OrderMeasurement, measured_order
from .multistep import LinearMultistep
from .order_conditions import order_conditions, simplifying_assumptions
from .problems import Problem, get_problem, problems, register_problem
from .reliability import Reliability, reliability
from .sampling import TrajectoryErrors, trajectory_errors
from .solvers import Run, Solver, as_solver
from .stability import StabilityReport, stability_function, stability_report
from .work_precision import WorkPrecision, work_precision

__all__ = [
    "BlackBoxCertificate",
    "Certificate",
    "LinearMultistep",
    "OrderMeasurement",
    "Problem",
    "Reliability",
    "Run",
    "Solver",
    "StabilityReport",
    "TrajectoryErrors",
    "WorkPrecision",
    "as_solver",
    "certify",
    "certify_solver",
    "get_problem",
    "measured_order",
    "order_conditions",
    "problems",
    "register_problem",
    "reliability",
    "simplifying_assumptions",
    "stability_function",
    "stability_report",
    "trajectory_errors",
    "work_precision",
]
