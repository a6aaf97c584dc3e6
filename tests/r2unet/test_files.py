"""Texts are read up to a limit; output is written completely or not at all; folders are checked first."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from r2unet.data.diagnoses import read_labels
from r2unet.diagnosis.csv_tables import read_table
from r2unet.errors import InputError
from r2unet.files import (
    NameTooLongError,
    check_writable,
    copy_folder,
    output_file,
    read_json,
    read_rows,
    read_text,
    write_rows,
    write_text,
)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.png"
    path.write_bytes(b"the old one")
    with pytest.raises(InputError, match="No space left"), output_file(path) as file:
        file.write(b"half of the new")
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["m.png"]


class TestWriteRows:
    def test_rows_with_any_characters_are_read_as_they_were_written(self, tmp_path):
        names = ["a\rb", "a\nb", "a\r\nb", "\r", 'a"b', "a,b", '"', " a ", "\u2028", "\t;", "'", "\\"]
        write_rows(tmp_path / "a.csv", [("image", "p"), *((name, 0.5) for name in names)])
        assert [row for _, row in read_rows(tmp_path / "a.csv")[1:]] == [[name, "0.5"] for name in names]

    def test_lines_end_with_a_line_feed_and_only_what_needs_it_is_quoted(self, tmp_path):
        write_rows(tmp_path / "a.csv", [("image", "p"), ("ISIC 1", 0.5), ("a\r", 1)])
        assert (tmp_path / "a.csv").read_bytes() == b'image,p\nISIC 1,0.5\n"a\r",1\n'


class TestReadText:
    def test_returns_the_text_with_its_line_ends(self, tmp_path):
        (tmp_path / "a.csv").write_bytes("\ufeffLäsion\r\n1\n".encode())
        assert read_rows(tmp_path / "a.csv") == [(1, ["Läsion"]), (2, ["1"])]
        assert read_text(tmp_path / "a.csv") == "\ufeffLäsion\r\n1\n"

    def test_a_text_that_is_too_large_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("r2unet.files.MAX_TEXT", 2 * 1024**2)
        (tmp_path / "a.json").write_bytes(b" " * (2 * 1024**2))
        assert len(read_text(tmp_path / "a.json")) == 2 * 1024**2
        (tmp_path / "a.json").write_bytes(b" " * (2 * 1024**2 + 1))
        with pytest.raises(ValueError, match="more than 2 MB, too large"):
            read_text(tmp_path / "a.json")

    def test_a_small_table_of_very_many_rows_or_cells_is_refused(self, tmp_path):
        for row, rows, words in (("a\n", 50_000, "50,000 rows"), ("," * 999 + "\n", 500, "500,000 cells")):
            (tmp_path / "a.csv").write_text(row * rows)
            assert len(read_rows(tmp_path / "a.csv")) == rows
            (tmp_path / "a.csv").write_text(row * (rows + 1))
            with pytest.raises(ValueError, match=words):
                read_rows(tmp_path / "a.csv")

    def test_small_json_of_very_many_values_is_refused(self, tmp_path):
        for number, refused in ((500_000, False), (500_001, True)):
            (tmp_path / "a.json").write_text(f"[{','.join(['[]'] * (number // 2))}{',1' * (number % 2)}]")
            with pytest.raises(ValueError, match="500,000 values") if refused else nullcontext():
                assert len(read_json(tmp_path / "a.json")) == number // 2

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_every_reader_of_tables_refuses_a_pipe_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "labels.csv")
        for read in (read_labels, read_table):
            with pytest.raises(InputError, match="cannot be read .*not a regular file"):
                read(tmp_path / "labels.csv")

    def test_a_table_that_is_not_text_is_refused(self, tmp_path):
        (tmp_path / "labels.csv").write_bytes(b"\xff")
        with pytest.raises(InputError, match="is not a table of text .*; save it as CSV in UTF-8"):
            read_labels(tmp_path / "labels.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_folder_is_not_copied(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "best.npz")
    with pytest.raises(InputError, match="cannot be written .*not a regular file"):
        copy_folder(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_device_is_not_replaced():
    with pytest.raises(InputError) as caught, output_file("/dev/null"):
        pass
    expected = "/dev/null: cannot be written (it is a device, not a regular file); choose another name"
    assert str(caught.value) == expected


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    with output_file(tmp_path / ("x" * 255)) as file:
        file.write(b"1")
    with pytest.raises(NameTooLongError, match="a shorter name"), output_file(tmp_path / ("x" * 256)):
        pass
    assert os.listdir(tmp_path) == ["x" * 255]


def test_text_is_utf_8_whatever_a_name_contains(tmp_path):
    write_text(tmp_path / "a.csv", f"Läsion,{os.fsdecode(b'leg' + bytes([255]))}\n")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "Läsion,leg\\udcff\n"


class TestCheckWritable:
    def test_creates_nothing(self, tmp_path):
        check_writable("--out", tmp_path / "a" / "b")
        assert list(tmp_path.iterdir()) == []

    def test_names_a_file_in_place_of_a_folder(self, tmp_path):
        file = tmp_path / "notes.txt"
        file.write_text("")
        for out in (file, file / "a" / "b"):
            with pytest.raises(InputError) as caught:
                check_writable("--out", out)
            assert str(caught.value) == f"--out {out}: {file} is a file; choose a folder"

    @pytest.mark.skipif(
        not Path("/proc/self").exists(), reason="needs a folder where even root may not write"
    )
    def test_names_a_folder_without_permission(self):
        with pytest.raises(InputError) as caught:
            check_writable("--out", Path("/proc/self/x"))
        expected = "--out /proc/self/x: no permission to write into /proc/self; choose another folder"
        assert str(caught.value) == expected
