"""Writes the annotated R2U-Net: a Jupyter notebook of the chapters, to run and to change.

    make notebook                                   writes docs/annotated-r2unet.ipynb
    python docs/site/notebook.py --out F.ipynb      the same, to F.ipynb

The prose of a chapter becomes Markdown cells and its code becomes code cells, with the printed output below
them. All cells share one namespace, and run from top to bottom. The chapters are those of docs/README.md, in
its order, without those that compile CUDA kernels. A cell's id is the name of its chapter and its number, so
the same chapters give the same bytes.

The notebook is not stored in the repository, where it would be a second copy of the chapters. It belongs into
docs/, because its pictures and links are those of the chapters.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pages

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "annotated-r2unet.ipynb"
LONGEST_ID = 64  # characters, the limit of the format

# A block that is executed, with its output; `<!-- not run: reason -->` above a block excludes it.
BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\s*)?"
    r"^```python\n(?P<code>.*?)^```$"
    r"(?:\s*^```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)

TITLE = """# The annotated R2U-Net

The chapters of this project as one notebook: run the cells from top to bottom, and change them. The first
cell changes to an empty folder, because some cells write files. Install the project first, in the environment
of this notebook: `pip install -e .` in the folder of the repository."""

SETUP = """import os
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are too small to share between threads
os.chdir(tempfile.mkdtemp())
"""


def notebook(chapters: Sequence[Path]) -> dict[str, Any]:
    """Return the notebook of these pages, as a tree that JSON can store (nbformat 4.5)."""
    cells = [cell("markdown", "title-0", TITLE), cell("code", "title-1", SETUP)]
    for path in chapters:
        for number, (kind, source, output) in enumerate(parts(path.read_text(encoding="utf-8"))):
            end = f"-{number}"
            cells.append(cell(kind, path.stem[: LONGEST_ID - len(end)] + end, source, output))
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def cell(kind: str, name: str, source: str, output: str | None = None) -> dict[str, Any]:
    """Return a cell; one of code has the output that the chapter shows."""
    made = {"cell_type": kind, "id": name, "metadata": {}, "source": lines(source.strip("\n"))}
    if kind == "code":
        stream = {"name": "stdout", "output_type": "stream", "text": lines(output or "")}
        made |= {"execution_count": None, "outputs": [stream] if output else []}
    return made


def lines(text: str) -> list[str]:
    """Return the lines of a text, each with its line end, as the format stores them."""
    return text.splitlines(keepends=True)


def parts(text: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield the cells of a page: ("markdown", prose, None) and ("code", source, output)."""
    end = 0
    for match in BLOCK.finditer(text):
        if match["skip"]:
            continue  # stays a part of the prose
        if prose := text[end : match.start()].strip():
            yield "markdown", prose, None
        yield "code", match["code"], match["output"]
        end = match.end()
    if prose := text[end:].strip():
        yield "markdown", prose, None


def chapters() -> list[Path]:
    """Return the chapters in the order of docs/README.md, without those that compile kernels."""
    order = pages.listed((ROOT / pages.CONTENTS).read_text(encoding="utf-8"))
    found = [ROOT / path for path in order if pages.is_chapter(path)]
    return [path for path in found if not needs_compiler(path.read_text(encoding="utf-8"))]


def needs_compiler(text: str) -> bool:
    """Return whether the code of a page runs on the device that needs g++."""
    return any('"cuda-on-cpu"' in source for kind, source, _ in parts(text) if kind == "code")


def main() -> int:
    """Write the notebook; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=NOTEBOOK, metavar="F.ipynb")
    out = parser.parse_args().out
    text = json.dumps(notebook(chapters()), indent=1, ensure_ascii=False, sort_keys=True)
    out.write_text(text + "\n", encoding="utf-8")
    print(f"the notebook is {out}; open it with: jupyter lab {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
