"""The reports of `r2unet.diagnosis.report` as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAMES = {
    "auc": "AUC",
    "average_precision": "avg. precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "expected_calibration_error": "calibration error",
    "error_by_chance": "calibration error by chance",
    "negative_log_likelihood": "neg. log likelihood",
    "brier_score": "Brier score",
}
INTERVALS = "in brackets 95 % intervals over lesions"
CALIBRATION = ("expected_calibration_error", "error_by_chance", "negative_log_likelihood", "brier_score")
LABEL, CELL = 22, 24  # the widths of the columns, in characters


def as_table(report: dict[str, Any]) -> str:
    """Format a `diagnosis_report` as text: separation by class, decisions, confusion matrix, calibration."""
    lines = [
        f"{report['images']} images of {report['lesions']} lesions; in brackets 95 % intervals over lesions"
    ]
    lines += ["", *_separation(report)]
    for name, decision in report["decisions"].items():
        lines += ["", f"decision: {name}", *_decision(decision), "", *_confusion(decision, report["classes"])]
    lines += ["", "calibration", *_list(report["calibration"], CALIBRATION)]
    return "\n".join(line.rstrip() for line in lines)


def as_binary_table(report: dict[str, Any]) -> str:
    """Format a `binary_report` as text."""
    point = report["operating_point"]
    lines = [
        f"{report['images']} images of {report['lesions']} lesions, {report['positives']} images positive; "
        + INTERVALS,
        *_list(report, ("auc", "average_precision")),
        _line(f"sens. at spec. {point:g}", report["sensitivity_at_specificity"]),
        _line(f"spec. at sens. {point:g}", report["specificity_at_sensitivity"]),
        f"decision: {report['decision']}",
        *_list(report, ("sensitivity", "specificity", "accuracy", "balanced_accuracy")),
        "calibration",
        *_list(report["calibration"], CALIBRATION),
    ]
    return "\n".join(lines)


def cell(number: dict[str, Any], digits: int = 3) -> str:
    """Format a number with its interval: "0.912 [0.897, 0.927]", or "undefined"."""
    if number["value"] is None:
        return "undefined"
    if number["interval"] is None:
        return f"{number['value']:.{digits}f}"
    low, high = number["interval"]
    return f"{number['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _separation(report: dict[str, Any]) -> list[str]:
    point = report["operating_point"]
    titles = ("AUC", "avg. precision", f"sens. at spec. {point:g}", f"spec. at sens. {point:g}")
    keys = ("auc", "average_precision", "sensitivity_at_specificity", "specificity_at_sensitivity")
    lines = [f"{'class, images':{LABEL + 6}}" + "".join(f"{title:>{CELL}}" for title in titles)]
    for name, values in report["by_class"].items():
        row = "".join(f"{cell(values[key]):>{CELL}}" for key in keys)
        lines.append(f"{name:{LABEL}}{values['images']:6}{row}")
    means = "".join(f"{cell(report['mean'][key]):>{CELL}}" for key in keys[:2])
    return [*lines, f"{'mean':{LABEL + 6}}{means}"]


def _decision(decision: dict[str, Any]) -> list[str]:
    lines = _list(decision, ("accuracy", "balanced_accuracy"))
    lines.append(f"{'':{LABEL + 6}}{'sensitivity':>{CELL}}{'specificity':>{CELL}}")
    for name, values in decision["by_class"].items():
        row = f"{cell(values['sensitivity']):>{CELL}}{cell(values['specificity']):>{CELL}}"
        lines.append(f"{name:{LABEL + 6}}{row}")
    return lines


def _confusion(decision: dict[str, Any], classes: list[str]) -> list[str]:
    head = "".join(f"{name[:8]:>9}" for name in classes)
    lines = [f"{'images, rows: truth':{LABEL}}{head}"]
    for name, row in zip(classes, decision["confusion"], strict=True):
        lines.append(f"{name:{LABEL}}" + "".join(f"{count:9}" for count in row))
    return lines


def _list(values: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return [_line(NAMES[key], values[key]) for key in keys]


def _line(name: str, number: dict[str, Any]) -> str:
    return f"{name:{LABEL + 6}}{cell(number):>{CELL}}"
