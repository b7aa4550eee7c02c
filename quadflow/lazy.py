"""Packages that import a name's module when the name is first asked for (PEP 562)."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any


@contextmanager
def exported(package: str) -> Iterator[None]:
    """A block of `from .module import name as name` that imports nothing yet: the package with this
    `__name__` finds these names by itself when they are asked for, and they are its `__all__`.

    Type checkers read the block as it stands.
    """
    module, homes, usual = sys.modules[package], dict[str, str](), builtins.__import__

    def noted(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if globals is not module.__dict__:  # another thread's
            return usual(name, globals, locals, fromlist, level)
        homes.update(dict.fromkeys(fromlist, "." * level + name))
        return SimpleNamespace(**dict.fromkeys(fromlist))

    builtins.__import__ = noted
    try:
        yield
    finally:
        builtins.__import__ = usual
    for name in homes:
        del module.__dict__[name]
    module.__class__ = LazyPackage
    module.__dict__.update(_homes=homes, __all__=sorted(homes))


class LazyPackage(ModuleType):
    """A package whose exported names are there once they are used, and not before."""

    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        homes = self.__dict__.get("_homes", {})
        if name not in homes:
            # obj=None keeps the interpreter from guessing a name once more
            raise AttributeError(self._unknown(name, homes), name=name, obj=None)
        value = getattr(importlib.import_module(homes[name], self.__name__), name)
        self.__dict__[name] = value
        return value

    def _unknown(self, name: str, homes: Mapping[str, str]) -> str:
        text = f"module {self.__name__!r} has no attribute {name!r}"
        if name.startswith("_"):  # asked for by tools, which look whether it is there
            return text
        inside = f"{self.__name__}.{name}"
        if importlib.util.find_spec(inside) is not None:
            return f"{text} before it is imported: import {inside}"
        import difflib  # here, for the start is to cost nothing

        close = difflib.get_close_matches(name, homes, n=1)
        return (
            f"{text}: did you mean {close[0]!r}?" if close else f"{text}: dir() lists what it has"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # importing the module quadflow.solve must not put it where the function solve is found
        if not (name in self._homes and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(self._homes)
