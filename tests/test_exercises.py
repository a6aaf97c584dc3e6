"""The exercises: the checks accept the solutions, refuse plausible wrong answers, and see what is missing."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from exercises.__main__ import CHAPTERS, exercises, main, verdict
from exercises.gradients import check_gradient
from minidl import cuda_on_cpu
from tests.wrong_answers import IN_PLACE, WRONG

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "exercises"
ALL = [(chapter, number) for chapter in CHAPTERS for number in exercises(chapter)]
NAMES = [f"{chapter}.{number}" for chapter, number in ALL]
KERNELS = {10}  # chapters whose checks run CUDA kernels
TO_MEND = re.compile(r"    raise NotImplementedError\(.*\)  # delete this line, then mend the code below\n")
SECTION = re.compile(r'Chapter (\d+), "(.+?)"\.', re.DOTALL)


def tasks(chapter: int) -> Path:
    return FOLDER / f"chapter_{chapter:02}.py"


def solution(chapter: int) -> Path:
    return FOLDER / "solutions" / f"chapter_{chapter:02}.py"


def functions(source: str) -> list[ast.FunctionDef]:
    """Return the functions at the top level of a source, in order: exercise 1, 2, ..."""
    return [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def module_from(source: str) -> ModuleType:
    """Return a module made of this source."""
    module = ModuleType("answers")
    module.__file__ = "answers.py"
    exec(compile(source, "answers.py", "exec"), vars(module))
    return module


def with_change(chapter: int, number: int, old: str, new: str) -> str:
    """Return the solutions of a chapter with a piece of one of them replaced."""
    source = solution(chapter).read_text(encoding="utf-8")
    function = ast.get_source_segment(source, functions(source)[number - 1])
    assert function.count(old) == 1, "the piece to replace must be in the solution once"
    return source.replace(function, function.replace(old, new))


def require_a_compiler(chapter: int) -> None:
    if chapter in KERNELS and (problem := cuda_on_cpu.problem()):
        assert not os.environ.get("CI"), problem
        pytest.skip(problem)


def require_an_unfilled_file(chapter: int) -> None:
    """Skip where a learner has filled in the exercises; continuous integration (CI) has none."""
    file = tasks(chapter)
    difference = ["git", "diff", "--quiet", "HEAD", "--", file]
    changed = subprocess.run(difference, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 1
    if changed and not os.environ.get("CI"):
        pytest.skip(f"{file.name} is filled in")


@pytest.mark.parametrize(("chapter", "number"), ALL, ids=NAMES)
def test_the_solution_is_right(chapter, number):
    require_a_compiler(chapter)
    answers = module_from(solution(chapter).read_text(encoding="utf-8"))
    assert verdict(chapter, number, answers) == "right"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_exercise_that_is_not_filled_in_is_not_done_yet(chapter):
    require_an_unfilled_file(chapter)
    answers = module_from(tasks(chapter).read_text(encoding="utf-8"))
    assert {verdict(chapter, number, answers) for number in exercises(chapter)} == {"not done yet"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_code_with_a_mistake_is_wrong_until_it_is_mended(chapter):
    require_a_compiler(chapter)
    require_an_unfilled_file(chapter)
    source = tasks(chapter).read_text(encoding="utf-8")
    answers = module_from(TO_MEND.sub("", source))
    for number, function in enumerate(functions(source), 1):
        if TO_MEND.search(ast.get_source_segment(source, function)):
            assert verdict(chapter, number, answers).startswith("wrong: ")


@pytest.mark.parametrize(
    ("chapter", "number", "good", "bad"),
    [(*key, *change) for key in ALL for change in WRONG[key]],
    ids=[f"{c}.{n}-{i}" for c, n in ALL for i, _ in enumerate(WRONG[c, n], 1)],
)
def test_a_wrong_answer_is_refused(chapter, number, good, bad):
    require_a_compiler(chapter)
    result = verdict(chapter, number, module_from(with_change(chapter, number, good, bad)))
    assert result.startswith("wrong: ") and len(result) > len("wrong: "), result


@pytest.mark.parametrize(
    ("chapter", "number", "good", "in_place"),
    [(*key, *change) for key, change in IN_PLACE.items()],
    ids=[f"{c}.{n}" for c, n in IN_PLACE],
)
def test_a_right_answer_may_write_into_its_inputs(chapter, number, good, in_place):
    assert verdict(chapter, number, module_from(with_change(chapter, number, good, in_place))) == "right"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_three_exercises_and_a_solution_and_a_check_of_each(chapter):
    require_an_unfilled_file(chapter)
    signatures = [
        [(f.name, ast.unparse(f.args)) for f in functions(file.read_text(encoding="utf-8"))]
        for file in (tasks(chapter), solution(chapter))
    ]
    assert signatures[0] == signatures[1]
    assert exercises(chapter) == [1, 2, 3] and len(signatures[0]) == 3


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_task_names_a_section_of_its_chapter(chapter):
    (page,) = ROOT.glob(f"docs/{chapter}-*.md")
    text = page.read_text(encoding="utf-8")
    for function in functions(tasks(chapter).read_text(encoding="utf-8")):
        number, section = SECTION.search(" ".join(ast.get_docstring(function).split())).groups()
        assert int(number) == chapter and f"\n## {section}\n" in text, f"{function.name}: {section}"


def test_every_chapter_has_exercises_and_says_so_at_its_end():
    pages = sorted(ROOT.glob("docs/[0-9]*-*.md"), key=lambda page: int(page.name.split("-")[0]))
    assert list(range(1, len(pages) + 1)) == CHAPTERS
    for chapter, page in enumerate(pages, 1):
        end = page.read_text(encoding="utf-8").split("\n\n")[-2]
        assert end.startswith("Exercises: ") and f"`make exercise N={chapter}`" in end, page.name


def test_the_command_prints_a_verdict_for_each_exercise(capsys, monkeypatch):
    solutions = importlib.import_module("exercises.solutions.chapter_01")
    monkeypatch.setitem(sys.modules, "exercises.chapter_01", solutions)
    assert main(["1"]) == 0
    assert capsys.readouterr().out == "exercises/chapter_01.py\n1.1  right\n1.2  right\n1.3  right\n"
    source = with_change(1, 2, *WRONG[1, 2][0])
    monkeypatch.setitem(sys.modules, "exercises.chapter_01", module_from(source))
    assert main(["1", "2"]) == 1
    assert capsys.readouterr().out.splitlines()[1].startswith("1.2  wrong: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Usage: make exercise N=3"),
        (["3", "x"], "Usage: make exercise N=3"),
        (["40"], "There are exercises for chapters 1 to 12, not for 40."),
        (["3", "4"], "Chapter 3 has exercises 1 to 3, not 4."),
    ],
)
def test_a_wrong_call_is_explained(words, message, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nunpy as np\n", "line 1: ModuleNotFoundError: No module named 'nunpy'"),
        ("import numpy as np\n\nx = (1\n", "line 3: '(' was never closed"),
    ],
)
def test_a_file_that_cannot_be_imported_is_reported_with_the_line(source, message, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "exercises", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "exercises" / "chapter_01.py").write_text(source)
    command = [sys.executable, "-m", "exercises", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"exercises/chapter_01.py, {message}\n"


def test_without_assertions_no_answer_is_right():
    command = [sys.executable, "-O", "-m", "exercises", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "The checks are assertions, which -O and PYTHONOPTIMIZE leave out; run it without them.\n"
    )


def test_the_gradient_check_names_the_first_number_that_is_wrong():
    def gradient(x, w, dy):
        dw = dy * x
        dw[2] = 0.0
        return dy * w, dw

    x, w = np.arange(1.0, 5.0), np.ones(4)
    check_gradient(np.multiply, lambda x, w, dy: (dy * w, dy * x), x, w)
    with pytest.raises(AssertionError, match=r"^gradient 2 of 2 at \[2\] is 0, but a finite difference"):
        check_gradient(np.multiply, gradient, x, w)


def test_an_error_in_an_answer_is_reported_with_its_line():
    source = "def divide_backward(a, b, dy):\n    return dy / c\n"
    expected = "wrong: NameError: name 'c' is not defined (answers.py, line 2)"
    assert verdict(1, 1, module_from(source)) == expected


def test_the_gradient_check_names_a_number_that_is_nan():
    with pytest.raises(AssertionError, match=r"^the gradient at \[0\] is nan, but a finite difference gives"):
        check_gradient(np.square, lambda x, dy: dy * np.nan, np.ones(3))


def test_the_gradient_check_accepts_lists():
    x, w = np.arange(1.0, 5.0), np.ones(4)
    check_gradient(np.multiply, lambda x, w, dy: [dy * w, (dy * x).tolist()], x, w)
    check_gradient(np.square, lambda x, dy: (2 * x * dy).tolist(), x.reshape(2, 2))


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (lambda x, w, dy: dy * w, "the number of gradients that your function returned is 1 instead of 2"),
        (lambda x, w, dy: [dy * w, None], "gradient 2 of 2 that your function returned is None"),
        (
            lambda x, w, dy: (dy * w, (dy * x).sum()),
            r"gradient 2 of 2 that your function returned has the shape \(\), its input \(4,\)",
        ),
    ],
)
def test_the_gradient_check_names_the_learner_s_function_where_shapes_do_not_fit(gradient, message):
    with pytest.raises(AssertionError, match=f"^{message}$"):
        check_gradient(np.multiply, gradient, np.arange(1.0, 5.0), np.ones(4))
