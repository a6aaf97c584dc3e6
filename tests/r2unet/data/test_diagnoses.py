"""Labels are read from the tables of four data sets; anything else is refused with line and remedy."""

import pytest

from r2unet.data.diagnoses import read_labels
from r2unet.data.tables import find_table, image_key, isic_number
from tests.r2unet.data.isic_folders import assert_refused

HEADER_2017 = "image_id,melanoma,seborrheic_keratosis"
HEADER_2018 = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
HEADER_HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization"
SEVEN = [
    "melanoma",
    "nevus",
    "basal_cell_carcinoma",
    "actinic_keratosis",
    "benign_keratosis",
    "dermatofibroma",
    "vascular_lesion",
]


@pytest.fixture
def table(tmp_path):
    return tmp_path / "table.csv"


def write(path, *lines, encoding="utf-8", end="\n"):
    path.write_bytes("".join(line + end for line in lines).encode(encoding))


def diagnoses(path):
    return {key: label.diagnosis for key, label in read_labels(path).items()}


class TestNames:
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
    def test_an_isic_name_starts_with_isic_and_seven_digits(self, text, number):
        assert isic_number(text) == number

    @pytest.mark.parametrize(
        "name, key",
        [
            ("ISIC_0000001", "0000001"),
            ("isic_0000001_downsampled.jpg", "0000001"),
            ("Leg 2", "leg 2"),
            ("Leg 2.JPG", "leg 2"),
            ("leg.2", "leg.2"),  # not the ending of an image
        ],
    )
    def test_a_row_names_an_image_with_or_without_its_ending(self, name, key):
        assert image_key(name) == key


class TestFormats:
    def test_2017_has_two_classes_and_neither_means_nevus(self, table):
        write(table, HEADER_2017, "ISIC_0000001,0.0,1.0", "ISIC_0000000,1.0,0.0", "ISIC_0000002,0,0")
        assert diagnoses(table) == {
            "0000001": "seborrheic_keratosis",
            "0000000": "melanoma",
            "0000002": "nevus",
        }

    def test_2016_has_words_in_training_and_numbers_in_test(self, table):
        for yes, no in (("malignant", "benign"), ("1.0", "0.0")):
            write(table, f"ISIC_0000001,{no}", f"ISIC_0000002,{yes}")
            assert diagnoses(table) == {"0000001": "benign", "0000002": "malignant"}

    def test_2018_has_seven_classes(self, table):
        rows = [",".join([f"ISIC_{i:07}", *("1.0" if i == j else "0.0" for j in range(7))]) for i in range(7)]
        write(table, HEADER_2018, *rows, encoding="utf-8-sig", end="\r\n")
        assert list(diagnoses(table).values()) == SEVEN

    def test_columns_may_have_any_order(self, table):
        write(table, "image,VASC,DF,BKL,AKIEC,BCC,NV,MEL", "ISIC_0000001,0,0,0,0,0,0,1")
        assert diagnoses(table) == {"0000001": "melanoma"}
        write(table, "seborrheic_keratosis,image_id,melanoma", "1,ISIC_0000001,0")
        assert diagnoses(table) == {"0000001": "seborrheic_keratosis"}

    def test_ham10000_has_words_and_lesions(self, table):
        names = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
        rows = [f"HAM_{i // 2},ISIC_{i:07},{dx},histo,80.0,male,scalp" for i, dx in enumerate(names)]
        write(table, HEADER_HAM, *rows)
        labels = list(read_labels(table).values())
        assert [label.diagnosis for label in labels] == SEVEN
        assert [label.lesion for label in labels] == [f"HAM_{i // 2}" for i in range(7)]
        assert labels[0].where == f"{table}: line 2"

    def test_dataverse_separates_by_tabs_and_spreadsheets_by_semicolons(self, table):
        write(table, '"lesion_id"\t"image_id"\t"dx"', '"HAM_1"\t"ISIC_0000001"\t"nv"')
        assert diagnoses(table) == {"0000001": "nevus"}
        write(table, "image;dx", "leg.jpg;nevus", "", ";")
        assert diagnoses(table) == {"leg": "nevus"}  # empty lines are skipped

    def test_images_may_have_any_name(self, table):
        write(table, "Left Leg.jpg,malignant", "arm,benign")
        assert diagnoses(table) == {"left leg": "malignant", "arm": "benign"}

    def test_a_table_may_be_in_a_folder_of_its_name(self, tmp_path):
        assert find_table(tmp_path, "a.csv", "b.csv") is None
        inside = tmp_path / "b" / "b.csv"
        inside.parent.mkdir()
        inside.write_text("")
        (tmp_path / "a.csv").mkdir()  # a folder is no table
        assert find_table(tmp_path, "a.csv", "b.csv") == inside


