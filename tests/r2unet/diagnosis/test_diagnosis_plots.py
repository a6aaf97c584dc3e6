"""Figures of a diagnosis show a curve for each class, the gaps of calibration, and every count."""

import numpy as np
import pytest

from r2unet.diagnosis.plots import COLOURS, plot_confusion, plot_reliability, plot_roc, readable
from r2unet.diagnosis.report import diagnosis_report
from r2unet.errors import InputError
from r2unet.figures import VALIDATION
from tests.r2unet.pixels import count_pixels, read_pixels


def diagnoses(classes=3, images=90, occurring=3):
    rng = np.random.default_rng(0)
    labels = np.arange(images) % occurring
    p = np.exp(rng.normal(size=(images, classes)) + np.eye(classes)[labels])
    p /= p.sum(axis=1, keepdims=True)
    return p, labels, diagnosis_report(p, labels, range(images), [f"type_{k}" for k in range(classes)], rng)


def test_roc_has_a_curve_in_its_own_colour_for_each_class(tmp_path):
    plot_roc(*diagnoses(classes=7, occurring=7), tmp_path / "seven.png")
    for colour in COLOURS:
        assert count_pixels(tmp_path / "seven.png", colour) > 400


def test_roc_of_a_class_without_images_has_no_curve(tmp_path):
    plot_roc(*diagnoses(occurring=3), tmp_path / "three.png")
    plot_roc(*diagnoses(occurring=2), tmp_path / "two.png")
    drawn, left_out = (count_pixels(tmp_path / f"{name}.png", COLOURS[2]) for name in ("three", "two"))
    assert drawn > left_out + 400 and left_out > 50  # in the legend


def test_roc_is_better_where_the_classes_are_separated(tmp_path):
    """The curve of a perfect score is the upper left corner of the axes: no pixel below it."""
    labels = np.arange(60) % 2
    p = np.stack((0.9 - 0.8 * labels, 0.1 + 0.8 * labels), axis=1)
    report = diagnosis_report(p, labels, range(60), ("benign", "malignant"), np.random.default_rng(0))
    plot_roc(p, labels, report, tmp_path / "perfect.png")
    curve = np.abs(read_pixels(tmp_path / "perfect.png") - [0xD5, 0x5E, 0x00]).max(axis=2) <= 8
    rows, columns = np.nonzero(curve[:, :690])  # without the legend
    lower_right = (rows > 150) & (columns > 150)
    assert len(rows) > 400 and not lower_right.any()


def test_reliability_has_a_column_for_each_report(tmp_path):
    _, _, report = diagnoses()
    plot_reliability({"before": report}, tmp_path / "one.png")
    plot_reliability({"before": report, "after": report}, tmp_path / "two.png")
    assert read_pixels(tmp_path / "one.png").shape[1] == pytest.approx(150 * 4.35, abs=2)
    assert read_pixels(tmp_path / "two.png").shape[1] == pytest.approx(150 * 7.95, abs=2)
    one, two = (count_pixels(tmp_path / f"{name}.png", VALIDATION) for name in ("one", "two"))
    assert 1.6 * one < two < 2.2 * one  # the legend is drawn once


def test_reliability_of_empty_bins_is_not_drawn(tmp_path):
    labels = np.zeros(20, int)
    p = np.tile([0.97, 0.03], (20, 1))  # one bin
    report = diagnosis_report(p, labels, range(20), ("a", "b"), np.random.default_rng(0))
    plot_reliability({"one bin": report}, tmp_path / "bin.png")
    assert count_pixels(tmp_path / "bin.png", VALIDATION) > 50


def test_confusion_is_coloured_by_the_share_of_the_row(tmp_path):
    """Ten times as many images in a row change its counts, and not its colours."""
    plot_confusion([[9, 1], [2, 8]], ("benign", "malignant"), tmp_path / "few.png", "argmax p")
    plot_confusion([[90, 10], [20, 80]], ("benign", "malignant"), tmp_path / "many.png", "argmax p")
    few, many = read_pixels(tmp_path / "few.png"), read_pixels(tmp_path / "many.png")
    assert few.shape == many.shape
    assert np.mean(np.any(few != many, axis=2)) < 0.02  # the digits


def test_confusion_without_images_of_a_class(tmp_path):
    plot_confusion([[3, 1, 0], [0, 5, 0], [0, 0, 0]], ("a", "b", "c"), tmp_path / "empty_row.png")
    assert (tmp_path / "empty_row.png").stat().st_size > 5000


def test_an_unknown_format_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match=r"end the name in \.png"):
        plot_confusion([[1, 0], [0, 1]], ("a", "b"), tmp_path / "figure.xyz")
    assert not list(tmp_path.iterdir())


def test_names_are_readable():
    assert readable("basal_cell_carcinoma") == "basal cell carcinoma"
