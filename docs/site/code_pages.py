"""A page for each source file, coloured and with a number for each line, to which the site's links lead.

The packages have pages for all their files, other folders only for what a chapter links to. The pages are
written without Sphinx, which would read hundreds of documents for what one pass of Pygments does. The anchor
of line n is `#L-n`. The colours follow the mode that the reader chose on the other pages.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

ROOT = Path(__file__).parents[2]
PACKAGES = ("minidl", "r2unet")
TEXTS = {".py", ".cu", ".cuh", ".h", ".cpp", ".css", ".js", ".json", ".txt", ".toml", ".csv", ""}
KERNELS = {".cu": "kernel.cpp", ".cuh": "kernel.cpp"}  # CUDA is coloured as C++
PLAIN = 200_000  # characters from which a file is not coloured

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{root}code/code.css">
<script>const theme = localStorage.getItem("theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;</script></head>
<body><nav><a href="{root}index.html">R2U-Net from scratch</a> / {trail}</nav>{content}</body></html>
"""
STYLE = """
:root { color-scheme: light dark; }
:root[data-theme="light"] { color-scheme: light; }
:root[data-theme="dark"] { color-scheme: dark; }
body { margin: 0; padding: 0.8rem 1rem; background: #ffffff; color: #1c1c1c; }
body { font: 16px/1.5 system-ui, sans-serif; }
nav { overflow-wrap: anywhere; margin-bottom: 0.8rem; }
a { color: #0a5fa8; }
.highlight { overflow-x: auto; }
.highlight pre { font-size: 0.8125rem; line-height: 1.45; margin: 0; }
.highlight a { text-decoration: none; }
.linenos { user-select: none; opacity: 0.6; padding-right: 0.8rem; }
a:target + a, a:target { background: #ffe08a; }
li { overflow-wrap: anywhere; }
"""
DARK = """{mode} body {{ background: #16181b; color: #e8e8e8; }}
{mode} a {{ color: #7cc0f5; }}
{mode} a:target, {mode} a:target + a {{ background: #6b5300; }}"""


def write(folder: Path, linked: Iterable[Path]) -> None:
    """Write the pages of source files, and an index for each of their folders, below `folder`.

    `linked` are the files and folders, as paths in the repository, that need pages beside the packages.
    """
    wanted = [ROOT / name for name in (*PACKAGES, *linked)]
    files = {path for each in wanted for path in (source_files(each) if each.is_dir() else [each])}
    children: dict[Path, set[Path]] = {}
    for path in sorted(files):
        name = path.relative_to(ROOT)
        page = folder / name.with_name(name.name + ".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(source_page(name, path.read_text(encoding="utf-8")), encoding="utf-8")
        for parent in list(name.parents)[:-1]:
            children.setdefault(parent, set()).add(name)
            name = parent
    for parent, names in children.items():
        (folder / parent / "index.html").write_text(folder_page(parent, names), encoding="utf-8")
    folder.joinpath("code.css").write_text(style(), encoding="utf-8")


def source_files(folder: Path) -> Iterable[Path]:
    """Return the source files below a folder, without caches and data."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in TEXTS and not {"__pycache__", ".pytest_cache"} & set(path.parts)
    )


def source_page(name: Path, text: str) -> str:
    """Return the page of a source file."""
    try:
        lexer = get_lexer_for_filename(KERNELS.get(name.suffix, name.name), stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    if len(text) > PLAIN:
        lexer = TextLexer(stripnl=False)
    formatter = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, wrapcode=True)
    return page(name, highlight(text, lexer, formatter))


def folder_page(folder: Path, names: Iterable[Path]) -> str:
    """Return the page of a folder: links to the files and folders in it."""
    lines = []
    for name in sorted(names):
        target = f"{name.name}/index.html" if (ROOT / name).is_dir() else f"{name.name}.html"
        lines.append(f'<li><a href="{html.escape(target)}">{html.escape(name.name)}</a></li>')
    return page(folder, f"<h1>{html.escape(folder.as_posix())}</h1><ul>{''.join(lines)}</ul>", is_folder=True)


def page(name: Path, content: str, is_folder: bool = False) -> str:
    """Return a whole page with a trail of links to the folders above it."""
    here = Path("code") / name if is_folder else Path("code") / name.parent
    root = os.path.relpath(".", here) + "/"
    above = [parent for parent in reversed(name.parents) if parent != Path(".")]
    trail = [f'<a href="{root}code/{parent.as_posix()}/index.html">{parent.name}</a>' for parent in above]
    return PAGE.format(
        title=html.escape(name.as_posix()),
        root=root,
        trail=" / ".join([*trail, html.escape(name.name)]),
        content=content,
    )


def style() -> str:
    """Return the styles of these pages: light, and dark where the reader or the system chose it."""
    chosen, system = ":root[data-theme=dark]", ":root:not([data-theme=light])"
    automatic = f"{colours('github-dark', system)}\n{DARK.format(mode=system)}"
    return "\n".join(
        (
            STYLE,
            colours("default", ""),
            colours("github-dark", chosen),
            DARK.format(mode=chosen),
            f"@media (prefers-color-scheme: dark) {{\n{automatic}\n}}",
        )
    )


def colours(name: str, mode: str) -> str:
    """Return the colours of a style of Pygments for one mode, without those of its line numbers."""
    rules = HtmlFormatter(style=name).get_style_defs(f"{mode} .highlight").splitlines()
    return "\n".join(rule for rule in rules if ".highlight" in rule)
