"""Output files are written completely or not at all; folders are checked before the work begins."""

import os
from pathlib import Path

import pytest

from r2unet.errors import InputError
from r2unet.files import check_writable, output_file


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.png"
    path.write_bytes(b"the old one")
    with pytest.raises(InputError, match="No space left"), output_file(path) as file:
        file.write(b"half of the new")
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["m.png"]


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
