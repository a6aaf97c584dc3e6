"""The report of a diagnosis: its numbers, its intervals, and which decision they belong to."""

import json

import numpy as np
import pytest

from r2unet.diagnosis import calibration
from r2unet.diagnosis.report import binary_report, diagnosis_report
from r2unet.diagnosis.tables import as_binary_table, as_table
from tests.r2unet.diagnosis.test_roc import CASES

CLASSES = ("melanoma", "seborrheic_keratosis", "nevus")
PRIOR = np.array([0.2, 0.1, 0.7])


def diagnoses(rng, images, prior=PRIOR):
    """Probabilities of classes, labels, and the names of lesions with one or two images."""
    labels = rng.choice(len(prior), images, p=prior)
    logits = rng.normal(size=(images, len(prior))) + 1.5 * np.eye(len(prior))[labels] + np.log(prior)
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True), labels, [f"lesion {i * 2 // 3}" for i in range(images)]


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    return diagnosis_report(*diagnoses(rng, 300), CLASSES, rng, PRIOR)


def numbers(tree, path=()):
    """Yield the path and the content of every number with an interval."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from [((*path, name), value)] if "interval" in value else numbers(value, (*path, name))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_equal_scikit_learn(case, rng):
    p, labels = np.array(case["probabilities"]), np.array(case["labels"])
    report = diagnosis_report(p, labels, range(len(p)), list("abcd"), rng)
    for metric in ("auc", "average_precision"):
        by_class = [report["by_class"][name][metric]["value"] for name in "abcd"]
        assert by_class == pytest.approx(case[metric], abs=1e-12)
        defined = [value for value in case[metric] if value is not None]
        mean = report["mean"][metric]["value"]
        assert mean == (pytest.approx(np.mean(defined), abs=1e-12) if defined else None)
    decision = report["decisions"]["argmax p"]
    assert decision["confusion"] == case["confusion"]
    for metric in ("accuracy", "balanced_accuracy"):
        assert decision[metric]["value"] == pytest.approx(case[metric], abs=1e-12)
    calibration = report["calibration"]
    assert calibration["negative_log_likelihood"]["value"] == pytest.approx(case["log_loss"], abs=1e-12)
    assert calibration["brier_score"]["value"] == pytest.approx(case["brier_score"], abs=1e-12)
    json.dumps(report, allow_nan=False)


class TestReport:
    def test_counts_images_and_lesions(self, report):
        assert report["images"] == 300 and report["lesions"] == 200 and report["classes"] == list(CLASSES)
        images = [values["images"] for values in report["by_class"].values()]
        assert sum(images) == 300
        confusion = np.array(report["decisions"]["argmax p"]["confusion"])
        assert confusion.sum(axis=1).tolist() == images  # rows are the truth

    def test_intervals_contain_the_value(self, report):
        found = dict(numbers(report))
        assert len(found) == 3 * 4 + 2 + 2 * (2 + 3 * 2) + 4
        for path, number in found.items():
            low, high = number["interval"]
            assert low < high
            # Resamples are noisier than the data, so the interval of the calibration error lies too high.
            assert low <= number["value"] <= high or path[-1] == "expected_calibration_error"

    def test_a_prior_adds_a_decision(self, report):
        plain, weighed = report["decisions"]["argmax p"], report["decisions"]["argmax p / prior"]
        assert weighed["balanced_accuracy"]["value"] > plain["balanced_accuracy"]["value"] + 0.05
        assert weighed["accuracy"]["value"] < plain["accuracy"]["value"]
        for name in ("melanoma", "seborrheic_keratosis"):  # the rare ones are found more often
            sensitivity = [
                decision["by_class"][name]["sensitivity"]["value"] for decision in (plain, weighed)
            ]
            assert sensitivity[1] > sensitivity[0]

    def test_without_a_prior_there_is_one_decision(self, rng):
        report = diagnosis_report(*diagnoses(rng, 50), CLASSES, rng)
        assert list(report["decisions"]) == ["argmax p"]

    def test_bins_hold_all_images_and_give_the_calibration_error(self, report):
        bins = report["calibration"]["bins"]
        assert len(bins) == 15 and sum(each["images"] for each in bins) == 300
        full = [each for each in bins if each["images"]]
        assert all(each["low"] < each["confidence"] <= each["high"] for each in full)
        error = sum(each["images"] * abs(each["accuracy"] - each["confidence"]) for each in full) / 300
        assert report["calibration"]["expected_calibration_error"]["value"] == pytest.approx(error)
        assert bins[0] == {"low": 0, "high": 1 / 15, "images": 0, "confidence": None, "accuracy": None}

    def test_exact_probabilities_have_a_calibration_error_like_that_by_chance(self, rng):
        p, _, lesions = diagnoses(rng, 300)
        labels = (rng.random((300, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)  # drawn from p
        found = diagnosis_report(p, labels, lesions, CLASSES, rng)["calibration"]
        low, high = found["error_by_chance"]["interval"]
        assert low < found["expected_calibration_error"]["value"] < high < 0.12

    def test_the_error_by_chance_changes_no_later_draw(self, monkeypatch):
        p, labels, lesions = diagnoses(np.random.default_rng(0), 40)
        following = []
        for draws in (10, 1000):
            rng = np.random.default_rng(5)
            monkeypatch.setattr(calibration.errors_by_chance, "__defaults__", (draws, 15))
            diagnosis_report(p, labels, lesions, CLASSES, rng)
            following.append(rng.random())
        assert following[0] == following[1]

    def test_is_reproducible_and_changes_no_input(self, rng):
        p, labels, lesions = diagnoses(rng, 60)
        before = p.copy(), labels.copy(), list(lesions)
        reports = [diagnosis_report(p, labels, lesions, CLASSES, np.random.default_rng(5)) for _ in range(2)]
        assert reports[0] == reports[1]
        np.testing.assert_array_equal(p, before[0])
        np.testing.assert_array_equal(labels, before[1])
        assert lesions == before[2]

    def test_the_interval_of_an_auc_contains_the_true_value(self):
        """Positives N(1, 1), negatives N(0, 1): AUC = Phi(1 / sqrt 2) = 0.7602. 60 data sets."""
        hits = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            labels = rng.integers(0, 2, 150)
            scores = 1 / (1 + np.exp(-rng.normal(size=150) - labels))
            low, high = binary_report(scores, labels, range(150), rng)["auc"]["interval"]
            hits += low <= 0.7602 <= high
        assert 53 <= hits <= 60


class TestBinaryReport:
    def test_equals_the_report_of_two_classes(self, rng):
        p, labels, lesions = diagnoses(rng, 80, np.array([0.6, 0.4]))
        binary = binary_report(p[:, 1], labels, lesions, np.random.default_rng(1))
        both = diagnosis_report(p, labels, lesions, ("benign", "malignant"), np.random.default_rng(1))
        for name in ("auc", "average_precision", "sensitivity_at_specificity", "specificity_at_sensitivity"):
            assert binary[name] == both["by_class"]["malignant"][name]
        decision = both["decisions"]["argmax p"]
        for name in ("accuracy", "balanced_accuracy"):
            assert binary[name] == decision[name]
        for name in ("sensitivity", "specificity"):
            assert binary[name] == decision["by_class"]["malignant"][name]
        assert binary["confusion"] == decision["confusion"]
        assert binary["positives"] == labels.sum() and binary["lesions"] == both["lesions"]
        assert binary["calibration"]["brier_score"]["value"] == pytest.approx(
            both["calibration"]["brier_score"]["value"]
        )

    def test_names_its_threshold(self, rng):
        scores, labels = np.array([0.1, 0.3, 0.3, 0.9]), np.array([0, 0, 1, 1])
        report = binary_report(scores, labels, list("abcd"), rng, threshold=0.3)
        assert report["decision"] == "score > 0.3" and report["confusion"] == [[2, 0], [1, 1]]
        assert report["sensitivity"]["value"] == 0.5 and report["specificity"]["value"] == 1

    def test_of_one_class_has_no_auc(self, rng):
        report = binary_report(np.array([0.2, 0.7]), np.array([1, 1]), list("ab"), rng)
        assert report["auc"] == {"value": None, "interval": None}
        assert report["sensitivity"]["value"] == 0.5 and report["specificity"]["value"] is None
        assert "undefined" in as_binary_table(report)


class TestTables:
    def test_show_every_class_with_intervals_and_say_which_decision(self, report):
        text = as_table(report)
        lines = text.splitlines()
        assert lines[0].startswith("300 images of 200 lesions")
        assert "decision: argmax p" in lines and "decision: argmax p / prior" in lines
        auc = report["by_class"]["melanoma"]["auc"]
        row = next(line for line in lines if line.startswith("melanoma"))
        assert f"{auc['value']:.3f} [{auc['interval'][0]:.3f}, {auc['interval'][1]:.3f}]" in row
        assert all(len(line) <= 130 and line == line.rstrip() for line in lines)

    def test_of_a_binary_report(self, rng):
        p, labels, lesions = diagnoses(rng, 80, np.array([0.6, 0.4]))
        report = binary_report(p[:, 1], labels, lesions, rng)
        text = as_binary_table(report)
        assert f"{report['auc']['value']:.3f} [" in text and "decision: score > 0.5" in text
        assert f"{labels.sum()} images positive" in text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"probabilities": np.full((3, 2), 0.5)}, "must be"),
        ({"probabilities": np.full((3, 3), 0.5)}, "sum to 1"),
        ({"probabilities": np.full((3, 3), np.nan)}, "sum to 1"),
        ({"labels": np.array([0, 1, 3])}, r"integers in 0\.\.2"),
        ({"labels": np.array([0.0, 1.0, 2.0])}, r"integers in 0\.\.2"),
        ({"lesions": ["a", "b"]}, "must be"),
    ],
)
def test_what_does_not_match_is_refused(rng, change, message):
    arguments = {
        "probabilities": np.full((3, 3), 1 / 3),
        "labels": np.array([0, 1, 2]),
        "lesions": ["a", "b", "c"],
        "classes": CLASSES,
        "rng": rng,
    }
    diagnosis_report(**arguments)
    with pytest.raises(ValueError, match=message):
        diagnosis_report(**{**arguments, **change})
