"""What the documentation says is true: its code runs, prints what stands below it, and its links are good.

Every ```python block of README.md and docs/*.md is executed, a page's blocks in order and in one namespace. A
```text block right below one is what it prints. `<!-- not run: reason -->` above a block leaves it out. A
page that runs CUDA kernels on the CPU is skipped where there is no g++, but not where changes are judged.

Numbers with a point or an exponent are measured: they may differ by 1 %, or by 1e-6 where they are rounding,
because another processor or another NumPy sums in another order. Everything else has to be equal.
"""

import contextlib
import importlib.util
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from minidl import cuda_on_cpu

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.exists()]

BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\s*)?"
    r"^```python\n(?P<code>.*?)^```$"
    r"(?:\s*^```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
NUMBER = re.compile(r"(-?\d+(?:\.\d*)?(?:e[-+]?\d+)?)")


class Block(NamedTuple):
    """A piece of code on a page, the line its fence is on, and what the page says that it prints."""

    code: str
    line: int
    output: str | None


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of a page that are to be run."""
    return [
        Block(m["code"], text.count("\n", 0, m.start("code")), m["output"])
        for m in BLOCK.finditer(text)
        if not m["skip"]
    ]


def runs_kernels(text: str) -> bool:
    """Whether a page's code asks for the device that needs g++."""
    return any('"cuda-on-cpu"' in block.code for block in read_blocks(text))


def run_page(text: str, name: str) -> None:
    """Run a page's blocks; AssertionError where one prints something else than the page says."""
    namespace = {"__name__": "__main__"}
    for block in read_blocks(text):
        # Empty lines in front make a traceback name the line of the page, and show it.
        code = compile("\n" * block.line + block.code, name, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if block.output is not None:
            problem = difference(block.output, printed.getvalue())
            assert problem is None, f"{name}:{block.line}: {problem}\nit printed:\n{printed.getvalue()}"


def difference(promised: str, printed: str) -> str | None:
    """Return the first difference between two texts in one line, or None if they agree."""
    lines = [[line.rstrip() for line in text.rstrip().splitlines()] for text in (promised, printed)]
    if len(lines[0]) != len(lines[1]):
        return f"{len(lines[0])} lines are promised, {len(lines[1])} printed"
    for a, b in zip(*lines, strict=True):
        parts = NUMBER.split(a), NUMBER.split(b)
        if len(parts[0]) != len(parts[1]) or not all(map(agree, *parts)):
            return f"{a!r} is promised, {b!r} printed"
    return None


def agree(a: str, b: str) -> bool:
    """Whether two pieces of text are equal, or two measured numbers nearly so."""
    measured = all(NUMBER.fullmatch(text) and not text.lstrip("-").isdigit() for text in (a, b))
    return float(a) == pytest.approx(float(b), rel=0.01, abs=1e-6) if measured else a == b


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_on_the_page_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes must not land in the repository
    text = page.read_text()
    if runs_kernels(text) and (problem := cuda_on_cpu.problem()):
        assert not os.environ.get("CI"), problem
        pytest.skip(problem)
    run_page(text, str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_the_page_lead_to_files(page):
    prose = CODE.sub("", page.read_text())  # x[0](y) is a link only outside of code
    targets = [target for target in LINK.findall(prose) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_figures_are_drawn_small_and_the_same_at_every_run(tmp_path):
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    for first, second in zip(*(figures.draw_all(tmp_path / run) for run in "ab"), strict=True):
        assert first.read_bytes() == second.read_bytes()
        kept = figures.FOLDER / first.name
        assert kept.stat().st_size < 100_000
        with Image.open(first) as drawn, Image.open(kept) as stored:
            assert drawn.size == stored.size
    assert {p.name for p in figures.FOLDER.iterdir()} == {p.name for p in (tmp_path / "a").iterdir()}


PAGE = """
```python
x = 2
print("x is", x / 3)
```

```text
x is {number}
```
{above}
```python
x = x / {divisor}
```
"""


def test_a_page_with_the_right_numbers_passes_and_a_comment_leaves_a_block_out():
    run_page(PAGE.format(number="0.667", above="", divisor=1), "page")
    run_page(PAGE.format(number="0.667", above="<!-- not run: divides by zero -->", divisor=0), "page")


def test_a_page_with_a_wrong_number_or_an_error_fails():
    with pytest.raises(AssertionError, match=r"page:2: 'x is 0.7' is promised"):
        run_page(PAGE.format(number="0.7", above="", divisor=1), "page")
    with pytest.raises(ZeroDivisionError):
        run_page(PAGE.format(number="0.667", above="", divisor=0), "page")


@pytest.mark.parametrize(
    ("promised", "printed", "same"),
    [
        ("error 1.3e-11", "error 8.9e-12", True),  # both are rounding
        ("error 1.3e-03", "error 1.4e-03", False),
        ("1000 nodes", "1001 nodes", False),  # counts are exact
        ("1 line", "1 line\n1 line", False),
        ("True", "False", False),
    ],
)
def test_outputs_are_compared_exactly_but_for_measured_numbers(promised, printed, same):
    assert (difference(promised, printed) is None) == same


def test_the_readme_s_line_counts_are_about_right():
    """What a reader is told to expect of a file; exact counts would change with every comment."""
    rows = re.findall(r"^\| \[.+?\]\((.+?)\) \| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) >= 5
    for path, promised in rows:
        lines = len((ROOT / path).read_text().splitlines())
        assert lines == pytest.approx(int(promised), rel=0.1), f"{path} has {lines} lines"
