"""Several data sets are used together, and labels that the user gives replace those beside the images."""

import os

import pytest

from r2unet.data.folders import find_pairs, paths
from tests.r2unet.data.isic_folders import (
    TABLE_2017,
    TRAINING_2017,
    VALIDATION_2017,
    add_ham10000,
    add_lesions,
    assert_refused,
    write_image,
    write_mask,
)

HEADER = "image_id,melanoma,seborrheic_keratosis\n"
HAM = {31: ("HAM_0000001", "bcc"), 32: ("HAM_0000007", "df")}  # the second is in the validation split


def joined(*data):
    return os.pathsep.join(map(str, data))


@pytest.fixture
def isic(tmp_path):
    """ISIC 2017 with images 1 and 2 for training and 3 for validation, and the tables of both."""
    root = tmp_path / "isic"
    add_lesions(root, TRAINING_2017, [1, 2])
    add_lesions(root, VALIDATION_2017, [3])
    (root / TABLE_2017).write_text(f"{HEADER}ISIC_0000001,1,0\nISIC_0000002,0,0\n")
    (root / TABLE_2017.replace("Training", "Validation")).write_text(f"{HEADER}ISIC_0000003,0,1\n")
    return root


@pytest.fixture
def ham(tmp_path):
    add_ham10000(tmp_path / "ham", HAM)
    return tmp_path / "ham"


@pytest.fixture
def plain(tmp_path):
    root = tmp_path / "plain"
    for stem in ("leg", "Arm 2"):
        write_image(root / "images" / f"{stem}.png")
        write_mask(root / "masks" / f"{stem}_mask.png")
    return root


@pytest.fixture
def table(tmp_path):
    return tmp_path / "given.csv"


def diagnoses(data, split="training", *labels, **options):
    return {pair.name: pair.diagnosis for pair in find_pairs(data, split, *labels, **options)}


