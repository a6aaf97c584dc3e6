"""The tables of a study in Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from r2unet.scores.metrics import METRICS, USABLE_JACCARD
from r2unet.study.findings import Finding, Run, Spread, agreement, baselines, spread, unfinished
from r2unet.study.plan import Plan
from r2unet.training.settings import as_text

COLUMNS = {
    "jaccard": "Jaccard",
    "thresholded_jaccard": "thr. J",
    "dice": "Dice",
    "accuracy": "accuracy",
}


def as_markdown(plan: Plan, findings: list[Finding], originals: bool, device: str) -> str:
    """Return a table in Markdown, one line per row of the study, with notes on how to read it."""
    study = plan.study
    modes = ["Jaccard, train mode"] if study.modes else []
    head = ["", "parameters", "s per epoch", "epochs", "best epoch", *COLUMNS.values(), *modes]
    head += [f"Jaccard against {findings[0].row.label}", "of each seed", "last fifth"]
    lines = [f"# {study.name}", "", study.question, "", _line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(finding, bool(modes))) for finding in findings]
    return "\n".join([*lines, "", *_notes(plan, findings, originals, device)]) + "\n"


def _notes(plan: Plan, findings: list[Finding], originals: bool, device: str) -> list[str]:
    """Return a list in Markdown that explains how the numbers of the table were computed."""
    shared = plan.shared
    size = "their original size" if originals else f"{shared.size} x {shared.size} pixels"
    seeds = f"{len(plan.seeds)} seeds ({as_text(plan.seeds)})"
    images = len(findings[0].runs[0].jaccards)
    trivial = ", ".join(f"{name} {value:.4f}" for name, value in baselines(findings).items())
    notes = [
        f"- {shared.data or 'generated lesions'}; {images} validation images, scored at {size}, with the "
        f"weights of the epoch that is best on these same images. Trained with {seeds} on the {device}.",
        "- Scores are means over images: the mean over seeds, with the lowest and the highest seed in "
        "brackets.",
        "- The difference of Jaccard is paired over images, with its 95 % bootstrap interval over images. "
        "The next column has the difference of each seed. Trust a difference only if its interval excludes "
        "zero and all seeds have the same sign.",
        "- Last fifth: how much the best Jaccard rose in the last fifth of the epochs, mean over seeds. A "
        "row that still rises would probably be better with more epochs.",
        "- Seconds per epoch: the median, with validation. They depend on what else the machine did, such as "
        "other runs in parallel.",
        f"- Jaccard of the trivial baselines on the same images: {trivial}.",
    ]
    if agree := agreement(findings):
        notes.append(
            f"- The Jaccards of the images in two runs have a correlation of {agree.correlation:.2f} "
            f"on average. {agree.always_low} images are below {USABLE_JACCARD} in every run. Their "
            f"share in the sum of the Jaccard distances 1 - J is {agree.distance_share:.0%}."
        )
    if left_out := unfinished(plan, findings):
        notes.append(f"- Not finished and left out: {', '.join(left_out)}.")
    return notes


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(finding: Finding, modes: bool) -> list[str]:
    runs, difference = finding.runs, finding.difference
    gains = [gain for run in runs if (gain := run.gain_in_last_fifth) is not None]
    train_mode = [[run.modes["jaccard_train_mode"] for run in runs]] if modes else []
    return [
        finding.row.label,
        f"{finding.parameters:,}",
        "" if finding.seconds is None else f"{finding.seconds:.1f}",
        ", ".join(str(len(run.history)) for run in runs),
        ", ".join(str(run.best_epoch) for run in runs),
        *(_spread(finding.score(name)) for name in COLUMNS),
        *(_spread(spread(values)) for values in train_mode),
        "{:+.4f} ({:+.4f} to {:+.4f})".format(difference.mean, *difference.interval) if difference else "",
        ", ".join(f"{value:+.4f}" for value in difference.by_seed.values()) if difference else "",
        f"{np.mean(gains):+.4f}" if gains else "",
    ]


def _spread(score: Spread) -> str:
    if score.lowest == score.highest:
        return f"{score.mean:.4f}"
    return f"{score.mean:.4f} ({score.lowest:.4f} to {score.highest:.4f})"


def as_csv(findings: list[Finding]) -> str:
    """Return a table in CSV, one line per run. Everything except the seconds is reproducible."""
    lines = [_csv_line(finding, run) for finding in findings for run in finding.runs]
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return text.getvalue()


def _csv_line(finding: Finding, run: Run) -> dict[str, Any]:
    model = run.scores["model"]
    return {
        "variant": finding.row.label,
        "seed": run.seed,
        "parameters": finding.parameters,
        "epochs": len(run.history),
        "best_epoch": run.best_epoch,
        "images": model["images"],
        **model["mean"],
        **{f"pooled_{name}": model["pooled"][name] for name in METRICS if name in model["pooled"]},
        **(run.modes or {}),
        "seconds_per_epoch": run.seconds,
    }
