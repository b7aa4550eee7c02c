"""Initial value problems with known solutions: the registry, the library, tables of it."""

from .problem import KnownEvent as KnownEvent
from .problem import Problem as Problem
from .problem import get_problem as get_problem
from .problem import parse_problem as parse_problem
from .problem import problem_names as problem_names
from .problem import problems as problems
from .problem import register_problem as register_problem
from .problem import vector as vector
