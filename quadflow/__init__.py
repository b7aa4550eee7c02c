"""quadflow: ODEs by quadrature and interpolation, for science and for flow-matching models."""

from .lazy import exported

with exported(__name__):
    from .control.control import StepController as StepController
    from .control.control import max_norm as max_norm
    from .control.control import rms_norm as rms_norm
    from .errors import CompileError as CompileError
    from .errors import EventWarning as EventWarning
    from .errors import RoundingWarning as RoundingWarning
    from .errors import StiffnessWarning as StiffnessWarning
    from .errors import ToleranceWarning as ToleranceWarning
    from .errors import VelocityError as VelocityError
    from .gradients.choice import Adjoint as Adjoint
    from .gradients.choice import Forward as Forward
    from .loop.driven import Driven as Driven
    from .loop.driven import drive as drive
    from .loop.steps import Status as Status
    from .observe.events.event import Event as Event
    from .plans.adams.method import VariableOrderMethod as VariableOrderMethod
    from .plans.adams.method import adams_variable as adams_variable
    from .plans.adams.variable_order import OrderControl as OrderControl
    from .plans.anchors.method import AnchorsMethod as AnchorsMethod
    from .plans.anchors.method import adams as adams
    from .plans.anchors.method import anchors as anchors
    from .plans.interpolants import Anchor as Anchor
    from .plans.interpolants import Interpolant as Interpolant
    from .plans.interpolants import Interval as Interval
    from .plans.interpolants import IntervalVelocity as IntervalVelocity
    from .plans.interpolants import OracleInterpolant as OracleInterpolant
    from .plans.interpolants import PolynomialInterpolant as PolynomialInterpolant
    from .plans.method import Method as Method
    from .plans.registry import get_method as get_method
    from .plans.registry import methods as methods
    from .plans.registry import register as register
    from .plans.registry import unregister as unregister
    from .plans.stages.method import StagesMethod as StagesMethod
    from .plans.stages.method import stages as stages
    from .plans.sweeps.method import SweepsMethod as SweepsMethod
    from .plans.sweeps.method import collocation as collocation
    from .rules.chebyshev import clenshaw_curtis as clenshaw_curtis
    from .rules.chebyshev import fejer as fejer
    from .rules.families import NegativeWeightsWarning as NegativeWeightsWarning
    from .rules.from_nodes import rule_from_nodes as rule_from_nodes
    from .rules.from_nodes import symmetric_four as symmetric_four
    from .rules.gauss import gauss_legendre as gauss_legendre
    from .rules.gauss import gauss_lobatto as gauss_lobatto
    from .rules.gauss import radau_left as radau_left
    from .rules.gauss import radau_right as radau_right
    from .rules.newton_cotes import boole as boole
    from .rules.newton_cotes import midpoint_rule as midpoint_rule
    from .rules.newton_cotes import newton_cotes as newton_cotes
    from .rules.newton_cotes import simpson as simpson
    from .rules.newton_cotes import three_eighths as three_eighths
    from .rules.newton_cotes import trapezoid as trapezoid
    from .rules.rule import QuadratureRule as QuadratureRule
    from .rules.tableau import Tableau as Tableau
    from .solution import Solution as Solution
    from .solution import SolveError as SolveError
    from .solution import Statistics as Statistics
    from .solve import solve as solve
    from .torchdiffeq_api.odeint import odeint as odeint
    from .torchdiffeq_api.odeint import odeint_dense as odeint_dense
    from .torchdiffeq_api.odeint_adjoint import odeint_adjoint as odeint_adjoint
    from .torchdiffeq_api.odeint_event import odeint_event as odeint_event
    from .trust.check import check as check
    from .trust.found import Check as Check
    from .trust.found import CheckedRun as CheckedRun
    from .trust.found import Jump as Jump

__version__ = "0.1.0"
