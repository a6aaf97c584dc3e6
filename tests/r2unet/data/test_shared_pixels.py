"""Pixels that processes share: the same memory in each, from a file of a cache or without one."""

import gc
from functools import partial

import numpy as np
import pytest

from r2unet.data.folders import find_pairs
from r2unet.data.lesion_images import LesionImages
from r2unet.data.shared_pixels import SharedPixels, share
from r2unet.processes import Processes


def reader(pixels):
    """Return the work of a process: the row of some number."""
    return pixels.array.__getitem__


def rows():
    return np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


def test_are_the_rows_and_read_only():
    pixels = share(rows(), (4, 2, 3)).array
    np.testing.assert_array_equal(pixels, rows())
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0] = 1


def test_are_the_same_memory_in_another_process():
    pixels = share(rows(), (4, 2, 3))
    with Processes(partial(reader, pixels), 1) as processes:
        assert next(processes.map([2])).tolist() == [[12, 13, 14], [15, 16, 17]]
        pixels.file.seek(12)
        pixels.file.write(bytes([99]))
        pixels.file.flush()
        assert next(processes.map([2])).tolist() == [[99, 13, 14], [15, 16, 17]]


def test_start_at_an_offset_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"header" + rows().tobytes() + b"checksum")
    with open(tmp_path / "file", "rb") as file:
        pixels = SharedPixels(file, (4, 2, 3), offset=6)
        with Processes(partial(reader, pixels), 1) as processes:
            np.testing.assert_array_equal(list(processes.map(range(4))), rows())


def test_more_than_the_memory_is_an_error_before_any_row_is_read():
    with pytest.raises(MemoryError):
        share(iter(lambda: pytest.fail("read"), None), (1 << 40, 64))


@pytest.mark.parametrize("cached", [False, True])
def test_a_data_set_gives_the_same_samples_in_another_process(isic, tmp_path, cached):
    data = LesionImages(find_pairs(isic, "training"), 16, cache=tmp_path / "cache" if cached else None)
    with Processes(partial(samples_of, data), 1) as processes:
        for path in (*isic.rglob("*.*"), *tmp_path.glob("cache/*")):
            path.unlink()
        for index, sample in enumerate(processes.map(range(5))):
            assert sample[2:] == data[index][2:]
            for theirs, ours in zip(sample[:2], data[index][:2], strict=True):
                np.testing.assert_array_equal(theirs, ours)


def samples_of(data):
    """Return the work of a process: the sample of some number."""
    return data.__getitem__


def test_the_memory_is_freed_with_the_pixels():
    file = share(rows(), (4, 2, 3)).file
    gc.collect()
    assert not file.closed
