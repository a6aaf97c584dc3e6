"""The tables of a study in Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from r2unet.scores.metrics import METRICS, USABLE_JACCARD
from r2unet.study import diagnosis_findings
from r2unet.study.diagnosis_findings import SCORES, DiagnosisFinding, baseline_row
from r2unet.study.findings import (
    Difference,
    Finding,
    Run,
    Spread,
    agreement,
    baselines,
    predicts_outlines,
    spread,
    unfinished,
)
from r2unet.study.plan import Plan
from r2unet.study.studies import Row
from r2unet.training.settings import as_text

COLUMNS = {
    "jaccard": "Jaccard",
    "thresholded_jaccard": "thr. J",
    "dice": "Dice",
    "accuracy": "accuracy",
}
DIAGNOSIS_COLUMNS = {
    "auc": "mean AUC",
    "malignant_auc": "malignant AUC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
}

BAR = r"\|"  # a vertical bar in a cell


def as_markdown(
    plan: Plan, findings: list[Finding], found: list[DiagnosisFinding], originals: bool, device: str | None
) -> str:
    """Return the tables in Markdown, one line per row of the study, with notes on how to read them.

    `found` are the rows with diagnoses: their table is the second. Columns of the outlines are left out if no
    row has outlines. `device` is the one that trained, None if it is unknown.
    """
    study = plan.study
    head = ["", "parameters", "s per epoch", "epochs", "best epoch"]
    if first := next((finding for finding in findings if finding.outlines), None):
        head += [*COLUMNS.values(), *(["Jaccard, train mode"] if study.modes else [])]
        head += [f"Jaccard against {first.row.label}", "of each seed"]
    rows = [_cells(finding, study.modes) if first else _run_cells(finding) for finding in findings]
    rows = [[*cells, _last_fifth(finding)] for cells, finding in zip(rows, findings, strict=True)]
    lines = [f"# {study.name}", "", study.question, "", *_table([*head, "last fifth"], rows)]
    lines += ["", *_notes(plan, findings, bool(found), originals, device)]
    if found:
        head = ["", *DIAGNOSIS_COLUMNS.values(), f"mean AUC against {found[0].row.label}", "of each seed"]
        lines += ["", "## Diagnosis", "", *_table(head, [_diagnosis_cells(each) for each in found])]
        lines += ["", *_diagnosis_notes(plan, found)]
    return "\n".join(lines) + "\n"


def _notes(
    plan: Plan, findings: list[Finding], diagnoses: bool, originals: bool, device: str | None
) -> list[str]:
    """Return a list in Markdown that explains how the numbers of the first table were computed."""
    shared = plan.shared
    rows = [finding.row for finding in findings if finding.outlines]
    size = "their original size" if originals else _sizes(rows)
    several = not originals and len({row.settings.size for row in rows}) > 1
    seeds = f"{len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''} ({as_text(plan.seeds)})"
    outlined = [finding.runs[0] for finding in findings if finding.outlines]
    where = f" on the {device}" if device else ""
    each = " for each seed" if shared.data is None and len(plan.seeds) > 1 else ""
    images = (
        f"{len(outlined[0].jaccards)} validation images{each}, scored at {size},"
        if outlined
        else "validation images, scored"
    )
    risen = "Jaccard, the best mean AUC or, with both, the best sum of the two" if diagnoses else "Jaccard"
    notes = [
        f"- {shared.data or 'generated lesions'}; {images} with the weights of the epoch that "
        f"is best on these same images. Trained with {seeds}{where}.",
        "- Scores are means over images: the mean over seeds, with the lowest and the highest seed in "
        "brackets.",
        "- The difference of Jaccard is paired over images, with its 95 % bootstrap interval over images. "
        "The next column has the difference of each seed. Trust a difference only if its interval excludes "
        "zero and all seeds have the same sign.",
        f"- Last fifth: how much the best {risen} rose in the last fifth of the epochs, mean over seeds. A "
        "row that still rises would probably be better with more epochs.",
        "- Seconds per epoch: the median, with validation. They depend on what else the machine did, such as "
        "other runs in parallel.",
    ]
    if several:
        remedy = "; --originals scores all at the same size" if shared.data else ""
        notes[2] += f" A row at another size than {rows[0].label} has no difference{remedy}."
    if not outlined:
        del notes[1:3]
    if trivial := ", ".join(f"{name} {value:.4f}" for name, value in baselines(findings).items()):
        at = f", at {_sizes(rows[:1])}" if several else ""
        notes.append(f"- Jaccard of the trivial baselines on the same images{at}: {trivial}.")
    if not several:
        notes += _agreement_notes(findings, shared.data is not None)
    if left_out := unfinished(plan, findings):
        notes.append(f"- Not finished and left out: {', '.join(left_out)}.")
    return notes


def _agreement_notes(findings: list[Finding], same_images: bool) -> list[str]:
    """Return a note on how similarly the runs score, if any two have the same images."""
    if not (agree := agreement(findings, same_images)):
        return []
    runs = "two runs" if same_images else "two runs with the same seed"
    low = agree.always_low
    images, share = ("1 image is", "Its") if low == 1 else (f"{low} images are", "Their")
    return [
        f"- The Jaccards of the images in {runs} have a correlation of {agree.correlation:.2f} on average. "
        f"{images} below {USABLE_JACCARD} in every run. {share} share in the sum of the Jaccard distances "
        f"1 - J is {agree.distance_share:.0%}."
    ]


def _diagnosis_notes(plan: Plan, found: list[DiagnosisFinding]) -> list[str]:
    """Return a list in Markdown that explains how the numbers of the table of diagnoses were computed."""
    report = found[0].runs[0].diagnosis["types"]["model"]
    classes = ", ".join(name.replace("_", " ") for name in report["classes"])
    notes = [
        f"- {report['images']} validation images of {report['lesions']} lesions have one of the "
        f"{len(report['classes'])} classes {classes}. The network sees every image at "
        f"{_sizes([each.row for each in found])}, whatever the size at which outlines are scored.",
        "- Mean AUC: of each class against the rest, averaged over the classes. Malignant AUC: of the sum "
        "of the probabilities of the malignant classes. The accuracies are those of the most probable class; "
        "balanced accuracy is the mean sensitivity over the classes. All scores are means over seeds, with "
        "the lowest and the highest seed in brackets.",
        "- The difference of the mean AUC is paired over lesions, with its 95 % bootstrap interval over "
        "lesions. The next column has the difference of each seed. Trust a difference only if its interval "
        "excludes zero and all seeds have the same sign.",
    ]
    source = baseline_row(found).row
    regression = f" on the outlines of {source.label}" if predicts_outlines(source) else ""
    for name, values in diagnosis_findings.baselines(found).items():
        scores = ", ".join(f"{DIAGNOSIS_COLUMNS[score]} {value:.4f}" for score, value in values.items())
        of = regression if name == "logistic regression" else ""
        notes.append(f"- Baseline on the same images, {name}{of}: {scores}.")
    return notes


def _sizes(rows: list[Row]) -> str:
    """Return the size of the images in these rows; if there are several, with the labels of their rows."""
    labels: dict[int, list[str]] = {}
    for row in rows:
        labels.setdefault(row.settings.size, []).append(row.label)
    several = len(labels) > 1
    sizes = [
        f"{n} x {n} pixels" + (f" ({', '.join(found)})" if several else "") for n, found in labels.items()
    ]
    return " and ".join(sizes)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def _run_cells(finding: Finding) -> list[str]:
    """Return the cells about the runs, whatever they predict."""
    runs = finding.runs
    return [
        finding.row.label,
        f"{finding.parameters:,}",
        "" if finding.seconds is None else f"{finding.seconds:.1f}",
        ", ".join(str(len(run.history)) for run in runs),
        ", ".join(str(run.best_epoch) for run in runs),
    ]


def _cells(finding: Finding, modes: bool) -> list[str]:
    """Return the cells about the runs and their outlines, which are empty without outlines."""
    if not finding.outlines:
        return [*_run_cells(finding), *[""] * (len(COLUMNS) + modes + 2)]
    train_mode = [[run.modes["jaccard_train_mode"] for run in finding.runs]] if modes else []
    return [
        *_run_cells(finding),
        *(_spread(finding.score(name)) for name in COLUMNS),
        *(_spread(spread(values)) for values in train_mode),
        *_difference(finding.difference),
    ]


def _last_fifth(finding: Finding) -> str:
    gains = [gain for run in finding.runs if (gain := run.gain_in_last_fifth) is not None]
    return f"{np.mean(gains):+.4f}" if gains else ""


def _diagnosis_cells(finding: DiagnosisFinding) -> list[str]:
    scores = [finding.score(name) for name in DIAGNOSIS_COLUMNS]
    cells = ["undefined" if score is None else _spread(score) for score in scores]
    return [finding.row.label, *cells, *_difference(finding.difference)]


def _difference(difference: Difference | None) -> list[str]:
    """Return two cells, the mean with its interval and the value of each seed."""
    if difference is None:
        return ["", ""]
    return [
        "{:+.4f} ({:+.4f} to {:+.4f})".format(difference.mean, *difference.interval),
        ", ".join(f"{value:+.4f}" for value in difference.by_seed.values()),
    ]


def _spread(score: Spread) -> str:
    if score.lowest == score.highest:
        return f"{score.mean:.4f}"
    return f"{score.mean:.4f} ({score.lowest:.4f} to {score.highest:.4f})"


def as_csv(findings: list[Finding]) -> str:
    """Return a table in CSV, one line per run. Everything except the seconds is reproducible.

    Cells about what a run does not predict are empty.
    """
    lines = [_csv_line(finding, run) for finding in findings for run in finding.runs]
    names = dict.fromkeys(name for group in zip(*lines, strict=True) for part in group for name in part)
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
    table.writeheader()
    table.writerows({name: value for part in line for name, value in part.items()} for line in lines)
    return text.getvalue()


def _csv_line(finding: Finding, run: Run) -> list[dict[str, Any]]:
    """Return the parts of a line: about the run, its outlines, its diagnoses, and its time."""
    about = {
        "variant": finding.row.label,
        "seed": run.seed,
        "parameters": finding.parameters,
        "epochs": len(run.history),
        "best_epoch": run.best_epoch,
    }
    outlines = _outlines_in_csv(run) if finding.outlines else {}
    diagnoses = _diagnoses_in_csv(run.diagnosis) if run.diagnosis else {}
    return [about, outlines, diagnoses, {"seconds_per_epoch": run.seconds}]


def _outlines_in_csv(run: Run) -> dict[str, Any]:
    model = run.scores["model"]
    return {
        "images": model["images"],
        **model["mean"],
        **{f"pooled_{name}": model["pooled"][name] for name in METRICS if name in model["pooled"]},
        **(run.modes or {}),
    }


def _diagnoses_in_csv(report: dict[str, Any]) -> dict[str, Any]:
    model = report["types"]["model"]
    return {
        "diagnosis_images": model["images"],
        "diagnosis_lesions": model["lesions"],
        **{f"diagnosis_{name}": score(report, "model")["value"] for name, score in SCORES.items()},
        **{f"diagnosis_auc_{name}": entry["auc"]["value"] for name, entry in model["by_class"].items()},
    }
