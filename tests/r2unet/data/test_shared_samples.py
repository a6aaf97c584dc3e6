"""Samples that processes share: the same memory in each, from a file of a cache or without one."""

from functools import partial

import numpy as np
import pytest

from r2unet.data.folders import find_pairs
from r2unet.data.lesion_images import LesionImages
from r2unet.data.shared_samples import SharedPixels, SharedSamples, share_rows
from r2unet.data.synthetic import SyntheticLesions
from r2unet.processes import Processes
from r2unet.shared_memory import SharedFile


def reader(pixels):
    """Return the work of a process: the row of some number."""
    return pixels.array.__getitem__


def rows():
    return np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


def test_are_the_rows_and_read_only():
    pixels = share_rows(rows(), (4, 2, 3)).array
    np.testing.assert_array_equal(pixels, rows())
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0] = 1


def test_are_the_same_memory_in_another_process():
    pixels = share_rows(rows(), (4, 2, 3))
    with Processes(partial(reader, pixels), 1) as processes:
        assert next(processes.map([2])).tolist() == [[12, 13, 14], [15, 16, 17]]
        pixels.shared.file.seek(12)
        pixels.shared.file.write(bytes([99]))
        pixels.shared.file.flush()
        assert next(processes.map([2])).tolist() == [[99, 13, 14], [15, 16, 17]]


def test_need_no_permission_to_make_files_in_memory(monkeypatch):
    def forbidden(name):
        raise PermissionError(name)

    monkeypatch.setattr("os.memfd_create", forbidden, raising=False)
    pixels = share_rows(rows(), (4, 2, 3))
    with Processes(partial(reader, pixels), 1) as processes:
        np.testing.assert_array_equal(list(processes.map(range(4))), rows())


def test_start_at_an_offset_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"header" + rows().tobytes() + b"checksum")
    with open(tmp_path / "file", "rb") as file:
        pixels = SharedPixels(SharedFile(file), (4, 2, 3), offset=6)
        with Processes(partial(reader, pixels), 1) as processes:
            np.testing.assert_array_equal(list(processes.map(range(4))), rows())


def test_more_than_the_memory_is_an_error_before_any_row_is_read():
    with pytest.raises(MemoryError):
        share_rows(iter(lambda: pytest.fail("read"), None), (1 << 40, 64))


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


def test_any_samples_can_be_shared():
    samples = SyntheticLesions(5, 16, seed=0)
    shared = SharedSamples(samples)
    assert len(shared) == 5
    with Processes(partial(samples_of, shared), 1) as processes:
        for found in (shared, processes.map(range(5))):
            for sample, expected in zip(found, samples, strict=True):
                assert sample[2:] == expected[2:]
                np.testing.assert_array_equal(sample.image, expected.image)
                np.testing.assert_array_equal(sample.mask, expected.mask)
