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
