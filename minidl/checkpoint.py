"""Checkpoints: one file, no pickle, whole or not there at all.

A checkpoint is a tree of dictionaries and lists whose leaves are arrays, numbers, strings, True, False
and None. The arrays go into a .npz file (a zip of plain .npy files, each with a checksum), and the rest
of the tree becomes one JSON text in it, in which {"array": k} stands where array k was. So
`numpy.load(file, allow_pickle=False)` opens it without this library, and loading one never runs code: a
pickled checkpoint from the internet could.

It is written beside its place under another name, flushed to the disk and then renamed, which the
operating system does in one step. Whoever is interrupted, by Ctrl-C or by the power, finds the old file
or the new one, never a half.
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
    """A file is no checkpoint, or a damaged one; the message names it."""


def save(path: str | Path, tree: dict[str, Any]) -> None:
    """Write the tree to one file, atomically. Tuples become lists, and the keys of dictionaries strings.

    Raises OSError if the folder cannot be written, TypeError for what is neither number, text nor array,
    and ValueError for a dictionary whose only key is "array", which in the file means something else.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps({"format": FORMAT, "tree": _take_arrays_out(tree, arrays)})
    with atomic_write(path) as file:
        np.savez(file, tree=np.array(text), **{f"array{k}": a for k, a in enumerate(arrays)})


def load(path: str | Path) -> dict[str, Any]:
    """Read a tree that `save` wrote. Raises FileNotFoundError, or CheckpointError for any other file."""
    try:
        _check_whole(path)
        with np.load(path, allow_pickle=False) as file:
            document = json.loads(str(file["tree"]))
            if document["format"] != FORMAT:
                raise CheckpointError(f"{path}: is in the format {document['format']!r}, want {FORMAT!r}")
            return _put_arrays_back(document["tree"], file)
    except (FileNotFoundError, CheckpointError):
        raise
    except Exception as error:  # one wrong byte can surface as any of a dozen types
        raise CheckpointError(
            f"{path}: is no checkpoint of this program, or a damaged one ({error})"
        ) from error


def _check_whole(path: str | Path) -> None:
    """Raise BadZipFile unless every part agrees with its checksum.

    NumPy reads as far as an array's header tells it to. If damage made the header tell less, it would
    return a shorter array and never come to the checksum.
    """
    with zipfile.ZipFile(path) as file:
        if broken := file.testzip():
            raise zipfile.BadZipFile(f"{broken} does not agree with its checksum")


def _take_arrays_out(node: Any, arrays: list[np.ndarray]) -> Any:
    if is_array(node):
        if node.dtype.hasobject:
            raise TypeError("checkpoint: an array of Python objects would need pickle; use lists instead")
        arrays.append(to_numpy(node))
        return {"array": len(arrays) - 1}
    if isinstance(node, dict):
        if set(node) == {"array"}:
            raise ValueError('checkpoint: {"array": ...} marks an array in the file; use another key')
        return {str(key): _take_arrays_out(value, arrays) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_take_arrays_out(value, arrays) for value in node]
    if isinstance(node, np.generic):
        return node.item()
    return node


def _put_arrays_back(node: Any, file: Any) -> Any:
    if isinstance(node, dict):
        if set(node) == {"array"}:
            return file[f"array{node['array']}"]
        return {key: _put_arrays_back(value, file) for key, value in node.items()}
    if isinstance(node, list):
        return [_put_arrays_back(value, file) for value in node]
    return node
