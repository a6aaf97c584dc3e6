"""Damages files: bytes, as a disk or a network would; checksummed formats, as an attacker would; and texts.

Every function draws from the generator that it is given, so a seed repeats an assault. Values that replace
numbers and texts come from hypothesis.
"""

from __future__ import annotations

import copy
import io
import json
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Rng = np.random.Generator

INTEGERS = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([*INTEGERS, -0.0, 1e308, 1e39, 2**64])
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "..", "/dev/zero", "\x00", "\x1b[31m", "𝟙", "1_0", "nan", "-inf", "1e999", "true"]),
)
# What may stand where a file should have something else.
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
DTYPES = (">f4", "<f2", "<f8", "<c8", "<i8", "|u1", "|b1", "<M8[s]", "<U4", "|S4", "<f4")


def drawn(strategy: st.SearchStrategy, count: int, seed: int) -> list[Any]:
    """Return values that hypothesis draws, at most `count`, the same for the same seed."""
    values: list[Any] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    return values


class Values:
    """An endless source of values of a strategy, drawn by hypothesis in portions."""

    def __init__(self, strategy: st.SearchStrategy, rng: Rng) -> None:
        self.strategy, self.rng, self.waiting = strategy, rng, []

    def __call__(self) -> Any:
        if not self.waiting:
            self.waiting = drawn(self.strategy, 100, int(self.rng.integers(2**32)))
            self.rng.shuffle(self.waiting)  # the first ones that hypothesis draws are the simplest
        return copy.deepcopy(self.waiting.pop())


# Bytes


def damage(content: bytes, rng: Rng, other: bytes = b"") -> tuple[bytes, str]:
    """Return damaged bytes, never the same ones, and the name of the damage."""
    while True:
        name = str(rng.choice([*DAMAGES]))
        damaged = DAMAGES[name](bytearray(content), rng, other)
        if damaged != content:
            return bytes(damaged), name


def _span(content: bytearray, rng: Rng) -> slice:
    """Return a part of the content, short ones more often."""
    start = int(rng.integers(len(content) + 1))
    return slice(start, start + int(2 ** rng.uniform(0, math.log2(len(content) + 2))))


