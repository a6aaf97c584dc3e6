"""Findings compare the trainings of a study image by image."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from r2unet.errors import InputError
from r2unet.scores.metrics import bootstrap_interval
from r2unet.study.findings import Run, _check_same_images, agreement, collect, compare_runs, read_run
from r2unet.study.plan import read_plan
from r2unet.study.report import ORIGINALS
from r2unet.study.tables import as_markdown
from tests.r2unet.study.by_hand import new_plan, outline_report, write_run


def test_agreement_correlates_the_jaccards_of_all_pairs_of_trainings(study):
    out, _ = study
    findings = collect(out, read_plan(out))
    jaccards = [list(run.jaccards.values()) for finding in findings for run in finding.runs]
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in combinations(jaccards, 2)]
    agree = agreement(findings, same_images=True)
    assert agree.correlation == pytest.approx(np.mean(pairs))
    low = [i for i, values in enumerate(zip(*jaccards, strict=True)) if max(values) < 0.65]
    distance = 1 - np.mean(jaccards, axis=0)
    assert agree.always_low == len(low)
    assert agree.distance_share == pytest.approx(distance[low].sum() / distance.sum())
    assert f"have a correlation of {np.mean(pairs):.2f} on average" in (out / "table.md").read_text()
    alone = findings[0]._replace(runs=findings[0].runs[:1])
    assert agreement([alone], same_images=True) is None


def test_agreement_pairs_generated_lesions_only_within_a_seed(tmp_path):
    plan = new_plan(dict.fromkeys(("first", "second"), "outline"), data=None)
    shares = {
        ("first", 0): (0.9, 0.8, 0.2),
        ("second", 0): (0.8, 0.9, 0.4),
        ("first", 1): (0.2, 0.6, 0.9),
        ("second", 1): (0.6, 0.2, 1.0),
    }
    for task in plan.tasks(tmp_path):
        report = outline_report(shares[task.row.label, task.seed])
        write_run(task.folder, report, [{"epoch": 1, "validation_jaccard": 0.7}])
    findings = collect(tmp_path, plan)
    agree = agreement(findings, same_images=False)
    pairs = [np.corrcoef(shares["first", seed], shares["second", seed])[0, 1] for seed in (0, 1)]
    assert agree.correlation == pytest.approx(np.mean(pairs))
    assert agree.always_low == 3 and agree.distance_share == pytest.approx((0.7 + 0.6 + 0.6) / 2.25)
    text = as_markdown(plan, findings, [], False, "cpu")
    assert "generated lesions; 3 validation images for each seed, scored at" in text
    assert f"runs with the same seed have a correlation of {np.mean(pairs):.2f} on average. 3 images" in text
    text = as_markdown(plan._replace(seeds=(0,)), findings, [], False, "cpu")
    assert "Trained with 1 seed (0) on the cpu." in text
    single = [finding._replace(runs=finding.runs[i : i + 1]) for i, finding in enumerate(findings)]
    assert agreement(single, same_images=False) is None  # runs of two seeds


def test_a_difference_is_paired_over_images_and_averaged_over_seeds(study):
    out, _ = study
    by_seed = []
    for seed in (0, 1):
        scores = {
            row: json.loads((out / row / f"seed-{seed}/report.json").read_text())["model"]
            for row in ("u-net", "r2u-net")
        }
        a, b = (scores[row]["jaccard_by_image"] for row in ("r2u-net", "u-net"))
        by_seed.append([a[name] - b[name] for name in sorted(a)])
    values = np.mean(by_seed, axis=0)  # (images,)
    difference = json.loads((out / "results.json").read_text())["rows"][1]["difference"]
    assert difference["mean"] == pytest.approx(values.mean())
    assert difference["by_seed"]["1"] == pytest.approx(np.mean(by_seed[1]))
    assert difference["interval"] == bootstrap_interval(values, np.random.default_rng(0))


def test_generated_lesions_of_two_seeds_count_as_different_images(study):
    out, _ = study
    runs = [[read_run(out / row / f"seed-{seed}", seed) for seed in (0, 1)] for row in ("r2u-net", "u-net")]
    same, different = (compare_runs(*runs, same_images) for same_images in (True, False))
    assert same.mean == pytest.approx(different.mean) and same.by_seed == different.by_seed
    assert same.interval != different.interval


def test_a_study_without_a_finished_training_is_rejected(study, tmp_path):
    out, _ = study
    (tmp_path / "study.json").write_bytes((out / "study.json").read_bytes())
    with pytest.raises(InputError, match="no training run of this study is finished"):
        collect(tmp_path, read_plan(tmp_path))


def test_a_run_that_was_scored_on_other_images_is_named():
    def run(seed, *images):
        scores = {"model": {"jaccard_by_image": dict.fromkeys(images, 0.5)}}
        return Run(seed, Path(f"run-{seed}-{''.join(images)}"), None, [], scores, None)

    _check_same_images([run(0, "a", "b"), run(0, "b", "a"), run(1, "c")], same_images=False)
    with pytest.raises(InputError, match="run-0-c: was scored on other images than run-0-ab; delete"):
        _check_same_images([run(0, "a", "b"), run(1, "c"), run(0, "c")], same_images=False)
    with pytest.raises(InputError, match="run-1-c: was scored on other images"):
        _check_same_images([run(0, "a", "b"), run(1, "c")], same_images=True)


def test_an_invalid_report_is_named(study, tmp_path):
    out, _ = study
    for name in ("report.json", "history.csv"):
        (tmp_path / name).write_bytes((out / "u-net/seed-0" / name).read_bytes())
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(InputError, match="report.json: is invalid"):
        read_run(tmp_path, 0)


class TestRowsOfUnlikeSizes:
    @pytest.fixture
    def plan(self, tmp_path):
        plan = new_plan(dict.fromkeys(("first", "small", "large"), "outline"))
        variants = [row._replace(changes={**row.changes, "size": 32}) for row in plan.study.variants[2:]]
        plan = plan._replace(study=plan.study._replace(variants=(*plan.study.variants[:2], *variants)))
        for task in plan.tasks(tmp_path):
            report = outline_report((0.9, 0.8, 0.4 + task.seed / 10 + task.row.settings.epochs / 10))
            write_run(task.folder, report, [{"epoch": 1, "validation_jaccard": 0.7}])
            (task.folder / ORIGINALS).write_text(json.dumps(report))
        return plan

    def test_are_named_and_not_compared(self, tmp_path, plan):
        findings = collect(tmp_path, plan)
        assert [finding.difference is None for finding in findings] == [True, False, True]
        text = as_markdown(plan, findings, [], False, "cpu")
        assert "scored at 16 x 16 pixels (first, small) and 32 x 32 pixels (large), with" in text
        assert "A row at another size than first has no difference; --originals scores all at the" in text
        assert "baselines on the same images, at 16 x 16 pixels:" in text and "correlation" not in text

    def test_are_compared_at_the_original_size(self, tmp_path, plan):
        findings = collect(tmp_path, plan, ORIGINALS)
        assert findings[2].difference.mean == pytest.approx(0.2 / 3)
        text = as_markdown(plan, findings, [], True, "cpu")
        assert "scored at their original size, with" in text and "has no difference" not in text
        assert "correlation" in text and "baselines on the same images:" in text
