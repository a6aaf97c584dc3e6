"""Rows may predict outlines, diagnoses or both: tables and pictures show each where it belongs."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet.commands.main import main
from r2unet.study.diagnosis_findings import SCORES, diagnosed
from r2unet.study.findings import collect
from r2unet.study.plan import read_plan
from r2unet.study.plots import plot_aucs, plot_learning_curves
from r2unet.study.report import factor_panels, write_report
from r2unet.study.results import as_json
from r2unet.study.tables import as_csv, as_markdown
from r2unet.study.train_study import Resources
from tests.r2unet.conftest import write_lesion
from tests.r2unet.study.by_hand import (
    diagnosis_report,
    new_plan,
    outline_report,
    random_probabilities,
    write_run,
)
from tests.r2unet.study.conftest import SMALL, read_table

HERE = Path(__file__).parent
TASKS = {"mask": "outline", "two": "both", "class": "diagnosis"}
ROWS = [f"--variant={label}: task={task}" for label, task in TASKS.items()]
DIAGNOSES = {0: "1.0,0.0", 1: "0.0,1.0", 2: "0.0,0.0"}  # melanoma, seborrheic keratosis, nevus


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(text: str) -> list[dict[str, dict[str, str]]]:
    """The tables in a text: {row: {column: cell}} each."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("| ---")]
    found = []
    for start in starts:
        head = cells(lines[start - 1])
        end = next(i for i in range(start, len(lines) + 1) if not "".join(lines[i : i + 1]).startswith("|"))
        rows = [dict(zip(head, cells(line), strict=True)) for line in lines[start + 1 : end]]
        found.append({row[""]: row for row in rows})
    return found


def write_runs(out: Path, tasks: dict[str, str]) -> None:
    """Write two runs by hand for each row, with outlines and diagnoses according to its task."""
    for i, (label, task) in enumerate(tasks.items()):
        for seed in (0, 1):
            report, row = {}, {"epoch": 1}
            if task != "diagnosis":
                report |= outline_report([0.9, 0.7 + i / 10, 0.5 + seed / 10])
                row["validation_jaccard"] = 0.7
            if task != "outline":
                report |= diagnosis_report(random_probabilities(10 * seed + i))
                row["validation_auc"] = 0.6
            write_run(out / label / f"seed-{seed}", report, [row])


def test_the_tables_of_outlines_alone_do_not_mention_diagnoses(tmp_path):
    plan = new_plan(dict.fromkeys(("first", "second"), "outline"))
    jaccards = {"first": ((0.9, 0.7, 0.5), (0.8, 0.7, 0.4)), "second": ((0.9, 0.8, 0.6), (0.9, 0.7, 0.5))}
    for label, by_seed in jaccards.items():
        for seed, shares in enumerate(by_seed):
            scores = enumerate((0.3, 0.5, 0.6, 0.55, 0.7 + seed / 10), 1)
            history = [{"epoch": epoch, "validation_jaccard": score} for epoch, score in scores]
            write_run(tmp_path / label / f"seed-{seed}", outline_report(shares), history)
    findings = collect(tmp_path, plan)
    assert as_markdown(plan, findings, [], False, "cpu") == (HERE / "outlines_alone.md").read_text()
    assert as_csv(findings) == (HERE / "outlines_alone.csv").read_text()
    assert "diagnosis" not in as_json(plan, findings, [], False, None)["rows"][0]


def test_a_bar_in_a_label_does_not_end_its_cell(tmp_path):
    plan = new_plan({"a|b": "outline", "c": "outline"})
    for task in plan.tasks(tmp_path):
        write_run(task.folder, outline_report((0.9, 0.5)), [{"epoch": 1, "validation_jaccard": 0.7}])
    text = as_markdown(plan, collect(tmp_path, plan), [], False, "cpu")
    assert "| Jaccard against a\\|b |" in text and "\n| a\\|b |" in text


