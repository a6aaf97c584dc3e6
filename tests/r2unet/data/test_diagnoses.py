"""Tables of diagnoses of three years in three formats; malformed tables are rejected with the line."""

import pytest

from r2unet.data.diagnoses import isic_number, read_diagnoses
from r2unet.errors import InputError


@pytest.mark.parametrize(
    "text, number",
    [
        ("ISIC_0000001", "0000001"),
        ("isic_0012345_Segmentation", "0012345"),
        ("ISIC_00000012", None),
        ("ISIC_000001", None),
        ("my_ISIC_0000001", None),
        ("", None),
    ],
)
def test_an_isic_name_starts_with_isic_and_seven_digits(text, number):
    assert isic_number(text) == number


class TestTables:
    def test_2017_has_two_classes_and_neither_means_nevus(self, tmp_path):
        table = tmp_path / "ISIC-2017_Training_Part3_GroundTruth.csv"
        table.write_text(
            "image_id,melanoma,seborrheic_keratosis\n"
            "ISIC_0000001,0.0,1.0\nISIC_0000000,1.0,0.0\nISIC_0000002,0.0,0.0\n"
        )
        assert read_diagnoses(table) == {
            "0000001": "seborrheic_keratosis",
            "0000000": "melanoma",
            "0000002": "nevus",
        }

    def test_2016_has_words_in_training_and_numbers_in_test(self, tmp_path):
        table = tmp_path / "table.csv"
        for yes, no in (("malignant", "benign"), ("1.0", "0.0")):
            table.write_text(f"ISIC_0000001,{no}\nISIC_0000002,{yes}\n")
            assert read_diagnoses(table) == {"0000001": "benign", "0000002": "malignant"}

    def test_2018_has_seven_classes_and_its_table_may_be_in_a_folder(self, tmp_path):
        header = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
        rows = [["image", *header]]
        rows += [[f"ISIC_{i:07}", *("1.0" if i == j else "0.0" for j in range(7))] for i in range(7)]
        inside = tmp_path / "ISIC2018_Task3" / "ISIC2018_Task3.csv"
        inside.parent.mkdir()
        inside.write_text("\ufeff" + "\r\n".join(map(",".join, rows)) + "\r\n", encoding="utf-8")
        assert list(read_diagnoses(tmp_path / "ISIC2018_Task3.csv").values()) == [
            "melanoma",
            "nevus",
            "basal_cell_carcinoma",
            "actinic_keratosis",
            "benign_keratosis",
            "dermatofibroma",
            "vascular_lesion",
        ]

    def test_without_a_table_there_are_no_diagnoses(self, tmp_path):
        assert read_diagnoses(tmp_path / "table.csv") == {}


class TestMalformedTables:
    @pytest.mark.parametrize(
        "line, words",
        [
            ("ISIC_0000002,1.0", "columns"),
            ("ISIC_0000002,1.0,1.0", "a single 1"),
            ("ISIC_0000002,0.5,0.0", "a single 1"),
            ("ISIC_0000002,nan,0.0", "a single 1"),
            ("ISIC_0000002,yes,0.0", "yes"),
            ("ISIC_2,1.0,0.0", "ISIC_2"),
            ("ISIC_0000001,1.0,0.0", "second time"),
            ("<html>", "<html>"),
        ],
    )
    def test_the_error_names_the_malformed_line(self, tmp_path, line, words):
        table = tmp_path / "table.csv"
        table.write_text(f"image_id,melanoma,seborrheic_keratosis\nISIC_0000001,0.0,0.0\n{line}\n")
        with pytest.raises(InputError) as caught:
            read_diagnoses(table)
        message = str(caught.value)
        assert message.startswith(f"{table}: line 3: ") and words in message and "\n" not in message

    def test_in_2018_a_row_without_a_diagnosis_is_an_error(self, tmp_path):
        table = tmp_path / "table.csv"
        table.write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_0000001,0,0,0,0,0,0,0\n")
        with pytest.raises(InputError, match="line 2: expected a single 1"):
            read_diagnoses(table)

    def test_in_2016_an_unknown_word_is_an_error(self, tmp_path):
        table = tmp_path / "table.csv"
        table.write_text("ISIC_0000001,harmless\n")
        with pytest.raises(InputError, match="line 1: expected .*benign"):
            read_diagnoses(table)

    @pytest.mark.parametrize(
        "content", [b"image_id,melanoma\nISIC_0000001,1.0\n", b"\xff\xfe\x00", b"PK\x03\x04\n"]
    )
    def test_a_file_of_another_format_is_an_error(self, tmp_path, content):
        table = tmp_path / "table.csv"
        table.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_diagnoses(table)
        assert str(caught.value).startswith(f"{table}: line ")

    def test_a_folder_instead_of_a_file_is_an_error(self, tmp_path):
        (tmp_path / "table.csv").mkdir()
        with pytest.raises(InputError, match="table.csv: cannot be read"):
            read_diagnoses(tmp_path / "table.csv")
