"""What all figures share: colours, boxes, arrows, text, and the variant for a dark page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110

# From the palette of Okabe and Ito (2008), which is distinguishable with every type of colour vision.
BLUE, ORANGE, GREEN, GREY = "#56b4e9", "#e69f00", "#009e73", "#bbbbbb"
INK, QUIET, PAPER = "#222222", "#555555", "white"

# On a dark page ink and paper change places. Fills become dark enough for light text; lines stay bright.
DARK = {INK: "#e8e8e8", QUIET: "#b0b0b0", PAPER: "#14181d"}
DARK_FILLS = {
    BLUE: "#2273a6",
    ORANGE: "#a96c00",
    GREEN: "#00805c",
    GREY: "#5a6067",
    "#e8f4fb": "#17303f",
    "#e5f5ef": "#123329",
    "#c4e4f7": "#1f4a66",
    "#f6d58f": "#6b4d12",
}


def darken(figure: Figure) -> Figure:
    """Replace the colours of a finished figure by those for a dark page, and return it."""
    from matplotlib.artist import Artist
    from matplotlib.colors import is_color_like, to_rgba

    lines = {to_rgba(light): to_rgba(dark) for light, dark in DARK.items()}
    fills = lines | {to_rgba(light): to_rgba(dark) for light, dark in DARK_FILLS.items()}
    artists = figure.findobj(Artist)
    arrows = [a.arrow_patch for a in artists if getattr(a, "arrow_patch", None) is not None]
    for artist in [*artists, *arrows]:
        # A line has markers with colours of their own. A shape has a fill and an edge; its "color" is both.
        kinds = ["facecolor", "edgecolor"] if hasattr(artist, "get_facecolor") else ["color"]
        for kind in [*kinds, "markerfacecolor", "markeredgecolor"]:
            colour = getattr(artist, f"get_{kind}", lambda: None)()
            if is_color_like(colour):  # not None, "auto" or the list of a collection
                table = fills if "face" in kind and artist not in arrows else lines
                getattr(artist, f"set_{kind}")(table.get(to_rgba(colour), colour))
    return figure


def new_figure(width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> tuple:
    """Return a figure of `width` x `height` inches and its axes, which span x and y with equal units."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=x, ylim=y, aspect="equal")
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, text: str, colour: str = "white", width: float = 1.5) -> None:
    """Draw a rounded box, centred at (x, y), that stands for a function."""
    from matplotlib.patches import FancyBboxPatch

    patch = FancyBboxPatch(
        (x - width / 2, y - 0.3), width, 0.6, "round,pad=0,rounding_size=0.12", fc=colour, ec=INK, lw=1.1
    )
    axes.add_patch(patch)
    axes.text(x, y, text, ha="center", va="center", fontsize=11, color=INK)


def arrow(axes: Axes, start: tuple, end: tuple, bend: float = 0.0, colour: str = INK, dashes="-") -> None:
    """Draw an arrow between two points; `bend` curves it, to the left of its direction if it is negative."""
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.3, "linestyle": dashes, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops={**style, "connectionstyle": f"arc3,rad={bend}"})


def label(axes: Axes, x: float, y: float, text: str, colour: str = INK, **options) -> None:
    """Write text at (x, y), centred by default."""
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 11, "color": colour, **options})


def cells(axes: Axes, x: float, y: float, values: list[list[str]], colours: list[list[str]]) -> None:
    """Draw a grid of unit squares that contain text; (x, y) is its upper left corner."""
    from matplotlib.patches import Rectangle

    for i, row in enumerate(values):
        for j, text in enumerate(row):
            axes.add_patch(Rectangle((x + j, y - i - 1), 1, 1, fc=colours[i][j], ec=INK, lw=0.8))
            label(axes, x + j + 0.5, y - i - 0.5, text)


def plus(axes: Axes, x: float, y: float) -> None:
    """Draw a sum: a circle that contains a plus sign."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((x, y), 0.25, fc="white", ec=INK, lw=1.1))
    label(axes, x, y, "+", fontsize=12)