class TestAStudyOfAllTasks:
    @pytest.fixture
    def plan(self):
        return new_plan(TASKS)

    @pytest.fixture
    def findings(self, tmp_path, plan):
        write_runs(tmp_path, TASKS)
        return collect(tmp_path, plan)

    def test_has_a_table_of_outlines_and_a_table_of_diagnoses(self, plan, findings):
        found = diagnosed(plan, findings)
        text = as_markdown(plan, findings, found, False, "cpu")
        outlines, diagnoses = tables(text)
        assert (list(outlines), list(diagnoses)) == (["mask", "two", "class"], ["two", "class"])
        columns = ("Jaccard", "thr. J", "Dice", "accuracy", "Jaccard against mask", "of each seed")
        assert [outlines["class"][name] for name in columns] == [""] * 6
        assert outlines["two"]["Jaccard"] == "0.7500 (0.7333 to 0.7667)"
        assert outlines["two"]["Jaccard against mask"].startswith("+0.0333")
        for finding in found:
            row = diagnoses[finding.row.label]
            for title, name in (("mean AUC", "auc"), ("malignant AUC", "malignant_auc")):
                spread = finding.score(name)
                assert row[title] == "{:.4f} ({:.4f} to {:.4f})".format(*spread)
        difference = found[1].difference
        assert diagnoses["class"]["of each seed"] == ", ".join(
            f"{v:+.4f}" for v in difference.by_seed.values()
        )
        assert diagnoses["class"]["mean AUC against two"].startswith(f"{difference.mean:+.4f} (")
        assert "12 validation images of 8 lesions have one of the 3 classes melanoma," in text
        assert "Baseline on the same images, class shares: mean AUC 0.5000" in text
        assert "the best Jaccard, the best mean AUC or, with both, the best sum of the two rose" in text

    def test_has_empty_cells_in_csv_for_what_a_row_does_not_predict(self, findings):
        lines = list(csv.DictReader(as_csv(findings).splitlines()))
        by_row = {line["variant"]: line for line in lines if line["seed"] == "0"}
        names = [name for name in lines[0] if name.startswith("diagnosis_")]
        assert names[:4] == [f"diagnosis_{n}" for n in ("images", "lesions", "auc", "malignant_auc")]
        assert names[-3:] == [f"diagnosis_auc_{n}" for n in ("melanoma", "seborrheic_keratosis", "nevus")]
        assert list(lines[0])[-1] == "seconds_per_epoch"
        assert {by_row["mask"][name] for name in names} == {""}
        assert {by_row["class"][name] for name in ("images", "jaccard", "pooled_dice")} == {""}
        aucs = [float(by_row["two"][name]) for name in names[-3:]]
        assert float(by_row["two"]["diagnosis_auc"]) == pytest.approx(np.mean(aucs))
        assert (by_row["two"]["images"], by_row["two"]["diagnosis_images"]) == ("3", "12")

    def test_has_both_in_json(self, plan, findings):
        found = diagnosed(plan, findings)
        results = as_json(plan, findings, found, False, None)
        mask, two, alone = json.loads(json.dumps(results))["rows"]
        assert "diagnosis" not in mask and alone["scores"] is None and alone["jaccard_interval"] is None
        assert two["scores"]["jaccard"]["mean"] == pytest.approx(0.75)
        assert two["diagnosis"]["scores"].keys() == SCORES.keys() and two["diagnosis"]["difference"] is None
        assert alone["diagnosis"]["difference"]["mean"] == found[1].difference.mean
        assert results["diagnosis_baselines"]["class shares"]["auc"] == 0.5
        assert results["baselines"] == {"Otsu's threshold": pytest.approx(0.2)}


