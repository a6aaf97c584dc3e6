"""Reading .npz files: the sizes in their headers are compared with the file before memory is allocated.

A .npz file is a zip of .npy files. Each .npy file consists of a header, with dtype and shape, and the
numbers. `numpy.savez` stores the numbers without compression, so they take as many bytes in the file as in
memory, and the arrays of a file are never larger than the file. `numpy.load` does not check this: a few
kilobytes of compressed zeros, or a header that announces a huge array, would fill the memory.

`numpy.load` also skips the checksum of an array whose header announces fewer numbers than there are. Here all
bytes are read, and their number must be the announced one.

The last part of a zip is its directory, with 46 bytes and a name for every member, and the end record, which
says where the directory is. `zipfile` parses the directory into objects that take nine times its size in
memory. So the end record is read here first, and a directory that is larger than any checkpoint needs is
refused. This holds only if `zipfile` takes the same bytes for the end record. They must therefore be where
numpy writes them:

    members | directory | (zip64 record | zip64 locator) | end record, 22 bytes without a comment

The two parts in parentheses exist where a number needs more than 32 bits. They then override the end record.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minidl.inputs import open_input, size_of

HEADERS: dict[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

# The limit of the directory in bytes. numpy.savez writes about 59 for each array, so this is 70,000 arrays.
# The largest training state that R2U-Net's settings allow has 62,168, that of the default settings 516.
MAX_DIRECTORY = 4 * 2**20
# The records at the end of a zip (PKWARE, APPNOTE.TXT, sections 4.3.14 to 4.3.16)
END = struct.Struct("<4s4H2LH")  # signature, 2 disks, members here, members, size, offset, comment's length
END64 = struct.Struct("<4sQ2H2L4Q")  # signature, length, 2 versions, 2 disks, and the same four numbers
LOCATOR64 = struct.Struct("<4sLQL")  # signature, disk, offset of the zip64 record, disks
LARGEST = (2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1)  # in the end record: the zip64 record has the number


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file by name.

    Raises OSError if it cannot be opened, and ValueError, BadZipFile or another exception if it is damaged,
    compressed, or contains an array of Python objects.
    """
    with open_input(path) as file:
        count = _count_members(file, size_of(file))
        with zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            if len(archive.infolist()) != count:
                raise ValueError("its directory does not have as many members as its end record says")
            if len(members) < count:
                raise ValueError("two arrays have the same name")
            _check_sizes(members.values(), size_of(file))
            return {name: _array(archive.read(member)) for name, member in members.items()}


def _count_members(file: BinaryIO, file_size: int) -> int:
    """Return the number of members by the end record. Raises ValueError if `zipfile` might see another one.

    Also raises ValueError for a directory larger than MAX_DIRECTORY.
    """
    start = file_size - END.size
    signature, *disks, here, count, size, offset, comment = _read(file, start, END)
    if signature != b"PK\5\6":
        raise ValueError("it does not end like a zip file without a comment")
    if comment:
        raise ValueError("its end record announces a comment; write the file with numpy.savez")
    at = start - LOCATOR64.size
    if at >= END64.size and (locator := _read(file, at, LOCATOR64))[0] == b"PK\6\7":
        end, start = (here, count, size, offset), at - END64.size
        signature, length, _, _, *disks, here, count, size, offset = _read(file, start, END64)
        if (signature, length, *locator[1:]) != (b"PK\6\6", END64.size - 12, 0, start, 1):
            raise ValueError("its zip64 records do not fit together")
        for small, large, largest in zip(end, (here, count, size, offset), LARGEST, strict=True):
            if small not in (large, largest):  # numbers that are too large for the end record
                raise ValueError("its end record and its zip64 record disagree")
    if disks != [0, 0] or here != count or offset + size != start:
        raise ValueError("its end record does not describe the directory before it")
    if size > MAX_DIRECTORY:
        raise ValueError(f"its directory has {size:,} bytes, more than the limit {MAX_DIRECTORY:,}")
    return count


def _read(file: BinaryIO, start: int, record: struct.Struct) -> tuple:
    """Return the numbers of a record in a file."""
    file.seek(max(start, 0))
    return record.unpack(file.read(record.size).ljust(record.size, b"\0"))


def _check_sizes(members: Iterable[zipfile.ZipInfo], file_size: int) -> None:
    """Raise ValueError for compressed members, and if all together are larger than the file."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed; write the file with numpy.savez")
    if sum(member.file_size for member in members) > file_size:
        raise ValueError("its arrays are larger than the file")


def _array(content: bytes) -> np.ndarray:
    """Return the array in the content of a .npy file. Raises ValueError if header and size differ."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of .npy is not supported")
    shape, fortran_order, dtype = HEADERS[version](stream)
    announced, found = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if min(shape, default=0) < 0 or announced != found:
        raise ValueError(f"{found} bytes, but {dtype} {shape} needs {announced}")
    numbers = np.frombuffer(content, dtype, math.prod(shape), stream.tell())
    return numbers.reshape(shape, order="F" if fortran_order else "C").copy(order="K")
