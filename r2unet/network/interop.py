"""Reads weights trained with PyTorch: LeeJunHyun's U_Net, R2U_Net, AttU_Net and R2AttU_Net.

These four (github.com/LeeJunHyun/Image_Segmentation) are the best-known PyTorch versions of these networks.
They equal the networks of `model.py` with up="nearest" and norm="shared", so their weights are renamed one to
one, and the outputs agree up to rounding:

    LeeJunHyun, five levels                    here
    Conv1 ... Conv5      RRCNN1 ... RRCNN5     encoder.0 ... encoder.4
    Up5 ... Up2          Up5 ... Up2           up.0 ... up.3
    Up_conv5 ...         Up_RRCNN5 ...         decoder.0 ... decoder.3
    Att5 ... Att2        Att5 ... Att2         gates.0 ... gates.3
    Conv_1x1             Conv_1x1              head

The arrays do not contain the number of steps, since all steps use the same weights; LeeJunHyun uses t = 2.

Two file formats are supported. A .npz file holds one array for every name. A .safetensors file consists of
a little-endian 64-bit number n, n bytes of JSON with the dtype, shape and position of every name, and the raw
numbers. Neither can contain code, and what their headers announce is compared with the size of the file
before memory is allocated. PyTorch's own .pth is a pickle, which can run arbitrary code when it is loaded. So
it is refused, with a message that explains how to convert it.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from minidl.init import shapes_only
from minidl.inputs import open_input, size_of
from minidl.npz import read_npz
from r2unet.errors import InputError
from r2unet.network.model import AttentionUNet, R2AttentionUNet, R2UNet, UNet, UShape

# (recurrent, attention) -> network
NETWORKS = {
    (False, False): UNet,
    (True, False): R2UNet,
    (False, True): AttentionUNet,
    (True, True): R2AttentionUNet,
}

# Layers of a block, an up-convolution or a gate: name here -> LeeJunHyun's name, numbered in a Sequential.
CONV_BLOCK = {
    "first.conv": "conv.0",
    "first.norm": "conv.1",
    "second.conv": "conv.3",
    "second.norm": "conv.4",
}
RECURRENT_BLOCK = {
    "project": "Conv_1x1",
    "first.conv": "RCNN.0.conv.0",
    "first.norm.0": "RCNN.0.conv.1",
    "second.conv": "RCNN.1.conv.0",
    "second.norm.0": "RCNN.1.conv.1",
}
UP_CONV = {"conv": "up.1", "norm": "up.2"}
GATE = {
    "from_below": "W_g.0",
    "from_below_norm": "W_g.1",
    "from_skip": "W_x.0",
    "from_skip_norm": "W_x.1",
    "psi": "psi.0",
    "psi_norm": "psi.1",
}

# NumPy's names for the dtypes of safetensors. NumPy lacks BF16, which is the upper half of a float32.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
MAX_HEADER = 1024**2  # bytes of JSON in a safetensors file; the largest of these networks needs 50 kB
MAX_SHOWN = 3  # problems in a message; a different network differs in a hundred names


def read_pytorch(path: str | Path, *, steps: int = 2) -> UShape:
    """Return LeeJunHyun's network with the weights of a file, in evaluation mode.

    The names and shapes determine which of the four it is, its widths and its channels; `steps` is the t it
    was trained with. Raises InputError with the names, as in the file, that are missing, unexpected or of
    another shape.
    """
    state = load_state_dict(path)
    if state and all(name.startswith("module.") for name in state):  # saved from DataParallel
        state = {name.removeprefix("module."): array for name, array in state.items()}
    # The number of batches is used only by PyTorch's cumulative average (momentum=None).
    state = {name: array for name, array in state.items() if not name.endswith(".num_batches_tracked")}
    try:
        with shapes_only():
            model = _network_of(state, steps)
            names = pytorch_names(model)
            _check(state, {names[ours]: shape for ours, shape in model.state_shapes().items()})
        model = _network_of(state, steps)  # now with memory for its weights
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    return model.eval()


def pytorch_names(model: UShape) -> dict[str, str]:
    """Return LeeJunHyun's name for every name of the model's state_dict.

    The model must have up="nearest" and norm="shared", and must be one of the four.
    """
    levels = len(model.widths)
    block, here, up = (
        (RECURRENT_BLOCK, "RRCNN", "Up_RRCNN") if model.recurrent else (CONV_BLOCK, "Conv", "Up_conv")
    )
    parts = [(f"encoder.{i}", f"{here}{i + 1}", block) for i in range(levels)]
    for i in range(levels - 1):
        level = levels - i  # LeeJunHyun numbers the decoder by the level below
        parts += [(f"up.{i}", f"Up{level}", UP_CONV), (f"decoder.{i}", f"{up}{level}", block)]
        parts += [(f"gates.{i}", f"Att{level}", GATE)] if model.attention else []
    layers = {f"{a}.{ours}": f"{b}.{theirs}" for a, b, inner in parts for ours, theirs in inner.items()}
    layers["head"] = "Conv_1x1"
    split = {name: name.rpartition(".") for name in model.state_shapes()}
    return {name: f"{layers[layer]}.{leaf}" for name, (layer, _, leaf) in split.items()}


def _network_of(state: dict[str, np.ndarray], steps: int) -> UShape:
    """Return the network that names and shapes describe. Raises ValueError if it is none of the four."""
    levels = len({n for name in state for n in re.findall(r"^(?:Conv|RRCNN)(\d+)\.", name)})
    if not levels:
        content = f"its first name is {next(iter(state))}" if state else "it is empty"
        raise ValueError(
            f"is not the state_dict of LeeJunHyun's U_Net, R2U_Net, AttU_Net or R2AttU_Net; {content}; give "
            "one of these"
        )
    recurrent, attention = (any(name.startswith(part) for name in state) for part in ("RRCNN", "Att"))
    layer = RECURRENT_BLOCK["project"] if recurrent else CONV_BLOCK["first.conv"]
    first_layers = [f"{'RRCNN' if recurrent else 'Conv'}{n}.{layer}.weight" for n in range(1, levels + 1)]
    for name in (*first_layers, "Conv_1x1.weight"):
        if np.ndim(state.get(name)) != 4:
            raise ValueError(f"{name} is missing or is not the weight of a convolution (OC, C, KH, KW)")
    widths = [len(state[name]) for name in first_layers]
    in_channels, out_channels = state[first_layers[0]].shape[1], len(state["Conv_1x1.weight"])
    options = {"up": "nearest", "norm": "shared", "rng": np.random.default_rng(0)}
    return NETWORKS[recurrent, attention](in_channels, out_channels, widths, steps, **options)


def _check(state: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError listing the first names that are missing, unexpected or of another shape."""
    problems = [f"{name} is {a.dtype}, expected float32" for name, a in state.items() if a.dtype.kind != "f"]
    problems += [f"missing {name} {shape}" for name, shape in expected.items() if name not in state]
    problems += [f"unexpected {name} {a.shape}" for name, a in state.items() if name not in expected]
    problems += [
        f"{name} is {state[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if problems:
        more = f", and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        raise ValueError(f"{', '.join(problems[:MAX_SHOWN])}{more}; give the whole state_dict of one network")


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz or .safetensors file by name; bfloat16 becomes float32.

    Raises InputError if the file is missing, damaged or of another format.
    """
    path = Path(path)
    reader = {".npz": read_npz, ".safetensors": _read_safetensors}.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path}: expected a .npz or .safetensors file; where PyTorch is installed, convert it with "
            "state = torch.load(FILE, 'cpu', weights_only=True); "
            "numpy.savez('weights.npz', **{name: a.numpy() for name, a in state.items()})"
        )
    try:
        return reader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except Exception as error:  # a wrong byte can raise any of a dozen types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())  # in one line
        raise InputError(
            f"{path}: is not a {path.suffix} file, or is damaged ({reason}); convert the weights again"
        ) from None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors, which must cover the numbers of the file in order, without gaps and overlaps."""
    with open_input(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER, size_of(file) - 8):
            raise ValueError(f"its header has {length} bytes, more than the file or the limit {MAX_HEADER}")
        header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
        header.pop("__metadata__", None)
        end, available = 0, size_of(file) - 8 - length
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            end = _check_position(name, entry, end)
        if end != available:
            raise ValueError(f"its tensors have {end} bytes, but the file has {available}")
        numbers = memoryview(file.read())
    return {name: _tensor(entry, numbers) for name, entry in header.items()}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dictionary. Raises ValueError for a repeated name."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{max(names, key=names.count)} is listed twice")
    return dict(pairs)


def _check_position(name: str, entry: dict[str, Any], start: int) -> int:
    """Return where a tensor ends. Raises ValueError unless it starts at `start` and has enough bytes."""
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} is {entry['dtype']}, expected one of {', '.join(DTYPES)}")
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or a position that is not a natural number")
    needed = math.prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize
    if begin != start or end - begin != needed:
        raise ValueError(
            f"{name} {tuple(shape)} is in bytes {begin} to {end}, expected {start} to {start + needed}"
        )
    return end


def _tensor(entry: dict[str, Any], numbers: memoryview) -> np.ndarray:
    """Return the array that an entry of the safetensors header describes."""
    begin, end = entry["data_offsets"]
    array = np.frombuffer(numbers[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return (array.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else array
