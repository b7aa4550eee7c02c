"""What every build of the site ends with: no broken link, and nothing asked of another server.

MkDocs itself checks the links of the pages' Markdown. Here the finished HTML is read, with what
plugins made: every link and picture must exist, every anchor too, and no page, style sheet or
script may load anything from elsewhere.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href",
           "video": "src", "audio": "src", "embed": "src", "object": "data", "use": "href",
           "image": "href", "input": "src", "track": "src"}  # fmt: skip
NOT_LOADED = {"canonical", "alternate", "prev", "next", "license"}
"""Kinds of <link> that browsers do not follow by themselves."""
FETCHED = re.compile(
    r"""["'`](https?:)?//[^"'`]*(unpkg|cdn|jsdelivr|googleapis|gstatic)[^"'`]*["'`]"""
)
"""Addresses in scripts that are there to be loaded."""


class Page(HTMLParser):
    """Anchors, links and loaded files of one page, and titles in docstrings left as text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.styles: list[str] = []
        self.unread = re.findall(r"<p>((?:Args|Attributes|Raises|Returns|Warns):)", text)
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.styles.append(given.get("style", ""))
        self._in_style = tag == "style"
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "srcset" in given:
            self.loaded += [part.split()[0] for part in given["srcset"].split(",") if part.strip()]
        target = given.get(LOADING.get(tag, ""), "")
        if target and not (tag == "link" and set(given.get("rel", "").split()) & NOT_LOADED):
            self.loaded.append(target)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles.append(data)


def foreign(address: str) -> bool:
    """Whether loading this asks another server."""
    return bool(re.match(r"(?:[a-z]+:)?//", address.strip(), re.IGNORECASE))


def loaded_by_style(css: str) -> list[str]:
    """The files that a style sheet loads."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    urls = re.findall(r"url\(\s*['\"]?([^'\")]*)", css)
    return [*urls, *re.findall(r"@import\s+['\"]([^'\"]+)", css)]


def faults(site: Path) -> list[str]:
    """Everything that is wrong with a built site, one line each."""
    pages = {
        path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }
    found = []
    for path, page in pages.items():
        shown = path.relative_to(site.resolve())
        found += [f"{shown}: {title!r} of a docstring was not read" for title in page.unread]
        if path.name == "404.html":  # its links are from the root of wherever the site lies
            page.links = []
        styled = [address for css in page.styles for address in loaded_by_style(css)]
        found += [
            f"{shown}: loads {address}" for address in [*page.loaded, *styled] if foreign(address)
        ]
        local = [*page.links, *(page.loaded if path.name != "404.html" else ())]
        for link in local:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                found.append(f"{shown}: {link} does not exist")
            elif (
                parts.fragment
                and target in pages
                and (unquote(parts.fragment) not in pages[target].anchors)
            ):
                found.append(f"{shown}: {link} has no such anchor")
    for path in site.rglob("*.css"):
        for address in loaded_by_style(path.read_text(encoding="utf-8")):
            if foreign(address):
                found.append(f"{path.relative_to(site)}: loads {address}")
    for path in site.rglob("*.js"):
        found += [
            f"{path.relative_to(site)}: loads {match[0]}"
            for match in FETCHED.finditer(path.read_text(encoding="utf-8"))
        ]
    return sorted(set(found))


def keep_scripts_at_home(site: Path) -> None:
    """Take out what the theme's script would fetch from a CDN: a library for diagrams, of which
    there are none, and a replacement for browsers from before 2020."""
    for path in site.rglob("bundle.*.js"):
        path.write_text(FETCHED.sub('""', path.read_text(encoding="utf-8")), encoding="utf-8")


def on_post_build(config: Any) -> None:
    site = Path(config["site_dir"])
    keep_scripts_at_home(site)
    if wrong := faults(site):
        raise PluginError("the built site has faults:\n  " + "\n  ".join(wrong))
