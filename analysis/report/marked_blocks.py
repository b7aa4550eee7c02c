"""Generated pieces of pages, which stand between `<!-- begin NAME -->` and `<!-- end NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping


def fill(text: str, blocks: Mapping[str, str]) -> tuple[str, set[str]]:
    """`text` with what stands between the markers replaced, and the names whose markers it has.

    blocks: name -> what is to stand there, without the line break before the end marker.
    """
    filled = set()
    for name, block in blocks.items():
        pattern = f"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
        literal = block.replace("\\", r"\\")
        text, found = re.subn(pattern, rf"\g<1>{literal}\n\g<2>", text, flags=re.DOTALL)
        if found:
            filled.add(name)
    return text, filled
