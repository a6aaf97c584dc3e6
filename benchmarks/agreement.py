"""Only what computes the same is worth comparing, so the numbers are compared before the times.

Outputs, and losses over some steps (which see the gradients, the clipping and the optimizer as well), are
continuous in every rounding. A gradient is not: an activation at 1e-7 on one side and -1e-7 on the other
passes its gradient here and not there. Of the millions in a large image some do, and each changes the
gradient of a few hundred pixels. So gradients have to agree element by element on small images, and on the
large ones that are timed by the length of the whole difference, to a tolerance that leaves room for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.frameworks import OWN

TOLERANCE = 1e-3  # of the largest element
KINKED_TOLERANCE = 1e-2  # of the length of a gradient, where some activations lie at ReLU's kink
SMALL = 8  # pixels a side: a few thousand activations, none of which lies there


class Disagreement(Exception):
    """Two frameworks were given the same and computed something else."""


def check_blocks(blocks: Mapping[str, Any], small: bool) -> None:
    """Run each block; raise Disagreement unless outputs and gradients are ours."""
    own_y = np.asarray(blocks[OWN]())
    own = blocks[OWN].gradients()
    for name, block in blocks.items():
        compare(f"{name}, output", own_y, np.asarray(block()))
        for leaf, theirs in block.gradients().items():
            what = f"{name}, gradient of {leaf}"
            if small:
                # Of the bias in front of a norm it is zero, and what is computed is rounding.
                scale = np.abs(own["weight"]).max() if leaf == "bias" else None
                compare(what, own[leaf], theirs, scale)
            elif leaf != "bias":
                length = float(np.linalg.norm(own[leaf] - theirs) / np.linalg.norm(own[leaf]))
                _judge(what, length, KINKED_TOLERANCE)


def check_networks(networks: Mapping[str, Any], steps: int = 3) -> None:
    """Evaluate each network, then train it; raise Disagreement unless logits and every loss are ours."""
    own_logits = networks[OWN].infer()
    own_losses = [networks[OWN].step() for _ in range(steps)]
    for name, network in networks.items():
        if name != OWN:
            compare(f"{name}, logits", own_logits, network.infer())
            for own_loss in own_losses:
                compare(f"{name}, loss", np.float64(own_loss), np.float64(network.step()))


def compare(what: str, own: np.ndarray, other: np.ndarray, scale: float | None = None) -> None:
    """Raise Disagreement if any element differs by more than the tolerance, of `scale` or of the largest."""
    if own.shape != other.shape:
        raise Disagreement(f"{what}: shape {other.shape}, and ours is {own.shape}")
    scale = np.abs(own).max() if scale is None else scale
    _judge(what, float(np.abs(own - other).max() / scale), TOLERANCE)


def _judge(what: str, error: float, tolerance: float) -> None:
    if not error <= tolerance:  # written so that NaN does not pass
        raise Disagreement(f"{what}: differs from ours by {error:.1e} of it, more than {tolerance:.0e}")
