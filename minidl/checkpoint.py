"""Checkpoints: a single file without pickle, written atomically.

A checkpoint is a tree of dictionaries and lists whose leaves are arrays, numbers, strings, True, False and
None. The arrays are stored in a .npz file (a zip of .npy files, each with a checksum). The rest of the tree
is stored in the same file as one JSON text, in which {"array": k} stands for array k. The file can therefore
be opened without this library, by `numpy.load(file, allow_pickle=False)`. Loading it never runs code from the
file, as loading a pickle can.

Writing is atomic (`minidl.files`): after an interruption, by Ctrl-C or by a power failure, the file is the
old checkpoint or the new one, never a part of it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import is_array, to_numpy
from minidl.files import atomic_write

FORMAT = "minidl checkpoint 1"


class CheckpointError(ValueError):
    """A file is not a checkpoint, or it is damaged; the message names the file."""


def save(path: str | Path, tree: dict[str, Any]) -> None:
    """Write the tree to one file, atomically. Tuples become lists, and dictionary keys become strings.

    Raises OSError if the file cannot be written, TypeError for a leaf of any other type, and ValueError for a
    dictionary whose only key is "array", because in the file such a dictionary stands for an array.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps({"format": FORMAT, "tree": _extract_arrays(tree, arrays)})
    with atomic_write(path) as file:
        np.savez(file, tree=np.array(text), **{f"array{k}": a for k, a in enumerate(arrays)})


def load(path: str | Path) -> dict[str, Any]:
    """Read a tree written by `save`. Raises FileNotFoundError, or CheckpointError for any other file."""
    try:
        _verify_checksums(path)
        with np.load(path, allow_pickle=False) as file:
            document = json.loads(str(file["tree"]))
            if document["format"] != FORMAT:
                raise CheckpointError(f"{path}: its format is {document['format']!r}, expected {FORMAT!r}")
            return _insert_arrays(document["tree"], file)
    except (FileNotFoundError, CheckpointError):
        raise
    except Exception as error:  # one wrong byte can raise any of a dozen types
        raise CheckpointError(
            f"{path}: is not a checkpoint of this program, or it is damaged ({error})"
        ) from error


def _verify_checksums(path: str | Path) -> None:
    """Raise BadZipFile unless every part of the file matches its checksum.

    NumPy reads only as many bytes as an array's header announces. If a damaged header announced fewer, NumPy
    would return a shorter array without ever reaching the checksum.
    """
    with zipfile.ZipFile(path) as file:
        if broken := file.testzip():
            raise zipfile.BadZipFile(f"{broken} does not match its checksum")


def _extract_arrays(node: Any, arrays: list[np.ndarray]) -> Any:
    if is_array(node):
        if node.dtype.hasobject:
            raise TypeError("checkpoint: an array of Python objects would need pickle; use lists instead")
        arrays.append(to_numpy(node))
        return {"array": len(arrays) - 1}
    if isinstance(node, dict):
        if set(node) == {"array"}:
            raise ValueError('checkpoint: {"array": ...} marks an array in the file; use another key')
        return {str(key): _extract_arrays(value, arrays) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_extract_arrays(value, arrays) for value in node]
    if isinstance(node, np.generic):
        return node.item()
    return node


def _insert_arrays(node: Any, file: Any) -> Any:
    if isinstance(node, dict):
        if set(node) == {"array"}:
            return file[f"array{node['array']}"]
        return {key: _insert_arrays(value, file) for key, value in node.items()}
    if isinstance(node, list):
        return [_insert_arrays(value, file) for value in node]
    return node
