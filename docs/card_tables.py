"""Prints the tables of a model card as Markdown: scores, by class, age and sex, and confident mistakes.

r2unet evaluate --data ISIC2017 --json > scores.json
python docs/card_tables.py scores.json --data ISIC2017
"""

import argparse
import json
from collections.abc import Callable, Iterable

import numpy as np

from r2unet.data.classes import class_index, malignant_classes
from r2unet.data.patients import Patient, read_patients
from r2unet.diagnosis.report import binary_report
from r2unet.diagnosis.tables import cell

MISTAKES = 10
AGES = ((0, 30), (30, 45), (45, 60), (60, 200))  # years, the upper bound excluded
GROUPS: dict[str, Callable[[Patient], bool]] = {
    "all": lambda patient: True,
    **{
        f"aged {low} to {high - 1}" if high < 200 else f"aged {low} or more": (
            lambda patient, low=low, high=high: patient.age is not None and low <= patient.age < high
        )
        for low, high in AGES
    },
    "age unknown": lambda patient: patient.age is None,
    "female": lambda patient: patient.sex == "female",
    "male": lambda patient: patient.sex == "male",
    "sex unknown": lambda patient: patient.sex is None,
}


def line(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def scores_next_to_baselines(diagnosis: dict) -> list[str]:
    """Return the table of the network and its baselines, with 95 % intervals over lesions."""
    titles = ("", "mean AUC", "accuracy", "balanced accuracy", "malignant or not: AUC", "calibration error")
    lines = [line(titles), line(["---"] * len(titles))]
    for name, report in diagnosis["types"].items():
        decision = report["decisions"]["argmax p"]
        cells = [
            report["mean"]["auc"],
            decision["accuracy"],
            decision["balanced_accuracy"],
            diagnosis["malignant"][name]["auc"],
            report["calibration"]["expected_calibration_error"],
        ]
        lines.append(line((name, *map(cell, cells))))
    decision = diagnosis["types"]["model"]["decisions"]["argmax p / prior"]
    cells = (
        "model, argmax p / prior",
        "",
        cell(decision["accuracy"]),
        cell(decision["balanced_accuracy"]),
        "",
        "",
    )
    return [*lines, line(cells)]


def by_class(report: dict) -> list[str]:
    """Return the table of the scores of each class."""
    point = report["operating_point"]
    titles = ("class", "images", "AUC", "average precision", f"sensitivity at specificity {point:g}")
    titles += (f"specificity at sensitivity {point:g}", "sensitivity", "specificity")
    lines = [line(titles), line(["---"] * len(titles))]
    decision = report["decisions"]["argmax p"]["by_class"]
    for name, values in report["by_class"].items():
        keys = ("auc", "average_precision", "sensitivity_at_specificity", "specificity_at_sensitivity")
        cells = [cell(values[key]) for key in keys]
        cells += [cell(decision[name][key]) for key in ("sensitivity", "specificity")]
        lines.append(line((name.replace("_", " "), values["images"], *cells)))
    return lines


def by_group(rows: dict, jaccards: dict, classes: tuple[str, ...], patients: dict) -> list[str]:
    """Return the table of scores by age and sex."""
    names = list(rows)
    p = np.array([rows[name]["probabilities"] for name in names])
    labels = np.array([classes.index(rows[name]["class"]) for name in names])
    malignant = malignant_classes(classes)
    score, truth = p[:, malignant].sum(axis=1).clip(0, 1), np.isin(labels, malignant).astype(int)
    right = p.argmax(axis=1) == labels
    lines = [
        line(("patients", "images", "malignant", "malignant: AUC", "type right", "Jaccard")),
        line(["---"] * 6),
    ]
    for group, belongs in GROUPS.items():
        chosen = [i for i, name in enumerate(names) if belongs(patients.get(name, Patient(None, None)))]
        if not chosen:
            continue
        lesions, rng = [rows[names[i]]["lesion"] for i in chosen], np.random.default_rng(0)
        auc = binary_report(score[chosen], truth[chosen], lesions, rng)["auc"]
        outline = [jaccards[names[i]] for i in chosen if names[i] in jaccards]
        mean = f"{np.mean(outline):.3f}" if outline else ""
        cells = group, len(chosen), truth[chosen].sum(), cell(auc), f"{right[chosen].mean():.2f}", mean
        lines.append(line(cells))
    return lines


def mistakes(rows: dict, classes: tuple[str, ...]) -> list[str]:
    """Return the table of the images whose wrong class has the highest probability."""
    wrong = []
    for name, row in rows.items():
        best = int(np.argmax(row["probabilities"]))
        if best != class_index(row["class"], classes):
            wrong.append((row["probabilities"][best], name, row["class"], classes[best]))
    lines = [line(("image", "truth", "predicted", "probability")), line(["---"] * 4)]
    for probability, name, truth, predicted in sorted(wrong, reverse=True)[:MISTAKES]:
        lines.append(line((name, truth, predicted, f"{probability:.2f}")))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", help="what r2unet evaluate --json printed")
    parser.add_argument("--data", required=True, help="the data set that was evaluated")
    parser.add_argument("--split", default="validation", help="its split (default %(default)s)")
    options = parser.parse_args()
    with open(options.scores) as file:
        scores = json.load(file)["scores"]
    rows, classes = scores["diagnosis"]["by_image"], tuple(scores["diagnosis"]["types"]["model"]["classes"])
    jaccards = scores.get("model", {}).get("jaccard_by_image", {})
    patients = read_patients(options.data, options.split)
    tables = (
        scores_next_to_baselines(scores["diagnosis"]),
        by_class(scores["diagnosis"]["types"]["model"]),
        by_group(rows, jaccards, classes, patients),
        mistakes(rows, classes),
    )
    print("\n\n".join("\n".join(table) for table in tables))


if __name__ == "__main__":
    main()
