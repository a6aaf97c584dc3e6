"""results.json: all results of a study, with the settings, the machine and the commit that gave them."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from r2unet import __version__
from r2unet.files import read_json
from r2unet.scores.metrics import METRICS
from r2unet.study import diagnosis_findings
from r2unet.study.diagnosis_findings import SCORES, DiagnosisFinding
from r2unet.study.findings import Finding, Run, baselines, unfinished
from r2unet.study.plan import Plan
from r2unet.training.checkpoints import CONTENT_ERRORS


def as_json(
    plan: Plan,
    findings: list[Finding],
    found: list[DiagnosisFinding],
    originals: bool,
    machine: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return all results of a study as a dictionary for JSON; `found` are the rows with diagnoses.

    `machine` is the one that trained, None if it is unknown.
    """
    diagnoses = {each.row.label: {"diagnosis": _diagnosis_as_json(each)} for each in found}
    return {
        "program": "r2unet",
        "version": __version__,
        "commit": _commit(),
        "machine": machine,
        "study": plan.study.name,
        "question": plan.study.question,
        "settings": dataclasses.asdict(plan.shared),
        "seeds": plan.seeds,
        "originals": originals,
        "unfinished": unfinished(plan, findings),
        "baselines": baselines(findings),
        **({"diagnosis_baselines": diagnosis_findings.baselines(found)} if found else {}),
        "rows": [
            {
                "label": finding.row.label,
                "folder": finding.row.folder,
                "settings": dataclasses.asdict(finding.row.settings),
                "parameters": finding.parameters,
                "seconds_per_epoch": finding.seconds,
                "scores": _scores_as_json(finding),
                "jaccard_interval": finding.interval,
                "difference": finding.difference._asdict() if finding.difference else None,
                **diagnoses.get(finding.row.label, {}),
                "runs": [_run_as_json(run) for run in finding.runs],
            }
            for finding in findings
        ],
    }


def this_machine(device: str) -> dict[str, Any]:
    """Return what describes this machine and the device that it trains on."""
    return {
        "device": device,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def read_machine(path: Path) -> dict[str, Any] | None:
    """Return the machine in the results of an earlier report; None if there is no valid one."""
    try:
        machine = read_json(path)["machine"]
        return machine if isinstance(machine["device"], str) else None
    except (OSError, *CONTENT_ERRORS):
        return None


def _scores_as_json(finding: Finding) -> dict[str, Any] | None:
    """Return the scores of the outlines; None without outlines."""
    return {name: finding.score(name)._asdict() for name in METRICS} if finding.outlines else None


def _diagnosis_as_json(finding: DiagnosisFinding) -> dict[str, Any]:
    """Return the scores of the diagnoses, None where undefined, and the difference of the mean AUC."""
    scores = {name: finding.score(name) for name in SCORES}
    return {
        "scores": {name: score and score._asdict() for name, score in scores.items()},
        "auc_interval": finding.interval,
        "difference": finding.difference._asdict() if finding.difference else None,
    }


def _run_as_json(run: Run) -> dict[str, Any]:
    return {
        **run._asdict(),
        "folder": str(run.folder),
        "best_epoch": run.best_epoch,
        "late_gain": run.gain_in_last_fifth,
    }


def _processor() -> str:
    """Return the processor's name; on Linux platform.processor() is usually empty."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _commit() -> str | None:
    """Return this program's commit, with the suffix "-dirty" if files were changed; None without git."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # fails if installed in another project's repository
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
