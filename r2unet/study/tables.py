"""The tables of a study: for a page, for a spreadsheet, and one dictionary with everything."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2unet import __version__
from r2unet.scores.metrics import METRICS, USABLE_JACCARD
from r2unet.study.findings import Finding, Run, Spread, agreement, spread
from r2unet.study.plan import Plan
from r2unet.training.settings import as_text

COLUMNS = {
    "jaccard": "Jaccard",
    "thresholded_jaccard": "thr. J",
    "dice": "Dice",
    "accuracy": "accuracy",
}


def as_markdown(plan: Plan, findings: list[Finding], originals: bool, device: str) -> str:
    """Lay a study out as a table in Markdown, with all that is needed to read it."""
    study, shared = plan.study, plan.shared
    modes = ["Jaccard, train mode"] if study.modes else []
    head = ["", "parameters", "s an epoch", "epochs", "best epoch", *COLUMNS.values(), *modes]
    head += [f"Jaccard against {findings[0].row.label}", "of each seed", "last fifth"]
    lines = [f"# {study.name}", "", study.question, "", _line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(finding, bool(modes))) for finding in findings]
    size = "their original size" if originals else f"{shared.size} x {shared.size} pixels"
    seeds = f"{len(plan.seeds)} seeds ({as_text(plan.seeds)})"
    images = len(findings[0].runs[0].jaccards)
    trivial = ", ".join(f"{name} {value:.4f}" for name, value in baselines(findings).items())
    lines += [
        "",
        f"- {shared.data or 'generated lesions'}; {images} validation images, scored at {size}, with the "
        f"weights of the best epoch on these same images. Trained with {seeds} on the {device}.",
        "- Scores are means over images: the mean over seeds, and in brackets the lowest and highest seed.",
        "- The difference of Jaccard is paired over images, with its 95 % bootstrap interval over images; "
        "beside it the difference of each seed. Only believe it where the interval leaves zero out and all "
        "seeds have its sign.",
        "- Last fifth: how far the best Jaccard rose in the last fifth of the epochs, mean over seeds. A row "
        "that still rises would have been better with more epochs.",
        "- Seconds an epoch: the median, with validation. What else the machine did counts, other trainings "
        "side by side too.",
        f"- Jaccard without any network, on the same images: {trivial}.",
    ]
    if alike := agreement(findings):
        lines.append(
            f"- The Jaccards of the images in one training correlate by {alike.correlation:.2f} with those "
            f"in another, on average. {alike.low_everywhere} images are below {USABLE_JACCARD} in every "
            f"training, and miss {alike.share:.0%} of what all images miss."
        )
    if left_out := unfinished(plan, findings):
        lines.append(f"- Not finished, and left out: {', '.join(left_out)}.")
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(finding: Finding, modes: bool) -> list[str]:
    runs, difference = finding.runs, finding.difference
    gains = [run.late_gain for run in runs if run.late_gain is not None]
    trained = [[run.modes["jaccard_train_mode"] for run in runs]] if modes else []
    return [
        finding.row.label,
        f"{finding.parameters:,}",
        "" if finding.seconds is None else f"{finding.seconds:.1f}",
        ", ".join(str(len(run.history)) for run in runs),
        ", ".join(str(run.best_epoch) for run in runs),
        *(_spread(finding.score(name)) for name in COLUMNS),
        *(_spread(spread(each)) for each in trained),
        "{:+.4f} ({:+.4f} to {:+.4f})".format(difference.mean, *difference.interval) if difference else "",
        ", ".join(f"{value:+.4f}" for value in difference.by_seed.values()) if difference else "",
        f"{np.mean(gains):+.4f}" if gains else "",
    ]


def _spread(score: Spread) -> str:
    if score.lowest == score.highest:
        return f"{score.mean:.4f}"
    return f"{score.mean:.4f} ({score.lowest:.4f} to {score.highest:.4f})"


def baselines(findings: list[Finding]) -> dict[str, float]:
    """Return the mean Jaccard of the trivial answers, over the seeds too: each may have images of its own."""
    scores = [run.scores for run in findings[0].runs]
    names = [name for name in scores[0] if name != "model"]
    return {name: float(np.mean([each[name]["mean"]["jaccard"] for each in scores])) for name in names}


def unfinished(plan: Plan, findings: list[Finding]) -> list[str]:
    """Name the trainings that are not among the findings."""
    finished = {(finding.row.label, run.seed) for finding in findings for run in finding.runs}
    wanted = [(row.label, seed) for row in plan.rows for seed in plan.seeds]
    return [f"{label} with seed {seed}" for label, seed in wanted if (label, seed) not in finished]


def as_csv(findings: list[Finding]) -> str:
    """Lay all trainings out, a line each; everything but the seconds is the same whenever it is trained."""
    lines = []
    for finding in findings:
        for run in finding.runs:
            model = run.scores["model"]
            line = {
                "variant": finding.row.label,
                "seed": run.seed,
                "parameters": finding.parameters,
                "epochs": len(run.history),
                "best_epoch": run.best_epoch,
                "images": model["images"],
                **model["mean"],
                **{
                    f"pooled_{name}": model["pooled"].get(name) for name in METRICS if name in model["pooled"]
                },
                **(run.modes or {}),
                "seconds_per_epoch": run.seconds,
            }
            lines.append(line)
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    return text.getvalue()


def as_json(plan: Plan, findings: list[Finding], originals: bool, device: str) -> dict[str, Any]:
    """Return everything that is known of a study, ready for JSON."""
    return {
        "program": "r2unet",
        "version": __version__,
        "commit": _commit(),
        "machine": {
            "device": device,
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "study": plan.study.name,
        "question": plan.study.question,
        "settings": dataclasses.asdict(plan.shared),
        "seeds": plan.seeds,
        "originals": originals,
        "unfinished": unfinished(plan, findings),
        "baselines": baselines(findings),
        "rows": [
            {
                "label": finding.row.label,
                "folder": finding.row.folder,
                "settings": dataclasses.asdict(finding.row.settings),
                "parameters": finding.parameters,
                "seconds_per_epoch": finding.seconds,
                "scores": {name: finding.score(name)._asdict() for name in METRICS},
                "jaccard_interval": finding.interval,
                "difference": finding.difference._asdict() if finding.difference else None,
                "runs": [_run_as_json(run) for run in finding.runs],
            }
            for finding in findings
        ],
    }


def _run_as_json(run: Run) -> dict[str, Any]:
    return {
        **run._asdict(),
        "folder": str(run.folder),
        "best_epoch": run.best_epoch,
        "late_gain": run.late_gain,
    }


def _processor() -> str:
    """Return the processor's name; Linux's platform.processor() is mostly empty."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _commit() -> str | None:
    """Return this program's commit, with "-dirty" behind it where files were changed; None without git."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "run.py")  # or it is the commit of whatever this is installed in
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