def _flip(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    for _ in range(int(rng.integers(1, 5)) if content else 0):
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    return content


def _overwrite(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    """Write a number at which programs fail, in either byte order; headers are near the start."""
    code = str(rng.choice(["<i", ">i", "<h", ">h", "<q", ">q", "b"]))
    bits = 8 * struct.calcsize(code)
    number = (int(rng.choice(INTEGERS, shuffle=False)) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    near = rng.random() < 0.5
    start = int(rng.integers(min(len(content), 128) + 1 if near else len(content) + 1))
    content[start : start + bits // 8] = struct.pack(code, number)
    return content


def _remove(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    del content[_span(content, rng)]
    return content


def _repeat(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    part = _span(content, rng)
    content[part.start : part.start] = content[part] * int(rng.integers(1, 4))
    return content


def _insert(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    start = int(rng.integers(len(content) + 1))
    content[start:start] = rng.bytes(int(rng.integers(1, 64)))
    return content


def _zero(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    part = _span(content, rng)
    content[part] = bytes(len(content[part]))
    return content


def _splice(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    part = _span(content, rng)
    content[part] = other[part]
    return content


def _cut(content: bytearray, rng: Rng, other: bytes) -> bytearray:
    return content[: rng.integers(len(content) + 1)]


DAMAGES = {
    "flip": _flip,
    "overwrite": _overwrite,
    "remove": _remove,
    "repeat": _repeat,
    "insert": _insert,
    "zero": _zero,
    "splice": _splice,
    "cut": _cut,
}


# Checksummed formats


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the data of the chunks of a PNG."""
    position = 8
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        yield content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
        position += 12 + length


def damage_png(content: bytes, rng: Rng) -> bytes:
    """Damage chunks of a PNG and give them right checksums: only the decoder can notice."""
    chunks = list(png_chunks(content))
    at = int(rng.integers(len(chunks)))
    kind, data = chunks[at]
    if kind == b"IDAT" and rng.random() < 0.5:
        data = zlib.compress(damage(zlib.decompress(data), rng)[0])
    else:
        data = damage(data, rng)[0]
    chunks[at : at + 1] = [(kind, data)] * int(rng.choice([0, 1, 1, 1, 2]))
    parts = [content[:8]]
    for kind, data in chunks:
        parts += [len(data).to_bytes(4, "big"), kind, data, zlib.crc32(kind + data).to_bytes(4, "big")]
    return b"".join(parts)


def damage_npz(content: bytes, rng: Rng, values: Values) -> bytes:
    """Change an array or the JSON text of a .npz file, and write it with right checksums."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    if "tree" in arrays and rng.random() < 0.6:
        tree = damage_json(json.loads(arrays["tree"].item()), rng, values)
        arrays["tree"] = np.array(json.dumps(tree).encode("ascii"))
    else:
        name = str(rng.choice([*arrays]))
        arrays[name] = damage_array(arrays[name], rng)
        if rng.random() < 0.1:
            arrays[name + "x"] = arrays.pop(name)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npz_arrays(content: bytes) -> dict[str, tuple]:
    """Return what each array of a .npz file is, {} for a damaged file."""
    try:
        with np.load(io.BytesIO(content)) as file:
            return {name: (array.dtype, array.shape, array.tobytes()) for name, array in file.items()}
    except Exception:
        return {}


def damage_array(array: np.ndarray, rng: Rng) -> np.ndarray:
    """Return an array with another dtype, another shape, or impossible numbers."""
    how = rng.integers(4)
    if how == 0:
        with np.errstate(all="ignore"):
            try:
                return array.astype(str(rng.choice(DTYPES)))
            except (TypeError, ValueError):
                return np.array([None, {}], dtype=object)  # pickled by numpy.savez
    if how == 1:
        shapes = [(), (0,), (1,), (2**40, 0), (array.size,), (*array.shape, 1), array.shape[::-1]]
        return np.resize(array, shapes[rng.integers(len(shapes))])
    array = array.copy()
    if array.size and array.dtype.kind == "f":
        numbers = [np.nan, np.inf, -np.inf, -1.0, 1e30, 1e-40, 0.0, 3.4e38]
        with np.errstate(over="ignore"):
            array.flat[rng.integers(array.size, size=rng.integers(1, 4))] = rng.choice(numbers)
    return array if how == 2 else np.asfortranarray(array)


def damage_safetensors(content: bytes, rng: Rng, values: Values) -> bytes:
    """Change the JSON header of a safetensors file, and write its length in front."""
    length = int.from_bytes(content[:8], "little")
    header = damage_json(json.loads(content[8 : 8 + length]), rng, values)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


# Texts


def damage_json(tree: Any, rng: Rng, values: Values) -> Any:
    """Return a copy of a JSON tree in which a few nodes are replaced, removed or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.choice([1, 1, 2]))):
        if not isinstance(tree, dict | list) or not tree or rng.random() < 0.02:
            return values()
        node = tree
        while True:
            key = [*node][rng.integers(len(node))] if isinstance(node, dict) else int(rng.integers(len(node)))
            if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
                break
            node = node[key]
        how = rng.random()
        if how < 0.7:
            node[key] = values()
        elif how < 0.85:
            del node[key]
        elif isinstance(node, dict):
            node[str(values())] = node.pop(key)
        else:
            node.append(copy.deepcopy(node[key]))
    return tree


def damage_table(text: str, rng: Rng, values: Values) -> bytes:
    """Change cells, rows and separators of a CSV table."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(int(rng.integers(1, 4))):
        row = rows[rng.integers(len(rows))] if rng.random() < 0.7 else rows[0]
        how = rng.integers(6)
        if how <= 2 and row:
            row[rng.integers(len(row))] = str(values())
        elif how == 3 and row:
            del row[rng.integers(len(row))]
        elif how == 4:
            rows.insert(int(rng.integers(len(rows) + 1)), list(row))
        elif len(rows) > 1:
            rows.remove(row)
    separator, end = str(rng.choice([",", ",", ",", ";", "\t"])), str(rng.choice(["\n", "\r\n", "\r"]))
    text = end.join(separator.join(row) for row in rows) + end
    encoding = str(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    return text.encode(encoding, errors="surrogatepass")
