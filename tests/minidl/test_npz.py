"""A .npz file is read only if its headers, its checksums and its size agree; its arrays fit into its size."""

import io
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from minidl.npz import read_npz


def peak_memory(call):
    """Return the most memory in bytes that Python and NumPy had allocated during a call that fails."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def npy(header, numbers=b""):
    """Return the content of a .npy file with any header."""
    text = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + numbers


def archive(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "arrays.npz"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(7),
        np.zeros((0, 3), np.float32),
        np.array("text, 皮膚"),
        np.array([1, 2], ">i4"),
        np.array([True, False]),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_returns_what_numpy_returns(path, array):
    np.savez(path, a=array)
    found = read_npz(path)["a"]
    expected = np.load(path)["a"]
    assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, array.shape, expected.tobytes())
    assert found.flags.writeable


@pytest.mark.parametrize("shape", ["(2,)", "(4,)", "(10**12,)", "(1000000000000,)", "(-3,)", "(-1, -3)"])
def test_a_header_that_announces_another_size_is_refused(path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    with pytest.raises(ValueError):
        read_npz(archive(path, a=npy(header, bytes(24))))


def test_compressed_zeros_are_refused_without_memory_for_them(path):
    np.savez_compressed(path, a=np.zeros(10_000_000))
    assert path.stat().st_size < 100_000
    assert peak_memory(lambda: read_npz(path)) < 1_000_000
    with pytest.raises(ValueError, match=r"a.npy is compressed; write the file with numpy.savez"):
        read_npz(path)


def test_many_members_that_share_their_bytes_are_refused(path):
    content = io.BytesIO()
    np.save(content, np.zeros(100_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive(path, a=content.getvalue())
        with zipfile.ZipFile(path, "a") as file:
            for k in range(20):
                twin = zipfile.ZipInfo(f"b{k}.npy")
                first = file.infolist()[0]
                twin.header_offset, twin.CRC = first.header_offset, first.CRC
                twin.file_size = twin.compress_size = first.file_size
                file.filelist.append(twin)
            file._didModify = True
    assert peak_memory(lambda: read_npz(path)) < 2 * path.stat().st_size
    with pytest.raises(ValueError, match="larger than the file"):
        read_npz(path)


def test_two_arrays_of_the_same_name_are_refused(path):
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate
        with zipfile.ZipFile(path, "w") as file:
            for _ in range(2):
                file.writestr("a.npy", content.getvalue())
    with pytest.raises(ValueError, match="two arrays have the same name"):
        read_npz(path)


def test_a_flipped_bit_is_found_even_behind_the_announced_numbers(path):
    np.savez(path, a=np.arange(3000.0))
    whole = bytearray(path.read_bytes())
    for place in (whole.index(b"(3000,)") + 1, whole.index(np.arange(3000.0).tobytes()) + 23_999):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(zipfile.BadZipFile, match="CRC"):
            read_npz(path)


def test_an_array_of_objects_is_refused_without_unpickling(path):
    np.savez(path, a=np.array([{}, None]))
    with pytest.raises(ValueError):
        read_npz(path)
