"""An independent PyTorch implementation of R2U-Net: the reference for logits, loss and gradients.

It reads the weights by the names of `R2UNet.state_dict()` and shares no code with the library. Run as a
program it writes `r2unet_reference.npz`, with which the tests compare where PyTorch is not installed:

    python tests/torch_r2unet.py
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

REFERENCE = Path(__file__).parent / "r2unet_reference.npz"


def recurrent_conv(w: dict, name: str, x: torch.Tensor, steps: int, training: bool) -> torch.Tensor:
    y = None
    for t in range(steps + 1):
        y = F.conv2d(x if y is None else x + y, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], padding=1)
        y = norm(w, f"{name}.norm.{t}", f"{name}.norm.0", y, training).relu()
    return y


def norm(w: dict, statistics: str, affine: str, x: torch.Tensor, training: bool) -> torch.Tensor:
    mean, var = w[f"{statistics}.running_mean"].clone(), w[f"{statistics}.running_var"].clone()
    return F.batch_norm(x, mean, var, w[f"{affine}.weight"], w[f"{affine}.bias"], training)


def block(w: dict, name: str, x: torch.Tensor, steps: int, training: bool) -> torch.Tensor:
    x = F.conv2d(x, w[f"{name}.project.weight"], w[f"{name}.project.bias"])
    y = recurrent_conv(w, f"{name}.first", x, steps, training)
    return x + recurrent_conv(w, f"{name}.second", y, steps, training)


def r2unet(w: dict, x: torch.Tensor, levels: int, steps: int, training: bool) -> torch.Tensor:
    """Return the logits of R2U-Net with the weights `w`, named as in `R2UNet.state_dict()`."""
    skips = []
    for i in range(levels):
        x = block(w, f"encoder.{i}", x, steps, training)
        if i < levels - 1:
            skips.append(x)
            x = F.max_pool2d(x, 2)
    for i in range(levels - 1):
        up, bias = w[f"up.{i}.up.weight"], w[f"up.{i}.up.bias"]
        x = F.conv_transpose2d(x, up, bias, stride=2, padding=1, output_padding=1)
        x = norm(w, f"up.{i}.norm", f"up.{i}.norm", x, training).relu()
        x = block(w, f"decoder.{i}", torch.cat((skips.pop(), x), dim=1), steps, training)
    return F.conv2d(x, w["head.weight"], w["head.bias"])


def loss_of(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return binary cross-entropy + soft Dice, logits and masks (N, 1, H, W) -> one number."""
    p = logits.sigmoid()
    overlap = 2 * (p * masks).sum(dim=(1, 2, 3)) + 1
    dice = overlap / (p.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()


def loss_and_gradients(
    state: dict[str, np.ndarray], x: np.ndarray, mask: np.ndarray, levels: int, steps: int, training: bool
) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    """Return logits, BCE + soft Dice, and the loss's gradient for every weight, as NumPy arrays."""
    weights = {name: torch.tensor(a, requires_grad="running" not in name) for name, a in state.items()}
    logits = r2unet(weights, torch.tensor(x), levels, steps, training)
    loss = loss_of(logits, torch.tensor(mask))
    loss.backward()
    gradients = {name: a.grad.numpy() for name, a in weights.items() if a.requires_grad}
    return logits.detach().numpy(), loss.item(), gradients


def main() -> None:
    """Write the inputs, weights, logits, losses and gradients of a small network to the reference file."""
    from r2unet.network.model import R2UNet

    rng = np.random.default_rng(0)
    model = R2UNet(widths=(3, 5, 6), steps=2, rng=rng)
    state = model.state_dict()
    for name, a in state.items():  # zeros and ones would hide exchanged roles
        noise = rng.normal(size=a.shape).astype(np.float32)
        state[name] = a * np.exp(0.3 * noise) if "running_var" in name else a + 0.1 * noise
    x = rng.normal(size=(2, 3, 16, 12)).astype(np.float32)
    mask = (rng.random((2, 1, 16, 12)) > 0.6).astype(np.float32)
    arrays = {"x": x, "mask": mask, **{f"state/{name}": a for name, a in state.items()}}
    for mode, training in (("train", True), ("eval", False)):
        logits, loss, gradients = loss_and_gradients(state, x, mask, levels=3, steps=2, training=training)
        arrays |= {f"{mode}/logits": logits, f"{mode}/loss": np.float32(loss)}
        arrays |= {f"{mode}/gradient/{name}": g for name, g in gradients.items()}
    np.savez_compressed(REFERENCE, torch_version=np.array(torch.__version__), **arrays)


if __name__ == "__main__":
    main()
