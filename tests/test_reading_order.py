"""There is one order of reading: README.md, docs/README.md and the chapters agree on it."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)\)")
NUMBERED = sorted((p for p in DOCS.glob("[0-9]*-*.md")), key=lambda p: int(p.name.split("-")[0]))
LAST = DOCS / "add-an-operation.md"  # after the numbered chapters


class Row(NamedTuple):
    """A chapter in a table: its number, title and file, the files that are read with it, and the device."""

    number: str
    title: str
    chapter: Path
    files: tuple[Path, ...]
    device: str


def rows(page: Path) -> list[Row]:
    """Return the rows of the page's table of chapters."""
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) >= 4 and (chapter := LINK.fullmatch(cells[1])):
            files = tuple((page.parent / target).resolve() for _, target in LINK.findall(cells[2]))
            found.append(Row(cells[0], chapter[1], (page.parent / chapter[2]).resolve(), files, cells[3]))
    return found


IN_ORDER = rows(ROOT / "README.md")


def test_the_two_lists_agree():
    assert rows(DOCS / "README.md") == IN_ORDER


def test_the_list_has_every_chapter_in_the_order_of_its_number():
    assert [row.chapter for row in IN_ORDER] == [*NUMBERED, LAST]
    assert [row.number for row in IN_ORDER] == [*map(str, range(1, len(NUMBERED) + 1)), "+"]


@pytest.mark.parametrize("row", IN_ORDER, ids=lambda row: row.chapter.stem)
def test_a_chapter_has_its_title_and_is_read_with_files_that_it_links_to(row):
    text = row.chapter.read_text(encoding="utf-8")
    prefix = f"{row.number}. " if row.number.isdigit() else ""
    assert text.splitlines()[0] == f"# {prefix}{row.title}"
    linked = {(row.chapter.parent / target).resolve() for _, target in LINK.findall(text)}
    missing = [file.relative_to(ROOT).as_posix() for file in row.files if file not in linked]
    assert missing == [], f"{row.chapter.name}: link to the files that the lists name beside it"


@pytest.mark.parametrize(
    "row, following", list(zip(IN_ORDER, IN_ORDER[1:], strict=False)), ids=lambda r: r.number
)
def test_a_chapter_ends_with_a_link_to_the_next(row, following):
    end = row.chapter.read_text(encoding="utf-8").rstrip().rpartition("\n\n")[2]
    assert end.startswith("Next: ")
    assert (row.chapter.parent / LINK.search(end)[2]).resolve() == following.chapter


@pytest.mark.parametrize("row", IN_ORDER, ids=lambda row: row.chapter.stem)
def test_a_chapter_that_runs_kernels_says_so(row):
    text = row.chapter.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert ("GPU; here emulated" in row.device) == ("cuda-on-cpu" in blocks)
