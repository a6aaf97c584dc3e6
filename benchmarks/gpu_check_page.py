"""The page of `gpu_check.py`: its results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report import table

TITLES = {
    "tests": "Tests of the operations",
    "agreement": "One training step compared with the CPU",
    "gradients": "Gradient checks",
    "training": "Training on generated lesions",
    "networks": "Training steps compared with PyTorch",
    "kernels": "Kernels of a training step",
    "real": "Training on ISIC 2017",
    "memory": "Memory of a training step",
    "compiled": "Training steps compared with compiled PyTorch",
}


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return the page: the machine, a table with the result of each part, and the details of each part."""
    parts = results["parts"]
    head = "; ".join(f"{name} {value}" for name, value in results["machine"].items() if value)
    rows_of_parts = [
        (
            TITLES[name],
            "passed" if part["passed"] else "**failed**",
            f"{part['seconds_in_all']:.0f}",
            summary_of(part),
        )
        for name, part in parts.items()
    ]
    page = [f"# Results on {results['machine']['device']}", f"Written by `make gpu-check`. {head}."]
    if results["quick"]:
        page.append("**A quick run on tiny shapes, which only shows that the program runs.**")
    page.append(table(("part", "result", "s", "details"), rows_of_parts))
    for name, part in parts.items():
        if rows := part.get("checks") or part.get("rows"):
            numbers = [
                (
                    r["name"],
                    "" if r["error"] is None else f"{r['error']:.1e}",
                    f"{r['tolerance']:.0e}",
                    result_of(r),
                )
                for r in rows
            ]
            page += [f"## {TITLES[name]}", table(("what", "error", "tolerance", ""), numbers)]
        if part.get("markdown"):
            page += [f"## {TITLES[name]}", part["markdown"].strip()]
        if "problem" in part:
            page += [f"## {TITLES[name]}: failure", f"```text\n{part['problem']}\n```"]
    return "\n\n".join(page)


def result_of(row: Mapping[str, Any]) -> str:
    return "" if row["passed"] else "**failed**"


def summary_of(part: Mapping[str, Any]) -> str:
    """Return a one-line summary of a part."""
    if "passed_tests" in part:
        others = ("failed", "error", "skipped")
        rest = "".join(f", {part[what]} {what}" for what in others if part.get(what))
        return f"{part['passed_tests']} passed{rest}"
    if "seconds_an_epoch" in part:
        return (
            f"{part['epochs']} epochs of {part['seconds_an_epoch']:.1f} s, validation included; validation "
            f"Jaccard {part['jaccard']:.3f}"
        )
    if "losses" in part:
        losses, dice = part["losses"], part["validation"]["dice"]
        return (
            f"{part['steps']} steps in {part['seconds']:.1f} s; loss {losses[0]:.3f} to {losses[-1]:.3f}; "
            f"mean Dice {dice:.3f} on new lesions"
        )
    rows = part.get("checks") or part.get("rows") or []
    return f"{sum(r['passed'] for r in rows)} of {len(rows)} agree" if rows else part.get("note", "")
