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
INLINE = r"(?<![\\$\w])\$(?=[^\s$])(.+?)(?<=[^\s\\])\$(?![\w$])"


class Formula(InlineProcessor):
    """One pattern of formulas; `display` is "block" or "inline"."""

    def __init__(self, pattern: str, md: Markdown, display: str) -> None:
        super().__init__(pattern, md)
        self.display = display

    def handleMatch(  # type: ignore[override]
        self, m: re.Match[str], data: str
    ) -> tuple[etree.Element | str, int, int]:
        # the parser has escaped "<" and "&" in what it read
        latex = html.unescape(m.group(1).strip())
        return self.md.htmlStash.store(convert(latex, display=self.display)), m.start(0), m.end(0)


class Mathematics(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        # before backslashes and emphasis are read (180), after code is (190)
        md.inlinePatterns.register(Formula(DISPLAYED, md, "block"), "displayed formula", 186)
        md.inlinePatterns.register(Formula(INLINE, md, "inline"), "formula", 185)


@event_priority(100)  # before the API reference takes the list of extensions
def on_config(config: Any) -> Any:
    config["markdown_extensions"].append(Mathematics())
    return config
