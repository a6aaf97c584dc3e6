"""Update the line numbers of docs/glossary.md: `python docs/glossary.py`.

Every link of the glossary quotes a piece of the line that it leads to, as in

    [blocks.py:139](../r2unet/network/blocks.py#L139) `self.norm[s](conv(x + y)`

This program looks for the piece in the file, where it must be on exactly one line, and writes the number of
that line. So a link survives edits elsewhere in the file, and a piece that is gone is an error.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("glossary.md")
LINK = re.compile(r"\[(?P<name>[^\]:]+):\d+\]\((?P<file>[^)#]+)#L\d+\) `(?P<piece>[^`]+)`")


def updated(text: str, folder: Path) -> str:
    """Return the page with the right line numbers; its links are relative to the folder.

    Raises ValueError for a file that does not exist, and for a piece that is not on exactly one line of it.
    """

    def link(match: re.Match[str]) -> str:
        name, file, piece = match["name"], match["file"], match["piece"]
        path = folder / file
        if not path.is_file():
            raise ValueError(f"glossary: {file} does not exist; change the link with `{piece}`")
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [number for number, line in enumerate(lines, 1) if piece in line]
        if len(found) != 1:
            raise ValueError(
                f"glossary: `{piece}` is on {len(found)} lines of {file}, not on one; quote another piece"
            )
        return f"[{name}:{found[0]}]({file}#L{found[0]}) `{piece}`"

    return LINK.sub(link, text)


if __name__ == "__main__":
    try:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), PAGE.parent), encoding="utf-8")
    except ValueError as error:
        sys.exit(str(error))
