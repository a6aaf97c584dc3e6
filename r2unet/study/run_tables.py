"""The tables of a run report, in HTML: settings, scores of outlines, diagnoses and confusion matrices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from r2unet.diagnosis.plots import readable
from r2unet.study.diagnosis_findings import SCORES
from r2unet.study.findings import Difference
from r2unet.study.run_charts import interval, sample, text
from r2unet.study.run_comparison import ComparedRun, auc_difference, jaccard_difference
from r2unet.study.tables import DIAGNOSIS_COLUMNS
from r2unet.training.settings import Settings, as_text, flag

OUTLINE_COLUMNS = {
    "thresholded_jaccard": "thr. J",
    "dice": "Dice",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """Return a table of cells in HTML; the first cell of a row is its heading, `classes` are of the rows."""
    names = [*classes, *[""] * (len(rows) - len(classes))]
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(
        f'<tr{f" class={name}" if name else ""}><th scope="row">{first}</th>'
        f"{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        for name, (first, *rest) in zip(names, rows, strict=True)
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


def name_of(each: ComparedRun) -> str:
    """Return the name of a run beside a piece of its line."""
    return f"{sample(each.number)} {text(each.label)}"


def about_runs(runs: Sequence[ComparedRun]) -> str:
    """Return the table of what was trained and for how long."""
    rows = [
        [
            name_of(each),
            f"<code>{text(each.run.folder)}</code>",
            f"{each.parameters:,}",
            f"{len(each.run.history)} of {each.settings.epochs}",
            str(each.run.best_epoch),
            "unknown" if each.run.seconds is None else f"{each.run.seconds:.1f}",
        ]
        for each in runs
    ]
    head = ["run", "folder", "parameters", "epochs", "best epoch", "s per epoch"]
    if all(each.run.seconds is None for each in runs):  # only a study measures it
        head, rows = head[:-1], [row[:-1] for row in rows]
    return table(head, rows)


def settings_side_by_side(runs: Sequence[ComparedRun]) -> str:
    """Return the settings that differ between the runs, and below, to be opened, all that are equal.

    A value in bold is not the default. For a single run the first table has those that are not the default.
    """
    differing, equal = [], []
    for field in dataclasses.fields(Settings):
        values = [getattr(each.settings, field.name) for each in runs]
        marked = any(value != values[0] for value in values) if len(runs) > 1 else values[0] != field.default
        cells = [
            f"<strong>{text(_shown(value))}</strong>" if value != field.default else text(_shown(value))
            for value in values
        ]
        row = [f"<code>{flag(field.name)}</code>", *cells, text(_shown(field.default))]
        (differing if marked else equal).append(row)
    head = ["setting", *map(name_of, runs), "default"]
    title = "differ" if len(runs) > 1 else "are not the default"
    shown = (
        f"<p>{len(differing)} settings {title}. A value in bold is not the default.</p>"
        + table(head, differing, ["differs"] * len(differing))
        if differing
        else f"<p>No settings {title}.</p>"
    )
    rest = "equal" if len(runs) > 1 else "default"
    return (
        f"{shown}<details><summary>The {len(equal)} {rest} settings</summary>{table(head, equal)}</details>"
    )


def _shown(value: Any) -> str:
    return "none" if value is None else as_text(value)


def outline_scores(runs: Sequence[ComparedRun]) -> str:
    """Return the scores of the outlines of runs with the same images, and of the baselines."""
    rows = []
    for each in runs:
        row = _outline_row(name_of(each), each.run.scores["model"], each.number)
        rows.append([*row, difference_cell(jaccard_difference(each, runs[0]))])
    rows += [[*_outline_row(text(name), scores, None), ""] for name, scores in _baselines(runs)]
    head = ["", "Jaccard", "95 % interval", "", *OUTLINE_COLUMNS.values(), "pooled J"]
    return _compared(runs, [*head, f"Jaccard against {text(runs[0].label)}"], rows)


def _compared(runs: Sequence[ComparedRun], head: list[str], rows: list[list[str]]) -> str:
    """Return a table with a line for each run first; a single run has no last column, the difference."""
    if len(runs) == 1:
        head, rows = head[:-1], [row[:-1] for row in rows]
    return table(head, rows, ["run"] * len(runs))


def _outline_row(name: str, scores: dict[str, Any], number: int | None) -> list[str]:
    value, (low, high) = scores["mean"]["jaccard"], scores["jaccard_interval"]
    _check_finite(low, high)
    means = [f"{scores['mean'][column]:.4f}" for column in OUTLINE_COLUMNS]
    drawn = interval(value, low, high, number)
    return [
        name,
        f"{value:.4f}",
        f"{low:.4f} to {high:.4f}",
        drawn,
        *means,
        f"{scores['pooled']['jaccard']:.4f}",
    ]


def _baselines(runs: Sequence[ComparedRun]) -> list[tuple[str, dict[str, Any]]]:
    """Return each baseline with its scores; one that depends on the training may differ between runs."""
    found: list[tuple[str, dict[str, Any]]] = []
    for each in runs:
        for name, scores in each.run.scores.items():
            known = [
                title for title, other in found if title.startswith(name) and other["mean"] == scores["mean"]
            ]
            if name not in ("model", "diagnosis") and not known:
                again = any(title == name for title, _ in found)
                found.append((f"{name} ({each.label})" if again else name, scores))
    return found


def diagnosis_scores(runs: Sequence[ComparedRun]) -> str:
    """Return the scores of the diagnoses of runs with the same lesions, and of their baselines."""
    rows, shown = [], set()
    for each in runs:
        own = _diagnosis_row(name_of(each), each.run.diagnosis, "model", each.number)
        rows.append([*own, difference_cell(auc_difference(each, runs[0]))])
    for each in runs:
        for name in each.run.diagnosis["types"]:
            title = f"{name} ({each.label})" if len(runs) > 1 and name != "class shares" else name
            if not name.startswith("model") and title not in shown:
                shown.add(title)
                rows.append([*_diagnosis_row(text(title), each.run.diagnosis, name, None), ""])
    head = ["", *DIAGNOSIS_COLUMNS.values(), "calibration error"]
    head.insert(2, "")
    return _compared(runs, [*head, f"mean AUC against {text(runs[0].label)}"], rows)


def _diagnosis_row(title: str, report: dict[str, Any], name: str, number: int | None) -> list[str]:
    first, *others = (score(report, name) for score in SCORES.values())
    drawn = "" if first["interval"] is None else interval(first["value"], *first["interval"], number)
    error = report["types"][name]["calibration"]["expected_calibration_error"]
    return [title, number_cell(first), drawn, *map(number_cell, others), number_cell(error)]


def aucs_by_class(runs: Sequence[ComparedRun]) -> str:
    """Return the AUC of each class against the rest."""
    reports = [each.run.diagnosis["types"]["model"] for each in runs]
    rows = []
    for name in reports[0]["classes"]:
        images = reports[0]["by_class"][name]["images"]
        numbers = [number_cell(report["by_class"][name]["auc"]) for report in reports]
        rows.append([text(readable(name)), str(int(images)), *numbers])
    return table(["class", "images", *map(name_of, runs)], rows)


def confusion_matrix(each: ComparedRun) -> str:
    """Return the confusion matrix of a run, each cell shaded by its share of the true class."""
    model = each.run.diagnosis["types"]["model"]
    classes, counts = model["classes"], model["decisions"]["argmax p"]["confusion"]
    lines = []
    for name, row in zip(classes, counts, strict=True):
        total = sum(row)
        cells = "".join(
            f'<td style="--share:{count / total if total else 0:.3f}">{int(count)}</td>' for count in row
        )
        lines.append(f'<tr><th scope="row">{text(readable(name))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{text(readable(name))}</th>' for name in classes)
    return (
        f'<figure class="confusion"><figcaption>{name_of(each)}: rows are the truth, columns the most '
        f'probable class</figcaption><div class="wide"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></figure>"
    )


def number_cell(number: dict[str, Any]) -> str:
    """Format a number with its interval."""
    value, bounds = number["value"], number["interval"]
    if value is None:
        return "undefined"
    _check_finite(value, *(bounds or ()))
    if bounds is None:
        return f"{value:.3f}"
    low, high = bounds
    return f"{value:.3f} <small>{low:.3f} to {high:.3f}</small>"


def difference_cell(difference: Difference | None) -> str:
    """Format a difference with its interval, in bold if the interval excludes zero."""
    if difference is None:
        return ""
    low, high = difference.interval
    shown = f"{difference.mean:+.4f} <small>{low:+.4f} to {high:+.4f}</small>"
    return f"<strong>{shown}</strong>" if low > 0 or high < 0 else shown


def _check_finite(*values: float) -> None:
    """Raise ValueError for a bound of an interval that is not a number."""
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise ValueError("a score or a bound of its interval is not a number")
