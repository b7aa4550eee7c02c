"""--method and --methods of the commands that sample: names of samplers, and plans of one's own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import quadflow as qf

from ...errors import nearest
from ..sampling.samplers import SAMPLERS, SHIPPED
from .own import kind_of, load_own, takes

if TYPE_CHECKING:
    from ..sampling.samplers import Sampler

FORMS = (
    "MODULE:NAME or FILE.py:NAME, a Method of fixed steps or a plan of one's own (field, nfe, "
    "sidenet) -> (Method, number of intervals); a file that `quadflow fit` wrote, or fitted, the "
    "one that comes with the backbone"
)
"""How a sampler is said to be more than a name."""

FITTED = ".safetensors"
"""How the file of a fitted sampler ends."""


def sampler_name(text: str) -> str:
    """A name that `sample` knows, a file or MODULE:NAME, which `read_sampler` finds.

    Raises:
        argparse.ArgumentTypeError: neither.
    """
    known = (*SAMPLERS, SHIPPED)
    if text not in known and ":" not in text and not text.endswith(FITTED):
        raise argparse.ArgumentTypeError(f"{text!r} is unknown: {nearest(text, known)}")
    return text


def read_sampler(text: str, option: str) -> str | Sampler | qf.Method:
    """What `sample` takes as its method: a name in `SAMPLERS`, the fitted sampler in a file, or
    the object of MODULE:NAME.

    Raises:
        ValueError: no such file, module or name; an object that is no sampler.
    """
    if text in SAMPLERS:
        return text
    if text == SHIPPED:
        from ..fitted.shipped import of_backbone

        return of_backbone
    if text.endswith(FITTED):
        from ..fitted.fitted import FittedSampler

        return FittedSampler.load(text)
    found = load_own(text, option)
    if isinstance(found, qf.Tableau):
        found = qf.stages(found)
    if not isinstance(found, qf.Method) and not takes(found, 3):
        raise ValueError(f"{option} {text} is {kind_of(found)}: must be {FORMS.partition(', ')[2]}")
    return found
