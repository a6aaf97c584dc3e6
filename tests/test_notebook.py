"""The annotated R2U-Net: a notebook with the code and the output of the chapters, in one namespace."""

import contextlib
import io
import json
import re
from pathlib import Path

from docs.site import notebook
from tests.test_docs import difference, read_blocks

ROOT = Path(__file__).parents[1]
CHAPTERS = notebook.chapters()

PAGE = """# Title

Prose.

```python
x = 1
print(x)
```

```text
1
```
<!-- not run: fails -->
```python
1 / 0
```

End.
"""


def sources(tree, kind):
    """The texts of the cells of this kind, without the title's."""
    cells = [cell for cell in tree["cells"] if not cell["id"].startswith("title-")]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_a_page_becomes_cells_with_the_output_below_the_code(tmp_path):
    (tmp_path / "1-a.md").write_text(PAGE)
    tree = notebook.notebook([tmp_path / "1-a.md"])
    assert sources(tree, "code") == ["x = 1\nprint(x)"]
    assert sources(tree, "markdown") == [
        "# Title\n\nProse.",
        "<!-- not run: fails -->\n```python\n1 / 0\n```\n\nEnd.",
    ]
    (output,) = next(cell for cell in tree["cells"] if cell["id"] == "1-a-1")["outputs"]
    assert output == {"name": "stdout", "output_type": "stream", "text": ["1\n"]}


def test_the_code_of_every_chapter_is_in_it_as_the_tests_of_the_docs_run_it():
    assert len(CHAPTERS) > 5
    for path in CHAPTERS:
        expected = [block.code.strip("\n") for block in read_blocks(path.read_text())]
        assert sources(notebook.notebook([path]), "code") == expected


def test_the_chapters_that_compile_kernels_are_left_out():
    left_out = {path.name for path in (ROOT / "docs").glob("[0-9]*.md")} - {path.name for path in CHAPTERS}
    assert left_out == {p.name for p in (ROOT / "docs").glob("[0-9]*.md") if compiles(p.read_text())}


def compiles(text):
    return any('"cuda-on-cpu"' in block.code for block in read_blocks(text))


def test_ids_are_valid_different_and_the_same_every_time():
    tree = notebook.notebook(CHAPTERS)
    ids = [cell["id"] for cell in tree["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    assert json.dumps(tree) == json.dumps(notebook.notebook(CHAPTERS))
    assert (tree["nbformat"], tree["nbformat_minor"]) == (4, 5)
    for cell in tree["cells"]:
        assert cell.keys() - {"execution_count", "outputs"} == {"cell_type", "id", "metadata", "source"}


def test_the_first_chapters_run_from_top_to_bottom_in_one_namespace(tmp_path, monkeypatch):
    """A smaller notebook: `make notebook` has all of them, and chapter 5 alone takes several seconds."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for cell in notebook.notebook(CHAPTERS[:4])["cells"]:
        if cell["cell_type"] != "code" or cell["id"] == "title-1":  # which changes to another folder
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
        for output in cell["outputs"]:
            assert difference("".join(output["text"]), printed.getvalue()) is None, cell["id"]


def test_the_program_writes_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["notebook.py", "--out", str(tmp_path / "a.ipynb")])
    assert notebook.main() == 0
    assert json.loads((tmp_path / "a.ipynb").read_text()) == notebook.notebook(CHAPTERS)
    assert f"jupyter lab {tmp_path / 'a.ipynb'}" in capsys.readouterr().out


def test_the_file_is_not_stored_beside_the_chapters():
    assert f"docs/{notebook.NOTEBOOK.name}" in (ROOT / ".gitignore").read_text().splitlines()
