"""The report of a study has the numbers of its trainings, in tables and pictures."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet.study import report, studies
from r2unet.study.findings import collect
from r2unet.study.plan import read_plan
from r2unet.study.report import factor_panels
from r2unet.study.studies import STUDIES
from tests.r2unet.study.conftest import SMALL, read_table

PICTURES = {"bars.png", "curves.png", "overlays.png"}


def test_the_csv_table_has_the_scores_of_each_training(study):
    out, _ = study
    lines = read_table(out)
    assert [(line["variant"], line["seed"]) for line in lines] == [
        ("U-Net", "0"),
        ("U-Net", "1"),
        ("R2U-Net", "0"),
        ("R2U-Net", "1"),
    ]
    for line in lines:
        folder = out / line["variant"].lower() / f"seed-{line['seed']}"
        history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
        jaccards = [float(row["validation_jaccard"]) for row in history]
        assert float(line["jaccard"]) == pytest.approx(max(jaccards), abs=1e-12)
        assert int(line["best_epoch"]) == 1 + jaccards.index(max(jaccards))
        assert (line["epochs"], line["images"]) == ("2", "3")
        best = history[int(line["best_epoch"]) - 1]
        for name in ("dice", "thresholded_jaccard", "accuracy", "sensitivity", "specificity"):
            assert float(line[name]) == pytest.approx(float(best[f"validation_{name}"]), abs=1e-12)


def test_the_markdown_table_has_the_mean_and_the_range_of_the_seeds(study):
    out, _ = study
    text = (out / "table.md").read_text()
    for variant in ("U-Net", "R2U-Net"):
        values = [float(line["jaccard"]) for line in read_table(out) if line["variant"] == variant]
        cell = f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {variant} |")]
        assert cell in line
    assert "2 seeds (0,1)" in text and "Otsu's threshold" in text and "Not finished" not in text


def test_the_json_file_has_what_is_needed_to_repeat_the_study(study, isic_root):
    out, _ = study
    results = json.loads((out / "results.json").read_text())
    assert (results["study"], results["seeds"], results["unfinished"]) == ("own", [0, 1], [])
    assert results["settings"]["data"] == str(isic_root) and results["machine"]["device"] == "cpu"
    first, second = results["rows"]
    assert (first["settings"]["model"], second["settings"]["steps"]) == ("unet", 1)
    assert first["difference"] is None and len(second["runs"][1]["history"]) == 2
    assert [run["seconds"] > 0 for row in results["rows"] for run in row["runs"]] == [True] * 4


def test_the_json_file_has_the_commit(study):
    out, _ = study
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    git = subprocess.run(command, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("this is not a git repository")
    commit = json.loads((out / "results.json").read_text())["commit"]
    assert commit.removesuffix("-dirty") == git.stdout.strip()


@pytest.mark.parametrize("words", [["--only-report"], []])
def test_a_report_names_the_machine_that_trained_and_not_its_own(r2unet, study, tmp_path, monkeypatch, words):
    out = tmp_path / "study"
    shutil.copytree(study[0], out)
    trained = json.loads((out / "results.json").read_text())["machine"]
    monkeypatch.setattr(report, "describe", lambda device: "another device")
    monkeypatch.setattr(os, "cpu_count", lambda: 12345)
    assert r2unet("compare", "own", "--out", out, "--device", "cpu", *words)[0] == 0
    assert json.loads((out / "results.json").read_text())["machine"] == trained
    assert "Trained with 2 seeds (0,1) on the cpu." in (out / "table.md").read_text()

    (out / "results.json").write_text("{}")  # the machine is unknown now
    assert r2unet("compare", "own", "--out", out, "--device", "cpu", *words)[0] == 0
    assert json.loads((out / "results.json").read_text())["machine"] is None
    assert "Trained with 2 seeds (0,1).\n" in (out / "table.md").read_text()


def test_the_pictures_are_drawn(study):
    out, _ = study
    assert {path.name for path in out.glob("*.png")} == PICTURES
    for name in PICTURES:
        with Image.open(out / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    with Image.open(out / "overlays.png") as picture:  # three images of 32 x 24 pixels
        assert picture.height == pytest.approx(150 * (0.7 + 3 * (1.5 * 24 / 32 + 0.06)), abs=2)


def test_originals_are_scored_as_evaluate_does(study, r2unet, isic_root):
    out, _ = study
    code, _, _ = r2unet("compare", "own", "--only-report", "--originals", "--out", out)
    checkpoint = out / "u-net/seed-0/best.npz"
    evaluated = r2unet("evaluate", "--checkpoint", checkpoint, "--data", isic_root, "--json")[1]
    assert code == 0
    expected = json.loads(evaluated)["scores"]["model"]["mean"]
    assert float(read_table(out)[0]["jaccard"]) == pytest.approx(expected["jaccard"])
    assert "scored at their original size" in (out / "table.md").read_text()
    assert r2unet("compare", "own", "--only-report", "--out", out)[0] == 0  # restores the report


def test_the_study_of_norms_has_scores_in_train_mode(r2unet, tmp_path):
    words = ["--images", 6, "--seeds", 0, "--epochs", 1, *SMALL[:3], "--device", "cpu"]
    code, stdout, _ = r2unet("compare", "norm", *words, "--out", tmp_path)
    assert code == 0 and "Jaccard, train mode" in stdout
    for line in read_table(tmp_path):
        folder = tmp_path / line["variant"].lower().replace(", ", "-") / "seed-0"
        modes = json.loads((folder / "modes.json").read_text())
        assert float(line["jaccard_train_mode"]) == modes["jaccard_train_mode"]
        assert float(line["jaccard"]) == pytest.approx(modes["jaccard_eval_mode"])
        if "group" in line["variant"]:
            assert line["jaccard_train_mode"] == line["jaccard_eval_mode"]


def test_the_tuning_study_draws_a_panel_for_each_factor(r2unet, tmp_path, monkeypatch):
    factors = {"lr": (1e-3, 1e-2), "loss": ("bce", "bce+dice"), "steps": (2, 0)}
    small = STUDIES["tuning"]._replace(variants=studies._one_at_a_time(**factors), factors=tuple(factors))
    monkeypatch.setitem(STUDIES, "tuning", small)
    words = ["--images", 6, "--seeds", 0, "--epochs", 1, *SMALL[:3], "--device", "cpu"]
    assert r2unet("compare", "tuning", *words, "--out", tmp_path)[0] == 0
    assert (tmp_path / "factors.png").exists()
    plan = read_plan(tmp_path)
    panels = factor_panels(plan, collect(tmp_path, plan))
    assert {name: [(p.value, p.given) for p in points] for name, points in panels.items()} == {
        "lr": [("0.001", True), ("0.01", False)],
        "loss": [("bce+dice", True), ("bce", False)],
        "steps": [("0", False), ("2", True)],
    }
    jaccards = {line["variant"]: float(line["jaccard"]) for line in read_table(tmp_path)}
    assert panels["lr"][1].jaccards == [jaccards["lr 0.01"]]
