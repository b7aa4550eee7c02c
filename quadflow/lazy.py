"""Packages that import a name's module when the name is first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def export(package: str, names: Mapping[str, str]) -> list[str]:
    """Make `package` find its names by itself; returns them sorted, for `__all__`.

    Args:
        package: the package's `__name__`.
        names: from module (relative, such as ".loop.steps") to the names that the package takes
            from it, in one string with spaces between.
    """
    module = sys.modules[package]
    module.__class__ = LazyPackage
    module.__dict__["_homes"] = {name: home for home in names for name in names[home].split()}
    return sorted(module.__dict__["_homes"])


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
