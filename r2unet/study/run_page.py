"""One HTML file about one or several training runs: it needs no network and no other file.

    runs           what was trained, and the settings, those that differ first
    curves         losses and validation scores by epoch, the runs over each other
    outlines       scores with intervals beside the baselines; images from the best to the worst
    diagnosis      if a run gives any: scores, ROC curves and confusion matrices
    commands       what to type to train the runs again, and to write this page again

Styles, a few lines of JavaScript, charts (SVG) and pictures (JPEG) are embedded. Everything that comes from a
file or from the user is escaped by `run_charts.text`. The page contains no time and no random number: the
same runs give the same bytes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r2unet import __version__
from r2unet.diagnosis.plots import readable
from r2unet.diagnosis.roc import roc_counts, roc_curve
from r2unet.errors import InputError
from r2unet.study.diagnosis_findings import read_diagnoses
from r2unet.study.plan import FINISHED, PLAN
from r2unet.study.run_charts import Line, chart, text
from r2unet.study.run_comparison import ComparedRun, same_diagnoses, same_images
from r2unet.study.run_pictures import gallery
from r2unet.study.run_tables import (
    about_runs,
    aucs_by_class,
    confusion_matrix,
    diagnosis_scores,
    outline_scores,
    settings_side_by_side,
)
from r2unet.training.checkpoints import CONTENT_ERRORS, short_reason
from r2unet.training.run_folder import BEST
from r2unet.training.settings import as_options

# The columns of history.csv: their titles, and the range of their axes
CURVES = {
    "train_loss": ("training loss", None),
    "validation_loss": ("validation loss", None),
    "validation_jaccard": ("validation Jaccard, mean over images", (0.0, 1.0)),
    "validation_dice": ("validation Dice, mean over images", (0.0, 1.0)),
    "validation_auc": ("validation AUC, mean over classes", (0.0, 1.0)),
}


class Pictures(NamedTuple):
    """Which images a page draws: how many of each group, and where they are now."""

    count: int
    data: str | None
    device: str
    trust: bool = False  # predict whatever memory it takes


def run_page(runs: Sequence[ComparedRun], pictures: Pictures, command: str) -> str:
    """Return the page of these runs as HTML; `command` is what wrote it.

    Raises InputError if an image to draw is missing, and for a report.json with anything but scores in it.
    """
    sections = {
        "Runs": about_runs(runs) + settings_side_by_side(runs),
        "Curves": curves(runs),
        "Outlines": "".join(_outlines(group, pictures, len(runs)) for group in same_images(runs)),
        "Diagnosis": "".join(_diagnosis(group, len(runs)) for group in same_diagnoses(runs)),
        "Commands": commands(runs, command),
    }
    shown = {title: content for title, content in sections.items() if content}
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in shown)
    body = "".join(
        f'<section id="{title.lower()}"><h2>{title}</h2>{content}</section>'
        for title, content in shown.items()
    )
    names = text(", ".join(each.label for each in runs))
    style, script = (
        Path(__file__).with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js")
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Training runs: {names}</title><style>{style}</style></head>"
        f"<body><header><h1>Training runs: {names}</h1><nav>{links}</nav></header><main>{body}</main>"
        f"<footer>Written by r2unet {text(__version__)}. For learning and research; not a medical device."
        f"</footer><script>{script}</script></body></html>\n"
    )


@contextmanager
def report_errors(runs: Sequence[ComparedRun]) -> Iterator[None]:
    """Turn an error caused by the content of a report.json into an InputError that names these files."""
    try:
        yield
    except InputError:
        raise
    except CONTENT_ERRORS as error:
        files = ", ".join(str(each.run.folder / FINISHED) for each in runs)
        raise InputError(
            f"{files}: invalid ({short_reason(error)}); delete the file, and write it again with `r2unet "
            "train --resume --out` and its folder"
        ) from None


def curves(runs: Sequence[ComparedRun]) -> str:
    """Draw each column of the histories as a chart with all runs; a large point is a run's best epoch."""
    charts = []
    for column, (title, y_range) in CURVES.items():
        lines = []
        for each in runs:
            rows = [row for row in each.run.history if column in row]
            epochs, values = [row["epoch"] for row in rows], [row[column] for row in rows]
            if rows:
                lines.append(Line(each.label, each.number, epochs, values, each.run.best_epoch - 1))
        if lines:
            charts.append(chart(title, lines, "epoch", y_range=y_range))
    losses = {(each.settings.loss, each.settings.task) for each in runs}
    note = (
        "<p>The runs have different loss functions or tasks, so their losses cannot be compared.</p>"
        if len(losses) > 1
        else ""
    )
    return f'{note}<div class="charts">{"".join(charts)}</div>'


