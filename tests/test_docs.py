"""The documentation is correct: its code prints the output on the page, and its links exist.

Every ```python block of README.md and docs/**/*.md is executed: the blocks of a page in order and in one
namespace. A ```text block directly below it is the expected output. `<!-- not run: reason -->` above a block
excludes it. A page that runs CUDA kernels on the CPU is skipped if there is no g++, except in CI.

Numbers with a decimal point or an exponent count as measured. They may differ by 1 %, or by 1e-6 if they are
rounding errors, because other processors and NumPy versions sum in a different order. Everything else must be
equal.
"""

import contextlib
import importlib
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from minidl import cuda_on_cpu
from tests.mpi import require_mpi

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]

BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\s*)?"
    r"^```python\n(?P<code>.*?)^```$"
    r"(?:\s*^```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)\s#]*)(?:#(?P<heading>[^)\s]+))?[^)]*\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
NUMBER = re.compile(r"(-?\d+(?:\.\d*)?(?:e[-+]?\d+)?)")


class Block(NamedTuple):
    """A block of code on a page, the line of its fence, and its expected output."""

    code: str
    line: int
    output: str | None


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of a page that are executed."""
    return [
        Block(m["code"], text.count("\n", 0, m.start("code")), m["output"])
        for m in BLOCK.finditer(text)
        if not m["skip"]
    ]


def runs_kernels(text: str) -> bool:
    """Return whether a page's code uses the device that needs g++."""
    return any('"cuda-on-cpu"' in block.code for block in read_blocks(text))


def run_page(text: str, name: str) -> None:
    """Run the blocks of a page; raise AssertionError if the output of one differs from the page."""
    namespace = {"__name__": "__main__"}
    for block in read_blocks(text):
        # With these empty lines a traceback shows the line number and the line of the page.
        code = compile("\n" * block.line + block.code, name, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if block.output is not None:
            problem = difference(block.output, printed.getvalue())
            assert problem is None, f"{name}:{block.line}: {problem}\nthe output is:\n{printed.getvalue()}"


def difference(expected: str, printed: str) -> str | None:
    """Describe the first line that differs between two texts; return None if they agree."""
    lines = [[line.rstrip() for line in text.rstrip().splitlines()] for text in (expected, printed)]
    if len(lines[0]) != len(lines[1]):
        return f"{len(lines[0])} lines expected, {len(lines[1])} printed"
    for a, b in zip(*lines, strict=True):
        parts = NUMBER.split(a), NUMBER.split(b)
        if len(parts[0]) != len(parts[1]) or not all(map(agree, *parts)):
            return f"{a!r} expected, {b!r} printed"
    return None


def agree(a: str, b: str) -> bool:
    """Return whether two pieces of text are equal, or two measured numbers approximately equal."""
    measured = all(NUMBER.fullmatch(text) and not text.lstrip("-").isdigit() for text in (a, b))
    return float(a) == pytest.approx(float(b), rel=0.01, abs=1e-6) if measured else a == b


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_the_page_prints_the_expected_output(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples must not write into the repository
    text = page.read_text()
    if runs_kernels(text) and (problem := cuda_on_cpu.problem()):
        assert not os.environ.get("CI"), problem
        pytest.skip(problem)
    if "find_mpiexec" in text:
        require_mpi()
    run_page(text, str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_the_page_lead_to_existing_files_and_headings(page):
    prose = CODE.sub("", page.read_text())  # in code, x[0](y) is not a link
    links = [m.group("target", "heading") for m in LINK.finditer(prose) if "://" not in m["target"]]
    missing = [target for target, _ in links if not (page.parent / target).exists()]
    assert missing == []
    fragments = [(page.parent / target if target else page, heading) for target, heading in links if heading]
    assert [heading for file, heading in fragments if heading not in anchors(file)] == []


@pytest.mark.parametrize(("name", "expected"), [("page.md", {"steps-t--2"}), ("code.py", {"L1", "L2", "L3"})])
def test_anchors_are_the_headings_of_a_page_and_the_lines_of_a_program(tmp_path, name, expected):
    (tmp_path / name).write_text("# Steps: t = 2\n\nend\n")
    assert anchors(tmp_path / name) == expected


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub forms them: "Steps: t = 2" -> "steps-t--2".

    Those of a program are its lines, L1, L2 and so on.
    """
    if page.suffix != ".md":
        return {f"L{number}" for number, _ in enumerate(page.read_text().splitlines(), 1)}
    prose = FENCED.sub("", page.read_text())
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in HEADING.findall(prose)}


@pytest.fixture
def figures(monkeypatch):
    """docs/figures.py as a module; it finds docs/drawings as it does when it runs as a program."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("figures")


def test_figures_are_small_and_up_to_date_in_size(figures, tmp_path, monkeypatch):
    monkeypatch.setattr("drawings.features.STEPS", 1)  # of a training, whose result does not change the size
    drawn = figures.draw_all(tmp_path)
    assert {path.name for path in drawn} == {path.name for path in figures.FOLDER.iterdir()}
    for path in drawn:
        kept = figures.FOLDER / path.name
        assert kept.stat().st_size < 100_000
        with Image.open(path) as new, Image.open(kept) as stored:
            assert new.size == stored.size, f"{path.name}: run python docs/figures.py --only {path.stem}"


def test_a_figure_is_drawn_with_the_same_bytes_again(figures, tmp_path):
    for first, second in zip(*(figures.draw_all(tmp_path / run, ["u"]) for run in "ab"), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_a_figure_for_a_dark_page_has_the_same_shapes_in_light_on_dark(figures, tmp_path):
    light, dark = (np.asarray(Image.open(p).convert("L"), float) for p in figures.draw_all(tmp_path, ["u"]))
    assert light.shape == dark.shape
    assert np.median(light) > 250 and np.median(dark) < 30
    assert (light.min() < 60) and (dark.max() > 200)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_picture_has_an_alternative_text(page):
    prose = FENCED.sub("", page.read_text())
    assert [m.group() for m in re.finditer(r"!\[(.{0,9})\]\(", prose)] == []


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


def test_a_page_with_correct_numbers_passes_and_a_comment_excludes_a_block():
    run_page(PAGE.format(number="0.667", above="", divisor=1), "page")
    run_page(PAGE.format(number="0.667", above="<!-- not run: divides by zero -->", divisor=0), "page")


def test_a_page_with_a_wrong_number_or_an_error_fails():
    with pytest.raises(AssertionError, match=r"page:2: 'x is 0.7' expected"):
        run_page(PAGE.format(number="0.7", above="", divisor=1), "page")
    with pytest.raises(ZeroDivisionError):
        run_page(PAGE.format(number="0.667", above="", divisor=0), "page")


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("error 1.3e-11", "error 8.9e-12", True),  # both are rounding errors
        ("error 1.3e-03", "error 1.4e-03", False),
        ("1000 nodes", "1001 nodes", False),  # counts are exact
        ("1 line", "1 line\n1 line", False),
        ("True", "False", False),
    ],
)
def test_only_measured_numbers_may_differ(expected, printed, same):
    assert (difference(expected, printed) is None) == same
