"""Weights that were trained with PyTorch: LeeJunHyun's U_Net, R2U_Net, AttU_Net and R2AttU_Net.

Those four (github.com/LeeJunHyun/Image_Segmentation) are the best known PyTorch versions of these networks.
They are ours with nearest up-sampling and one batch norm for all steps of a recurrence, so their weights
can be renamed one to one, and the outputs agree to rounding:

    theirs, of five levels                     ours
    Conv1 ... Conv5      RRCNN1 ... RRCNN5     encoder.0 ... encoder.4
    Up5 ... Up2          Up5 ... Up2           up.0 ... up.3
    Up_conv5 ...         Up_RRCNN5 ...         decoder.0 ... decoder.3
    Att5 ... Att2        Att5 ... Att2         gates.0 ... gates.3
    Conv_1x1             Conv_1x1              head

What the arrays do not tell is the number of steps, for the weights are the same at each; theirs is t = 2.

Two kinds of file are read. A .npz holds one array a name. A .safetensors file is a little-endian 64-bit
number n, n bytes of JSON that give each name's dtype, shape and place, and then the raw numbers. Neither
can hold code. PyTorch's own .pth is a pickle, which runs whatever its author liked when it is opened; so it
is not read, and the refusal says how to convert it.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from r2unet.errors import InputError
from r2unet.network.model import AttentionUNet, R2AttentionUNet, R2UNet, UNet, UShape

# By whether it is recurrent, and whether it has gates.
NETWORKS = {
    (False, False): UNet,
    (True, False): R2UNet,
    (False, True): AttentionUNet,
    (True, True): R2AttentionUNet,
}

# Inside a block, an up-convolution or a gate: our layer -> theirs, which is numbered in a Sequential.
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

# NumPy's names for safetensors' dtypes. BF16 is the upper half of a float32; NumPy has no name for it.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
MOST_SHOWN = 3  # a network of another kind differs in a hundred names


def read_pytorch(path: str | Path, *, steps: int = 2) -> UShape:
    """Return LeeJunHyun's network with the weights of a file, in evaluation mode.

    Which of the four it is, its widths and its channels are read from the names and shapes; `steps` is the
    t it was trained with. Raises InputError naming what is missing, unexpected or of another shape, in the
    file's own names.
    """
    state = load_state_dict(path)
    if state and all(name.startswith("module.") for name in state):  # saved from DataParallel
        state = {name.removeprefix("module."): array for name, array in state.items()}
    # How many batches a norm has seen: of use only to a mean that weighs all of them alike.
    state = {name: array for name, array in state.items() if not name.endswith(".num_batches_tracked")}
    try:
        model = _network_of(state, steps)
        names = pytorch_names(model)
        _check(state, {names[ours]: array.shape for ours, array in model.state_dict().items()})
    except ValueError as fault:
        raise InputError(f"{path}: {fault}") from None
    model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    return model.eval()


def pytorch_names(model: UShape) -> dict[str, str]:
    """Return LeeJunHyun's name for each name of the model's state_dict, one to one.

    The model must be one of his: nearest up-sampling, one norm for all steps.
    """
    levels = len(model.widths)
    block, here, up = (
        (RECURRENT_BLOCK, "RRCNN", "Up_RRCNN") if model.recurrent else (CONV_BLOCK, "Conv", "Up_conv")
    )
    parts = [(f"encoder.{i}", f"{here}{i + 1}", block) for i in range(levels)]
    for i in range(levels - 1):
        level = levels - i  # he numbers the way up by the level it comes from
        parts += [(f"up.{i}", f"Up{level}", UP_CONV), (f"decoder.{i}", f"{up}{level}", block)]
        parts += [(f"gates.{i}", f"Att{level}", GATE)] if model.attention else []
    layers = {f"{a}.{ours}": f"{b}.{theirs}" for a, b, inner in parts for ours, theirs in inner.items()}
    layers["head"] = "Conv_1x1"
    split = {name: name.rpartition(".") for name in model.state_dict()}
    return {name: f"{layers[layer]}.{leaf}" for name, (layer, _, leaf) in split.items()}


def _network_of(state: dict[str, np.ndarray], steps: int) -> UShape:
    """Make the network that names and shapes describe. Raises ValueError if they describe none of his."""
    levels = len({n for name in state for n in re.findall(r"^(?:Conv|RRCNN)(\d+)\.", name)})
    if not levels:
        begins = f"begin with {next(iter(state))}" if state else "are none"
        raise ValueError(
            f"holds no U_Net, R2U_Net, AttU_Net or R2AttU_Net of LeeJunHyun's; its names {begins}; give the "
            "state_dict of one of these"
        )
    recurrent, attention = (any(name.startswith(part) for name in state) for part in ("RRCNN", "Att"))
    layer = RECURRENT_BLOCK["project"] if recurrent else CONV_BLOCK["first.conv"]
    telling = [f"{'RRCNN' if recurrent else 'Conv'}{n}.{layer}.weight" for n in range(1, levels + 1)]
    telling.append("Conv_1x1.weight")
    for name in telling:
        if np.ndim(state.get(name)) != 4:
            raise ValueError(f"{name} is missing, or no convolution's weight (OC, C, KH, KW)")
    *widths, out_channels = (len(state[name]) for name in telling)
    in_channels = state[telling[0]].shape[1]
    options = {"up": "nearest", "norm": "shared", "rng": np.random.default_rng(0)}
    return NETWORKS[recurrent, attention](in_channels, out_channels, widths, steps, **options)


def _check(state: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError listing the first names that are missing, unexpected or of another shape."""
    problems = [f"{name} holds no numbers" for name, a in state.items() if a.dtype.kind not in "fiu"]
    problems += [f"missing {name} {shape}" for name, shape in expected.items() if name not in state]
    problems += [f"unexpected {name} {a.shape}" for name, a in state.items() if name not in expected]
    problems += [
        f"{name} is {state[name].shape}, want {shape}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if problems:
        more = f", and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
        raise ValueError(
            f"{', '.join(problems[:MOST_SHOWN])}{more}; give the whole state_dict of one network"
        )


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read a state_dict from a .npz or .safetensors file: arrays by name; bfloat16 becomes float32.

    Raises InputError if the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    reader = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path}: want a .npz or .safetensors file; where PyTorch is, convert it with "
            "state = torch.load(FILE, 'cpu', weights_only=True); "
            "numpy.savez('weights.npz', **{name: a.numpy() for name, a in state.items()})"
        )
    try:
        return reader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except Exception as fault:  # one wrong byte can surface as any of a dozen types
        raise InputError(f"{path}: is no {path.suffix} file, or a damaged one ({fault})") from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < start:
        raise ValueError(f"its header would end at byte {start} of {len(content)}")
    header, numbers = json.loads(content[8:start]), memoryview(content)[start:]
    return {name: _tensor(name, entry, numbers) for name, entry in header.items() if name != "__metadata__"}


def _tensor(name: str, entry: dict[str, Any], numbers: memoryview) -> np.ndarray:
    """Return the array that an entry of a safetensors header describes."""
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name} is {entry['dtype']}, want one of {', '.join(DTYPES)}")
    dtype, shape, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if not 0 <= begin <= end <= len(numbers) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} {tuple(shape)} does not fit into bytes {begin} to {end} of {len(numbers)}")
    array = np.frombuffer(numbers[begin:end], dtype).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else array
