"""Shared parts of all figures: an empty page, its file, the colours, and outlines of masks.

The truth is always blue and the prediction always yellow. These colours differ in hue and in brightness, so
they can be distinguished with any kind of colour blindness, and neither is common in skin. A line on an
image has a dark edge, because the image may be as bright as the line.

Figures are drawn with matplotlib's objects and never with pyplot, whose list of open figures is global state
that grows with every call and needs a display.
"""

import math
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from r2unet.errors import InputError
from r2unet.files import output_file

if TYPE_CHECKING:  # importing matplotlib takes most of a second, too long for "r2unet --help"
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH = "#56b4e9"  # sky blue and yellow of the palette of Okabe and Ito (2008)
PREDICTION = "#f0e442"
TRAINING = "#0072b2"
VALIDATION = "#d55e00"
QUIET = "#666666"
DPI = 150  # dots an inch

# The compression of a PNG, from 1 to 9. On a photograph, THOROUGH, the default of most programs, takes five
# times as long as QUICK, and the file is an eighth smaller.
QUICK, THOROUGH = 1, 6

MOST_CROSSINGS = 10_000  # of contour lines between neighbouring pixels; a disc of 512 pixels has 2,000
LONGEST_NAME = 60  # characters, also of a script with wide ones


def new_figure(width: float, height: float, most_pixels: float = math.inf) -> "Figure":
    """Return an empty figure of `width` x `height` inches, of 150 dots an inch or at most so many pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=min(DPI, math.sqrt(most_pixels / (width * height))))
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: str | Path, compression: int = THOROUGH) -> None:
    """Write the figure in the format given by the suffix of `path`; the compression is that of a PNG.

    Raises InputError for an unknown format, and if `path` cannot be written.
    """
    file_format = Path(path).suffix[1:].lower()
    if file_format not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: cannot draw a figure in this format; end the name in .png, .pdf or .svg")
    more = {"pil_kwargs": {"compress_level": compression}} if file_format == "png" else {}
    with output_file(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        figure.savefig(file, format=file_format, **more)


def printable(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name, of a file or from the user, as a text that matplotlib draws as it is.

    Control characters and broken bytes become "?", a long name is shortened in the middle, and dollar signs
    are escaped, because matplotlib typesets what is between two of them as a formula.
    """
    name = "".join("?" if unicodedata.category(c) in ("Cc", "Cs", "Cf") else c for c in name)
    if len(name) > longest:
        half = longest // 2
        name = f"{name[: half - 1]}…{name[-half:]}"
    return name.replace("$", r"\$")


def cell_height(image: np.ndarray, width: float) -> float:
    """Return the height of an image (H, W, ...) drawn at this width, from a fifth to twice the width.

    A row of an image of 512 x 1 pixels would otherwise be 30 m high.
    """
    height, columns = image.shape[:2]
    return width * min(max(height / columns, 0.2), 2.0)


def draw_outline(axes: "Axes", values: np.ndarray, level: float, colour: str) -> None:
    """Draw the contour line where `values` (H, W) cross `level`, with a dark edge visible on any skin."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    # Not axes.contour, which keeps 24 bytes for every pixel.
    lines = LineCollection(contour_lines(values, level), colors=[colour], linewidths=1.5)
    lines.set_path_effects([withStroke(linewidth=3, foreground="#000000a0")])
    axes.add_collection(lines, autolim=False)


def contour_lines(values: np.ndarray, level: float) -> list[np.ndarray]:
    """Return the lines where `values` (H, W) cross `level`: (points, 2) each, x and y in pixels.

    A line of pixels has no contour. The contour of noise has a corner for every pixel and takes much memory,
    so where the lines are very many, only every second value in each direction is considered, or fewer.
    """
    from contourpy import contour_generator  # matplotlib requires it

    if min(values.shape) < 2:
        return []
    step, above = 1, values > level
    while _crossings(above[::step, ::step]) > MOST_CROSSINGS:
        step *= 2
    lines = contour_generator(z=values[::step, ::step]).lines(level)
    return [step * line for line in lines]


def _crossings(above: np.ndarray) -> int:
    """Return how many pairs of neighbours in (H, W) differ."""
    return sum(np.count_nonzero(np.diff(above, axis=axis)) for axis in (0, 1))


def add_outline_legend(figure: "Figure") -> None:
    """Add a legend of the outlines' colours, truth and prediction, in the lower right corner."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=4, foreground="#000000a0")]
    lines = [
        Line2D([], [], color=colour, linewidth=2.5, label=label, path_effects=edge)
        for colour, label in ((TRUTH, "truth"), (PREDICTION, "prediction"))
    ]
    figure.legend(handles=lines, loc="lower right", ncols=2, frameon=False, fontsize=10, borderaxespad=0.3)
