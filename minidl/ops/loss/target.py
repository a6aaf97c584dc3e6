"""The target of a loss: an array that the loss compares with, and that receives no gradient."""

from __future__ import annotations

from minidl.backend import Array
from minidl.tensor import Tensor


def target_array(logits: Tensor, target: Tensor, name: str) -> Array:
    """Return the target's array.

    Raises ValueError if it does not fit the logits or requires a gradient, and for empty logits, of which a
    loss has no mean; TypeError if one of both is not a Tensor.
    """
    for value in (logits, target):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected Tensors, got {type(value).__name__}; use Tensor(...)")
    if (logits.shape, logits.dtype, logits.device) != (target.shape, target.dtype, target.device):
        raise ValueError(
            f"{name}: logits are {logits.dtype} {logits.shape} on {logits.device}, the target "
            f"{target.dtype} {target.shape} on {target.device}; they must agree"
        )
    if not logits.data.size:
        raise ValueError(f"{name}: the logits {logits.shape} are empty")
    if target.requires_grad:
        raise ValueError(f"{name}: the target requires a gradient, which it cannot receive; detach() it")
    return target.data
