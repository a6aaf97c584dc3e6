"""Checkpoints: a single file without pickle, written atomically.

A checkpoint is a tree of dictionaries and lists whose leaves are arrays, numbers, strings, True, False and
None. The arrays are stored in a .npz file (a zip of .npy files, each with a checksum). The rest of the tree
is stored in the same file as one JSON text, in which {"array": k} stands for array k. The text is in ASCII,
one byte for each character, because NumPy stores a str in four. The file can be opened without this library,
by `numpy.load(file, allow_pickle=False)`. Loading it never runs code from the file, as loading a pickle can.

Writing is atomic (`minidl.files`): after an interruption, by Ctrl-C or by a power failure, the file is the
old checkpoint or the new one, never a part of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import is_array, to_numpy
from minidl.files import atomic_write
from minidl.npz import read_npz

FORMAT = "minidl checkpoint 1"
# The limit of the JSON text, whose lists take more memory than their characters. The scores of an epoch take
# about 600 characters, those of 100,000 epochs 60 million.
MAX_CHARACTERS = 100_000_000


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
        np.savez(file, tree=np.array(text.encode("ascii")), **{f"array{k}": a for k, a in enumerate(arrays)})


def load(path: str | Path) -> dict[str, Any]:
    """Read a tree written by `save`. Raises FileNotFoundError, or CheckpointError for any other file.

    Arrays need no more memory than about twice the size of the file (`minidl.npz`).
    """
    try:
        arrays = read_npz(path)
        document = json.loads(_text(arrays.pop("tree")))
        if document["format"] != FORMAT:
            raise CheckpointError(f"{path}: its format is {document['format']!r}, expected {FORMAT!r}")
        return _insert_arrays(document["tree"], arrays)
    except (FileNotFoundError, CheckpointError):
        raise
    except Exception as error:  # one wrong byte can raise any of a dozen types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())  # in one line
        raise CheckpointError(
            f"{path}: is not a checkpoint of this program, or it is damaged ({reason})"
        ) from error


def _text(array: np.ndarray) -> str:
    """Return the JSON text that an array of a single string holds. Earlier versions stored a str."""
    if array.shape != () or array.dtype.kind not in "SU":
        raise ValueError("its tree is not a text")
    if array.nbytes > MAX_CHARACTERS * np.dtype(f"{array.dtype.kind}1").itemsize:
        raise ValueError(f"its tree is longer than {MAX_CHARACTERS:,} characters")
    text = array.item()
    return text.decode("ascii") if isinstance(text, bytes) else text


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


def _insert_arrays(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"array"}:
            return arrays.pop(f"array{node['array']}")  # each array has one place in the tree
        return {key: _insert_arrays(value, arrays) for key, value in node.items()}
    if isinstance(node, list):
        return [_insert_arrays(value, arrays) for value in node]
    return node
