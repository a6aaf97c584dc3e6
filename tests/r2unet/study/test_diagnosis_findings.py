"""Findings compare the mean AUC of two rows on the same resampled lesions."""

import json
from itertools import product

import numpy as np
import pytest

from r2unet.diagnosis.bootstrap import RESAMPLES, draw_weights
from r2unet.errors import InputError
from r2unet.study.diagnosis_findings import baselines, diagnosed
from r2unet.study.findings import collect
from tests.r2unet.study.by_hand import (
    LABELS,
    LESIONS,
    diagnosis_report,
    new_plan,
    outline_report,
    random_probabilities,
    write_run,
)

AUC = [{"epoch": 1, "validation_auc": 0.7}]
BOTH = [{"epoch": 1, "validation_jaccard": 0.5, "validation_auc": 0.7}]
SKILLS = {"weak": 0.5, "strong": 2.0}


def mean_auc(probabilities: np.ndarray, labels: np.ndarray = LABELS) -> float:
    """The mean AUC by its definition, over all pairs of images; without classes that do not occur."""
    aucs = []
    for k in range(3):
        positives, negatives = probabilities[labels == k, k], probabilities[labels != k, k]
        if len(positives) and len(negatives):
            pairs = list(product(positives, negatives))
            aucs.append(sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs))
    return float(np.mean(aucs)) if aucs else np.nan


def write_diagnoses(out, plan, probabilities):
    """Write a run for each {(row, seed): probabilities (N, 3)}, and return the findings."""
    for (label, seed), p in probabilities.items():
        write_run(out / label / f"seed-{seed}", diagnosis_report(p), AUC)
    return diagnosed(plan, collect(out, plan))


@pytest.fixture
def plan():
    return new_plan(dict.fromkeys(SKILLS, "diagnosis"))


@pytest.fixture
def probabilities():
    """Random ones of two rows and two seeds."""
    return {
        (label, seed): random_probabilities(10 * seed + i, skill)
        for seed in (0, 1)
        for i, (label, skill) in enumerate(SKILLS.items())
    }


