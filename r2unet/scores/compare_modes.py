"""A check of batch norm's running statistics: the same batches in train mode and in eval mode.

Train mode normalises with the statistics of each batch, eval mode with the running statistics. The outputs of
the two modes can differ for two reasons:

1. The batch is small and differs from the training images, so its statistics differ from the running ones.
2. The running statistics are wrong for this network. An example is one set of statistics for all steps of
   a recurrence, whose activations have a different distribution at every step.

To separate the two, the batch is run a third time, in eval mode with running statistics that were computed
from this very batch. Only the second reason can make this run differ from train mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import Array, to_device, to_numpy
from minidl.data import DataLoader
from minidl.nn import BatchNorm2d
from r2unet.data.sample import Sample, collate
from r2unet.network.model import UShape
from r2unet.scores.metrics import Confusion, confusion, summarize


def compare_modes(model: UShape, dataset: Sequence[Sample], batch_size: int) -> dict[str, float]:
    """Run the same batches in train mode and in eval mode, and return how much they differ.

    "relative_rms" is the root mean square of the logits' difference, divided by that of the logits in train
    mode. "relative_rms_settled" is the same with the batch's own statistics as running statistics, and should
    be close to zero. The mean Jaccard is returned for both modes. The model's state is restored.
    """
    state = model.state_dict()
    squares = {"eval": 0.0, "settled": 0.0, "train": 0.0}
    counts: dict[str, list[Confusion]] = {"train": [], "eval": []}
    for batch in DataLoader(dataset, batch_size, collate=collate):
        truths = batch.masks > 0.5
        logits = _logits_by_mode(model, to_device(batch.images, model.head.weight.device))
        model.load_state_dict(state)
        squares["train"] += float(np.square(logits["train"]).sum())
        for mode in ("eval", "settled"):
            squares[mode] += float(np.square(logits[mode] - logits["train"]).sum())
        for mode, confusions in counts.items():
            confusions += [confusion(*pair) for pair in zip(logits[mode] > 0.0, truths, strict=True)]
    rng = np.random.default_rng(0)
    return {
        "relative_rms": (squares["eval"] / squares["train"]) ** 0.5,
        "relative_rms_settled": (squares["settled"] / squares["train"]) ** 0.5,
        "jaccard_train_mode": summarize(counts["train"], rng)["mean"]["jaccard"],
        "jaccard_eval_mode": summarize(counts["eval"], rng)["mean"]["jaccard"],
    }


def _logits_by_mode(model: UShape, x: Array) -> dict[str, np.ndarray]:
    """Return the logits of a batch in eval mode, in train mode, and in eval mode with its own statistics.

    Changes the running statistics to those of the batch, and leaves the model in eval mode.
    """
    norms = [module for _, module in model.named_modules() if isinstance(module, BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    logits = {"eval": _logits(model.eval(), x)}
    for norm in norms:
        norm.momentum = 1.0  # the batch's statistics replace the running ones
    logits["train"] = _logits(model.train(), x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    logits["settled"] = _logits(model.eval(), x)
    return logits


def _logits(model: UShape, x: Array) -> np.ndarray:
    """Return the logits in float64, so that their squares are summed without loss."""
    with no_grad():
        return to_numpy(model(Tensor(x)).data).astype(np.float64)
