"""Packages that import a name's module when the name is first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def export(package: str, names: Mapping[str, str]) -> list[str]:
    """Make `package` find its names by itself; returns them sorted, for `__all__`.

    package: the package's `__name__`; names: module (relative, such as ".loop.steps") -> the names
    that the package takes from it, in one string with spaces between.
    """
    module = sys.modules[package]
    module.__class__ = LazyPackage
    module.__dict__["_homes"] = {name: home for home in names for name in names[home].split()}
    return sorted(module.__dict__["_homes"])


class LazyPackage(ModuleType):
    """A package whose exported names are there once they are used, and not before."""

    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        home = self.__dict__.get("_homes", {}).get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home, self.__name__), name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # importing the module quadflow.solve must not put it where the function solve is found
        if not (name in self._homes and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(self._homes)