class TestSeveralDataSets:
    def test_each_contributes_its_split(self, isic, ham):
        data = joined(ham, isic)
        assert diagnoses(data, labelled=True) == {
            "ISIC_0000031": "basal_cell_carcinoma",
            "ISIC_0000001": "melanoma",
            "ISIC_0000002": "nevus",
        }
        assert diagnoses(data, "validation") == {
            "ISIC_0000032": "dermatofibroma",
            "ISIC_0000003": "seborrheic_keratosis",
        }

    def test_an_image_in_two_of_them_is_an_error_even_in_different_splits(self, isic, tmp_path):
        other = tmp_path / "other"
        add_lesions(other, ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"), [3, 4])
        add_lesions(other, ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"), [5])
        words = "ISIC_0000003.jpg", isic / VALIDATION_2017[0], "join only data sets that share no image"
        assert_refused(lambda: find_pairs(joined(isic, other)), *words)

    def test_equal_names_in_plain_folders_are_an_error(self, plain, tmp_path):
        write_image(tmp_path / "b" / "images" / "LEG.jpg")
        write_mask(tmp_path / "b" / "masks" / "LEG.png")
        words = "LEG.jpg", plain / "images", "rename different images of the same name"
        assert_refused(lambda: find_pairs(joined(plain, tmp_path / "b"), "all"), *words)

    def test_the_same_data_set_twice_is_an_error(self, isic):
        assert_refused(lambda: find_pairs(joined(isic, isic)), "share no image")

    def test_a_missing_one_is_named(self, isic, tmp_path):
        assert_refused(lambda: find_pairs(joined(isic, tmp_path / "no")), tmp_path / "no", "no such folder")

    def test_two_in_the_same_folder_are_an_error(self, isic):
        add_ham10000(isic, HAM)
        assert_refused(lambda: find_pairs(isic), isic, "contains HAM10000 and ISIC 2017", "its own folder")

    def test_a_name_may_contain_the_separator(self, tmp_path):
        odd = tmp_path / f"a{os.pathsep}b"
        odd.mkdir()
        assert paths(odd) == [odd]
        assert paths(joined("a", "b")) == [*map(type(odd), ("a", "b"))]

    @pytest.mark.parametrize("text", ["", os.pathsep])
    def test_a_text_that_names_no_path_is_an_error(self, isic, text):
        assert_refused(lambda: find_pairs(text), f"{text!r}: names no folder of images; give the path of one")
        words = f"{text!r}: names no table of labels; give the path of one"
        assert_refused(lambda: find_pairs(isic, labels=text), words)

    def test_an_unrelated_folder_shows_all_layouts(self, tmp_path):
        assert_refused(lambda: find_pairs(tmp_path), "images/ and masks/", "HAM10000_images")


class TestTablesBesideTheImages:
    def test_a_plain_folder_may_have_labels(self, plain):
        assert diagnoses(plain, "all") == {"leg": None, "Arm 2": None}
        (plain / "labels.csv").write_text("image,dx\narm 2.png,bcc\nLEG,nevus\n")
        assert diagnoses(plain, "all", labelled=True) == {"Arm 2": "basal_cell_carcinoma", "leg": "nevus"}

    def test_a_plain_folder_with_lesions_is_split_by_lesion(self, tmp_path):
        rows = ["image,lesion_id,dx"]
        for number in range(60):
            write_image(tmp_path / "images" / f"{number}.png")
            write_mask(tmp_path / "masks" / f"{number}.png")
            rows.append(f"{number},lesion {number % 20},nv")
        (tmp_path / "labels.csv").write_text("\n".join(rows))
        lesions = [{p.lesion for p in find_pairs(tmp_path, split)} for split in ("training", "validation")]
        assert not lesions[0] & lesions[1] and len(lesions[0] | lesions[1]) == 20

    def test_a_row_without_an_image_is_an_error_if_the_task_needs_diagnoses(self, isic):
        """An outline can be learned from a part of a data set."""
        with open(isic / TABLE_2017, "a") as file:
            file.write("ISIC_0009998,0,1\nISIC_0009999,0,1\n")
        assert diagnoses(isic) == {"ISIC_0000001": "melanoma", "ISIC_0000002": "nevus"}
        words = f"{isic / TABLE_2017}: line 4 (and 1 more rows): no image of this name", "remove the row"
        assert_refused(lambda: find_pairs(isic, labelled=True), *words)
        assert len(find_pairs(isic, "validation", labelled=True)) == 1  # which has its own table

    def test_a_row_of_a_plain_folder_without_an_image_is_an_error_if_diagnoses_are_needed(self, plain):
        (plain / "labels.csv").write_text("image,dx\narm 2,bcc\nleg,nevus\nhand,nevus\n")
        assert len(find_pairs(plain, "all")) == 2
        words = f"{plain / 'labels.csv'}: line 4: no image of this name"
        assert_refused(lambda: find_pairs(plain, "all", labelled=True), words)

    def test_the_table_of_task_3_may_have_more_images_than_task_1_of_2018(self, tmp_path):
        add_lesions(tmp_path, ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"), [1])
        table = tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv"
        table.write_text(
            "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_0000001,1,0,0,0,0,0,0\nISIC_2,0,1,0,0,0,0,0\n"
        )
        assert diagnoses(tmp_path, "all", labelled=True) == {"ISIC_0000001": "melanoma"}

    def test_an_image_without_a_label_is_an_error_if_the_task_needs_it(self, isic):
        (isic / TABLE_2017).write_text(f"{HEADER}ISIC_0000001,1,0\n")
        assert diagnoses(isic) == {"ISIC_0000001": "melanoma", "ISIC_0000002": None}
        assert_refused(
            lambda: find_pairs(isic, labelled=True),
            f"{isic / TRAINING_2017[0] / 'ISIC_0000002.jpg'}: this image has no diagnosis",
            f"add its row to {isic / TABLE_2017}, give a table with --labels, or remove it",
        )

    def test_without_a_table_every_image_is_without_a_label(self, plain):
        words = "(and 1 more): this image has no diagnosis", plain / "labels.csv"
        assert_refused(lambda: find_pairs(plain, "all", labelled=True), *words)


class TestGivenLabels:
    ALL = "ISIC_0000001,0,1\nISIC_0000002,0,1\nISIC_0000003,0,1\n"

    def test_replace_the_tables_beside_the_images(self, isic, table):
        table.write_text(HEADER + self.ALL)
        assert set(diagnoses(isic, "all", table, labelled=True).values()) == {"seborrheic_keratosis"}
        (isic / TABLE_2017).write_text("malformed")  # is not read
        assert set(diagnoses(isic, "all", table).values()) == {"seborrheic_keratosis"}

    def test_cover_all_splits_of_all_data_sets(self, isic, ham, plain, table):
        table.write_text("image,malignant\nISIC_0000031,1\nISIC_0000032,0\nleg,1\narm 2,0\n")
        second = table.with_name("second.csv")
        second.write_text(HEADER + self.ALL)
        data, labels = joined(isic, ham, plain), joined(table, second)
        assert diagnoses(data, "all", labels, labelled=True) == {
            "ISIC_0000001": "seborrheic_keratosis",
            "ISIC_0000002": "seborrheic_keratosis",
            "ISIC_0000003": "seborrheic_keratosis",
            "ISIC_0000031": "malignant",
            "ISIC_0000032": "benign",
            "leg": "malignant",
            "Arm 2": "benign",
        }

    def test_a_row_without_an_image_is_an_error(self, isic, table):
        table.write_text(f"{HEADER}{self.ALL}ISIC_0000004,0,0\nISIC_5,0,0\n")
        assert_refused(
            lambda: find_pairs(isic, "all", table),
            f"{table}: line 5 (and 1 more rows)",
            "no image of this name was found",
        )

    def test_rows_of_another_split_are_no_error(self, isic, table):
        table.write_text(HEADER + self.ALL)
        assert len(find_pairs(isic, "validation", table)) == 1

    def test_an_image_without_a_row_is_an_error_only_if_the_task_needs_it(self, isic, table):
        table.write_text(f"{HEADER}ISIC_0000001,1,0\n")
        assert diagnoses(isic, "training", table) == {"ISIC_0000001": "melanoma", "ISIC_0000002": None}
        words = "ISIC_0000002.jpg: this image has no diagnosis; add its row to", f"{table} or remove it"
        assert_refused(lambda: find_pairs(isic, "training", table, labelled=True), *words)

    def test_an_image_in_two_tables_is_an_error(self, isic, table):
        table.write_text(HEADER + self.ALL)
        second = table.with_name("second.csv")
        second.write_text("ISIC_0000002,benign\n")
        words = f"{second}: line 1: is also in {table}: line 3", "remove one"
        assert_refused(lambda: find_pairs(isic, "training", joined(table, second)), *words)

    def test_a_missing_table_is_an_error(self, isic, table):
        assert_refused(lambda: find_pairs(isic, "training", table), f"{table}: cannot be read")


class TestWithoutMasks:
    IMAGES = "ISIC2018_Task3_Training_Input"
    TABLE = "ISIC2018_Task3_Training_GroundTruth"
    GROUPS = "ISIC2018_Task3_Training_LesionGroupings.csv"

    @pytest.fixture
    def task3(self, tmp_path):
        """Task 3 of ISIC 2018: 40 images of 20 lesions, as its archives are unpacked."""
        root = tmp_path / "task3"
        for number in range(40):
            write_image(root / self.IMAGES / f"ISIC_{number:07}.jpg")
        (root / self.TABLE).mkdir()
        rows = [f"ISIC_{number:07},0,1,0,0,0,0,0" for number in range(40)]
        (root / self.TABLE / f"{self.TABLE}.csv").write_text(
            "\n".join(["image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", *rows])
        )
        rows = [f"ISIC_{number:07},HAM_{number % 20:07},histopathology" for number in range(40)]
        (root / self.GROUPS).write_text("\n".join(["image,lesion_id,diagnosis_confirm_type", *rows]))
        return root

    def test_task_3_of_2018_is_split_by_lesion(self, task3):
        splits = [
            find_pairs(task3, split, labelled=True, masks_needed=False)
            for split in ("training", "validation")
        ]
        lesions = [{pair.lesion for pair in pairs} for pairs in splits]
        assert sum(map(len, splits)) == 40 and not lesions[0] & lesions[1]
        assert len(lesions[0] | lesions[1]) == 20
        assert {(pair.mask, pair.diagnosis) for pair in splits[0]} == {(None, "nevus")}

    def test_without_its_lesions_no_image_can_be_held_out(self, task3):
        (task3 / self.GROUPS).unlink()
        words = "ISIC_0000000.jpg", "several images show the same lesion", self.GROUPS, "validation folder"
        assert_refused(lambda: find_pairs(task3, masks_needed=False), *words)
        write_image(task3 / self.IMAGES.replace("Training", "Validation") / "ISIC_0000900.jpg")
        assert len(find_pairs(task3, masks_needed=False)) == 40

    def test_task_3_has_no_outlines(self, task3):
        assert_refused(lambda: find_pairs(task3), "ISIC 2018 task 3 has no masks", "use --task diagnosis")

    def test_beside_task_1_it_is_used_only_without_masks(self, task3):
        add_lesions(task3, ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"), [90])
        assert [pair.name for pair in find_pairs(task3, "all")] == ["ISIC_0000090"]
        words = "ISIC 2018 and ISIC 2018 task 3", "its own folder"
        assert_refused(lambda: find_pairs(task3, "all", masks_needed=False), *words)

    def test_other_data_sets_may_lack_some_or_all_masks(self, isic, plain):
        (isic / TRAINING_2017[1] / "ISIC_0000001_segmentation.png").unlink()
        masks = [pair.mask is None for pair in find_pairs(isic, masks_needed=False)]
        assert masks == [True, False]
        for mask in (plain / "masks").iterdir():
            mask.unlink()
        (plain / "masks").rmdir()
        assert [pair.mask for pair in find_pairs(plain, "all", masks_needed=False)] == [None, None]
        assert_refused(lambda: find_pairs(plain, "all"), plain / "masks", "missing")


@pytest.mark.skipif(
    not {"ISIC_ROOT", "HAM10000_ROOT"} <= set(os.environ), reason="set ISIC_ROOT and HAM10000_ROOT"
)
def test_the_real_data_sets_share_no_image():
    roots = [os.environ[name] for name in ("ISIC_ROOT", "HAM10000_ROOT")]
    pairs = find_pairs(joined(*roots), "validation", labelled=True)
    assert len(pairs) == sum(len(find_pairs(root, "validation")) for root in roots)
