"""Reading .npz files: the sizes in their headers are compared with the file before memory is allocated.

A .npz file is a zip of .npy files. Each .npy file consists of a header, with dtype and shape, and the
numbers. `numpy.savez` stores the numbers without compression, so they take as many bytes in the file as in
memory, and the arrays of a file are never larger than the file. `numpy.load` does not check this: a few
kilobytes of compressed zeros, or a header that announces a huge array, would fill the memory.

`numpy.load` also skips the checksum of an array whose header announces fewer numbers than there are. Here all
bytes are read, and their number must be the announced one.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from minidl.inputs import open_input, size_of

HEADERS: dict[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file by name.

    Raises OSError if it cannot be opened, and ValueError, BadZipFile or another exception if it is damaged,
    compressed, or contains an array of Python objects.
    """
    with open_input(path) as file, zipfile.ZipFile(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("two arrays have the same name")
        _check_sizes(members.values(), size_of(file))
        return {name: _array(archive.read(member)) for name, member in members.items()}


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
