"""The U: its levels, its receptive field, and what its skip connections carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import (
    BLUE,
    DOTS_PER_INCH,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    QUIET,
    arrow,
    box,
    label,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_u() -> Figure:
    """Draw R2U-Net with widths 8, 16, 32, 64 for an image of 128 x 128."""
    figure, axes = new_figure(8.6, 4.9, (-2.5, 14.5), (-5.1, 4.7))
    widths, sides = (8, 16, 32, 64), (128, 64, 32, 16)
    heights = [3.0 - 2.2 * level for level in range(4)]
    left = [0.3 + 1.6 * level for level in range(3)] + [6.0]
    right = [12.0 - x for x in left]
    for level, (width, y) in enumerate(zip(widths, heights, strict=True)):
        for x in {left[level], right[level]}:
            box(axes, x, y, str(width), colour=BLUE, width=1.1)
        label(axes, -1.45, y, f"{sides[level]} x {sides[level]}", fontsize=10.5, color=QUIET)
    for level in range(3):
        y, below = heights[level], heights[level + 1]
        arrow(axes, (left[level], y - 0.3), (left[level + 1] - (0.35 if level == 2 else 0), below + 0.3))
        arrow(
            axes,
            (right[level + 1] + (0.35 if level == 2 else 0), below + 0.3),
            (right[level], y - 0.3),
            colour=GREEN,
        )
        arrow(axes, (left[level] + 0.55, y), (right[level] - 0.55, y), colour=ORANGE)
        w = widths[level]
        prefix = "" if level else "skip connection: "
        label(axes, 6.0, y + 0.3, f"{prefix}concatenate {w} + {w}", fontsize=10)
    arrow(axes, (left[0], 4.1), (left[0], 3.3))
    label(axes, left[0], 4.3, "image, 3 channels", fontsize=10.5)
    arrow(axes, (right[0], 3.3), (right[0], 4.1))
    label(axes, right[0] - 0.15, 3.7, "1 x 1 convolution", ha="right", fontsize=10)
    label(axes, right[0], 4.3, "logits, 1 channel", fontsize=10.5)
    label(axes, 0.75, 1.6, "max-pool", ha="right", fontsize=10)
    label(axes, 11.4, 1.9, "transposed\nconvolution", ha="left", fontsize=10)
    label(axes, 2.6, -3.0, "encoder", fontsize=11, fontweight="bold")
    label(axes, 6.0, -4.15, "bottleneck", fontsize=11, fontweight="bold")
    label(axes, 9.4, -3.0, "decoder", fontsize=11, fontweight="bold")
    label(
        axes, 6.0, -4.75, "each box is a recurrent residual block with that number of channels", fontsize=10.5
    )
    return figure


def draw_receptive_field() -> Figure:
    """Draw the receptive field after every 3x3 convolution of the encoder, for t = 0 and t = 2."""
    import numpy as np
    from matplotlib.figure import Figure

    from r2unet.network.model import R2UNet
    from r2unet.network.receptive_field import receptive_fields
    from r2unet.network.summary import image_of_zeros

    figure = Figure(figsize=(8.6, 3.9), dpi=DOTS_PER_INCH, facecolor=PAPER)
    axes = figure.add_axes((0.075, 0.1, 0.9, 0.86))
    axes.set_facecolor(PAPER)
    for t, colour, text, place in (
        (2, BLUE, "t = 2: each convolution\nis applied three times", (9.0, 110)),
        (0, ORANGE, "t = 0: plain convolutions", (21.2, 8)),
    ):
        model = R2UNet(widths=(1, 1, 1, 1), steps=t, rng=np.random.default_rng(0)).eval()
        fields = receptive_fields(model, image_of_zeros(8))
        sides = [side for name, side in fields.items() if name.startswith("encoder") and "norm" in name]
        x = (np.arange(len(sides)) + 0.5) * 24 / len(sides)  # 6 for each level
        axes.plot(x, sides, "-o", color=colour, lw=1.6, ms=5, mec=INK, mew=0.6)
        for last in np.arange(1, 5) * len(sides) // 4 - 1:
            dx, dy = (-0.3, 7) if t else (0.3, -11)
            label(axes, x[last] + dx, sides[last] + dy, str(sides[last]), fontsize=9.5)
        label(axes, *place, text, fontsize=10.5)
    for level in range(1, 4):
        axes.axvline(6 * level, color=QUIET, lw=0.8, ls=":")
    axes.set(xlim=(0, 24.2), ylim=(-14, 205), xticks=[3, 9, 15, 21], yticks=range(0, 201, 50))
    axes.set_xticklabels([f"level {k}: a step of {2**k} px" for k in range(4)], fontsize=9.5)
    axes.tick_params(labelsize=9, colors=INK, bottom=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.set_ylabel("side of the receptive field, pixels", fontsize=10.5, color=INK)
    return figure
