"""The site of `make docs`: the order and the links of its pages, the API reference, and its checks.

Sphinx itself is not run here: `.ci/run` builds the site, with every warning as an error.
"""

import importlib
import re
from pathlib import Path

import pytest

from docs.site import browser, check, code_pages, pages, reference

ROOT = Path(__file__).parents[1]


class TestOrder:
    def test_is_that_of_the_links_in_the_contents(self):
        text = "[b](2-b.md), [a](1-a.md#x), again [b](2-b.md)\n[up](../README.md) [code](x.py)\n"
        text += "```\n[no](9-no.md)\n```\n[gpu](gpu/README.md)"
        assert [path.as_posix() for path in pages.listed(text)] == [
            "docs/2-b.md",
            "docs/1-a.md",
            "docs/gpu/README.md",
        ]

    def test_a_picture_is_the_one_for_dark_pages_where_the_page_is_dark(self, tmp_path):
        pages.write(tmp_path, ["reference/index"])
        text = (tmp_path / "docs" / "5-recurrent-residual.md").read_text()
        assert "(figures/recurrence.png){.only-light}\n" in text
        assert "(figures/recurrence-dark.png){.only-dark}" in text
        assert (tmp_path / "docs" / "figures" / "recurrence-dark.png").exists()

    def test_every_chapter_is_on_the_site_in_the_order_of_the_contents(self, tmp_path):
        pages.write(tmp_path, ["reference/index"])
        front = (tmp_path / "index.md").read_text()
        chapters = re.search(r":caption: Chapters\n\n(.*?)\n```", front, re.DOTALL)[1].split("\n")
        numbered = [f"docs/{p.name}" for p in (ROOT / "docs").glob("[0-9]*.md")]
        assert sorted(chapters) == sorted([*numbered, "docs/add-an-operation.md"])
        contents = (ROOT / "docs" / "README.md").read_text()
        places = [contents.index(f"({Path(chapter).name}") for chapter in chapters]
        assert places == sorted(places)
        assert [chapter for chapter in chapters if not (tmp_path / chapter).exists()] == []

    def test_a_page_that_the_contents_do_not_name_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pages, "listed", lambda contents: [])
        with pytest.raises(pages.PageError, match="is not linked from docs/README.md; add a link there"):
            pages.write(tmp_path, [])


class TestLinks:
    SITE = {Path("docs/README.md"), Path("docs/a.md"), Path("README.md")}

    def rewritten(self, text, folder=Path("."), page="docs/a.md"):
        self.linked = set()
        return pages.rewritten(Path(page), text, self.SITE, folder, self.linked)

    @pytest.mark.parametrize(
        "link, expected",
        [
            ("[x](README.md)", "[x](../index.md)"),
            ("[x](../README.md#read)", "[x](../README.md#read)"),
            ("[x](#here)", "[x](#here)"),
            ("[x](https://arxiv.org/abs/1802.06955)", "[x](https://arxiv.org/abs/1802.06955)"),
            ("[`t`](../minidl/tensor.py)", '<a href="../code/minidl/tensor.py.html">`t`</a>'),
            ("[t](../minidl/tensor.py#L12)", '<a href="../code/minidl/tensor.py.html#L-12">t</a>'),
            ("[e](../examples)", '<a href="../code/examples/index.html">e</a>'),
            ("```\n[x](README.md)\n```", "```\n[x](README.md)\n```"),
        ],
    )
    def test_lead_to_pages_and_to_source_code(self, link, expected):
        assert self.rewritten(f"a\n{link}\nb") == f"a\n{expected}\nb"

    def test_to_source_code_are_collected_and_pictures_copied(self, tmp_path):
        self.rewritten("[t](../minidl/tensor.py) ![u](figures/u.png)", tmp_path)
        assert self.linked == {Path("minidl/tensor.py")}
        assert (tmp_path / "docs/figures/u.png").read_bytes() == (ROOT / "docs/figures/u.png").read_bytes()

    @pytest.mark.parametrize("target", ["nothing.py", "../CONTRIBUTING.md"])
    def test_to_nothing_or_to_a_page_that_is_not_on_the_site_are_errors(self, target):
        with pytest.raises(pages.PageError, match=re.escape(f"docs/a.md: links to {target}, which")):
            self.rewritten(f"[x]({target})")


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "reference"
    reference.write(folder)
    return {path.stem: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def examples():
    return reference.read_examples(*(page.read_text() for page in reference.EXAMPLES))


class TestReference:
    def test_has_a_page_for_every_module_of_the_engine(self, documents):
        files = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "minidl").rglob("*.py")}
        assert {name.removesuffix(".__init__") for name in files} | {"r2unet", "index"} == documents.keys()

    def test_has_every_public_name_with_its_first_sentence_and_its_line(self, documents):
        page = documents["minidl.ops"]
        for name in importlib.import_module("minidl.ops").__all__:
            assert f"{{py:function}} {name}(" in page
        start = page.index("{py:function} conv2d(")
        entry = page[start : page.index("{py:function}", start + 1)]
        assert "x: Tensor, weight: Tensor, bias: Tensor | None = None" in entry
        assert "Convolve, x (N, C, H, W), weight (OC, C, KH, KW)" in entry
        path, line = re.search(r'href="../code/(.*?)\.html#L-(\d+)"', entry).groups()
        assert (ROOT / path).read_text().splitlines()[int(line) - 1].startswith("def conv2d(")

    def test_depends_neither_on_the_machine_nor_on_the_run(self, documents):
        text = "".join(documents.values())
        assert " at 0x" not in text and str(ROOT) not in text

    def test_every_public_name_of_the_modules_for_programs_has_an_example(self, examples):
        modules = [importlib.import_module(name) for name in ("r2unet", *reference.PROGRAMS)]
        names = [f"{m.__name__}.{name}" for m in modules for name in reference.public_names(m)]
        missing = [name for name in names if name not in examples]
        assert missing == [], (
            f"add an example to docs/site/examples.md: ### `{missing[0]}`; or leave the name out of __all__"
        )

    def test_describes_a_name_once_where_programs_import_it(self, documents):
        assert "{py:function} relu(" in documents["minidl.ops"]
        assert "{py:function} relu(" not in documents["minidl.ops.activation"]
        assert "{py:class} ReLU" in documents["minidl.ops.activation"]
        assert "`relu` ([minidl.ops](minidl.ops.md))" in documents["minidl.ops.activation"]

    def test_lists_neither_numbers_nor_names_of_types_nor_what_is_not_in_all(self):
        backend, optim = (importlib.import_module(f"minidl.{name}") for name in ("backend", "optim"))
        assert {"LARGEST", "COMMON", "Array"} <= set(backend.__all__)
        assert not {"LARGEST", "COMMON", "Array"} & set(reference.public_names(backend))
        assert {"DEVICES", "DeviceError", "cover"} <= set(reference.public_names(backend))
        assert "update_all" not in reference.public_names(optim)

    def test_an_example_is_of_a_name_that_exists_and_is_on_its_page(self, documents, examples):
        for name, example in examples.items():
            module, _, leaf = name.rpartition(".")
            assert hasattr(importlib.import_module(module), leaf), name
            assert example in documents[module], name
            assert example.startswith("```python\n") and example.endswith("\n```"), name

    def test_a_line_of_a_docstring_does_not_become_a_heading_or_a_comment(self):
        def f():
            """Return a share.

            A share of 5
            % of all, and
            # more.
            """

        assert reference.prose(f).splitlines()[-2:] == ["\\% of all, and", "\\# more."]


