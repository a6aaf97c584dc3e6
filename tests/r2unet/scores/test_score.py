"""A folder of masks gets the scores of the ISIC challenge's official tool."""

import json

import numpy as np
import pytest
from PIL import Image

from r2unet.errors import InputError
from r2unet.scores.score import find_mask_pairs, score_folders

# What isic-challenge-scoring 5.6.0 printed for `random_masks(0)` and `random_masks(1)`.
OFFICIAL = {
    0: {
        "accuracy": 0.7918532313951833,
        "sensitivity": 0.8761608601415436,
        "specificity": 0.8175594130125337,
        "jaccard": 0.6067183343492581,
        "thresholded_jaccard": 0.47975848909741836,
        "dice": 0.6667879712383653,
    },
    1: {
        "accuracy": 0.7567428867672792,
        "sensitivity": 0.7652460102440217,
        "specificity": 0.8527242213113004,
        "jaccard": 0.5021623249757046,
        "thresholded_jaccard": 0.41103498590071486,
        "dice": 0.5465079774004338,
    },
}


def random_masks(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """40 pairs of true and predicted mask: small, of any size, good, bad, empty and full."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(40):
        shape = tuple(rng.integers(1, 40, size=2))
        truth = rng.random(shape) < rng.choice([0, 0.2, 0.5, 1])
        wrong = rng.random(shape) < rng.choice([0, 0.05, 0.4])
        prediction = truth ^ wrong if rng.random() < 0.7 else rng.random(shape) < rng.choice([0, 0.5, 1])
        pairs.append((truth, prediction))
    return pairs


def as_greys(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as a recompressed file may store it: lesion is any value above 128."""
    return np.where(mask, rng.integers(129, 256, mask.shape), rng.integers(0, 129, mask.shape)).astype(
        np.uint8
    )


@pytest.fixture
def folders(tmp_path):
    """Return a function that writes pairs of masks into two folders; a mask is boolean or uint8."""

    def write(pairs, first=0):
        for i, (truth, prediction) in enumerate(pairs, first):
            for folder, array, ending in (
                ("truth", truth, "segmentation"),
                ("predictions", prediction, "segmentation_prediction"),
            ):
                (tmp_path / folder).mkdir(exist_ok=True)
                values = array if array.dtype == np.uint8 else np.where(array, 255, 0).astype(np.uint8)
                Image.fromarray(values).save(tmp_path / folder / f"ISIC_{i:07}_{ending}.png")
        return tmp_path / "truth", tmp_path / "predictions"

    return write


HALF = np.array([[True, False], [True, False]])
NONE, ALL = HALF & False, HALF | True


class TestScores:
    @pytest.mark.parametrize("seed", OFFICIAL)
    def test_are_those_of_the_official_tool(self, folders, seed):
        mean = score_folders(*folders(random_masks(seed)))["mean"]
        assert mean == pytest.approx(OFFICIAL[seed], abs=1e-12)

    def test_treat_values_above_128_as_lesion(self, folders, rng):
        pairs = [(as_greys(truth, rng), as_greys(prediction, rng)) for truth, prediction in random_masks(0)]
        assert score_folders(*folders(pairs))["mean"] == pytest.approx(OFFICIAL[0], abs=1e-12)

    @pytest.mark.parametrize(
        "truth, prediction, expected",
        [
            (NONE, NONE, {"jaccard": 1, "dice": 1, "sensitivity": 1, "specificity": 1, "accuracy": 1}),
            (NONE, HALF, {"jaccard": 0, "dice": 0, "sensitivity": 1, "specificity": 0.5, "accuracy": 0.5}),
            (HALF, NONE, {"jaccard": 0, "dice": 0, "sensitivity": 0, "specificity": 1, "accuracy": 0.5}),
            (ALL, ALL, {"jaccard": 1, "dice": 1, "sensitivity": 1, "specificity": 1, "accuracy": 1}),
            (ALL, HALF, {"jaccard": 0.5, "dice": 2 / 3, "sensitivity": 0.5, "specificity": 1}),
        ],
    )
    def test_are_1_where_a_ratio_is_undefined(self, folders, truth, prediction, expected):
        scores = score_folders(*folders([(truth, prediction)]))
        for name, value in expected.items():
            assert scores["mean"][name] == scores["by_image"]["ISIC_0000000"][name] == pytest.approx(value)

    def test_of_all_images_average_to_the_mean(self, folders):
        scores = score_folders(*folders(random_masks(0)))
        assert scores["images"] == len(scores["by_image"]) == 40
        for name, mean in scores["mean"].items():
            assert np.mean([each[name] for each in scores["by_image"].values()]) == pytest.approx(mean)


class TestMatching:
    def test_uses_the_seven_digits_anywhere_in_the_name(self, folders):
        truth, predictions = folders([(HALF, HALF), (ALL, NONE)])
        (predictions / "ISIC_0000000_segmentation_prediction.png").rename(predictions / "z_0000000.png")
        pairs = find_mask_pairs(truth, predictions)
        assert [(pair.name, pair.prediction.name) for pair in pairs] == [
            ("ISIC_0000000", "z_0000000.png"),
            ("ISIC_0000001", "ISIC_0000001_segmentation_prediction.png"),
        ]

    def test_ignores_other_files(self, folders):
        truth, predictions = folders([(HALF, HALF)])
        for path in (truth / "LICENSE.txt", truth / "ISIC_0000000_superpixels.png", truth / "._ISIC_x.png"):
            path.write_text("something else")
        for name in ("history.csv", ".DS_Store", "ISIC_0000000_overlay.png"):
            (predictions / name).write_text("something else")
        assert score_folders(truth, predictions)["mean"]["jaccard"] == 1


def rejection(folders) -> str:
    with pytest.raises(InputError) as caught:
        score_folders(*folders)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestRejected:
    @pytest.fixture
    def three(self, folders):
        return folders([(HALF, HALF)] * 3)

    def prediction(self, three, number=1):
        return three[1] / f"ISIC_{number:07}_segmentation_prediction.png"

    def test_a_missing_prediction(self, three):
        self.prediction(three).unlink()
        message = rejection(three)
        assert message.startswith(str(three[0] / "ISIC_0000001_segmentation.png")) and "0000001" in message

    def test_a_second_prediction(self, three):
        (three[1] / "copy_of_0000001.png").write_bytes(self.prediction(three).read_bytes())
        message = rejection(three)
        assert message.startswith(str(three[1] / "copy_of_0000001.png"))
        assert message.endswith(f"{self.prediction(three).name} is of the same image; remove one of the two")

    def test_a_prediction_without_a_true_mask(self, three):
        (three[0] / "ISIC_0000001_segmentation.png").unlink()
        (three[0] / "ISIC_0000002_segmentation.png").unlink()
        message = rejection(three)
        assert message.startswith(f"{self.prediction(three)} (and 1 more): no mask in {three[0]}")

    def test_a_second_true_mask_and_one_without_number(self, three):
        twin = three[0] / "isic_0000000.png"
        twin.write_bytes((three[0] / "ISIC_0000000_segmentation.png").read_bytes())
        assert "is of the same image; remove one of the two" in rejection(three)
        twin.rename(three[0] / "lesion.png")
        assert rejection(three).startswith(f"{three[0] / 'lesion.png'}: the name does not contain ISIC_")

    def test_another_size(self, three):
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(self.prediction(three))
        message = rejection(three)
        assert (
            message.startswith(f"{self.prediction(three)}: is 4 x 3 pixels and ISIC_0000001")
            and "2 x 2" in message
        )

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
    def test_more_than_one_channel_of_eight_bits(self, three, mode):
        Image.new(mode, (2, 2)).save(self.prediction(three))
        assert rejection(three).startswith(f"{self.prediction(three)}: a mask is one channel of 8 bits")

    def test_a_jpeg_with_any_name(self, three):
        with open(self.prediction(three), "wb") as file:
            Image.new("L", (2, 2)).save(file, format="JPEG")
        assert rejection(three).startswith(f"{self.prediction(three)}: is not a PNG file")
        self.prediction(three).rename(three[1] / "ISIC_0000001.jpg")
        assert "ISIC_0000001.jpg: is not a PNG file" in rejection(three)

    def test_a_damaged_prediction(self, three):
        path = self.prediction(three)
        path.write_bytes(path.read_bytes()[:-30])
        assert rejection(three).startswith(f"{path}: ")

    def test_a_folder_without_masks_or_that_does_not_exist(self, three, tmp_path):
        (tmp_path / "empty").mkdir()
        for folders in ((tmp_path / "empty", three[1]), (three[0], tmp_path / "empty")):
            assert rejection(folders).startswith(f"{tmp_path / 'empty'}: contains no masks")
        assert rejection((three[0], tmp_path / "nowhere")).startswith(
            f"{tmp_path / 'nowhere'}: cannot be listed"
        )


class TestCommand:
    def test_prints_the_table_and_writes_every_score(self, r2unet, folders, tmp_path):
        truth, predictions = folders(random_masks(0))
        code, stdout, stderr = r2unet("score", truth, predictions, "--json", tmp_path / "new" / "s.json")
        assert code == 0 and stderr == "" and "mean over 40 images" in stdout
        assert f"{OFFICIAL[0]['jaccard']:10.4f}" in stdout
        assert json.loads((tmp_path / "new" / "s.json").read_text()) == score_folders(truth, predictions)

    def test_scores_the_output_of_predict_as_evaluate_does(self, r2unet, trained, isic, tmp_path):
        common = ("--checkpoint", trained / "best.npz")
        images, masks = isic / "ISIC-2017_Validation_Data", isic / "ISIC-2017_Validation_Part1_GroundTruth"
        assert r2unet("predict", *common, images, "--out", tmp_path / "p", "--overlay")[0] == 0
        assert r2unet("score", masks, tmp_path / "p", "--json", tmp_path / "s.json")[0] == 0
        scores = json.loads((tmp_path / "s.json").read_text())
        evaluated = json.loads(r2unet("evaluate", *common, "--data", isic, "--json")[1])["scores"]["model"]
        assert scores["mean"] == evaluated["mean"]

    def test_reports_an_error_in_one_line(self, r2unet, folders):
        truth, predictions = folders([(HALF, HALF)])
        code, stdout, stderr = r2unet("score", truth, predictions / "nowhere")
        assert code == 2 and stdout == "" and stderr.count("\n") == 1 and "nowhere" in stderr
