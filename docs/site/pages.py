"""Copies the pages of the repository for Sphinx, in the order of docs/README.md, and rewrites their links.

The order is that in which docs/README.md links to the pages. A page whose name starts with a number is a
chapter. Every other page below docs/ must be linked from there, too, or nobody would find it.

A link to another page stays as it is. A link to a source file or a folder leads to its page in `code/`. Where
a picture has a variant for dark pages, NAME-dark.png, the site shows the one that fits.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTENTS = Path("docs/README.md")  # becomes the front page
EXAMPLES = {Path("docs/site/examples.md"), Path("docs/site/device-examples.md")}  # in the API reference
LAST_CHAPTER = Path("docs/add-an-operation.md")  # without a number
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")

CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(
    r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]"
    r"\((?P<target>[^)\s#]*)(?:#(?P<heading>[^)\s]+))?\)"
)

FRONT = """
```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""


class PageError(Exception):
    """A page that cannot be part of the site; the message says how to mend it."""


def listed(contents: str) -> list[Path]:
    """Return the pages that docs/README.md links to, as paths in the repository, in order."""
    found = []
    for match in LINK.finditer(CODE.sub("", contents)):
        if match["target"].endswith(".md") and "://" not in match["target"]:
            path = Path(os.path.normpath(CONTENTS.parent / match["target"]))
            if path not in found and path not in map(Path, OTHERS):
                found.append(path)
    return found


def is_chapter(path: Path) -> bool:
    """Return whether a page is a chapter: it is in docs/ itself, and its name starts with a number."""
    return path.parent == CONTENTS.parent and path.name[0].isdigit()


def write(staging: Path, api: Sequence[str]) -> set[Path]:
    """Copy all pages into `staging`; return the other files and folders that they link to.

    `api` are the documents of the reference. Raises PageError.
    """
    order = listed((ROOT / CONTENTS).read_text(encoding="utf-8"))
    existing = {path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")} - {CONTENTS} - EXAMPLES
    if missing := sorted(existing - set(order)):
        raise PageError(
            f"{missing[0]}: is not linked from {CONTENTS}; add a link there, where it should be read"
        )
    site, linked = {CONTENTS, *order, *map(Path, OTHERS)}, set()
    for path in site:
        text = rewritten(path, (ROOT / path).read_text(encoding="utf-8"), site, staging, linked)
        if path == CONTENTS:
            text += front(order, api)
        page = staging / place(path)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    return linked


def front(order: Sequence[Path], api: Sequence[str]) -> str:
    """Return the tables of contents of the front page, which the site shows at its side."""
    groups = {
        "Chapters": [path.as_posix() for path in (*filter(is_chapter, order), LAST_CHAPTER)],
        "Results and reference": [
            path.as_posix() for path in order if not is_chapter(path) and path != LAST_CHAPTER
        ],
        "API": list(api),
        "Project": list(OTHERS),
    }
    return "".join(FRONT.format(caption=name, pages="\n".join(group)) for name, group in groups.items())


def place(path: Path) -> Path:
    """Return where a page of the repository is in the source of the site."""
    return Path("index.md") if path == CONTENTS else path


def rewritten(path: Path, text: str, site: set[Path], staging: Path, linked: set[Path]) -> str:
    """Return the text of a page with the links of the site, and copy the pictures that it shows.

    The files and folders that it links to and that are no pages are added to `linked`.
    """
    here = place(path).parent

    def picture(goal: Path, text: str) -> str:
        """Copy a picture; return the Markdown that shows it."""
        copy = staging / goal
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / goal, copy)
        return f"![{text}]({os.path.relpath(goal, here)})"

    def link(match: re.Match[str]) -> str:
        target, heading = match["target"], match["heading"]
        if "://" in target or target.startswith("mailto:") or not target:
            return match[0]
        goal = Path(os.path.normpath(path.parent / target))
        if match["picture"]:
            dark = goal.with_stem(f"{goal.stem}-dark")
            if not (ROOT / dark).exists():
                return picture(goal, match["text"])
            light, dark = (picture(path, match["text"]) for path in (goal, dark))
            return f"{light}{{.only-light}}\n{dark}{{.only-dark}}"
        if goal in site:
            suffix = f"#{heading}" if heading else ""
            return f"[{match['text']}]({os.path.relpath(place(goal), here)}{suffix})"
        if not (ROOT / goal).exists():
            raise PageError(f"{path}: links to {target}, which does not exist; correct the link")
        if goal.suffix == ".md":
            raise PageError(f"{path}: links to {target}, which is not on the site; add it to {CONTENTS}")
        linked.add(goal)
        name = goal / "index.html" if (ROOT / goal).is_dir() else goal.with_name(goal.name + ".html")
        suffix = f"#{heading.replace('L', 'L-')}" if heading else ""
        return f'<a href="{os.path.relpath(Path("code") / name, here)}{suffix}">{match["text"]}</a>'

    parts, end = [], 0
    for code in CODE.finditer(text):  # a link may contain code, but code contains no link
        if code[0].startswith("```"):
            parts += [LINK.sub(link, text[end : code.start()]), code[0]]
            end = code.end()
    return "".join([*parts, LINK.sub(link, text[end:])])
