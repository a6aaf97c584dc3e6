"""Feature maps of two trained networks, with and without skip connections: what each part of the U brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import DOTS_PER_INCH, INK, PAPER, QUIET, label

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from r2unet.network.model import UShape

LESIONS, SHOWN, SIZE, STEPS = 4, 1, 64, 40


def trained(skips: str) -> UShape:
    """Train a small R2U-Net on four generated lesions for some seconds."""
    import numpy as np

    from minidl import Tensor
    from minidl.ops import binary_cross_entropy_with_logits, soft_dice_loss
    from minidl.optim import Adam
    from r2unet.data.sample import collate
    from r2unet.data.synthetic import SyntheticLesions
    from r2unet.network.model import R2UNet

    batch = collate(list(SyntheticLesions(LESIONS, SIZE, seed=0)))
    images, masks = Tensor(batch.images), Tensor(batch.masks)
    model = R2UNet(widths=(4, 8, 16), skips=skips, norm="group", rng=np.random.default_rng(0))
    optimizer = Adam(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        logits = model(images)
        loss = binary_cross_entropy_with_logits(logits, masks) + soft_dice_loss(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def feature_maps(model: UShape) -> list[np.ndarray]:
    """Return five maps of one lesion: of each stage the channel that resembles the mask most, (H, W) each."""
    import numpy as np

    from minidl import Tensor, no_grad
    from r2unet.data.sample import collate
    from r2unet.data.synthetic import SyntheticLesions
    from r2unet.network.hooks import forward_hooks

    batch = collate([SyntheticLesions(LESIONS, SIZE, seed=0)[SHOWN]])
    stages = {"encoder.0": 0, f"encoder.{len(model.encoder) - 1}": 1, "up.1": 2, "decoder.1": 3, "head": 4}
    found: dict[int, np.ndarray] = {}
    modules = [(name, module) for name, module in model.named_modules() if name in stages]
    with no_grad(), forward_hooks(modules, lambda name, m, x, y: found.update({stages[name]: y.data[0]})):
        model.eval()(Tensor(batch.images))
    found[4] = 1 / (1 + np.exp(-found[4]))
    maps = []
    for _, channels in sorted(found.items()):
        side = batch.masks.shape[2] // channels.shape[1]
        coarse = batch.masks[0, 0].reshape(channels.shape[1], side, -1, side).mean(axis=(1, 3))
        likeness = [np.corrcoef(c.ravel(), coarse.ravel())[0, 1] if c.std() else 0.0 for c in channels]
        best = int(np.argmax(np.abs(likeness)))
        maps.append(channels[best] * np.sign(likeness[best]))
    return maps


def draw_features() -> Figure:
    """Draw one lesion's feature maps along the U, with concatenated skip connections and without any."""
    from matplotlib.figure import Figure

    from r2unet.data.synthetic import SyntheticLesions

    sample = SyntheticLesions(LESIONS, SIZE, seed=0)[SHOWN]
    figure = Figure(figsize=(7.8, 3.4), dpi=DOTS_PER_INCH, facecolor=PAPER)
    titles = (
        "image,\nthe truth",
        "first block,\nthe skip",
        "bottleneck,\ndown-sampled",
        "up-sampled",
        "last block",
        "prediction",
    )
    for row, (skips, name) in enumerate((("concat", "with skips"), ("none", "without"))):
        given = sample.image if row == 0 else sample.mask
        pictures = [given, *feature_maps(trained(skips))]
        for column, picture in enumerate(pictures):
            axes = figure.add_axes((0.055 + 0.158 * column, 0.445 - 0.43 * row, 0.148, 0.40))
            axes.imshow(picture, cmap="gray", interpolation="nearest")
            if column == 5 or column == row == 0:
                axes.contour(sample.mask, [0.5], colors="#e69f00", linewidths=1.0)
            axes.axis("off")
            if row == 0:
                axes.set_title(titles[column], fontsize=9.5, color=INK)
        side = figure.add_axes((0, 0.445 - 0.43 * row, 0.05, 0.40))
        side.axis("off")
        label(side, 0.6, 0.5, name, QUIET, fontsize=10, rotation=90)
    return figure
