"""Classes become distributions, smoothed and weighted; a part of the lesions is kept for calibration."""

from types import SimpleNamespace

import numpy as np
import pytest

from r2unet.data.classes import CLASSES
from r2unet.data.targets import CLASS_WEIGHTS, DiagnosisTargets, class_labels, for_calibration, lesion_of
from tests.r2unet.data.isic_folders import assert_refused

THREE = CLASSES["types-3"]


def sample(diagnosis, name="x", lesion=""):
    """Return as much of a Sample as the targets look at."""
    return SimpleNamespace(diagnosis=diagnosis, name=name, lesion=lesion)


def samples_of(**counts):
    """Return that many samples of each diagnosis, none of them kept for calibration."""
    names = (str(number) for number in range(10_000) if not for_calibration(sample(None, str(number))))
    return [sample(diagnosis, next(names)) for diagnosis, count in counts.items() for _ in range(count)]


CALIBRATED = next(str(number) for number in range(1000) if for_calibration(sample(None, str(number))))
# Relative weights 1, 1/2, 1/3 with "sqrt"; 1, 1/4, 1/9 with "balanced"
COUNTS = {"melanoma": 4, "seborrheic_keratosis": 16, "nevus": 36}


class TestLabels:
    def test_are_the_indices_of_the_classes(self):
        diagnoses = ["nevus", "melanoma", None, "seborrheic_keratosis", "malignant"]
        assert class_labels([sample(d) for d in diagnoses], THREE).tolist() == [2, 0, -1, 1, -1]
        assert class_labels([sample(d) for d in diagnoses], CLASSES["malignant"]).tolist() == [0, 1, -1, 0, 1]

    def test_the_lesion_of_an_image_is_its_own_or_the_name(self):
        assert lesion_of(sample(None, "ISIC_1", "HAM_1")) == "HAM_1"
        assert lesion_of(sample(None, "ISIC_1")) == "ISIC_1"


class TestCalibration:
    def test_a_tenth_of_the_lesions_is_kept(self):
        kept = [for_calibration(sample("nevus", f"ISIC_{number:07}")) for number in range(2000)]
        assert np.mean(kept) == pytest.approx(0.1, abs=0.02)

    def test_all_images_of_a_lesion_are_kept_or_none(self):
        for number in range(50):
            kept = {for_calibration(sample(None, f"{number} {view}", f"HAM_{number}")) for view in range(5)}
            assert len(kept) == 1

    def test_kept_images_count_for_no_class_and_have_the_target_zero(self):
        images = [*samples_of(**COUNTS), sample("melanoma", CALIBRATED)]
        targets = DiagnosisTargets(images, THREE, "balanced", smoothing=0.1)
        assert targets.counts.tolist() == [4, 16, 36] and targets.labels[-1] == -1
        assert targets(images)[-1].tolist() == [0, 0, 0]


class TestWeights:
    def test_are_equal_or_follow_a_power_of_the_counts(self):
        images = samples_of(**COUNTS)
        weights = {kind: DiagnosisTargets(images, THREE, kind).weights for kind in CLASS_WEIGHTS}
        assert weights["none"] == pytest.approx([1, 1, 1])
        # 56 images; the relative weights are 1/2, 1/4, 1/6 and sum to 4/2 + 16/4 + 36/6 = 12 over the images.
        assert weights["sqrt"] == pytest.approx([56 / 24, 56 / 48, 56 / 72])
        assert weights["balanced"] == pytest.approx([56 / 3 / 4, 56 / 3 / 16, 56 / 3 / 36])

    @pytest.mark.parametrize("kind", CLASS_WEIGHTS)
    @pytest.mark.parametrize("smoothing", [0.0, 0.3])
    def test_the_mean_weight_of_an_image_is_one(self, kind, smoothing):
        images = samples_of(**COUNTS)
        target = DiagnosisTargets(images, THREE, kind, smoothing)(images)  # (56, 3)
        assert target.dtype == np.float32
        assert target.sum(axis=1).mean() == pytest.approx(1)

    def test_with_balanced_weights_all_classes_have_the_same_total(self):
        images = samples_of(**COUNTS)
        target = DiagnosisTargets(images, THREE, "balanced")(images)
        assert target.sum(axis=0) == pytest.approx([56 / 3] * 3)

    def test_a_class_without_an_image_is_an_error_that_tells_what_there_is(self):
        images = samples_of(malignant=3, benign=5)  # ISIC 2016
        assert_refused(
            lambda: DiagnosisTargets(images, CLASSES["types-7"]),
            "--classes: no training image is of the class melanoma",
            "5 benign, 3 malignant",
            "choose other classes, or add images",
        )
        images = [*samples_of(melanoma=2, nevus=1), sample("seborrheic_keratosis", CALIBRATED), sample(None)]
        words = "class seborrheic_keratosis", "1 without a diagnosis"
        assert_refused(lambda: DiagnosisTargets(images, THREE), *words)


class TestTargets:
    def test_without_smoothing_a_class_is_one(self):
        images = samples_of(**COUNTS)
        target = DiagnosisTargets(images, THREE, "none")(images)
        assert target[[0, 4, 20]].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

    def test_smoothing_gives_every_class_an_equal_part(self):
        images = samples_of(**COUNTS)
        row = DiagnosisTargets(images, THREE, "none", smoothing=0.3)(images[:1])
        assert row == pytest.approx(np.array([[0.8, 0.1, 0.1]]))

    def test_weights_multiply_the_row(self):
        images = samples_of(**COUNTS)
        targets = DiagnosisTargets(images, THREE, "sqrt", smoothing=0.3)
        assert targets(images[-1:]) == pytest.approx(np.array([[0.1, 0.1, 0.8]]) * targets.weights[2])

    @pytest.mark.parametrize("diagnosis", [None, "malignant", "dermatofibroma"])
    def test_an_image_without_a_class_has_the_target_zero(self, diagnosis):
        targets = DiagnosisTargets(samples_of(**COUNTS), THREE, "sqrt", smoothing=0.3)
        assert targets([sample(diagnosis, "0")]).tolist() == [[0, 0, 0]]

    def test_the_order_is_that_of_the_batch(self):
        images = samples_of(**COUNTS)
        targets = DiagnosisTargets(images, THREE)
        assert np.array_equal(targets(images[::-1]), targets(images)[::-1])


class TestSampling:
    def test_draws_all_classes_equally_often(self):
        images = samples_of(**COUNTS)
        targets = DiagnosisTargets(images, THREE)
        share = targets.sampling()
        assert share.shape == (56,) and share.sum() == pytest.approx(1)
        assert [share[targets.labels == k].sum() for k in range(3)] == pytest.approx([1 / 3] * 3)

    def test_images_without_a_class_keep_their_share(self):
        images = [*samples_of(**COUNTS), sample(None, "0"), sample("nevus", CALIBRATED)]
        targets = DiagnosisTargets(images, THREE)
        share = targets.sampling()
        assert share.sum() == pytest.approx(1)
        assert share[-2:] == pytest.approx([1 / 58] * 2)
        assert [share[targets.labels == k].sum() for k in range(3)] == pytest.approx([56 / 58 / 3] * 3)
