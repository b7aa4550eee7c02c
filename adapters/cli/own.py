"""MODULE:NAME and FILE.py:NAME of a command line: an object in somebody's own code."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

_OWN_FILES: set[str] = set()


def load_own(text: str, option: str, also: Iterable[str] = ()) -> Any:
    """The object that "MODULE:NAME" or "FILE.py:NAME" names.

    MODULE is looked for in the current folder first, then among what is installed. A function of no
    arguments is called, and stands for what it returns, as in `quadflow.register`.

    Args:
        text: as typed. option: where, for messages. also: other words that may have
            been meant.

    Raises:
        ValueError: no such module or file, or one that fails when it is imported; no such name in
            it (the nearest is told); a function that fails.
    """
    module_name, _, name = text.rpartition(":")
    what = f"{option} {text}"
    if not (module_name and name):
        raise ValueError(f"{what}: must be MODULE:NAME or FILE.py:NAME")
    own_file = module_name.endswith(".py")
    if not own_file and not all(part.isidentifier() for part in module_name.split(".")):
        beside = Path(f"{module_name}.py").is_file()
        near = f": did you mean {module_name}.py:{name}?" if beside else ""
        raise ValueError(f"{what}: {module_name} is neither a module's name nor a FILE.py{near}")
    module = _file(module_name, what) if own_file else _module(module_name, what, also)
    if module.__file__ is not None:
        _OWN_FILES.add(module.__file__)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            known = [n for n in vars(module) if not n.startswith("_")]
            raise ValueError(f"{what}: {module_name} has no {name!r}{_near(name, known)}") from None
    return _made(found, what)


def _module(name: str, what: str, also: Iterable[str]) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:  # the script `quadflow`, unlike `python -m quadflow`, starts without
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"{what}: importing {name} failed: {told(error)}") from error
        near = _near(name, [*also, *(path.stem for path in Path().glob("*.py"))])
        raise ValueError(f"{what}: no module {name!r} in this folder or installed{near}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what}: importing {name} failed: {told(error)}") from error


def _file(name: str, what: str) -> ModuleType:
    path = Path(name)
    if not path.is_file():
        near = _near(name, [str(other) for other in path.parent.glob("*.py")])
        raise ValueError(f"{what}: no file {name}{near}")
    path = path.resolve()
    for loaded in list(sys.modules.values()):  # run once, whatever is taken from it
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
    title = path.stem if path.stem not in sys.modules else str(path)
    spec = importlib.util.spec_from_file_location(title, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[title]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise ValueError(f"{what}: running {name} failed: {told(error)}") from error
    return module


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else ""


def _made(found: Any, what: str) -> Any:
    makes = inspect.isfunction(found) or inspect.isclass(found)
    if not makes or not takes(found, 0, if_unknown=False):
        return found
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what}: called without arguments it raised {told(error)}") from error


def told(error: BaseException) -> str:
    """An error's type and message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def place_in_own(error: BaseException) -> str:
    """The innermost line of the user's own files that an error passed through; "" for none."""
    places = [
        f"{Path(frame.filename).name}, line {frame.lineno}: "
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in _OWN_FILES
    ]
    return places[-1] if places else ""


def takes(found: Any, count: int, if_unknown: bool = True) -> bool:
    """Whether an object can be called with so many arguments; builtins may not say."""
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return if_unknown
    return True


def kind_of(found: Any) -> str:
    """What an object is, for a message that says what it should have been."""
    if inspect.isclass(found):
        return f"the class {found.__name__}"
    if inspect.isroutine(found):
        return f"a function of {inspect.signature(found)}"
    return f"of type {type(found).__name__}"
