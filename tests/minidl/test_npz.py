"""A .npz file is read only if its headers, its checksums and its size agree; its arrays fit into its size."""

import io
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from minidl.npz import END, END64, LOCATOR64, MAX_DIRECTORY, read_npz


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


def hostile_directory(size):
    """Return a zip that consists of a directory of about `size` bytes, with an entry for each 47 to 52."""
    entry = struct.Struct("<4s6H3L5H2L")
    directory = bytearray()
    while len(directory) < size:
        name = f"{len(directory):x}".encode()
        fields = [0] * 16
        fields[9] = len(name)
        directory += entry.pack(b"PK\1\2", *fields) + name
    return bytes(directory) + END.pack(b"PK\5\6", 0, 0, 0, 0, len(directory), 0, 0)


def with_zip64(content, comment=b"", **changes):
    """Return a zip whose end record refers to a zip64 record; `changes` are of the records' numbers."""
    start = len(content) - END.size
    _, _, _, here, count, size, offset, _ = END.unpack(content[start:])
    numbers = {"here": here, "count": count, "size": size, "offset": offset, "at": start, "disks": 1}
    numbers |= {"end_here": 0xFFFF, "end_count": 0xFFFF, "end_size": 2**32 - 1, "end_offset": 2**32 - 1}
    n = numbers | {"length": END64.size - 12} | changes
    return b"".join(
        [
            content[:start],
            END64.pack(b"PK\6\6", n["length"], 45, 45, 0, 0, n["here"], n["count"], n["size"], n["offset"]),
            LOCATOR64.pack(b"PK\6\7", 0, n["at"], n["disks"]),
            END.pack(
                b"PK\5\6", 0, 0, n["end_here"], n["end_count"], n["end_size"], n["end_offset"], len(comment)
            ),
            comment,
        ]
    )


class TestDirectory:
    """`zipfile` may parse only a directory of bounded size, which the end record describes."""

    @pytest.fixture
    def content(self):
        file = io.BytesIO()
        np.savez(file, a=np.arange(3.0), b=np.arange(4.0))
        return file.getvalue()

    def changed(self, content, **changes):
        """Return the content with other numbers in its end record."""
        names = ("signature", "disk", "first", "here", "count", "size", "offset", "comment")
        values = dict(zip(names, END.unpack(content[-END.size :]), strict=True))
        return content[: -END.size] + END.pack(*(values | changes).values())

    def test_a_huge_directory_is_refused_without_memory_for_it(self, path):
        path.write_bytes(hostile_directory(MAX_DIRECTORY + 1))
        assert peak_memory(lambda: read_npz(path)) < 100_000
        with pytest.raises(
            ValueError, match=r"directory has 4,194,\d{3} bytes, more than the limit 4,194,304"
        ):
            read_npz(path)

    def test_a_directory_with_more_members_than_the_end_record_says_is_refused(self, path):
        path.write_bytes(hostile_directory(1000))
        with pytest.raises(ValueError, match="not have as many members"):
            read_npz(path)

    def test_as_many_arrays_as_the_largest_network_has_fit(self):
        file = io.BytesIO()
        np.savez(file, **{f"array{60_000 + k}": np.zeros(1) for k in range(10)})
        size = END.unpack(file.getvalue()[-END.size :])[5]
        assert 62_168 * size / 10 < MAX_DIRECTORY

    def test_a_zip64_record_is_read(self, path, content):
        path.write_bytes(with_zip64(content))
        assert read_npz(path)["b"].tolist() == [0, 1, 2, 3]
        path.write_bytes(with_zip64(content, end_here=2, end_count=2))  # these numbers are small enough
        assert read_npz(path)["a"].tolist() == [0, 1, 2]

    def test_a_huge_directory_behind_a_zip64_record_is_refused_without_memory_for_it(self, path):
        content = hostile_directory(MAX_DIRECTORY + 1)
        path.write_bytes(with_zip64(content, end_here=0, end_count=0))
        assert peak_memory(lambda: read_npz(path)) < 100_000
        with pytest.raises(ValueError, match="more than the limit"):
            read_npz(path)

    @pytest.mark.parametrize(
        "change",
        [
            {"end_count": 1},
            {"end_size": 5},
            {"end_offset": 0},
            {"count": 3},
            {"here": 1},
            {"size": 46},
            {"offset": 0},
            {"at": 0},
            {"disks": 2},
            {"length": 60},
        ],
        ids=str,
    )
    def test_zip64_records_that_disagree_are_refused(self, path, content, change):
        path.write_bytes(with_zip64(content, **change))
        with pytest.raises(ValueError, match="disagree|do not fit together|does not describe"):
            read_npz(path)

    @pytest.mark.parametrize(
        "change", [{"count": 1}, {"here": 3}, {"size": 46}, {"offset": 0}, {"disk": 1}, {"first": 1}], ids=str
    )
    def test_an_end_record_that_disagrees_with_the_file_is_refused(self, path, content, change):
        path.write_bytes(self.changed(content, **change))
        with pytest.raises(ValueError, match="does not describe the directory"):
            read_npz(path)

    def test_a_directory_of_another_length_than_announced_is_refused(self, path, content):
        path.write_bytes(self.changed(content, here=3, count=3))
        with pytest.raises(ValueError, match="not have as many members"):
            read_npz(path)

    def test_a_comment_is_refused_because_it_may_hide_another_end_record(self, path, content):
        path.write_bytes(self.changed(content, comment=4) + b"text")
        with pytest.raises(ValueError, match="without a comment"):
            read_npz(path)
        path.write_bytes(self.changed(content, comment=4))
        with pytest.raises(ValueError, match="announces a comment"):
            read_npz(path)
        hidden = hostile_directory(MAX_DIRECTORY + 1)
        for comment in (content, content[-END.size :]):  # an honest end record at the end of the comment
            path.write_bytes(hidden[:-2] + struct.pack("<H", len(comment)) + comment)
            assert peak_memory(lambda: read_npz(path)) < 1_000_000

    @pytest.mark.parametrize("size", [0, 1, 21, 22, 41, 97])
    def test_a_file_that_is_too_short_for_its_records_is_refused(self, path, content, size):
        path.write_bytes(with_zip64(content)[-size:] if size else b"")
        with pytest.raises(ValueError, match=r"does not end|does not describe|do not fit"):
            read_npz(path)
