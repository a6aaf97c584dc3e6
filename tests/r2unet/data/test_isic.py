"""Folders to pairs to samples, for every layout the challenges ship and every way it goes wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet.data.images import read_image, read_mask
from r2unet.data.isic import LesionImages, find_pairs, read_pair
from r2unet.errors import InputError

TRAINING_2017 = ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth")
VALIDATION_2017 = ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth")
TABLE_2017 = "ISIC-2017_Training_Part3_GroundTruth.csv"


def write_image(path, colour=(100, 100, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def write_mask(path, height=6, width=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, : width // 2] = 255
    Image.fromarray(mask).save(path)


def add_lesions(root, folders=TRAINING_2017, numbers=(1, 2, 3), ending="_segmentation"):
    """Put an image and its mask for each number into the two folders."""
    for number in numbers:
        write_image(root / folders[0] / f"ISIC_{number:07}.jpg", (number % 256, 100, 200))
        write_mask(root / folders[1] / f"ISIC_{number:07}{ending}.png")


def names(root, split="training"):
    return [pair.name for pair in find_pairs(root, split)]


def assert_refused(call, *words):
    """The call raises one line that holds these words."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


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
    def test_of_every_challenge_are_known(self, tmp_path, split, images, masks, ending):
        add_lesions(tmp_path, (images, masks), ending=ending)
        pairs = find_pairs(tmp_path, "all")
        assert [pair.name for pair in pairs] == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
        assert pairs[1].image == tmp_path / images / "ISIC_0000002.jpg"
        assert pairs[1].mask == tmp_path / masks / f"ISIC_0000002{ending}.png"
        if split != "training":
            assert find_pairs(tmp_path, split) == pairs

    @pytest.mark.parametrize("ending", ["", "_segmentation", "_mask", "_MASK"])
    def test_plain_folders_match_by_the_name(self, tmp_path, ending):
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
    def test_official_folders_are_taken_as_they_are(self, tmp_path):
        add_lesions(tmp_path, TRAINING_2017, range(20))
        add_lesions(tmp_path, VALIDATION_2017, range(20, 25))
        assert names(tmp_path) == [f"ISIC_{number:07}" for number in range(20)]
        assert names(tmp_path, "validation") == [f"ISIC_{number:07}" for number in range(20, 25)]
        assert names(tmp_path, "all") == [f"ISIC_{number:07}" for number in range(25)]

    def test_without_official_validation_a_fifth_is_held_out(self, tmp_path):
        add_lesions(tmp_path, numbers=range(500))
        training, validation = names(tmp_path), names(tmp_path, "validation")
        assert sorted(training + validation) == names(tmp_path, "all")
        assert not set(training) & set(validation)
        assert len(validation) / 500 == pytest.approx(0.2, abs=0.05)

    def test_the_same_images_are_held_out_on_every_machine(self, tmp_path):
        add_lesions(tmp_path, numbers=range(30))
        # Those for which `printf isic_0000009 | sha256sum` begins below 0x3333, a fifth of 0xffff.
        held_out = [f"ISIC_{number:07}" for number in (9, 12, 22, 25, 26, 28)]
        assert names(tmp_path, "validation") == held_out

    def test_adding_images_moves_no_other(self, tmp_path):
        add_lesions(tmp_path, numbers=range(40, 80))
        before = names(tmp_path, "validation")
        add_lesions(tmp_path, numbers=range(40))
        assert [name for name in names(tmp_path, "validation") if name >= "ISIC_0000040"] == before

    def test_a_split_that_is_not_there_is_named(self, tmp_path):
        add_lesions(tmp_path, VALIDATION_2017)
        assert_refused(lambda: find_pairs(tmp_path), tmp_path, "no training split", "only validation")
        assert_refused(lambda: find_pairs(tmp_path, "test"), "no test split", "only validation")
        add_lesions(tmp_path)
        assert_refused(lambda: find_pairs(tmp_path, "test"), "only training, validation")
        assert_refused(lambda: find_pairs(tmp_path, "dev"), "'dev'", "training, validation, test, all")

    def test_too_few_images_to_hold_out_are_refused(self, tmp_path):
        add_lesions(tmp_path, numbers=[1])
        assert_refused(lambda: find_pairs(tmp_path, "validation"), "too few", "add images")


