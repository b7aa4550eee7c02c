"""Formulas between dollar signs become MathML when the site is built: no script, no font to load.

`$x^2$` stands in a line; `$$ ... $$` as a paragraph of its own is displayed.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as etree
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from mkdocs.plugins import event_priority

DISPLAYED = r"(?<!\\)\$\$(.+?)\$\$"
INLINE = r"(?<![\\$\w])(\(?)\$(?=[^\s$])(.+?)(?<=[^\s\\])\$(?![\w$])([).,;:]*)"
"""With the punctuation around it, which must not go to another line."""


def mathml(latex: str, display: str) -> str:
    """MathML of a formula in LaTeX, spaced as TeX spaces it; `display` is "block" or "inline"."""
    text = convert(latex, display=display)
    text = re.sub(r"<mo>(min|max|&#x0221E;)</mo>", r"<mi>\1</mi>", text)  # no operators
    text = re.sub(r"<mo([^>]*)>(&#x0002F;|&#x0007C;)<", r'<mo\1 lspace="0" rspace="0">\2<', text)
    thin = '<mspace width="0.1667em"/>'
    return re.sub(r"(<mi>(?:cos|sin|exp|log|max|min)</mi>)(?!<mo)", rf"\1{thin}", text)


class Formula(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[etree.Element | str, int, int]:
        before, latex, after = m.groups()
        formula = mathml(html.unescape(latex), "inline")  # Markdown has escaped "<" and "&"
        kept = f'<span class="formula">{before}{formula}{after}</span>'
        return self.md.htmlStash.store(kept), m.start(0), m.end(0)


class DisplayedFormula(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[etree.Element | str, int, int]:
        formula = mathml(html.unescape(m[1].strip()), "block")
        return self.md.htmlStash.store(formula), m.start(0), m.end(0)


class Mathematics(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        # before backslashes and emphasis are read (180), after code is (190)
        md.inlinePatterns.register(DisplayedFormula(DISPLAYED, md), "displayed formula", 186)
        md.inlinePatterns.register(Formula(INLINE, md), "formula", 185)


@event_priority(100)  # before the API reference takes the list of extensions
def on_config(config: Any) -> Any:
    config["markdown_extensions"].append(Mathematics())
    return config
