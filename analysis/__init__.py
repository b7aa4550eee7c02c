"""quadflow.analysis: the convergence laboratory, and the judging of samplers."""

from quadflow.lazy import exported

with exported(__name__):
    from .cost.work_precision import WorkPrecision as WorkPrecision
    from .cost.work_precision import work_precision as work_precision
    from .exact.multistep import LinearMultistep as LinearMultistep
    from .exact.order_conditions import order_conditions as order_conditions
    from .exact.order_conditions import simplifying_assumptions as simplifying_assumptions
    from .images.trajectories import TrajectoryErrors as TrajectoryErrors
    from .images.trajectories import trajectory_errors as trajectory_errors
    from .orders.convergence import measured_order as measured_order
    from .orders.measurement import OrderMeasurement as OrderMeasurement
    from .problems.problem import Problem as Problem
    from .problems.problem import get_problem as get_problem
    from .problems.problem import problems as problems
    from .problems.problem import register_problem as register_problem
    from .proofs.certificates import BlackBoxCertificate as BlackBoxCertificate
    from .proofs.certificates import Certificate as Certificate
    from .proofs.certificates import certify as certify
    from .proofs.certificates import certify_solver as certify_solver
    from .reliability.estimates import Reliability as Reliability
    from .reliability.estimates import reliability as reliability
    from .solvers.run import Run as Run
    from .solvers.run import Solver as Solver
    from .solvers.solver import as_solver as as_solver
    from .stability.report import StabilityReport as StabilityReport
    from .stability.report import stability_function as stability_function
    from .stability.report import stability_report as stability_report
