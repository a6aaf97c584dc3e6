"""`r2unet report`: one page about any finished runs, with their numbers, that needs no other file."""

import dataclasses
import json
import re
import shlex
import shutil
import weakref
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from r2unet.commands.main import build_parser, main
from r2unet.commands.options import settings_given
from r2unet.study import run_pictures
from r2unet.study.plan import PLAN
from r2unet.study.run_charts import HEIGHT, WIDTH, Line, chart, ticks
from r2unet.study.run_comparison import labels, read_runs, same_images
from r2unet.study.run_page import commands
from r2unet.study.run_pictures import contour
from r2unet.training.settings import Settings
from tests.r2unet.conftest import OPTIONS
from tests.r2unet.refusal import refusal

VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes, text); fails if an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[int] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.elements[self.open.pop()][0] == tag
        if tag in ("th", "td", "li"):
            self.handle_data(" ")

    def handle_data(self, data):
        for index in self.open:
            self.elements[index][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict[str, str], str]]:
        """The attributes and the text of every element with this tag and these attributes."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}.items()
        return [
            (a, " ".join("".join(t).split())) for n, a, t in self.elements if n == tag and wanted <= a.items()
        ]

    def row(self, start: str) -> str:
        """The text of the only row of a table that starts so."""
        (text,) = {text for _, text in self.all("tr") if text.startswith(start)}
        return text


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A U-Net trained for both answers; its generated lesions are those of the fixture `trained`."""
    out = tmp_path_factory.mktemp("runs") / "both"
    assert main(["train", *OPTIONS, "--model=unet", "--task=both", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def page(trained, both, tmp_path_factory):
    """The page of both runs."""
    out = tmp_path_factory.mktemp("page") / "page.html"
    assert main(["report", str(trained), str(both), "--out", str(out), "--device=cpu", "--pictures=3"]) == 0
    return Page(out.read_text(encoding="utf-8"))


def scores(folder):
    return json.loads((folder / "report.json").read_text())


class TestThePage:
    def test_needs_no_other_file_and_no_network(self, page):
        links = [a[name] for _, a, _ in page.elements for name in ("href", "src") if name in a]
        ids = {a["id"] for _, a, _ in page.elements if "id" in a}
        assert len(links) >= 5
        assert [x for x in links if not x.startswith("data:image/jpeg;base64,") and x[1:] not in ids] == []
        assert "url(" not in page.all("style")[0][1] and "@import" not in page.all("style")[0][1]
        assert page.all("link") == [] and "fetch" not in page.all("script")[0][1]

    def test_has_the_width_of_a_phone_and_both_colour_schemes(self, page):
        assert page.all("meta", name="viewport")[0][0]["content"].startswith("width=device-width")
        assert "prefers-color-scheme: dark" in page.all("style")[0][1]

    def test_marks_the_settings_that_differ_and_those_that_are_not_the_default(self, page):
        differing = [text for _, text in page.all("tr", class_="differs")]
        assert differing == ["--model r2unet unet r2unet", "--task outline both outline"]
        bold = {text for _, text in page.all("strong")}
        assert {"unet", "both", "16", "2,4"} <= bold and "outline" not in bold
        assert page.row("--images") == "--images 10 10 800"

    def test_has_the_scores_and_intervals_of_the_reports(self, page, trained, both):
        for folder in (trained, both):
            model = scores(folder)["model"]
            low, high = model["jaccard_interval"]
            row = page.row(f"{folder.name} {model['mean']['jaccard']:.4f}")
            assert f"{low:.4f} to {high:.4f}" in row and f"{model['mean']['dice']:.4f}" in row
        otsu = scores(trained)["Otsu's threshold"]["mean"]["jaccard"]
        assert page.row("Otsu's threshold").startswith(f"Otsu's threshold {otsu:.4f}")

    def test_compares_the_runs_image_by_image(self, page, trained, both):
        a, b = (scores(folder)["model"]["jaccard_by_image"] for folder in (trained, both))
        difference = np.mean([b[name] - a[name] for name in a])
        assert f" {difference:+.4f} " in page.row(f"both {np.mean(list(b.values())):.4f}")

    def test_has_the_diagnosis_of_the_run_that_gives_one(self, page, both):
        report = scores(both)["diagnosis"]
        auc = report["types"]["model"]["mean"]["auc"]
        assert f"both {auc['value']:.3f} {auc['interval'][0]:.3f}" in page.row(f"both {auc['value']:.3f}")
        matrix = report["types"]["model"]["decisions"]["argmax p"]["confusion"]
        (table,) = [text for _, text in page.all("figure", class_="confusion")]
        assert [int(word) for word in table.split() if word.isdigit()] == list(np.ravel(matrix))

    def test_draws_every_curve_with_a_point_for_each_epoch(self, page):
        titles = [text for _, text in page.all("figcaption")]
        for title in ("training loss", "validation loss", "validation Jaccard, mean over images"):
            assert title in titles
        charts = [a["aria-label"] for a, _ in page.all("svg", role="img")]
        assert "training loss: tiny, both" in charts
        assert "validation AUC, mean over classes: both" in charts
        # a large point is the best epoch, of each run in each chart that has it: 4, and AUC of one of them
        assert len(page.all("circle", r="4.5")) == 2 * 4 + 1
        assert "different loss functions or tasks" in page.all("section", id="curves")[0][1]

    def test_shows_images_from_best_to_worst_with_a_layer_for_each_run(self, page, trained, both):
        captions = [text for a, text in page.all("figure", class_="overlay")]
        ranked = sorted(scores(trained)["model"]["jaccard_by_image"].items(), key=lambda pair: -pair[1])
        assert [caption.split(":")[0] for caption in captions] == [name for name, _ in ranked]
        name, jaccard = ranked[0]
        other = scores(both)["model"]["jaccard_by_image"][name]
        assert f"tiny: {jaccard:.2f}" in captions[0] and f"both: {other:.2f}" in captions[0]
        (slider,) = page.all("input", type="range")
        assert slider[0]["max"] == "1" and len(page.all("button")) == 2
        assert len(page.all("svg", class_="layer")) == 2 * 2

    def test_has_the_commands_that_train_the_runs_again(self, page, trained, both):
        (text,) = ["".join(t) for n, _, t in page.elements if n == "pre"]
        lines = [shlex.split(line) for line in text.splitlines() if line.startswith("r2unet train")]
        for folder, words in zip((trained, both), lines, strict=True):
            options = build_parser().parse_args(words[1:])
            (run,) = read_runs([folder])
            assert options.out == folder and Settings(**settings_given(options)) == run.settings

    @pytest.mark.parametrize("inside, name", [("row", "seed-0"), ("row/seed-0", ".")])
    def test_name_the_study_of_a_run_that_is_given_from_within_it(
        self, r2unet, trained, tmp_path, monkeypatch, inside, name
    ):
        shutil.copytree(trained, tmp_path / "study" / "row" / "seed-0")
        (tmp_path / "study" / PLAN).write_text("{}")
        monkeypatch.chdir(tmp_path / "study" / inside)
        assert r2unet("report", name, "--out", tmp_path / "a.html", "--pictures", 0)[0] == 0
        assert f"# part of the study in {tmp_path / 'study'};" in (tmp_path / "a.html").read_text()

    def test_are_those_of_a_run_directly_under_the_root_too(self, trained):
        (run,) = read_runs([trained])
        at_the_root = run._replace(run=run.run._replace(folder=Path("/run")))
        assert "--checkpoint /run/best.npz" in commands([at_the_root], "r2unet report /run")

    def test_score_the_diagnoses_with_the_labels_of_the_training(self, both):
        (run,) = read_runs([both])
        labelled = run._replace(
            settings=dataclasses.replace(run.settings, data="isic", labels="my types.csv")
        )
        line = "--data isic --labels &#x27;my types.csv&#x27;\n"
        assert f"evaluate --checkpoint {both / 'best.npz'} {line}" in commands([labelled], "r2unet report")


class TestOneRun:
    def test_has_no_slider_and_the_same_bytes_every_time(self, r2unet, trained, tmp_path):
        pages = []
        for name in "ab":
            words = "report", trained, "--out", tmp_path / f"{name}.html", "--pictures", 1
            assert r2unet(*words) == (0, f"the report is in {tmp_path / name}.html\n", "")
            pages.append((tmp_path / f"{name}.html").read_text().replace(f"{name}.html", "x.html"))
        assert pages[0] == pages[1]
        page = Page(pages[0])
        assert page.all("input") == [] and len(page.all("svg", class_="layer")) == 1
        assert page.all("section", id="diagnosis") == [] and "against" not in pages[0]

    def test_draws_nothing_without_pictures(self, r2unet, trained, tmp_path, monkeypatch):
        monkeypatch.setattr("r2unet.network.model.UShape.answer", None)
        assert r2unet("report", trained, "--out", tmp_path / "a.html", "--pictures", 0)[0] == 0
        assert Page((tmp_path / "a.html").read_text()).all("img") == []

    def test_a_name_with_html_in_it_is_text(self, r2unet, trained, tmp_path):
        folder = tmp_path / "<script>alert('x')<" / 'b&"c'
        shutil.copytree(trained, folder)
        assert r2unet("report", folder, "--out", tmp_path / "a.html", "--pictures", 0)[0] == 0
        page = Page((tmp_path / "a.html").read_text())
        assert len(page.all("script")) == 1
        assert page.all("h1")[0][1] == 'Training runs: b&"c' and (
            str(folder) in dict.fromkeys(text for _, text in page.all("code"))
        )

    def test_images_that_moved_are_found_with_data(self, r2unet, tiny, isic, tmp_path):
        assert r2unet("train", *tiny, "--data", isic, "--out", tmp_path / "a")[0] == 0
        moved = isic.rename(tmp_path / "moved")
        words = "report", tmp_path / "a", "--out", tmp_path / "a.html"
        code, _, err = r2unet(*words)
        assert code == 2 and f"{isic}: there is no such folder" in err and "give --data DIR" in err
        assert not (tmp_path / "a.html").exists()
        assert r2unet(*words, "--data", moved)[0] == 0
        first = Page((tmp_path / "a.html").read_text()).all("img")[0][0]
        assert (first["width"], first["height"]) == ("32", "24")  # the original size, not the network's
        next(moved.glob("*Validation_Data/ISIC_0000006*")).unlink()
        next(moved.glob("*Validation_Part1*/ISIC_0000006*")).unlink()
        code, _, err = r2unet(*words, "--data", moved)
        assert code == 2 and "has no validation image ISIC_0000006" in err and err.count("\n") == 1


class TestRefused:
    @pytest.mark.parametrize(
        "spoil, expected",
        [
            (shutil.rmtree, "contains no training run; give a folder"),
            (
                lambda run: (run / "report.json").unlink(),
                "its training is not finished",
            ),
            (lambda run: (run / "report.json").write_text("{"), "report.json: is damaged"),
            (
                lambda run: (run / "report.json").write_text("[]"),
                "is damaged (it has no scores by name); del",
            ),
            (lambda run: (run / "history.csv").write_text("epoch\n2\n"), "epochs are not 1, 2, 3"),
            (
                lambda run: (run / "history.csv").write_text("epoch\n1\n"),
                "and history.csv, and run `r2unet tr",
            ),
            (lambda run: (run / "history.csv").unlink(), "history.csv: is missing; `r2unet train --resume"),
            (
                lambda run: (run / "study.json").write_text("{}"),
                "is a study; give folders of its runs, ROW/s",
            ),
            (lambda run: (run / "best.npz").write_bytes(b""), "best.npz"),
            (
                lambda run: edit(run, lambda r: r["model"].pop("jaccard_interval")),
                "report.json: invalid ('jaccard_interval')",
            ),
            (lambda run: edit(run, lambda r: r["model"].update(jaccard_interval=[0, "<b>"])), "report.json"),
            (lambda run: edit(run, lambda r: r.pop("Otsu's threshold") and r.pop("model")), "is invalid"),
        ],
    )
    def test_a_bad_run_is_named_in_one_line_and_nothing_is_written(
        self, r2unet, trained, tmp_path, spoil, expected
    ):
        run = Path(shutil.copytree(trained, tmp_path / "run"))
        spoil(run)
        code, out, err = r2unet("report", trained, run, "--out", tmp_path / "a.html")
        assert (code, out) == (2, "") and err.count("\n") == 1 and expected in err and str(run) in err, err
        assert not (tmp_path / "a.html").exists()

    def test_the_command_in_its_advice_can_be_copied(self, trained, tmp_path):
        run = Path(shutil.copytree(trained, tmp_path / "my run"))
        (run / "report.json").unlink()
        assert f"`r2unet train --resume --out '{run}'`" in refusal(lambda: read_runs([run]))

    def test_damaged_diagnoses(self, r2unet, both, tmp_path):
        run = Path(shutil.copytree(both, tmp_path / "run"))
        edit(run, lambda report: report["diagnosis"]["types"]["model"]["by_class"].pop("nevus"))
        code, _, err = r2unet("report", run, "--out", tmp_path / "a.html", "--pictures", 0)
        assert code == 2 and err.count("\n") == 1 and "report.json: invalid ('nevus')" in err

    @pytest.mark.parametrize(
        "words, expected",
        [
            (["RUN"], "is the same run as"),
            (["--data", "folder"], "--data: these runs were trained on generated lesions"),
            (["--out", "page.pdf"], "must be a name ending in .html"),
            (["--pictures", "-1"], "must be a whole number from 0 to 24"),
        ],
    )
    def test_a_bad_option(self, r2unet, trained, tmp_path, monkeypatch, words, expected):
        monkeypatch.chdir(tmp_path)
        words = [trained.parent / "." / trained.name if word == "RUN" else word for word in words]
        code, out, err = r2unet("report", trained, *words)
        assert (code, out) == (2, "") and err.count("\n") == 1 and expected in err
        assert list(tmp_path.iterdir()) == []


def edit(run, change):
    report = scores(run)
    change(report)
    (run / "report.json").write_text(json.dumps(report))


class TestGroups:
    def test_runs_are_compared_only_on_the_same_images(self, trained, both, tmp_path):
        """Generated lesions of another seed have the same names, but Otsu's threshold scores otherwise."""
        other = Path(shutil.copytree(trained, tmp_path / "other"))
        edit(other, lambda report: report["Otsu's threshold"]["mean"].update(jaccard=0.5))
        groups = same_images(read_runs([trained, other, both]))
        assert [[run.label for run in group] for group in groups] == [["tiny", "both"], ["other"]]

    def test_a_report_of_another_network_is_refused(self, trained, both, tmp_path):
        mixed = Path(shutil.copytree(trained, tmp_path / "mixed"))
        shutil.copy(both / "best.npz", mixed)
        message = refusal(lambda: read_runs([mixed]))
        assert "report.json and best.npz are of different runs, because the network's task is both" in message

    def test_a_label_is_the_folder_s_name_or_where_it_is_ambiguous_its_path(self):
        folders = [Path("a/seed-0"), Path("b/seed-0"), Path("c")]
        assert labels(folders) == ["a/seed-0", "b/seed-0", "c"]


def test_a_picture_is_kept_as_text_and_not_as_an_array(r2unet, tmp_path, monkeypatch):
    assert r2unet("train", *OPTIONS, "--images=25", "--out", tmp_path / "run")[0] == 0
    images, alive, shrink = [], [], run_pictures.shrink

    def counted(*of):
        row = shrink(*of)
        alive.append(sum(image() is not None for image in images))  # of those before
        images.append(weakref.ref(row.image))
        return row

    monkeypatch.setattr(run_pictures, "shrink", counted)
    assert r2unet("report", tmp_path / "run", "--out", tmp_path / "a.html")[0] == 0
    assert alive == [0, 1, 1, 1, 1]


class TestContour:
    def test_of_one_pixel_is_a_diamond_around_its_middle(self):
        mask = np.zeros((3, 4))
        mask[1, 2] = 1
        points = {tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", contour(mask))}
        assert points == {(2.5, 1.0), (3.0, 1.5), (2.5, 2.0), (2.0, 1.5)}
        assert contour(mask).startswith("M") and contour(mask).endswith("Z")

    def test_of_a_lesion_that_fills_the_image_is_its_border(self):
        numbers = list(map(float, re.findall(r"[\d.]+", contour(np.ones((5, 8))))))
        assert (min(numbers[::2]), max(numbers[::2]), min(numbers[1::2]), max(numbers[1::2])) == (0, 8, 0, 5)

    def test_of_noise_has_a_bounded_length(self, rng):
        assert len(contour(rng.random((512, 512)))) < 300_000

    def test_of_no_lesion_is_empty(self):
        assert contour(np.zeros((5, 5))) == ""


class TestChart:
    def test_a_line_goes_through_its_points(self):
        lines = [Line("a", 0, [0, 1, 2], [0.0, 0.5, 1.0]), Line("b", 7, [0, 1, 2], [1.0, float("nan"), 0.0])]
        drawn = chart("title", lines, "epoch", (0, 2), (0, 1))
        bottom, left = HEIGHT - 34, 42
        middle = f"{(left + WIDTH - 10) / 2:.1f} {(10 + bottom) / 2:.1f}"
        assert f'd="M{left}.0 {bottom}.0L{middle}L{WIDTH - 10}.0 10.0"' in drawn
        assert f'd="M{left}.0 10.0L{WIDTH - 10}.0 {bottom}.0"' in drawn  # without the nan
        assert '<g class="c0 d0">' in drawn and '<g class="c1 d1">' in drawn

    @pytest.mark.parametrize(
        "low, high, expected",
        [
            (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
            (1, 40, [10, 20, 30, 40]),
            (0.96, 1.04, [0.96, 0.98, 1.0, 1.02, 1.04]),
            (-3, 2, [-3, -2, -1, 0, 1, 2]),
        ],
    )
    def test_ticks_are_round_numbers(self, low, high, expected):
        assert ticks(low, high) == expected
