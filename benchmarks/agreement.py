"""Check that all frameworks compute the same numbers before their times are compared.

Outputs depend continuously on rounding errors. So do the losses of several steps, which also depend on the
gradients, the clipping and the optimizer. A gradient does not: if an activation is 1e-7 in one framework and
-1e-7 in the other, the ReLU passes the gradient in only one of them. Among the millions of activations of a
large image this happens to a few, and each changes the gradient of a few hundred pixels. Gradients must
therefore agree element by element on small images. On the large images that are timed, only the norm of the
difference is checked, with a larger tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.frameworks import OWN

TOLERANCE = 1e-3  # of the largest element
KINKED_TOLERANCE = 1e-2  # of the norm of a gradient, where some activations lie at ReLU's kink
SMALL = 8  # pixels per side: a few thousand activations, none of which lies at the kink


class Disagreement(Exception):
    """Two frameworks computed different numbers from the same inputs."""


def check_blocks(blocks: Mapping[str, Any], small: bool) -> None:
    """Run each block; raise Disagreement unless its outputs and gradients equal ours."""
    own_y = np.asarray(blocks[OWN]())
    own = blocks[OWN].gradients()
    for name, block in blocks.items():
        compare(f"{name}, output", own_y, np.asarray(block()))
        for leaf, theirs in block.gradients().items():
            what = f"{name}, gradient of {leaf}"
            if small:
                # The gradient of a bias before a norm is zero; the computed one is rounding error.
                scale = np.abs(own["weight"]).max() if leaf == "bias" else None
                compare(what, own[leaf], theirs, scale)
            elif leaf != "bias":
                error = float(np.linalg.norm(own[leaf] - theirs) / np.linalg.norm(own[leaf]))
                _check(what, error, KINKED_TOLERANCE)


def check_networks(networks: Mapping[str, Any], steps: int = 3) -> None:
    """Evaluate and then train each network; raise Disagreement unless logits and losses equal ours."""
    own_logits = networks[OWN].infer()
    own_losses = [networks[OWN].step() for _ in range(steps)]
    for name, network in networks.items():
        if name != OWN:
            compare(f"{name}, logits", own_logits, network.infer())
            for own_loss in own_losses:
                compare(f"{name}, loss", np.float64(own_loss), np.float64(network.step()))


def compare(what: str, own: np.ndarray, other: np.ndarray, scale: float | None = None) -> None:
    """Raise Disagreement if an element differs by more than TOLERANCE times `scale` (default: max |own|)."""
    if own.shape != other.shape:
        raise Disagreement(f"{what}: shape {other.shape}, but ours is {own.shape}")
    scale = np.abs(own).max() if scale is None else scale
    _check(what, float(np.abs(own - other).max() / scale), TOLERANCE)


def _check(what: str, error: float, tolerance: float) -> None:
    if not error <= tolerance:  # this form also rejects NaN
        raise Disagreement(f"{what}: relative difference from ours {error:.1e}, above {tolerance:.0e}")
