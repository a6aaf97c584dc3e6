"""Draw the figures of the documentation: `python docs/figures.py [FOLDER]`.

Each figure explains one idea and is drawn from numbers that the code of this project computes; the functions
are in docs/drawings. Positions are in the units of the subject: a pixel is 1 wide, a step of the recurrence
is one column. Every figure is written twice: NAME.png for a light page, NAME-dark.png for a dark one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from drawings import (
    architecture,
    block,
    convolution,
    diagnosis,
    engine,
    features,
    gpu,
    network,
    norms,
    prediction,
    roofline,
    training,
)
from drawings.style import darken

FOLDER = Path(__file__).parent / "figures"

FIGURES = {
    "graph": engine.draw_graph,
    "step-size": engine.draw_step_size,
    "im2col": convolution.draw_im2col,
    "rows": convolution.draw_rows,
    "norms": norms.draw_norms,
    "recurrence": block.draw_recurrence,
    "through-time": block.draw_through_time,
    "block": block.draw_block,
    "u": network.draw_u,
    "receptive-field": network.draw_receptive_field,
    "features": features.draw_features,
    "training": training.draw_training,
    "thread": gpu.draw_thread,
    "tile": gpu.draw_tile,
    "strip": gpu.draw_strip,
    "weight-gradient": gpu.draw_weight_gradient,
    "shuffle": gpu.draw_shuffle,
    "photo-to-mask": prediction.draw_photo_to_mask,
    "roofline": roofline.draw_roofline,
    "diagnosis": diagnosis.draw_diagnosis,
    "roc": diagnosis.draw_roc,
    "reliability": diagnosis.draw_reliability,
    "architecture": architecture.draw_architecture,
}


def draw_all(folder: Path, names: Iterable[str] = FIGURES) -> list[Path]:
    """Write the figures to the folder, each for a light and a dark page; return the paths of the PNG files.

    The same version of matplotlib writes the same bytes in every run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        figure = FIGURES[name]()
        for suffix, prepare in (("", lambda figure: figure), ("-dark", darken)):
            paths.append(folder / f"{name}{suffix}.png")
            prepare(figure).savefig(paths[-1], metadata={"Software": None})
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the figures of the chapters.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where to write the figures")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES, help="the names of figures")
    options = parser.parse_args()
    for path in draw_all(options.folder, options.only):
        print(path)
