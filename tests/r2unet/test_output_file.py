"""Output files are written completely or not at all."""

import os

import pytest

from r2unet.errors import InputError
from r2unet.files import output_file


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.png"
    path.write_bytes(b"the old one")
    with pytest.raises(InputError, match="No space left"), output_file(path) as file:
        file.write(b"half of the new")
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["m.png"]