def _group_title(group: Sequence[ComparedRun], units: str, total: int) -> str:
    names = ", ".join(text(each.label) for each in group)
    return f"<h3>{names if len(group) < total else 'All runs'}: the same {units}</h3>" if total > 1 else ""


def _outlines(group: Sequence[ComparedRun], pictures: Pictures, total: int) -> str:
    """Return the scores and the pictures of runs with the same images."""
    images, size = len(group[0].run.jaccards), group[0].settings.size
    with report_errors(group):
        scores = outline_scores(group)
    drawn = ""
    if pictures.count:
        by = f", by the Jaccard of {text(group[0].label)}" if len(group) > 1 else ""
        drawn = (
            f"<p>Images from the best to the worst, at equal distances of rank{by}. "
            '<span class="key truth">truth</span> <span class="key prediction">prediction</span>, and behind '
            "each run its Jaccard.</p>" + gallery(group, *pictures)
        )
    return (
        _group_title(group, f"{images} validation images", total)
        + f"<p>Scores of the best epoch at {size} x {size} pixels, as means over {images} images. The "
        "interval of 95 % is a bootstrap over images. A difference is paired over images; it is in bold if "
        f"its interval excludes zero.</p>{scores}{drawn}"
    )


def _diagnosis(group: Sequence[ComparedRun], total: int) -> str:
    """Return the scores of the diagnoses of runs with the same lesions."""
    with report_errors(group):
        report = group[0].run.diagnosis["types"]["model"]
        matrices = "".join(map(confusion_matrix, group))
        return (
            _group_title(group, f"{int(report['lesions'])} lesions", total)
            + f"<p>{int(report['images'])} images of {int(report['lesions'])} lesions have a known class. "
            "Intervals are 95 % bootstraps over lesions. AUC is the mean over the classes, each against the "
            f"rest.</p>{diagnosis_scores(group)}<h4>AUC by class</h4>{aucs_by_class(group)}"
            f'<h4>ROC curves</h4><div class="charts">{_roc(group)}</div>'
            f'<h4>Confusion matrices</h4><div class="charts">{matrices}</div>'
        )


def _roc(group: Sequence[ComparedRun]) -> str:
    """Draw the ROC curve of each class against the rest; a class of all or no images has none."""
    charts = []
    answers = [read_diagnoses(each.run) for each in group]
    for k, name in enumerate(group[0].run.diagnosis["types"]["model"]["classes"]):
        positive = answers[0].labels == k
        if positive.all() or not positive.any():
            continue
        lines = []
        for each, answer in zip(group, answers, strict=True):
            fpr, tpr = roc_curve(roc_counts(answer.probabilities[:, k], positive))
            lines.append(Line(each.label, each.number, np.ravel(fpr).tolist(), np.ravel(tpr).tolist()))
        title = f"{readable(name)}: sensitivity by 1 - specificity"
        charts.append(chart(title, lines, "1 - specificity", (0.0, 1.0), (0.0, 1.0)))
    return "".join(charts)


def commands(runs: Sequence[ComparedRun], command: str) -> str:
    """Return the commands that train and score these runs, and that write this page."""
    lines = []
    for each in runs:
        folder = each.run.folder
        lines.append(f"# {each.label}")
        study = folder.resolve().parent.parent  # not parents[1], which a folder of the root lacks
        if (study / PLAN).exists():
            lines.append(f"# part of the study in {study}; this trains it alone:")
        lines.append(shlex.join(["r2unet", "train", *as_options(each.settings), "--out", str(folder)]))
        data = [] if each.settings.data is None else ["--data", each.settings.data]
        if each.run.diagnosis and each.settings.labels:
            data += ["--labels", each.settings.labels]
        lines.append(shlex.join(["r2unet", "evaluate", "--checkpoint", str(folder / BEST), *data]))
    shown = "\n".join(text(line) for line in [*lines, "# this page", command])
    return (
        "<p>A checkpoint stores the settings of a training, but not <code>--device</code>, "
        "<code>--conv</code>, <code>--threads</code> and <code>--from</code>: add them if you used them.</p>"
        f"<pre><code>{shown}</code></pre>"
    )
