"""The page of the command line, made from the parser that the command line has.

On the page `<!-- commands -->` is replaced by every command with its usage, arguments and options.
"""

from __future__ import annotations

import argparse
import html
import os
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

MARKER = "<!-- commands -->"


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The parsers of a parser's commands, each with its line of help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield command, helps.get(name, "")


def shown(action: argparse.Action, parser: argparse.ArgumentParser) -> tuple[str, str]:
    """How an argument is written, and what it does."""
    value = action.metavar or action.dest.upper()
    value = " ".join(value) if isinstance(value, tuple) else value
    if not action.option_strings:
        written = value
    elif action.nargs == 0:
        written = ", ".join(action.option_strings)
    else:
        written = f"{', '.join(action.option_strings)} {value}"
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    if action.choices is not None and not all(str(choice) in text for choice in action.choices):
        text = f"{text}; one of {', '.join(map(str, action.choices))}".removeprefix("; ")
    if action.required and action.option_strings:
        text = f"{text} (required)"
    elif action.option_strings and not says_default(text, action.default):
        default = action.default
        if isinstance(default, (list, tuple)):
            default = ",".join(map(str, default))
        if default not in (None, argparse.SUPPRESS, "") and not isinstance(default, bool):
            text = f"{text} (default: {default})" if text else f"default: {default}"
    return written, text


def says_default(text: str, default: Any) -> bool:
    """Whether a line of help tells the default: by that word, or in brackets."""
    return "default" in text or bool(re.search(rf"\((\d[^)]*|{re.escape(str(default))})\)", text))


def section(parser: argparse.ArgumentParser, summary: str, level: int) -> Iterator[str]:
    """Markdown of one command and of the commands below it."""
    anchor = parser.prog.replace(" ", "-")
    yield f"{'#' * level} `{parser.prog}` {{ #{anchor} }}"
    sentence = parser.description or summary
    yield html.escape(sentence[:1].upper() + sentence[1:], quote=False)
    yield f"```text\n{parser.format_usage().strip()}\n```"
    actions = [
        action
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
        and action.help is not argparse.SUPPRESS
    ]
    if actions:
        rows = ["| argument | meaning |", "|---|---|"]
        for action in actions:
            written, text = (part.replace("|", "\\|") for part in shown(action, parser))
            rows.append(f"| `{written}` | {html.escape(' '.join(text.split()), quote=False)} |")
        yield "\n".join(rows)
    if parser.epilog:
        yield html.escape(parser.epilog, quote=False)
    for command, line in subcommands(parser):
        yield from section(command, line, level + 1)


class Caught(BaseException):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_for(*words: str) -> argparse.ArgumentParser:
    """The parser that the command line makes for these words, caught before it reads them; the
    command that they name is complete in it."""
    from quadflow.adapters.cli import main

    def catch(self: argparse.ArgumentParser, *args: Any) -> None:
        raise Caught(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", catch):
        try:
            main(list(words))
        except Caught as caught:
            return caught.parser
    raise RuntimeError("the command line did not read its arguments")


def complete_commands() -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The parser of every command, with the command's line of help."""
    for command, _ in subcommands(parser_for()):
        for found, text in subcommands(parser_for(command.prog.split()[-1])):
            if found.prog == command.prog:
                yield found, text


def commands() -> str:
    """Markdown of every command."""
    os.environ["COLUMNS"] = "80"  # the width of the lines of usage, whatever the terminal's
    return "\n\n".join(
        part for command, line in complete_commands() for part in section(command, line, 2)
    )


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return markdown.replace(MARKER, commands()) if MARKER in markdown else markdown
