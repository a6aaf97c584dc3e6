"""Outlines of several runs on the same images, from the best to the worst, with a slider between the runs.

An image is embedded once, as JPEG. The outlines are vector graphics above it, one layer for each run, and the
slider decides which parts of which layers are visible: at 1.3 the left 30 % of the image show run 2 and the
rest shows run 1 (`run_page.js`). So a page with many runs is hardly larger than with one.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minidl.allocator import release_freed_memory
from r2unet.data.classes import CLASSES
from r2unet.data.folders import find_pairs
from r2unet.diagnosis.plots import readable
from r2unet.errors import InputError
from r2unet.figures import contour_lines
from r2unet.network.model import UShape
from r2unet.scores.overlays import OverlayRow, shrink
from r2unet.scores.predictions import predict_originals, predict_samples
from r2unet.scores.ranking import best_to_worst
from r2unet.study.findings import Run
from r2unet.study.run_charts import sample, text
from r2unet.study.run_comparison import ComparedRun
from r2unet.training.checkpoints import load_model
from r2unet.training.prediction_memory import check_size
from r2unet.training.run_folder import BEST, generate_datasets
from r2unet.training.settings import Settings

TRUST = "add --trust"


def load_run(run: Run, device: str, trust: bool) -> tuple[UShape, Settings, dict[str, Any]]:
    """Return what `load_model` does of a run's best state.

    Raises InputError if a prediction at the size of its images takes much memory, unless `trust`.
    """
    path = run.folder / BEST
    model, settings, state = load_model(path)
    if not trust:
        check_size(path, settings, state["model"], remedy=TRUST)
    return model.to(device), settings, state


def outlined_images(
    run: Run, names: Sequence[str], data: str | None, device: str, trust: bool = False, side: int = 512
) -> Iterator[OverlayRow]:
    """Predict the validation images with these names, one after the other, with the Jaccard of the report.

    They are predicted at the original size, and come with at most `side` pixels a side, in the order of the
    data set. `data` is the folder of the images, None for generated lesions. Raises InputError if an image is
    missing, and as `load_run` does.
    """
    model, settings, _ = load_run(run, device, trust)
    if data is None:
        chosen = generate_datasets(settings, stored=False)[1].named(names)
        # One at a time, because all in full size take more memory than the predictions.
        predictions = (found for one in chosen for found in predict_samples(model, [one], 1, device))
    else:
        pairs = [pair for pair in find_pairs(data, "validation") if pair.name in names]
        predictions = predict_originals(model, pairs, settings.size, device)
    missing = dict.fromkeys(names)
    for s, probability in predictions:
        missing.pop(s.name, None)
        row = shrink(OverlayRow(s.image, s.mask, probability, s.name, run.jaccards[s.name]), side)
        del s, probability
        release_freed_memory()
        yield row
    if missing:
        raise InputError(
            f"--data {data}: has no validation image {next(iter(missing))}, on which {run.folder} was scored"
        )


def gallery(
    runs: Sequence[ComparedRun], count: int, data: str | None, device: str, trust: bool = False
) -> str:
    """Draw `count` images with the outlines of these runs, which were scored on the same images.

    The images are at equal distances of rank, by the Jaccard of the first run. `data` is where the images are
    now; without it they are where the run found them. An image is kept as HTML and never as an array, because
    24 arrays take more memory than a prediction.
    """
    names = best_to_worst(runs[0].run.jaccards, count)
    pictures: dict[str, str] = {}
    outlines: dict[str, list[str]] = {name: [] for name in names}  # of every run
    for each in runs:
        try:
            folder = each.settings.data and (data or each.settings.data)
            for row in outlined_images(each.run, names, folder, device, trust):
                if row.name not in pictures:
                    pictures[row.name] = _picture(row)
                outlines[row.name].append(_svg('class="layer" ', "prediction", row.probability))
        except InputError as error:
            moved = "" if data else "if the images have moved, give --data DIR, or "
            moved = "or " if TRUST in str(error) else moved
            raise InputError(f"{error}; {moved}omit the images: --pictures 0") from None
    figures = [_figure(runs, name, pictures[name] + "".join(outlines[name])) for name in names]
    return f'<div class="gallery">{_slider(runs)}<div class="grid">{"".join(figures)}</div></div>'


def _slider(runs: Sequence[ComparedRun]) -> str:
    """Return the slider and a button for each run; nothing for a single run. Both need JavaScript."""
    if len(runs) == 1:
        return ""
    buttons = "".join(
        f'<button type="button" value="{i}">{sample(each.number)} {text(each.label)}</button>'
        for i, each in enumerate(runs)
    )
    return (
        '<div class="slider"><label>From one run to the next: '
        f'<input type="range" min="0" max="{len(runs) - 1}" step="0.02" value="0.5"></label>'
        f'<div class="buttons">{buttons}</div></div>'
    )


def _figure(runs: Sequence[ComparedRun], name: str, picture: str) -> str:
    """Return one image with its outlines, and below it the Jaccard of each run."""
    scores = "".join(
        f"<li>{sample(each.number)} {text(each.label)}: "
        f"{each.run.jaccards[name]:.2f}{_answer(each, name)}</li>"
        for each in runs
    )
    return (
        f'<figure class="overlay"><div class="stack">{picture}<div class="edge"></div></div>'
        f"<figcaption>{text(name)}{_true_class(runs, name)}<ul>{scores}</ul></figcaption></figure>"
    )


def _picture(row: OverlayRow) -> str:
    """Return an image with its true outline."""
    height, width = row.image.shape[:2]
    alternative = text(f"{row.name} with its true and its predicted outline")
    image = f'<img src="{embedded(row.image)}" width="{width}" height="{height}" alt="{alternative}">'
    return image + _svg("", "truth", row.truth)


def _svg(attributes: str, outline: str, values: np.ndarray) -> str:
    """Return the outline of `values` (H, W), of the class `outline`, as a picture to lay over the image."""
    height, width = values.shape
    return (
        f'<svg {attributes}viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<path class="{outline}" d="{contour(values)}"/></svg>'
    )


def _true_class(runs: Sequence[ComparedRun], name: str) -> str:
    """Return the true diagnosis of an image, if a run was scored on it."""
    for each in runs:
        if entry := (each.run.diagnosis or {}).get("by_image", {}).get(name):
            return f": {text(readable(entry['class']))}"
    return ""


def _answer(each: ComparedRun, name: str) -> str:
    """Return the most probable class that a run gave an image, if it gave any."""
    entry = (each.run.diagnosis or {}).get("by_image", {}).get(name)
    if not entry:
        return ""
    best = int(np.argmax(entry["probabilities"]))
    answer = readable(CLASSES[each.settings.classes][best])
    return f", {text(answer)} {entry['probabilities'][best]:.0%}"


def contour(values: np.ndarray) -> str:
    """Return the lines where `values` (H, W) cross 1/2, as an SVG path in pixels from the upper left corner.

    Outside of the image the values count as 0, so a lesion that is cut off has a closed outline.
    """
    lines = contour_lines(np.pad(values, 1), 0.5)
    # Pixel (0, 0) has its middle at (0.5, 0.5) of the picture and is at (1, 1) of the padded array.
    return "".join("M" + "L".join(f"{x - 0.5:.1f} {y - 0.5:.1f}" for x, y in line) + "Z" for line in lines)


def embedded(image: np.ndarray) -> str:
    """Return an image (H, W, 3) uint8 as the address of a JPEG that contains all of it."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
