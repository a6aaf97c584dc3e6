"""HAM10000 is found in its own layout and is split by lesion; mistakes in its folders are errors."""

import os
import shutil
from collections import Counter

import pytest

from r2unet.data.folders import find_pairs
from tests.r2unet.data.isic_folders import add_ham10000, assert_refused, write_image, write_mask

MASKS = "HAM10000_segmentations_lesion_tschandl"
METADATA = "HAM10000_metadata.csv"
# A hash of HAM_0000007 is below 0.15 of its range (`printf ham_0000007 | sha256sum` starts below 0x2666).
LESIONS = {1: ("HAM_0000001", "nv"), 2: ("HAM_0000007", "mel"), 3: ("HAM_0000007", "mel")}


@pytest.fixture
def root(tmp_path):
    add_ham10000(tmp_path / "ham", LESIONS)
    return tmp_path / "ham"


def names(data, split="training", **options):
    return [pair.name for pair in find_pairs(data, split, **options)]


class TestSplits:
    def test_all_images_of_a_lesion_are_in_the_same_split(self, tmp_path):
        # 100 lesions with 3 images each, whose numbers are far apart
        add_ham10000(tmp_path, {i: (f"HAM_{i % 100:07}", "nv") for i in range(300)})
        training, validation = (find_pairs(tmp_path, split) for split in ("training", "validation"))
        assert len(training) + len(validation) == 300
        assert not {pair.lesion for pair in training} & {pair.lesion for pair in validation}
        assert set(Counter(pair.lesion for pair in training + validation).values()) == {3}
        assert len(validation) / 300 == pytest.approx(0.15, abs=0.1)

    def test_the_same_lesions_are_held_out_on_every_machine(self, tmp_path):
        add_ham10000(tmp_path, {i: (f"HAM_{i:07}", "nv") for i in range(30)})
        assert names(tmp_path, "validation") == [f"ISIC_{number:07}" for number in (7, 17)]

    def test_there_is_no_test_split(self, root):
        assert_refused(lambda: find_pairs(root, "test"), root, "has no test split", "validation or all")
        assert_refused(lambda: find_pairs(root, "dev"), "'dev'", "training, validation, test, all")

    def test_an_empty_split_is_an_error(self, tmp_path):
        add_ham10000(tmp_path, {1: LESIONS[1]})
        assert_refused(lambda: find_pairs(tmp_path, "validation"), tmp_path, "validation", "add images")

    def test_an_image_of_unknown_lesion_is_in_no_split(self, root):
        (root / METADATA).write_text(
            "lesion_id,image_id,dx\nHAM_0000001,ISIC_0000001,nv\n,ISIC_0000002,mel\n"
        )
        assert_refused(lambda: find_pairs(root), "ISIC_0000002.jpg (and 1 more)", METADATA, "split by lesion")
        assert len(find_pairs(root, "all")) == 3

    def test_without_metadata_only_all_images_can_be_used(self, root):
        (root / METADATA).unlink()
        assert_refused(lambda: find_pairs(root), "(and 2 more)", METADATA, "split by lesion", "download")
        assert [pair.diagnosis for pair in find_pairs(root, "all")] == [None] * 3

    def test_labels_of_the_user_do_not_change_the_split(self, root, tmp_path):
        table = tmp_path / "labels.csv"
        table.write_text(
            "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
            + "".join(f"ISIC_{number:07},0,0,1,0,0,0,0\n" for number in LESIONS)
        )
        pairs = find_pairs(root, "validation", labels=table)
        assert [(pair.name, pair.lesion, pair.diagnosis) for pair in pairs] == [
            ("ISIC_0000002", "HAM_0000007", "basal_cell_carcinoma"),
            ("ISIC_0000003", "HAM_0000007", "basal_cell_carcinoma"),
        ]


