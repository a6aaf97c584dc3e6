"""Which values share a mean: batch norm and group norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drawings.style import BLUE, INK, QUIET, cells, label, new_figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

IMAGES, CHANNELS, GROUPS, SIDE = 4, 6, 3, 2


def draw_norms() -> Figure:
    """Draw four images of six channels, divided into the sets of values that each norm takes together."""
    from matplotlib.patches import Rectangle

    from minidl import ops

    figure, axes = new_figure(6.4, 3.35, (-1.1, 14.5), (-2.6, 5.55))
    norms: tuple[tuple[str, str, Callable], ...] = (
        ("batch norm", "one channel of all images:\nN H W values", lambda x, *gb: ops.batch_norm(x, *gb)[0]),
        (
            f"group norm, {GROUPS} groups",
            f"one group of one image:\n(C / {GROUPS}) H W values",
            lambda x, *gb: ops.group_norm(x, GROUPS, *gb),
        ),
    )
    for (name, size, norm), left in zip(norms, (0, 8), strict=True):
        first = sharing(norm, 0, 0)
        colours = [[BLUE if (n, c) in first else "white" for c in range(CHANNELS)] for n in range(IMAGES)]
        cells(axes, left, IMAGES, [[""] * CHANNELS] * IMAGES, colours)
        for n, c in {min(sharing(norm, n, c)) for n in range(IMAGES) for c in range(CHANNELS)}:
            last = max(sharing(norm, n, c))
            width, height = last[1] - c + 1, last[0] - n + 1
            axes.add_patch(Rectangle((left + c, IMAGES - n), width, -height, fc="none", ec=INK, lw=2.6))
        label(axes, left + 3, 5.1, name)
        label(axes, left + 3, 4.4, "channels", QUIET, fontsize=10)
        label(axes, left + 3, -0.75, size, fontsize=10.5)
    label(axes, -0.5, 2, "images", QUIET, fontsize=10, rotation=90)
    text = "a cell: H x W values;   a frame: one mean and one variance"
    label(axes, 7, -2.2, text, QUIET, fontsize=10.5)
    return figure


def sharing(norm: Callable, image: int, channel: int) -> set[tuple[int, int]]:
    """Return the (image, channel) whose results depend on this channel of this image."""
    import numpy as np

    from minidl import Tensor

    x = np.random.default_rng(0).normal(size=(IMAGES, CHANNELS, SIDE, SIDE))
    weight, bias = Tensor(np.ones(CHANNELS)), Tensor(np.zeros(CHANNELS))
    before = norm(Tensor(x), weight, bias).data
    x[image, channel, 0, 0] += 1.0
    changed = (norm(Tensor(x), weight, bias).data != before).any(axis=(2, 3))
    return {(int(n), int(c)) for n, c in np.argwhere(changed)}