class TestMalformedTables:
    @pytest.mark.parametrize(
        "header, row, words",
        [
            (HEADER_2017, "ISIC_0000002,1.0", "has 2 cells, but the columns are image_id, melanoma"),
            (
                HEADER_2017,
                "ISIC_0000002,1.0,1.0",
                "melanoma and seborrheic_keratosis are both 1, but a lesion has one diagnosis; set that to 1",
            ),
            (HEADER_2017, "ISIC_0000002,0.5,0.0", "'0.5' in column 'melanoma' is not 0 or 1; correct it"),
            (HEADER_2017, "ISIC_0000002,0.0,NaN", "'NaN' in column 'seborrheic_keratosis' is not 0 or 1"),
            (HEADER_2017, "ISIC_0000002,,0.0", "'' in column 'melanoma' is not 0 or 1"),
            (HEADER_2017, "ISIC_0000002,yes,0.0", "'yes' in column 'melanoma' is not 0 or 1"),
            (HEADER_2017, ",1.0,0.0", "names no image"),
            (HEADER_2017, "<html>", "has 1 cells"),
            (HEADER_2018, "ISIC_0000002,0,0,0,0,0,0,0", "no column is 1; set that of the diagnosis"),
            (HEADER_2018, "ISIC_0000002,1,0,0,0,0,0,1", "mel and vasc are both 1"),
            (HEADER_HAM, "HAM_1,ISIC_0000002,scc,histo,,,", "'scc' is an unknown type; use one of mel, nv"),
            (HEADER_HAM, "HAM_1,ISIC_0000002,,histo,,,", "'' is an unknown type"),
            (
                "image,malignant",
                "ISIC_0000002,harmless",
                "'harmless' in column 'malignant' is not benign, malignant, 0 or 1; correct it, or name the",
            ),
            (
                "image,dx,malignant",
                "a,nv,1",
                "both 'dx' and 'malignant' say the diagnosis; remove one column",
            ),
            ("image,nv,dx", "a,1,mel", "both 'dx' and 'nv' say the diagnosis"),
            (
                "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC,UNK",
                "a,1,0,0,0,0,0,0,0",
                "unknown column 'unk'; remove it",
            ),
            ("image,MEL,NV,BCC,AKIEC,BKL,DF", "a,1,0,0,0,0,0", "column 'vasc' is missing; add it"),
            ("image_id,melanoma", "a,1", "column 'seborrheic_keratosis' is missing"),
            ("image_id,age", "a,1", "no known columns of a diagnosis in image_id, age"),
            ("image_id", "a", "no known columns of a diagnosis"),
        ],
    )
    def test_the_error_names_the_line(self, table, header, row, words):
        write(table, header, row)
        assert_refused(lambda: read_labels(table), f"{table}: line 2: {words}")

    @pytest.mark.parametrize(
        "header, words",
        [
            ("name,melanoma,seborrheic_keratosis", "names no column 'image' or 'image_id'"),
            ("image,MEL,mel", "names a column twice"),
            # Read as a row of 2016
            (
                "name,diagnosis",
                "'diagnosis' in column 'malignant' is not benign, malignant, 0 or 1; correct it, or name the "
                "columns in line 1",
            ),
        ],
    )
    def test_a_malformed_header_is_line_1(self, table, header, words):
        write(table, header, "a,1,0")
        if header == "name,diagnosis":
            write(table, header, "a,1")
        assert_refused(lambda: read_labels(table), f"{table}: line 1: {words}")

    @pytest.mark.parametrize("second", ["ISIC_0000001", "isic_0000001.jpg"])
    def test_two_rows_of_an_image_are_an_error(self, table, second):
        write(table, HEADER_2017, "ISIC_0000001,0,0", f"{second},0,0")
        assert_refused(lambda: read_labels(table), f"{table}: line 3: {second} is listed a second time")

    def test_a_line_break_in_a_cell_does_not_change_the_numbers_of_lines(self, table):
        write(table, "image,dx,note", 'a,nv,"two', 'lines"', "b,x,")
        assert_refused(lambda: read_labels(table), f"{table}: line 4: ")

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"image,dx\n\xe4,nv\n"])
    def test_a_file_of_another_encoding_is_an_error(self, table, content):
        table.write_bytes(content)
        assert_refused(lambda: read_labels(table), f"{table}: is not a table of text", "UTF-8")

    @pytest.mark.parametrize("header", ['"image,malignant', 'image,"malignant', 'image,malignant"x'])
    def test_a_quotation_mark_without_its_pair_is_an_error_and_not_one_long_cell(self, table, header):
        write(table, header, "ISIC_0000001,benign", 'ISIC_0000002,"malignant" x')
        assert_refused(lambda: read_labels(table), f"{table}: is not a table of text")

    @pytest.mark.parametrize("row", ['ISIC_0000002,"benign', 'ISIC_0000002,"benign" x'])
    def test_a_row_with_a_bad_quotation_mark_is_named_by_its_first_line(self, table, row):
        write(table, "image,malignant", "ISIC_0000001,benign", row, "ISIC_0000003,benign")
        assert_refused(lambda: read_labels(table), f"{table}: is not a table of text (line 3: ", "save it as")

    def test_a_file_of_another_kind_is_an_error(self, table):
        table.write_bytes(b"PK\x03\x04\n")
        assert_refused(lambda: read_labels(table), f"{table}: line 1: ")

    def test_a_missing_file_and_a_folder_are_errors(self, table):
        assert_refused(lambda: read_labels(table), f"{table}: cannot be read", "check the path")
        table.mkdir()
        assert_refused(lambda: read_labels(table), f"{table}: cannot be read")

    def test_an_empty_file_has_no_labels(self, table):
        table.write_text("")
        assert read_labels(table) == {}
