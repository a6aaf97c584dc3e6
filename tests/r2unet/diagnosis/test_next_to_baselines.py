"""A diagnosis is scored next to its baselines, and a baseline that is not beaten is a warning."""

import numpy as np
import pytest

from r2unet.commands.messages import print_scores
from r2unet.diagnosis.evaluate import Diagnosed, Diagnoses, as_text, baseline_warnings

CLASSES = ("melanoma", "nevus")


def report(labels, melanoma, temperature=1.0):
    """The report of images with these true classes and these probabilities of a melanoma."""
    diagnoses = Diagnoses(CLASSES, 16, {"shares": [0.5, 0.5]}, temperature)
    for number, (label, p) in enumerate(zip(labels, melanoma, strict=True)):
        diagnoses.add(Diagnosed(f"{number}", f"{number}", label, np.array([p, 1.0 - p]), None))
    return diagnoses.report(np.random.default_rng(0))


@pytest.fixture(scope="module")
def not_better():
    return report([0, 0, 1, 1], [0.1, 0.9, 0.1, 0.9], temperature=2.0)


class TestWarnings:
    def test_include_an_equal_baseline(self, not_better):
        warning = "warning: the model's mean AUC 0.5000 does not beat class shares (0.5000)"
        assert baseline_warnings(not_better) == [warning]

    def test_are_printed_below_the_table(self, not_better, capsys):
        print_scores({"diagnosis": not_better})
        printed = capsys.readouterr()
        assert printed.err.splitlines() == baseline_warnings(not_better) and "class shares" in printed.out

    def test_are_none_for_a_better_model(self):
        assert baseline_warnings(report([0, 0, 1, 1], [0.9, 0.8, 0.1, 0.2])) == []

    def test_are_none_where_the_auc_is_undefined(self, capsys):
        scores = report([0, 0], [0.9, 0.8])
        assert scores["types"]["model"]["mean"]["auc"]["value"] is None
        print_scores({"diagnosis": scores})
        assert capsys.readouterr().err == ""


def test_the_columns_of_the_baselines_are_aligned(not_better):
    """Also next to the longest name, that of the model before its temperature."""
    lines = as_text(not_better).splitlines()
    rows = lines[next(i for i, line in enumerate(lines) if line.startswith("next to baselines")) :]
    names = [row.split("  ")[0] for row in rows]
    assert names == ["next to baselines", "model", "model before temperature", "class shares"]
    assert {len(row) for row in rows} == {24 + 4 * 24}


class TestLabelsThatSayOnlyBenignOrMalignant:
    """The types are summed: melanoma and actinic keratosis are malignant, a nevus is benign."""

    TYPES, SCORED = ("melanoma", "nevus", "actinic_keratosis"), ("benign", "malignant")
    P = np.array([[0.1, 0.4, 0.5], [0.3, 0.5, 0.2], [0.0, 0.45, 0.55], [0.2, 0.7, 0.1]])
    LABELS = (1, 1, 0, 0)  # P(malignant) is 0.6, 0.5, 0.55, 0.3: three of four pairs are in the right order

    @pytest.fixture
    def report(self):
        diagnoses = Diagnoses(self.TYPES, 16, {"shares": [0.2, 0.7, 0.1]}, 2.0, self.SCORED)
        for number, (label, p) in enumerate(zip(self.LABELS, self.P, strict=True)):
            diagnoses.add(Diagnosed(f"{number}", f"{number}", label, p, None))
        return diagnoses.report(np.random.default_rng(0))

    def test_the_scores_are_those_of_the_sum(self, report):
        model = report["types"]["model"]
        assert model["classes"] == list(self.SCORED)
        assert model["mean"]["auc"]["value"] == report["malignant"]["model"]["auc"]["value"] == 0.75
        # P(malignant) > 0.5 is right for the first, wrong for the third; 0.5 is no decision for malignant
        assert report["malignant"]["model"]["confusion"] == [[1, 1], [1, 1]]
        # The shares of the two in training are 0.7 and 0.3: malignant wins where its probability exceeds 0.3.
        decision = model["decisions"]["argmax p / prior"]
        assert decision["by_class"]["malignant"]["sensitivity"]["value"] == 1.0

    def test_each_image_has_two_probabilities(self, report):
        found = {name: entry["probabilities"] for name, entry in report["by_image"].items()}
        for name, malignant in zip("0123", (0.6, 0.5, 0.55, 0.3), strict=True):
            assert found[name] == pytest.approx([1 - malignant, malignant])
        assert [entry["class"] for entry in report["by_image"].values()] == [
            self.SCORED[label] for label in self.LABELS
        ]

    def test_the_temperature_is_undone_before_the_types_are_summed(self, report):
        squares = self.P**2 / np.sum(self.P**2, axis=1, keepdims=True)
        p = squares[:, [0, 2]].sum(axis=1)
        brier = 2 * np.mean((p - np.array(self.LABELS)) ** 2)
        found = report["malignant"]["model before temperature"]["calibration"]["brier_score"]["value"]
        assert found == pytest.approx(brier)

    def test_the_class_shares_are_summed(self, report):
        brier = np.mean(2 * (0.3 - np.array(self.LABELS)) ** 2)
        found = report["malignant"]["class shares"]["calibration"]["brier_score"]["value"]
        assert found == pytest.approx(brier)
