"""Initial value problems with known solutions: the registry, the library, tables of it."""

from .problem import (
    KnownEvent,
    Problem,
    get_problem,
    parse_problem,
    problem_names,
    problems,
    register_problem,
    vector,
)

__all__ = [
    "KnownEvent",
    "Problem",
    "get_problem",
    "parse_problem",
    "problem_names",
    "problems",
    "register_problem",
    "vector",
]
