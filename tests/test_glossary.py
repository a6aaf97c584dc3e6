"""Every link of the glossary leads to the line that it quotes."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def glossary(monkeypatch):
    """docs/glossary.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("glossary")


def test_every_link_leads_to_the_line_that_it_quotes(glossary):
    text = glossary.PAGE.read_text(encoding="utf-8")
    assert glossary.updated(text, glossary.PAGE.parent) == text, "run python docs/glossary.py"


def test_every_row_has_a_link(glossary):
    rows = [line for line in glossary.PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    headings = [row for row in rows if row.endswith("| line |")]
    assert len(headings) == 4
    assert [row for row in rows if row not in headings and not glossary.LINK.search(row)] == []


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of three lines."""
    (tmp_path / "a.py").write_text("x = 1\ny = 2\ny = 3\n")
    return tmp_path


def test_a_line_that_has_moved_gets_its_new_number(glossary, folder):
    assert glossary.updated("see [a.py:7](a.py#L7) `x = 1`.", folder) == "see [a.py:1](a.py#L1) `x = 1`."


@pytest.mark.parametrize(
    "link, problem",
    [
        ("[b.py:1](b.py#L1) `x`", "b.py does not exist"),
        ("[a.py:1](a.py#L1) `z = 1`", "`z = 1` is on 0 lines of a.py"),
        ("[a.py:1](a.py#L1) `y = `", "`y = ` is on 2 lines of a.py"),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error(glossary, folder, link, problem):
    with pytest.raises(ValueError, match=problem):
        glossary.updated(link, folder)