def test_a_source_page_has_an_anchor_for_every_line():
    text = "a = 1\n\nif a < 2:\n    print('<b>')\n"
    page = code_pages.source_page(Path("minidl/x.py"), text)
    assert re.findall(r'id="L-(\d+)"', page) == ["1", "2", "3", "4"]
    assert "<b>" not in page and 'href="../../index.html"' in page


class TestCheck:
    GOOD = '<html><head></head><body id="a"><a href="b.html#c">b</a><a href="#a">a</a></body></html>'

    @pytest.mark.parametrize(
        "broken, problem",
        [
            ('<a href="none.html">x</a>', "index.html: none.html is missing"),
            ('<a href="b.html#none">x</a>', "index.html: b.html#none has no such anchor"),
            ('<img src="none.png">', "index.html: none.png is missing"),
            ('<script src="https://cdn.example/x.js"></script>', "from elsewhere"),
            ('<a href="https://arxiv.org">x</a>', None),
        ],
    )
    def test_finds_a_broken_link(self, tmp_path, broken, problem):
        (tmp_path / "index.html").write_text(self.GOOD.replace("</body>", f"{broken}</body>"))
        (tmp_path / "b.html").write_text('<p id="c"></p>')
        found = check.check_links(tmp_path)
        assert len(found) == (problem is not None) and (problem or "") in "".join(found)

    def test_an_empty_folder_is_a_problem(self, tmp_path):
        assert "contains no page" in check.check_links(tmp_path)[0]

    @pytest.mark.skipif(browser.browser() is None, reason="needs Chromium: apt install chromium")
    def test_a_browser_finds_what_is_wrong_on_a_page(self, tmp_path):
        body = """<html><head></head><body data-theme="light"><style>
        [data-theme=dark] { background: #000 }</style>CONTENT</body></html>"""
        good = '<span class="math"><math><mi>x</mi></math></span>'
        bad = """<div style="width: 900px">wide</div><img src="none.png"><span class="math">x^2</span>
        <script>console.error("wrong"); none();</script>"""
        found_page = '<div id="search-results"><li><a href="index.html">convolution</a></li></div>'
        for name, content in (("index", good), ("bad", bad), ("search", found_page)):
            (tmp_path / f"{name}.html").write_text(body.replace("CONTENT", content))
        problems = "\n".join(browser.check(tmp_path))
        for text in (
            "bad.html: console: wrong",
            "bad.html: error: Uncaught ReferenceError: none is not defined",
            "none.png does not load",
            "bad.html: formula x^2 is not typeset",
            "pixels wide on a screen of 375",
        ):
            assert text in problems
        assert "index.html" not in problems and "search.html" not in problems