class TestLayout:
    def test_image_mask_diagnosis_and_lesion_belong_together(self, root):
        (pair,) = find_pairs(root)
        assert pair.image == root / "HAM10000_images" / "ISIC_0000001.jpg"
        assert pair.mask == root / MASKS / "ISIC_0000001_segmentation.png"
        assert (pair.name, pair.diagnosis, pair.lesion) == ("ISIC_0000001", "nevus", "HAM_0000001")

    def test_images_may_be_in_two_parts_and_endings_in_capitals(self, tmp_path):
        add_ham10000(tmp_path, LESIONS, "HAM10000_images_part_2", ".JPG")
        part = tmp_path / "HAM10000_images_part_1"
        write_image(part / "ISIC_0000004.jpg")
        write_mask(tmp_path / MASKS / "ISIC_0000004_segmentation.PNG")
        assert names(tmp_path, "all") == [f"ISIC_{number:07}" for number in (1, 2, 3, 4)]

    def test_an_image_in_both_parts_is_an_error(self, tmp_path):
        add_ham10000(tmp_path, LESIONS, "HAM10000_images_part_2", ".JPG")
        part = tmp_path / "HAM10000_images_part_1"
        write_image(part / "ISIC_0000003.jpg")
        assert_refused(
            lambda: find_pairs(tmp_path, "all"),
            "HAM10000_images_part_2/ISIC_0000003.JPG: is the same image as",
            part / "ISIC_0000003.jpg",
            "remove one",
        )

    @pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.tab"])
    def test_the_table_may_have_the_name_and_the_tabs_of_dataverse(self, root, name):
        text = (root / METADATA).read_text()
        (root / METADATA).unlink()
        (root / name).write_text(text.replace(",", "\t"))
        assert names(root, "validation") == ["ISIC_0000002", "ISIC_0000003"]

    def test_a_row_without_an_image_is_an_error_if_the_task_needs_diagnoses(self, root):
        """An outline can be learned from a part of the data set. Rows of the other split are no error."""
        assert len(find_pairs(root, labelled=True)) == 1
        with open(root / METADATA, "a") as file:
            file.write("HAM_7,ISIC_0000777,bkl,histo,,unknown,face\n")
        assert len(find_pairs(root)) == 1
        words = f"{root / METADATA}: line 5: no image of this name was found; add the image or remove the row"
        assert_refused(lambda: find_pairs(root, labelled=True), words)

    def test_labels_of_the_user_replace_rows_without_an_image(self, root, tmp_path):
        with open(root / METADATA, "a") as file:
            file.write("HAM_7,ISIC_0000777,bkl,histo,,unknown,face\n")
        table = tmp_path / "labels.csv"
        table.write_text("image,dx\n" + "".join(f"ISIC_{number:07},bcc\n" for number in LESIONS))
        assert len(find_pairs(root, "all", labels=table, labelled=True)) == 3

    def test_a_malformed_row_is_named(self, root):
        with open(root / METADATA, "a") as file:
            file.write("HAM_7,ISIC_0000777,wart,histo,,unknown,face\n")
        assert_refused(lambda: find_pairs(root), f"{root / METADATA}: line 5: 'wart' is an unknown type")


class TestMismatches:
    def test_an_image_without_a_mask_and_a_mask_without_an_image_are_named(self, root):
        (root / MASKS / "ISIC_0000001_segmentation.png").unlink()
        assert_refused(lambda: find_pairs(root), "ISIC_0000001.jpg", "add its mask")
        write_mask(root / MASKS / "ISIC_0000009_segmentation.png")
        assert_refused(lambda: find_pairs(root, masks_needed=False), "ISIC_0000009_", "add its image")

    def test_an_image_without_a_row_is_an_error_if_its_diagnosis_is_needed(self, root):
        (root / METADATA).write_text("lesion_id,image_id,dx\nHAM_0000001,ISIC_0000001,nv\n")
        assert_refused(
            lambda: find_pairs(root, "all", labelled=True),
            "ISIC_0000002.jpg (and 1 more): this image has no diagnosis",
            f"add its row to {root / METADATA}",
            "--labels",
        )

    def test_a_missing_folder_of_masks_is_an_error_unless_masks_are_not_needed(self, root):
        shutil.rmtree(root / MASKS)
        assert_refused(lambda: find_pairs(root), root / MASKS, "missing", "--task diagnosis")
        assert [pair.mask for pair in find_pairs(root, "all", masks_needed=False)] == [None] * 3

    def test_a_missing_folder_of_images_is_an_error(self, root):
        shutil.rmtree(root / "HAM10000_images")
        assert_refused(lambda: find_pairs(root), root / "HAM10000_images", "missing")

    @pytest.mark.parametrize("folder", ["HAM10000_images", MASKS])
    def test_for_a_root_one_level_off_the_error_gives_the_right_path(self, root, folder):
        assert_refused(lambda: find_pairs(root / folder), f"give the folder that contains it, {root}")
        assert_refused(lambda: find_pairs(root.parent), f"one folder deeper; give {root}")


@pytest.fixture(scope="module")
def splits():
    """The real training and validation images."""
    root = os.environ["HAM10000_ROOT"]
    return {split: find_pairs(root, split, labelled=True) for split in ("training", "validation")}


@pytest.mark.skipif("HAM10000_ROOT" not in os.environ, reason="set HAM10000_ROOT to a folder of HAM10000")
class TestRealImages:
    def test_no_lesion_is_in_both_splits(self, splits):
        training, validation = ({pair.lesion for pair in pairs} for pairs in splits.values())
        assert not training & validation
        assert 0.12 < len(validation) / len(training | validation) < 0.18

    def test_the_numbers_of_images_of_the_copy_of_8517_images(self, splits):
        counts = {split: Counter(pair.diagnosis for pair in pairs) for split, pairs in splits.items()}
        if counts["training"].total() + counts["validation"].total() != 8517:
            pytest.skip("HAM10000_ROOT has another number of images")
        assert counts["training"] == {
            "nevus": 4925,
            "benign_keratosis": 817,
            "melanoma": 793,
            "basal_cell_carcinoma": 369,
            "actinic_keratosis": 230,
            "vascular_lesion": 103,
            "dermatofibroma": 86,
        }
        assert counts["validation"] == {
            "nevus": 790,
            "melanoma": 140,
            "benign_keratosis": 130,
            "basal_cell_carcinoma": 63,
            "actinic_keratosis": 46,
            "vascular_lesion": 18,
            "dermatofibroma": 7,
        }
