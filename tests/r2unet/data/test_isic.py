"""Pairs are found in the folders of every challenge, and mistakes in these folders are errors."""

import os

import pytest

from r2unet.data.isic import find_pairs
from tests.r2unet.data.isic_folders import (
    TABLE_2017,
    TRAINING_2017,
    VALIDATION_2017,
    add_lesions,
    assert_refused,
    write_image,
    write_mask,
)


def names(root, split="training"):
    return [pair.name for pair in find_pairs(root, split)]


class TestLayouts:
    @pytest.mark.parametrize(
        "split, images, masks, ending",
        [
            (
                "training",
                "ISBI2016_ISIC_Part1_Training_Data",
                "ISBI2016_ISIC_Part1_Training_GroundTruth",
                "_Segmentation",
            ),
            (
                "test",
                "ISBI2016_ISIC_Part1_Test_Data",
                "ISBI2016_ISIC_Part1_Test_GroundTruth",
                "_Segmentation",
            ),
            ("training", *TRAINING_2017, "_segmentation"),
            ("validation", *VALIDATION_2017, "_segmentation"),
            ("test", "ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", "_segmentation"),
            (
                "training",
                "ISIC2018_Task1-2_Training_Input",
                "ISIC2018_Task1_Training_GroundTruth",
                "_segmentation",
            ),
            (
                "validation",
                "ISIC2018_Task1-2_Validation_Input",
                "ISIC2018_Task1_Validation_GroundTruth",
                "_segmentation",
            ),
            ("test", "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", "_segmentation"),
        ],
    )
    def test_the_folders_of_every_challenge_are_found(self, tmp_path, split, images, masks, ending):
        add_lesions(tmp_path, (images, masks), ending=ending)
        pairs = find_pairs(tmp_path, "all")
        assert [pair.name for pair in pairs] == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
        assert pairs[1].image == tmp_path / images / "ISIC_0000002.jpg"
        assert pairs[1].mask == tmp_path / masks / f"ISIC_0000002{ending}.png"
        if split != "training":
            assert find_pairs(tmp_path, split) == pairs

    @pytest.mark.parametrize("ending", ["", "_segmentation", "_mask", "_MASK"])
    def test_plain_folders_match_by_name(self, tmp_path, ending):
        for stem in ("leg", "arm 2"):
            write_image(tmp_path / "images" / f"{stem}.PNG")
            write_mask(tmp_path / "masks" / f"{stem}{ending}.png")
        pairs = find_pairs(tmp_path, "all")
        assert [(pair.name, pair.mask.stem, pair.diagnosis) for pair in pairs] == [
            ("arm 2", f"arm 2{ending}", None),
            ("leg", f"leg{ending}", None),
        ]

    def test_case_is_ignored_and_other_files_are_skipped(self, tmp_path):
        images, masks = (tmp_path / folder for folder in TRAINING_2017)
        write_image(images / "isic_0000007.JPG")
        write_mask(masks / "ISIC_0000007_Segmentation.PNG")
        write_mask(images / "ISIC_0000007_superpixels.png")
        for name in ("._ISIC_0000008.jpg", ".DS_Store", "ATTRIBUTION.txt", "LICENSE.txt", "x_metadata.csv"):
            (images / name).write_text("no image")
        assert names(tmp_path, "all") == ["isic_0000007"]


class TestSplits:
    def test_official_splits_are_used(self, tmp_path):
        add_lesions(tmp_path, TRAINING_2017, range(20))
        add_lesions(tmp_path, VALIDATION_2017, range(20, 25))
        assert names(tmp_path) == [f"ISIC_{number:07}" for number in range(20)]
        assert names(tmp_path, "validation") == [f"ISIC_{number:07}" for number in range(20, 25)]
        assert names(tmp_path, "all") == [f"ISIC_{number:07}" for number in range(25)]

    def test_without_an_official_validation_split_a_fifth_is_held_out(self, tmp_path):
        add_lesions(tmp_path, numbers=range(500))
        training, validation = names(tmp_path), names(tmp_path, "validation")
        assert sorted(training + validation) == names(tmp_path, "all")
        assert not set(training) & set(validation)
        assert len(validation) / 500 == pytest.approx(0.2, abs=0.05)

    def test_the_same_images_are_held_out_on_every_machine(self, tmp_path):
        add_lesions(tmp_path, numbers=range(30))
        # The images for which `printf isic_0000009 | sha256sum` starts below 0x3333, a fifth of 0xffff.
        held_out = [f"ISIC_{number:07}" for number in (9, 12, 22, 25, 26, 28)]
        assert names(tmp_path, "validation") == held_out

    def test_adding_images_moves_no_other_image(self, tmp_path):
        add_lesions(tmp_path, numbers=range(40, 80))
        before = names(tmp_path, "validation")
        add_lesions(tmp_path, numbers=range(40))
        assert [name for name in names(tmp_path, "validation") if name >= "ISIC_0000040"] == before

    def test_a_missing_split_is_an_error(self, tmp_path):
        add_lesions(tmp_path, VALIDATION_2017)
        assert_refused(lambda: find_pairs(tmp_path), tmp_path, "no training split", "only validation")
        assert_refused(lambda: find_pairs(tmp_path, "test"), "no test split", "only validation")
        add_lesions(tmp_path)
        assert_refused(lambda: find_pairs(tmp_path, "test"), "only training, validation")
        assert_refused(lambda: find_pairs(tmp_path, "dev"), "'dev'", "training, validation, test, all")

    def test_too_few_images_to_hold_out_a_fifth_are_an_error(self, tmp_path):
        add_lesions(tmp_path, numbers=[1])
        assert_refused(lambda: find_pairs(tmp_path, "validation"), "too few", "add images")


