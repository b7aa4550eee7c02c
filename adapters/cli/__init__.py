"""The command line `quadflow`, a file for each command; nothing else imports it."""

from .main import main

__all__ = ["main"]
