"""Errors that the user can correct, and how messages are printed.

The command line prints an InputError and exits with code 2.
"""

import sys


class InputError(Exception):
    """An unusable input; the message says what is wrong, where, and how to correct it."""


def visible(text: str) -> str:
    """Return a line with escape sequences for everything that is not printable.

    A file name may contain bytes that are not UTF-8, and control characters, which could move the cursor or
    change the colours of a terminal. So may the text in a file that somebody else has made.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_lines(text: str) -> str:
    """Return a text of several lines, such as a table, each made `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def warn(text: str) -> None:
    """Print a warning on stderr in one printable line."""
    print(visible(text), file=sys.stderr)