class TestMismatches:
    def test_an_image_without_mask_is_named_with_the_count(self, tmp_path):
        add_lesions(tmp_path, numbers=range(6))
        for number in (2, 3, 5):
            (tmp_path / TRAINING_2017[1] / f"ISIC_{number:07}_segmentation.png").unlink()
        assert_refused(lambda: find_pairs(tmp_path), "ISIC_0000002.jpg (and 2 more)", "add its mask")

    def test_a_mask_without_image_is_named(self, tmp_path):
        add_lesions(tmp_path)
        (tmp_path / TRAINING_2017[0] / "ISIC_0000003.jpg").unlink()
        assert_refused(lambda: find_pairs(tmp_path), "ISIC_0000003_segmentation.png: ", "add its image")

    @pytest.mark.parametrize("twin", ["ISIC_0000002.png", "ISIC_0000002_copy.jpg", "isic_0000002.JPEG"])
    def test_two_images_of_one_number_are_refused(self, tmp_path, twin):
        add_lesions(tmp_path)
        write_image(tmp_path / TRAINING_2017[0] / twin)
        assert_refused(lambda: find_pairs(tmp_path), twin, "ISIC_0000002.jpg", "remove one")

    def test_a_name_without_number_is_refused(self, tmp_path):
        add_lesions(tmp_path)
        write_image(tmp_path / TRAINING_2017[0] / "thumbnail.jpg")
        assert_refused(lambda: find_pairs(tmp_path), "thumbnail.jpg", "seven digits")

    def test_a_missing_or_empty_folder_is_named(self, tmp_path):
        (tmp_path / TRAINING_2017[0]).mkdir()
        assert_refused(lambda: find_pairs(tmp_path), TRAINING_2017[0], "no image")
        write_image(tmp_path / TRAINING_2017[0] / "ISIC_0000001.jpg")
        assert_refused(lambda: find_pairs(tmp_path), TRAINING_2017[1], "missing")

    def test_years_are_not_pooled(self, tmp_path):
        add_lesions(tmp_path)
        add_lesions(tmp_path, ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"))
        assert_refused(lambda: find_pairs(tmp_path), "ISIC 2017 and ISIC 2018", "pooled")


class TestWrongRoots:
    def test_a_missing_root_and_a_file_are_told_apart(self, tmp_path):
        (tmp_path / "file").write_text("")
        assert_refused(lambda: find_pairs(tmp_path / "none"), tmp_path / "none", "no such folder")
        assert_refused(lambda: find_pairs(tmp_path / "file"), tmp_path / "file", "is a file")

    def test_one_level_too_deep_or_too_high_gets_the_right_path(self, tmp_path):
        root = tmp_path / "downloads" / "isic"
        add_lesions(root)
        assert_refused(
            lambda: find_pairs(root / TRAINING_2017[0]), f"give the folder that contains it, {root}"
        )
        assert_refused(lambda: find_pairs(root.parent), f"one folder deeper: give {root}")

    def test_an_unrelated_folder_hears_what_is_expected(self, tmp_path):
        assert_refused(
            lambda: find_pairs(tmp_path),
            "images/ and masks/",
            "ISBI2016_ISIC_Part1_Training_Data",
            "ISIC-2017_Training_Data",
            "ISIC2018_Task1-2_Training_Input",
        )


class TestDiagnoses:
    def test_are_matched_by_the_number(self, tmp_path):
        add_lesions(tmp_path, numbers=range(4))
        (tmp_path / TABLE_2017).write_text(
            "image_id,melanoma,seborrheic_keratosis\n"
            "ISIC_0000001,0.0,1.0\nISIC_0000000,1.0,0.0\nISIC_0000002,0.0,0.0\nISIC_0009999,1.0,0.0\n"
        )
        diagnoses = [pair.diagnosis for pair in find_pairs(tmp_path, "all")]
        assert diagnoses == ["melanoma", "seborrheic_keratosis", "nevus", None]

    def test_of_each_split_stand_in_a_table_of_its_own(self, tmp_path):
        folders = ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth")
        add_lesions(tmp_path, folders, [1, 2])
        add_lesions(tmp_path, [name.replace("Training", "Test") for name in folders], [3, 4])
        table = tmp_path / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv"
        table.write_text("ISIC_0000001,benign\nISIC_0000002,malignant\n")
        table = tmp_path / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv"
        table.write_text("ISIC_0000003,1.0\nISIC_0000004,0.0\n")
        diagnoses = [pair.diagnosis for pair in find_pairs(tmp_path, "all")]
        assert diagnoses == ["benign", "malignant", "malignant", "benign"]

    def test_without_a_table_there_are_none(self, tmp_path):
        add_lesions(tmp_path)
        assert [pair.diagnosis for pair in find_pairs(tmp_path, "all")] == [None, None, None]


class TestReadPair:
    def test_keeps_the_original_size_and_the_diagnosis(self, tmp_path):
        add_lesions(tmp_path, numbers=[1])
        (tmp_path / TABLE_2017).write_text("image_id,melanoma,seborrheic_keratosis\nISIC_0000001,1.0,0.0\n")
        (pair,) = find_pairs(tmp_path, "all")
        sample = read_pair(pair)
        assert sample.image.shape == (6, 8, 3) and sample.mask.shape == (6, 8)
        assert (sample.name, sample.diagnosis) == ("ISIC_0000001", "melanoma")
        assert sample.mask.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 6

    def test_refuses_a_mask_of_another_size(self, tmp_path):
        add_lesions(tmp_path, numbers=[1])
        (pair,) = find_pairs(tmp_path, "all")
        write_mask(pair.mask, height=8, width=6)
        assert_refused(lambda: read_pair(pair), pair.mask, pair.image, "6 x 8", "8 x 6")


class TestLesionImages:
    @pytest.fixture
    def pairs(self, tmp_path):
        add_lesions(tmp_path / "isic", numbers=range(1, 9))
        return find_pairs(tmp_path / "isic", "all")

    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("cached", [False, True])
    def test_sample_i_is_pair_i_stretched(self, pairs, tmp_path, threads, cached):
        data = LesionImages(pairs, 4, threads, cache=tmp_path / "cache" if cached else None)
        assert len(data) == 8 and data.names == [pair.name for pair in pairs] and data.pairs == pairs
        for pair, sample in zip(pairs, data, strict=True):
            assert np.array_equal(sample.image, read_image(pair.image, 4))
            assert np.array_equal(sample.mask, read_mask(pair.mask, 4))
            assert (sample.name, sample.diagnosis) == (pair.name, pair.diagnosis)
        assert data[0].image.shape == (4, 4, 3) and data[0].image.dtype == np.uint8
        assert data[0].mask.tolist() == [[1, 1, 0, 0]] * 4 and data[0].mask.dtype == np.uint8

    @pytest.mark.parametrize("cached", [False, True])
    def test_nobody_can_write_into_the_kept_bytes(self, pairs, tmp_path, cached):
        sample = LesionImages(pairs, 4, cache=tmp_path / "cache" if cached else None)[0]
        with pytest.raises(ValueError, match="read-only"):
            sample.image[0, 0, 0] = 1

    def test_every_file_is_decoded_once(self, pairs, tmp_path):
        data = LesionImages(pairs, 4)
        before = data[3].image.copy()
        for pair in pairs:
            pair.image.unlink()
        assert np.array_equal(data[3].image, before)

    def test_progress_goes_to_stderr_and_only_when_asked(self, pairs, capsys):
        LesionImages(pairs, 4)
        assert capsys.readouterr() == ("", "")
        LesionImages(pairs, 4, progress=True)
        out, err = capsys.readouterr()
        assert out == "" and "8/8" in err

    def test_a_mask_of_another_size_is_refused(self, pairs):
        write_mask(pairs[2].mask, height=8, width=6)
        words = (pairs[2].mask, pairs[2].image, "6 x 8", "8 x 6")
        assert_refused(lambda: LesionImages(pairs, 4), *words)

    @pytest.mark.parametrize("size, threads", [(0, 1), (4, 0)])
    def test_numbers_below_one_are_refused(self, pairs, size, threads):
        assert_refused(lambda: LesionImages(pairs, size, threads), "at least 1")
        assert_refused(lambda: LesionImages([], 4), "0 pairs")


class TestCache:
    @pytest.fixture
    def pairs(self, tmp_path):
        add_lesions(tmp_path / "isic", numbers=range(1, 5))
        return find_pairs(tmp_path / "isic", "all")

    @pytest.fixture
    def cache(self, tmp_path):
        return tmp_path / "cache"

    def test_is_one_file_that_is_mapped_and_not_rewritten(self, pairs, cache):
        LesionImages(pairs, 4, cache=cache)
        (file,) = cache.iterdir()
        # Were the pictures decoded again, this byte of the last mask would be overwritten.
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"\x07")
        assert LesionImages(pairs, 4, cache=cache)[3].mask[3, 3] == 7
        assert list(cache.iterdir()) == [file]

    def test_another_size_or_choice_or_order_is_another_file(self, pairs, cache):
        for chosen, size in ((pairs, 4), (pairs, 5), (pairs[1:], 4), (pairs[::-1], 4)):
            data = LesionImages(chosen, size, cache=cache)
            assert np.array_equal(data[0].image, read_image(chosen[0].image, size))
        assert len(list(cache.iterdir())) == 4

    def test_a_changed_image_is_never_served_from_an_old_file(self, pairs, cache):
        for second, colour in enumerate([(100, 100, 100), (3, 3, 3)]):
            write_image(pairs[0].image, colour)
            # Padding leaves the time of writing as the only sign of the change.
            pairs[0].image.write_bytes(pairs[0].image.read_bytes().ljust(1000, b"\0"))
            os.utime(pairs[0].image, (second, second))
            assert tuple(LesionImages(pairs, 4, cache=cache)[0].image[0, 0]) == colour

    def test_a_fault_leaves_nothing_behind(self, pairs, cache):
        pairs[3].image.write_bytes(pairs[3].image.read_bytes()[:300])
        assert_refused(lambda: LesionImages(pairs, 4, cache=cache), pairs[3].image, "download it again")
        assert list(cache.iterdir()) == []

    def test_a_damaged_file_or_place_is_named(self, pairs, cache, tmp_path):
        LesionImages(pairs, 4, cache=cache)
        (file,) = cache.iterdir()
        file.write_bytes(file.read_bytes()[:150])
        assert_refused(lambda: LesionImages(pairs, 4, cache=cache), file, "delete this file")
        assert_refused(lambda: LesionImages(pairs, 4, cache=pairs[0].image), pairs[0].image, "another place")


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
class TestRealImages:
    def test_the_official_validation_split_has_150_lesions(self):
        pairs = find_pairs(os.environ["ISIC_ROOT"], "validation")
        counts = [
            sum(pair.diagnosis == name for pair in pairs)
            for name in ("melanoma", "seborrheic_keratosis", "nevus")
        ]
        assert len(pairs) == 150 and counts == [30, 42, 78]

    def test_a_real_lesion_fills_part_of_the_frame(self):
        data = LesionImages(find_pairs(os.environ["ISIC_ROOT"], "validation")[:20], 64)
        filled = [sample.mask.mean() for sample in data]
        assert all(0.001 < part < 1 for part in filled)
        assert np.mean(filled) == pytest.approx(0.25, abs=0.2)

    def test_a_shrunken_original_is_the_published_copy_shrunk(self):
        root = Path(os.environ["ISIC_ROOT"])
        if not (root / "originals").is_dir():
            pytest.skip("ISIC_ROOT has no folder originals/")
        copies = {pair.name: pair for pair in find_pairs(root, "validation")}
        pairs = [pair for pair in find_pairs(root / "originals", "validation") if pair.name in copies][:4]
        for original, copy in zip(
            LesionImages(pairs, 64), [copies[pair.name] for pair in pairs], strict=True
        ):
            assert np.abs(original.image.astype(int) - read_image(copy.image, 64)).mean() < 3
            assert (original.mask != read_mask(copy.mask, 64)).mean() < 0.01