class TestAStudyOfDiagnosesAlone:
    TASKS = {"one": "diagnosis", "other": "diagnosis"}

    def test_has_no_columns_of_outlines(self, tmp_path):
        write_runs(tmp_path, self.TASKS)
        plan = new_plan(self.TASKS)
        findings = collect(tmp_path, plan)
        text = as_markdown(plan, findings, diagnosed(plan, findings), False, "cpu")
        runs, diagnoses = tables(text)
        assert list(runs["one"]) == ["", "parameters", "s per epoch", "epochs", "best epoch", "last fifth"]
        assert len(diagnoses) == 2 and "Otsu" not in text and "Scores are means over images" not in text

    def test_has_pictures_of_the_auc(self, tmp_path):
        write_runs(tmp_path, self.TASKS)
        plan = new_plan(self.TASKS)
        findings = collect(tmp_path, plan)
        plot_learning_curves(findings, tmp_path / "curves.png")
        plot_aucs(diagnosed(plan, findings), tmp_path / "bars.png")
        for name in ("curves.png", "bars.png"):
            with Image.open(tmp_path / name) as picture:
                assert np.asarray(picture.convert("L")).std() > 5

    def test_has_no_panels_of_jaccards(self, tmp_path):
        write_runs(tmp_path, self.TASKS)
        plan = new_plan(self.TASKS)
        plan = plan._replace(study=plan.study._replace(factors=("epochs",)), shared=plan.rows[0].settings)
        assert factor_panels(plan, collect(tmp_path, plan)) == {}


@pytest.fixture(scope="session")
def all_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained study with a row for each task; tests only read it."""
    root = tmp_path_factory.mktemp("data") / "isic"
    for split, numbers in (("Training", range(12)), ("Validation", range(12, 18))):
        lines = ["image_id,melanoma,seborrheic_keratosis"]
        for number in numbers:
            write_lesion(root, split, number)
            lines.append(f"ISIC_{number:07},{DIAGNOSES[number % 3]}")
        (root / f"ISIC-2017_{split}_Part3_GroundTruth.csv").write_text("\n".join(lines))
    out = tmp_path_factory.mktemp("studies") / "tasks"
    words = ["compare", "own", *ROWS, *SMALL, "--epochs=1", "--seeds=0", "--data", str(root)]
    assert main([*words, "--out", str(out)]) == 0
    return out


class TestATrainedStudy:
    def test_draws_outlines_and_diagnoses(self, all_tasks):
        pictures = {"bars.png", "diagnosis_bars.png", "curves.png", "overlays.png"}
        assert {path.name for path in all_tasks.glob("*.png")} == pictures
        with Image.open(all_tasks / "overlays.png") as picture:  # the columns of the rows "mask" and "two"
            assert picture.width == pytest.approx(150 * (0.35 + 2 * 1.56), abs=2)

    def test_reports_the_scores_of_each_training(self, all_tasks):
        lines = {line["variant"]: line for line in read_table(all_tasks)}
        for label, task in TASKS.items():
            report = json.loads((all_tasks / label / "seed-0/report.json").read_text())
            jaccard, auc = "", ""
            if task != "diagnosis":
                jaccard = str(report["model"]["mean"]["jaccard"])
            if task != "outline":
                auc = str(report["diagnosis"]["types"]["model"]["mean"]["auc"]["value"])
            assert (lines[label]["jaccard"], lines[label]["diagnosis_auc"]) == (jaccard, auc)

    def test_has_a_regression_on_the_outlines(self, all_tasks):
        text = (all_tasks / "table.md").read_text()
        assert "Baseline on the same images, logistic regression on the outlines of two: mean AUC" in text

    def test_scores_only_outlines_at_the_original_size_and_in_train_mode(self, all_tasks, tmp_path):
        out = tmp_path / "copy"
        shutil.copytree(all_tasks, out)
        plan = read_plan(out)
        plan = plan._replace(study=plan.study._replace(modes=True))
        text = write_report(out, plan, Resources(), originals=True, log=lambda line: None)
        for name in ("modes.json", "report-originals.json"):
            assert sorted(path.parts[-3] for path in out.glob(f"*/*/{name}")) == ["mask", "two"]
        (outlines, diagnoses), before = tables(text), tables((all_tasks / "table.md").read_text())
        assert outlines["class"]["Jaccard, train mode"] == "" and outlines["two"]["Jaccard, train mode"]
        assert outlines["two"]["Jaccard"] != before[0]["two"]["Jaccard"]
        assert diagnoses == before[1]
        assert "scored at their original size" in text and "sees every image at 16 x 16 pixels" in text
