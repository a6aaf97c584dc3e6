"""Checks whether a study is whole: its plan, and the runs that it has begun."""

from __future__ import annotations

import shlex
from pathlib import Path

from r2unet.data.check import Finding
from r2unet.errors import InputError
from r2unet.study.plan import PLAN, read_plan
from r2unet.training.check import check_run


def check_study(folder: Path) -> list[Finding]:
    """Check the plan of a study and all its runs. An unfinished run is no fault."""
    try:
        plan = read_plan(folder)
    except InputError as error:
        fault = str(error).rpartition("; ")[0]
        advice = "copy the file from a backup, or resume each run with `r2unet train --resume --out FOLDER`"
        return [Finding(folder / PLAN, "the plan of a study", f"{fault}; {advice}")]
    tasks = plan.tasks(folder)
    done = sum(task.finished for task in tasks)
    what = f"a study: {len(plan.rows)} rows x {len(plan.seeds)} seeds, {done} of {len(tasks)} runs finished"
    resume = f"`r2unet compare {plan.study.name} --out {shlex.quote(str(folder))}`"
    findings = [Finding(folder, what)]
    for task in tasks:
        findings += check_run(task.folder, None if task.finished else resume)  # compare skips finished runs
    return findings
