"""A table of diagnoses gets the scores of the ISIC challenge's official tool."""

import json
from pathlib import Path

import numpy as np
import pytest

from r2unet.diagnosis.score import as_table, score_diagnoses
from r2unet.errors import InputError

# Stored by store_scores.py: isic-challenge-scoring 5.6.0.
CASES = json.loads(Path(__file__).with_name("stored_scores.json").read_text())["challenge"]


@pytest.fixture
def files(tmp_path):
    """Return a function that writes the truth and the predictions."""

    def write(truth: str, predictions: str) -> tuple[Path, Path]:
        paths = tmp_path / "truth.csv", tmp_path / "predictions.csv"
        for path, text in zip(paths, (truth, predictions), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    return write


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
class TestEqualsTheOfficialTool:
    def test_in_every_number(self, files, case):
        scores, official = score_diagnoses(*files(case["truth"], case["predictions"])), case["scores"]
        assert scores["images"] == 60
        assert scores["overall"] == pytest.approx(official["overall"], abs=1e-12)
        assert scores["mean"] == pytest.approx(official["macro_average"], abs=1e-12)
        for metric, by_class in official["per_category"].items():
            ours = {name: values[metric] for name, values in scores["by_class"].items()}
            assert ours == pytest.approx(by_class, abs=1e-12)

    def test_in_what_ranks(self, files, case):
        scores, official = score_diagnoses(*files(case["truth"], case["predictions"])), case["scores"]
        if case["year"] == 2018:
            assert scores["ranked_by"] == "balanced_accuracy"
            expected = official["aggregate"]["balanced_accuracy"]
            assert scores["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
        else:
            assert scores["ranked_by"] == "auc" and "balanced_accuracy" not in scores
            assert scores["overall"] == scores["mean"]["auc"]
        if "validation_weight" in case["truth"]:
            assert scores["validation"] == pytest.approx(official["validation"], abs=1e-12)
            assert scores["validation"] != scores["overall"]
        else:
            assert "validation" not in scores

    def test_whatever_the_order_of_the_columns_of_the_truth(self, files, case):
        expected = score_diagnoses(*files(case["truth"], case["predictions"]))
        rows = [line.split(",") for line in case["truth"].splitlines()]
        for order in ([row[::-1] for row in rows], [row[:1] + row[:0:-1] for row in rows]):
            scores = score_diagnoses(*files("\n".join(map(",".join, order)), case["predictions"]))
            assert scores["by_class"] == expected["by_class"]
            assert scores["ranked_by"] == expected["ranked_by"]
            assert scores["overall"] == pytest.approx(expected["overall"], abs=1e-12)

    def test_whatever_the_order_of_rows(self, files, case):
        head, *rows = case["predictions"].splitlines()
        expected = score_diagnoses(*files(case["truth"], case["predictions"]))
        assert score_diagnoses(*files(case["truth"], "\n".join([head, *sorted(rows)]))) == expected


TRUTH = """image,MEL,NV
ISIC_0000001,1.0,0.0
ISIC_0000002,0.0,1.0
ISIC_0000003,0.0,1.0
"""
PREDICTIONS = """image,MEL,NV
ISIC_0000001,0.5,0.5
ISIC_0000002,0.1,0.9
ISIC_0000003,0.6,0.4
"""


def test_by_hand(files):
    scores = score_diagnoses(*files(TRUTH, PREDICTIONS))
    assert scores["overall"] == (0 + 1 / 2) / 2  # the first image is undecided, and the third is wrong
    melanoma = scores["by_class"]["MEL"]
    assert (melanoma["sensitivity"], melanoma["specificity"]) == (0, 1 / 2)  # .5 is not above .5
    assert melanoma["auc"] == 1 / 2 and melanoma["ap"] == 1 / 2 and melanoma["ppv"] == 0


def test_a_class_without_images_is_undefined_and_left_out_of_means(files):
    truth, predictions = TRUTH.replace("NV\n", "NV,DF\n"), PREDICTIONS.replace("NV\n", "NV,DF\n")
    truth, predictions = (text.replace("\nISIC", ",0.0\nISIC", 3) for text in (truth, predictions))
    truth, predictions = (
        text.replace("NV,DF,0.0", "NV,DF").rstrip() + ",0.0\n" for text in (truth, predictions)
    )
    scores, two = score_diagnoses(*files(truth, predictions)), score_diagnoses(*files(TRUTH, PREDICTIONS))
    assert scores["by_class"]["DF"]["auc"] is scores["by_class"]["DF"]["ap"] is None
    assert scores["by_class"]["DF"]["sensitivity"] == 1  # 0 / 0
    assert scores["overall"] == two["overall"]
    for metric in ("auc", "ap", "auc_sens_80"):
        assert scores["mean"][metric] == pytest.approx(two["mean"][metric])
    json.dumps(scores, allow_nan=False)


def test_a_score_that_is_undefined_is_a_dash_in_the_table(files):
    truth = "image,melanoma,seborrheic_keratosis\nISIC_0000001,0.0,0.0\nISIC_0000002,0.0,0.0\n"
    scores = score_diagnoses(*files(truth, truth))
    assert scores["overall"] is None
    first, *rows = as_table(scores).splitlines()
    assert first == "2 images; ranked by auc: -"
    assert rows[-1].split() == ["mean", *["1.0000"] * 6, "-", "-", "-"]


def test_accepts_image_id_and_the_ending_jpg_and_a_byte_order_mark(files):
    predictions = "\ufeff" + PREDICTIONS.replace("image", "image_id").replace("01,", "01.JPG,")
    assert score_diagnoses(*files(TRUTH, predictions)) == score_diagnoses(*files(TRUTH, PREDICTIONS))


def test_whole_numbers_are_numbers(files):
    predictions = "image,MEL,NV\nISIC_0000001,1,0\nISIC_0000002,0,1\nISIC_0000003,0,1\n"
    assert score_diagnoses(*files(TRUTH, predictions))["overall"] == 1


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("ISIC_0000002,0.1,0.9\n", "", "no row for ISIC_0000002 of "),
        ("ISIC_0000002,0.1,0.9\nISIC_0000003,0.6,0.4\n", "", "no row for ISIC_0000002 (and 1 more) of "),
        ("0.4\n", "0.4\nISIC_0000009,0.6,0.4\n", "line 5: ISIC_0000009 is not in "),
        ("ISIC_0000003", "ISIC_0000002.jpg", "line 4: ISIC_0000002 is also on line 3; remove one"),
        ("0.9", "1.2", "line 3 (ISIC_0000002): NV is '1.2'; write a number in [0, 1]"),
        ("0.9", "-0.1", "line 3 (ISIC_0000002): NV is '-0.1'; write a number in [0, 1]"),
        ("0.9", "nan", "line 3 (ISIC_0000002): NV is 'nan'; write a number in [0, 1]"),
        ("0.9", "high", "line 3 (ISIC_0000002): NV is 'high'; write a number in [0, 1]"),
        ("0.9", "", "line 3 (ISIC_0000002): NV is empty; write a number in [0, 1]"),
        ("0.1,0.9", "0.9", "line 3 (ISIC_0000002): has 2 values, but the header has 3; correct the row"),
        ("image,", "lesion,", "has no column image; name the columns in the first line"),
        ("MEL,NV", "MEL,DF", "has no column NV; add it"),
        ("MEL,NV", "MEL,MEL", "has two columns MEL; remove one"),
        (PREDICTIONS, PREDICTIONS.replace("\n", ",0.0\n").replace("NV,0.0", "NV,DF"), "unknown column DF"),
        (PREDICTIONS, "", "needs a header and a row for each image; add them"),
        (PREDICTIONS, "image,MEL,NV\n", "needs a header and a row for each image; add them"),
    ],
)
def test_predictions_that_are_refused(files, old, new, message):
    truth, predictions = files(TRUTH, PREDICTIONS.replace(old, new))
    with pytest.raises(InputError) as caught:
        score_diagnoses(truth, predictions)
    assert str(caught.value).startswith(f"{predictions}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("1.0,0.0", "1.0,1.0", "line 2 (ISIC_0000001): expected a single 1, and 0 elsewhere"),
        ("1.0,0.0", "0.0,0.0", "line 2 (ISIC_0000001): expected a single 1, and 0 elsewhere"),
        ("1.0,0.0", "0.5,0.0", "line 2 (ISIC_0000001): expected a single 1, and 0 elsewhere"),
        ("image,MEL,NV\n", "", "has no column image; name the columns in the first line"),
        (TRUTH, "image\nISIC_0000001\n", "has no column of a class; add one for each, such as MEL"),
    ],
)
def test_truths_that_are_refused(files, old, new, message):
    truth, predictions = files(TRUTH.replace(old, new), PREDICTIONS)
    with pytest.raises(InputError) as caught:
        score_diagnoses(truth, predictions)
    assert str(caught.value).startswith(f"{truth}: ") and message in str(caught.value)


def test_in_2017_no_1_is_a_nevus_and_two_are_refused(files):
    case = CASES["2017"]
    assert ",0.0,0.0\n" in case["truth"]
    truth, predictions = files(case["truth"].replace("0.0,0.0", "1.0,1.0", 1), case["predictions"])
    with pytest.raises(InputError, match="expected at most a single 1"):
        score_diagnoses(truth, predictions)


def test_files_that_cannot_be_read(files, tmp_path):
    truth, predictions = files(TRUTH, PREDICTIONS)
    with pytest.raises(InputError, match="nowhere.csv: cannot be read"):
        score_diagnoses(truth, tmp_path / "nowhere.csv")
    predictions.write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(InputError, match="is not a CSV file in UTF-8"):
        score_diagnoses(truth, predictions)