def resampled(weights: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """The mean AUC of each resample, weights (R, N), from copies of the images that were drawn."""
    copies = [np.repeat(np.arange(len(LABELS)), w.astype(int)) for w in weights]
    return [mean_auc(probabilities[chosen], LABELS[chosen]) for chosen in copies]


def quantiles(values: np.ndarray) -> list[float]:
    return list(np.nanquantile(values, (0.025, 0.975)))


def test_scores_are_means_over_seeds_with_the_lowest_and_the_highest(tmp_path, plan, probabilities):
    weak, strong = write_diagnoses(tmp_path, plan, probabilities)
    for finding in (weak, strong):
        aucs = [mean_auc(probabilities[finding.row.label, seed]) for seed in (0, 1)]
        assert finding.score("auc") == pytest.approx((np.mean(aucs), min(aucs), max(aucs)))
        right = [np.mean(probabilities[finding.row.label, s].argmax(axis=1) == LABELS) for s in (0, 1)]
        for name in ("accuracy", "balanced_accuracy"):  # all classes have four images, so they are equal
            assert finding.score(name).mean == pytest.approx(np.mean(right))
    melanoma = probabilities["weak", 0][:, 0]
    pairs = list(product(melanoma[LABELS == 0], melanoma[LABELS != 0]))
    assert weak.values("malignant_auc")[0] == pytest.approx(np.mean([p > n for p, n in pairs]))


def test_a_difference_is_that_of_the_mean_auc_over_common_seeds(tmp_path, plan, probabilities):
    del probabilities["strong", 0]
    weak, strong = write_diagnoses(tmp_path, plan, probabilities)
    aucs = {key: mean_auc(p) for key, p in probabilities.items()}
    assert weak.difference is None
    assert strong.difference.by_seed == {1: pytest.approx(aucs["strong", 1] - aucs["weak", 1])}
    assert strong.difference.mean == pytest.approx(strong.difference.by_seed[1])


def test_without_a_common_seed_there_is_no_difference(tmp_path, plan, probabilities):
    del probabilities["strong", 0], probabilities["weak", 1]
    assert [each.difference for each in write_diagnoses(tmp_path, plan, probabilities)] == [None, None]


def test_intervals_are_over_lesions_which_both_rows_and_all_seeds_share(tmp_path, plan, probabilities):
    weak, strong = write_diagnoses(tmp_path, plan, probabilities)
    weights = draw_weights(LESIONS, np.random.default_rng(0), RESAMPLES)
    aucs = {key: np.array(resampled(weights, p)) for key, p in probabilities.items()}
    by_row = {label: (aucs[label, 0] + aucs[label, 1]) / 2 for label in SKILLS}
    assert weak.interval == pytest.approx(quantiles(by_row["weak"]))
    assert strong.interval == pytest.approx(quantiles(by_row["strong"]))
    assert strong.difference.interval == pytest.approx(quantiles(by_row["strong"] - by_row["weak"]))


def test_two_rows_with_the_same_order_of_images_do_not_differ(tmp_path, plan, probabilities):
    for seed in (0, 1):
        probabilities["strong", seed] = probabilities["weak", seed]
    weak, strong = write_diagnoses(tmp_path, plan, probabilities)
    assert strong.difference == (0.0, [0.0, 0.0], {0: 0.0, 1: 0.0})
    assert weak.interval[1] - weak.interval[0] > 0.1


def test_generated_lesions_of_two_seeds_count_as_different_lesions(tmp_path, probabilities):
    plan = new_plan(dict.fromkeys(SKILLS, "diagnosis"), data=None)
    _, strong = write_diagnoses(tmp_path, plan, probabilities)
    lesions = [f"{seed}: {lesion}" for seed in (0, 1) for lesion in LESIONS]
    weights = draw_weights(lesions, np.random.default_rng(0), RESAMPLES)
    by_seed = np.split(weights, 2, axis=1)  # (R, 24) -> 2 x (R, 12)
    by_row = {
        label: np.mean([resampled(by_seed[s], probabilities[label, s]) for s in (0, 1)], axis=0)
        for label in SKILLS
    }
    assert strong.difference.interval == pytest.approx(quantiles(by_row["strong"] - by_row["weak"]))
    assert strong.difference.mean == pytest.approx(np.mean(list(strong.difference.by_seed.values())))


def test_rows_are_compared_with_the_first_row_that_has_diagnoses(tmp_path, probabilities):
    plan = new_plan({"mask": "outline", "weak": "both", "strong": "diagnosis", "other": "both"}, seeds=[0])
    mask = outline_report([0.8, 0.6])
    write_run(tmp_path / "mask/seed-0", mask, [{"epoch": 1, "validation_jaccard": 0.7}])
    worse = outline_report([0.8, 0.5]) | diagnosis_report(probabilities["weak", 0])
    write_run(tmp_path / "weak/seed-0", worse, BOTH)
    write_run(tmp_path / "strong/seed-0", diagnosis_report(probabilities["strong", 0]), AUC)
    better = outline_report([0.9, 0.6]) | diagnosis_report(probabilities["strong", 0])
    write_run(tmp_path / "other/seed-0", better, BOTH)
    findings = collect(tmp_path, plan)
    found = diagnosed(plan, findings)
    assert [each.row.label for each in found] == ["weak", "strong", "other"]
    assert [each.difference is None for each in found] == [True, False, False]
    assert found[1].difference == found[2].difference
    assert [f.outlines for f in findings] == [True, True, False, True]
    means = [f.difference and f.difference.mean for f in findings]  # of the Jaccard, to the row "mask"
    assert means == [None, pytest.approx(-0.05), None, pytest.approx(0.05)]


def test_the_best_epoch_has_the_best_sum_of_jaccard_and_auc(tmp_path, probabilities):
    plan = new_plan({"weak": "both"}, seeds=[0])
    scores = [(0.5, 0.5), (0.9, 0.3), (0.7, 0.7), (0.1, 0.9), (0.75, 0.71)]
    history = [
        {"epoch": i, "validation_jaccard": j, "validation_auc": a} for i, (j, a) in enumerate(scores, 1)
    ]
    report = outline_report([0.8]) | diagnosis_report(probabilities["weak", 0])
    write_run(tmp_path / "weak/seed-0", report, history[:4])
    write_run(tmp_path / "late/weak/seed-0", report, history)
    ((run,),) = [finding.runs for finding in collect(tmp_path, plan)]
    assert run.best_epoch == 3
    ((late,),) = [finding.runs for finding in collect(tmp_path / "late", plan)]
    assert late.best_epoch == 5 and late.gain_in_last_fifth == pytest.approx(0.06)


def test_an_auc_without_two_classes_is_undefined(tmp_path, plan, probabilities):
    for (label, seed), p in probabilities.items():
        write_run(tmp_path / label / f"seed-{seed}", diagnosis_report(p, np.full(12, 2)), AUC)
    for finding in diagnosed(plan, collect(tmp_path, plan)):
        assert finding.score("auc") is None and finding.interval is None and finding.difference is None
        assert finding.score("accuracy").mean > 0


def test_baselines_are_means_over_seeds(tmp_path, plan, probabilities):
    shares = baselines(write_diagnoses(tmp_path, plan, probabilities))
    assert shares == {
        "class shares": {
            "auc": 0.5,
            "malignant_auc": 0.5,
            "balanced_accuracy": pytest.approx(1 / 3),
            "accuracy": pytest.approx(1 / 3),
        }
    }


def test_rows_with_different_images_are_rejected(tmp_path, plan, probabilities):
    write_run(tmp_path / "weak/seed-0", diagnosis_report(probabilities["weak", 0]), AUC)
    other = diagnosis_report(probabilities["strong", 0], lesions=[*LESIONS[:-1], "g"])
    write_run(tmp_path / "strong/seed-0", other, AUC)
    with pytest.raises(InputError, match="strong, seed 0: its diagnoses are not of the same images.*of weak"):
        diagnosed(plan, collect(tmp_path, plan))


@pytest.mark.parametrize("missing", ["by_image", "malignant"])
def test_an_invalid_report_is_named(tmp_path, plan, probabilities, missing):
    report = diagnosis_report(probabilities["weak", 0])
    del report["diagnosis"][missing]
    write_run(tmp_path / "weak/seed-0", report, AUC)
    with pytest.raises(InputError, match=rf"report.json: is invalid \('{missing}'\); delete it"):
        diagnosed(plan, collect(tmp_path, plan))


def test_a_history_without_the_score_of_an_answer_is_named(tmp_path, plan, probabilities):
    report = diagnosis_report(probabilities["weak", 0])
    write_run(tmp_path / "weak/seed-0", report, [{"epoch": 1, "validation_jaccard": 0.5}])
    with pytest.raises(InputError, match="history.csv: is invalid"):
        collect(tmp_path, plan)
    assert json.loads((tmp_path / "weak/seed-0/report.json").read_text()) == report
