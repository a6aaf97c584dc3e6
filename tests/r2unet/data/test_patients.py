"""Age and sex are read from the tables beside the images; what is unknown is None."""

import os

import pytest

from r2unet.data.patients import Patient, read_patients
from tests.r2unet.data.isic_folders import (
    TRAINING_2017,
    VALIDATION_2017,
    add_ham10000,
    add_lesions,
    assert_refused,
    write_image,
)

METADATA_2017 = "ISIC-2017_Training_Data_metadata.csv"
HEADER = "image_id,age_approximate,sex\n"


@pytest.fixture
def isic(tmp_path):
    """Three images for training, two of them in the table, and one for validation without a table."""
    root = tmp_path / "isic"
    add_lesions(root, TRAINING_2017, [1, 2, 3])
    add_lesions(root, VALIDATION_2017, [4])
    (root / METADATA_2017).write_text(f"{HEADER}ISIC_0000001,55,female\nISIC_0000002,unknown,unknown\n")
    return root


def test_isic_2017_has_a_table_for_each_split(isic):
    assert read_patients(isic) == {
        "ISIC_0000001": Patient(55.0, "female"),
        "ISIC_0000002": Patient(None, None),
        "ISIC_0000003": Patient(None, None),  # not in the table
    }
    assert read_patients(isic, "validation") == {"ISIC_0000004": Patient(None, None)}


def test_the_table_may_be_among_the_images_as_the_archive_is_unpacked(isic):
    (isic / METADATA_2017).rename(isic / TRAINING_2017[0] / METADATA_2017)
    assert read_patients(isic)["ISIC_0000001"] == Patient(55.0, "female")


def test_ham10000_has_them_beside_the_diagnosis(tmp_path):
    add_ham10000(tmp_path, {1: ("HAM_0000001", "nv"), 2: ("HAM_0000007", "mel")})
    assert read_patients(tmp_path, "validation") == {"ISIC_0000002": Patient(50.0, "male")}


def test_several_data_sets_are_joined_and_need_no_masks(isic, tmp_path):
    write_image(tmp_path / "plain" / "images" / "leg.jpg")
    data = f"{isic}{os.pathsep}{tmp_path / 'plain'}"
    patients = read_patients(data, "all")
    assert len(patients) == 5 and patients["leg"] == Patient(None, None)


@pytest.mark.parametrize("unknown", ["", "unknown", "NaN", "N/A"])
def test_an_unknown_age_or_sex_is_none(isic, unknown):
    (isic / METADATA_2017).write_text(f"{HEADER}ISIC_0000001,{unknown},male\nISIC_0000002,0.0,{unknown}\n")
    patients = read_patients(isic)
    assert patients["ISIC_0000001"] == Patient(None, "male")
    assert patients["ISIC_0000002"] == Patient(0.0, None)


@pytest.mark.parametrize(
    "age, sex, words",
    [
        ("old", "male", "'old' is not an age in years"),
        ("-5", "male", "'-5' is not an age"),
        ("1955", "male", "'1955' is not an age"),
        ("55", "7", "'7' is not a sex"),
    ],
)
def test_anything_else_is_an_error_with_the_line(isic, age, sex, words):
    (isic / METADATA_2017).write_text(f"{HEADER}ISIC_0000001,{age},{sex}\n")
    assert_refused(lambda: read_patients(isic), f"{isic / METADATA_2017}: line 2: {words}", "leave it empty")


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
def test_real_patients_of_isic_2017():
    patients = read_patients(os.environ["ISIC_ROOT"], "validation").values()
    assert [sum(p.sex == sex for p in patients) for sex in ("male", "female", None)] == [90, 59, 1]
    assert sum(p.age is None for p in patients) == 1


@pytest.mark.skipif("HAM10000_ROOT" not in os.environ, reason="set HAM10000_ROOT to a folder of HAM10000")
def test_real_patients_of_ham10000():
    patients = read_patients(os.environ["HAM10000_ROOT"], "all").values()
    known = [p.sex for p in patients if p.sex]
    assert len(known) / len(patients) > 0.99 and 0.4 < known.count("female") / len(known) < 0.5
