"""quadflow: ODEs by quadrature and interpolation, for science and for flow-matching models."""

from .adjoint import odeint_adjoint
from .control import StepController, max_norm, rms_norm
from .errors import (
    CompileError,
    EventWarning,
    RoundingWarning,
    StiffnessWarning,
    ToleranceWarning,
    VelocityError,
)
from .events import Event
from .interpolation import (
    Anchor,
    Interpolant,
    Interval,
    IntervalVelocity,
    OracleInterpolant,
    PolynomialInterpolant,
)
from .methods import (
    AnchorsMethod,
    Method,
    StagesMethod,
    SweepsMethod,
    VariableOrderMethod,
    adams,
    adams_variable,
    anchors,
    collocation,
    get_method,
    methods,
    register,
    stages,
    unregister,
)
from .odeint import odeint, odeint_dense, odeint_event
from .quadrature import (
    NegativeWeightsWarning,
    QuadratureRule,
    boole,
    clenshaw_curtis,
    fejer,
    gauss_legendre,
    gauss_lobatto,
    midpoint_rule,
    newton_cotes,
    radau_left,
    radau_right,
    rule_from_nodes,
    simpson,
    symmetric_four,
    three_eighths,
    trapezoid,
)
from .solution import Solution, SolveError, Statistics
from .solve import solve
from .steps import Status
from .tableaus import Tableau
from .variable_order import OrderControl

__version__ = "0.1.0"

__all__ = [
    "Anchor",
    "AnchorsMethod",
    "CompileError",
    "Event",
    "EventWarning",
    "Interpolant",
    "Interval",
    "IntervalVelocity",
    "Method",
    "NegativeWeightsWarning",
    "OracleInterpolant",
    "OrderControl",
    "PolynomialInterpolant",
    "QuadratureRule",
    "RoundingWarning",
    "Solution",
    "SolveError",
    "StagesMethod",
    "Statistics",
    "Status",
    "StepController",
    "StiffnessWarning",
    "SweepsMethod",
    "Tableau",
    "ToleranceWarning",
    "VariableOrderMethod",
    "VelocityError",
    "adams",
    "adams_variable",
    "anchors",
    "boole",
    "clenshaw_curtis",
    "collocation",
    "fejer",
    "gauss_legendre",
    "gauss_lobatto",
    "get_method",
    "max_norm",
    "methods",
    "midpoint_rule",
    "newton_cotes",
    "odeint",
    "odeint_adjoint",
    "odeint_dense",
    "odeint_event",
    "radau_left",
    "radau_right",
    "register",
    "rms_norm",
    "rule_from_nodes",
    "simpson",
    "solve",
    "stages",
    "symmetric_four",
    "three_eighths",
    "trapezoid",
    "unregister",
]