class TestMismatches:
    def test_an_image_without_a_mask_is_named_with_the_count(self, tmp_path):
        add_lesions(tmp_path, numbers=range(6))
        for number in (2, 3, 5):
            (tmp_path / TRAINING_2017[1] / f"ISIC_{number:07}_segmentation.png").unlink()
        assert_refused(lambda: find_pairs(tmp_path), "ISIC_0000002.jpg (and 2 more)", "add its mask")

    def test_a_mask_without_an_image_is_named(self, tmp_path):
        add_lesions(tmp_path)
        (tmp_path / TRAINING_2017[0] / "ISIC_0000003.jpg").unlink()
        assert_refused(lambda: find_pairs(tmp_path), "ISIC_0000003_segmentation.png: ", "add its image")

    @pytest.mark.parametrize("twin", ["ISIC_0000002.png", "ISIC_0000002_copy.jpg", "isic_0000002.JPEG"])
    def test_two_images_of_the_same_number_are_an_error(self, tmp_path, twin):
        add_lesions(tmp_path)
        write_image(tmp_path / TRAINING_2017[0] / twin)
        assert_refused(lambda: find_pairs(tmp_path), twin, "ISIC_0000002.jpg", "remove one")

    def test_a_name_without_a_number_is_an_error(self, tmp_path):
        add_lesions(tmp_path)
        write_image(tmp_path / TRAINING_2017[0] / "thumbnail.jpg")
        assert_refused(lambda: find_pairs(tmp_path), "thumbnail.jpg", "seven digits")

    def test_a_missing_or_empty_folder_is_named(self, tmp_path):
        (tmp_path / TRAINING_2017[0]).mkdir()
        assert_refused(lambda: find_pairs(tmp_path), TRAINING_2017[0], "no image")
        write_image(tmp_path / TRAINING_2017[0] / "ISIC_0000001.jpg")
        assert_refused(lambda: find_pairs(tmp_path), TRAINING_2017[1], "missing")

    def test_data_sets_of_different_years_are_not_pooled(self, tmp_path):
        add_lesions(tmp_path)
        add_lesions(tmp_path, ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"))
        assert_refused(lambda: find_pairs(tmp_path), "ISIC 2017 and ISIC 2018", "pooled")


class TestWrongRoots:
    def test_a_missing_root_and_a_file_have_different_errors(self, tmp_path):
        (tmp_path / "file").write_text("")
        assert_refused(lambda: find_pairs(tmp_path / "none"), tmp_path / "none", "no such folder")
        assert_refused(lambda: find_pairs(tmp_path / "file"), tmp_path / "file", "is a file")

    def test_for_a_root_one_level_off_the_error_gives_the_right_path(self, tmp_path):
        root = tmp_path / "downloads" / "isic"
        add_lesions(root)
        assert_refused(
            lambda: find_pairs(root / TRAINING_2017[0]), f"give the folder that contains it, {root}"
        )
        assert_refused(lambda: find_pairs(root.parent), f"one folder deeper; give {root}")

    def test_for_an_unrelated_folder_the_error_lists_the_expected_folders(self, tmp_path):
        assert_refused(
            lambda: find_pairs(tmp_path),
            "images/ and masks/",
            "ISBI2016_ISIC_Part1_Training_Data",
            "ISIC-2017_Training_Data",
            "ISIC2018_Task1-2_Training_Input",
        )


class TestDiagnoses:
    def test_are_matched_by_number(self, tmp_path):
        add_lesions(tmp_path, numbers=range(4))
        (tmp_path / TABLE_2017).write_text(
            "image_id,melanoma,seborrheic_keratosis\n"
            "ISIC_0000001,0.0,1.0\nISIC_0000000,1.0,0.0\nISIC_0000002,0.0,0.0\nISIC_0009999,1.0,0.0\n"
        )
        diagnoses = [pair.diagnosis for pair in find_pairs(tmp_path, "all")]
        assert diagnoses == ["melanoma", "seborrheic_keratosis", "nevus", None]

    def test_each_split_has_its_own_table(self, tmp_path):
        folders = ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth")
        add_lesions(tmp_path, folders, [1, 2])
        add_lesions(tmp_path, [name.replace("Training", "Test") for name in folders], [3, 4])
        table = tmp_path / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv"
        table.write_text("ISIC_0000001,benign\nISIC_0000002,malignant\n")
        table = tmp_path / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv"
        table.write_text("ISIC_0000003,1.0\nISIC_0000004,0.0\n")
        diagnoses = [pair.diagnosis for pair in find_pairs(tmp_path, "all")]
        assert diagnoses == ["benign", "malignant", "malignant", "benign"]

    def test_without_a_table_they_are_none(self, tmp_path):
        add_lesions(tmp_path)
        assert [pair.diagnosis for pair in find_pairs(tmp_path, "all")] == [None, None, None]


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
class TestRealImages:
    def test_the_official_validation_split_has_150_lesions(self):
        pairs = find_pairs(os.environ["ISIC_ROOT"], "validation")
        counts = [
            sum(pair.diagnosis == name for pair in pairs)
            for name in ("melanoma", "seborrheic_keratosis", "nevus")
        ]
        assert len(pairs) == 150 and counts == [30, 42, 78]

    def test_every_training_image_has_a_label(self):
        pairs = find_pairs(os.environ["ISIC_ROOT"], labelled=True)
        assert {pair.diagnosis for pair in pairs} == {"melanoma", "seborrheic_keratosis", "nevus"}
