"""The report of a study: tables, figures, and one file with all results.

    DIR/table.md              a line per row: means over seeds, and the difference to the first row; a second
                              table for the diagnoses
    DIR/table.csv             a line per run, with all scores
    DIR/bars.png              the Jaccards and their differences of table.md
    DIR/diagnosis_bars.png    the mean AUCs and their differences of table.md
    DIR/curves.png            the validation Jaccard and the mean AUC by epoch
    DIR/overlays.png          images with the outlines of every row
    DIR/factors.png           for studies that change one setting at a time: Jaccard by its value
    DIR/results.json          all of it, with the settings, the seeds, the machine and the commit

A row may predict the outline, the diagnosis, or both (the setting `task`). A figure has only the rows that it
is about, and is not drawn if there are none.

The report is computed from the runs' folders and can be rebuilt at any time. Scores that take long to
compute, of the outlines at the original size and in train mode, are cached there next to report.json. A
diagnosis has no size: the network sees every image at the training size, and its scores stay as they are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from minidl.backend import describe
from r2unet.data.lesion_images import LesionImages, UnstoredImages
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.files import write_text
from r2unet.scores import evaluate
from r2unet.scores.compare_modes import compare_modes
from r2unet.scores.overlays import OverlayRow
from r2unet.scores.predictions import predict_originals
from r2unet.scores.ranking import best_to_worst
from r2unet.study import plots
from r2unet.study.diagnosis_findings import diagnosed
from r2unet.study.findings import Finding, Run, baselines, collect
from r2unet.study.plan import FINISHED, Plan
from r2unet.study.results import as_json, read_machine, this_machine
from r2unet.study.run_pictures import TRUST, load_run, outlined_images
from r2unet.study.tables import as_csv, as_markdown
from r2unet.study.train_study import Resources
from r2unet.training.prediction_memory import check_generated, check_size
from r2unet.training.run_folder import BEST, PATHS, find_files, generate_datasets
from r2unet.training.settings import Settings, as_text

ORIGINALS, MODES = "report-originals.json", "modes.json"


def write_report(
    out: Path,
    plan: Plan,
    resources: Resources,
    originals: bool = False,
    images: int = 6,
    log: Callable[[str], None] = print,
    trained: bool = True,
) -> str:
    """Write all files of the study in `out` from its finished runs; return the table in Markdown.

    With `originals` the outlines are scored at the images' original size; `images` is how many are drawn.
    Unless this command `trained` a run, the report names the machine that the report before it named. Raises
    InputError if no run is finished, or if a file cannot be read or written.
    """
    if originals and plan.shared.data is None:
        raise InputError("--originals: generated lesions have a single size; omit the option, or give --data")
    for finding in collect(out, plan):
        if finding.outlines:
            for run in finding.runs:
                _add_scores(run, plan, resources, originals, log)
    findings = collect(out, plan, ORIGINALS if originals else FINISHED, MODES if plan.study.modes else None)
    found = diagnosed(plan, findings)
    results = out / "results.json"
    machine = this_machine(describe(resources.device)) if trained else read_machine(results)
    table = as_markdown(plan, findings, found, originals, machine and machine["device"])
    write_text(out / "table.md", table)
    write_text(out / "table.csv", as_csv(findings))
    write_text(results, json.dumps(as_json(plan, findings, found, originals, machine), indent=2))
    if any(finding.outlines for finding in findings):
        plots.plot_jaccards(findings, out / "bars.png", baselines(findings).get("Otsu's threshold"))
    if found:
        plots.plot_aucs(found, out / "diagnosis_bars.png")
    plots.plot_learning_curves(findings, out / "curves.png")
    if columns := _overlays(plan, findings, resources, images):
        plots.plot_overlays(columns, out / "overlays.png")
    if panels := factor_panels(plan, findings):
        plots.plot_factors(panels, out / "factors.png")
    return table


def _add_scores(
    run: Run, plan: Plan, resources: Resources, originals: bool, log: Callable[[str], None]
) -> None:
    """Score outlines at the original size and in train mode, if needed and not yet in the run's folder."""
    needed = [name for name, asked in ((ORIGINALS, originals), (MODES, plan.study.modes)) if asked]
    missing = [name for name in needed if not (run.folder / name).exists()]
    if not missing:
        return
    model, settings, state = load_run(run, resources.device, resources.trust)
    if ORIGINALS in missing:
        log(f"scoring {run.folder} at the original size")
        pairs = find_files(_with_paths(settings, plan), "validation")
        predictions = predict_originals(model, pairs, settings.size, resources.device)
        scores = evaluate.report(predictions, state.get("mean_mask"), np.random.default_rng(settings.seed))
        if run.diagnosis:
            scores["diagnosis"] = run.diagnosis
        write_text(run.folder / ORIGINALS, json.dumps(scores, indent=2))
    if MODES in missing:
        log(f"scoring {run.folder} in train mode")
        lesions = _validation_images(run.folder / BEST, _with_paths(settings, plan), resources)
        settings.check_batches(len(lesions))
        if not resources.trust:
            images = min(settings.batch_size, len(lesions))
            check_size(run.folder / BEST, settings, state["model"], images, TRUST)
        modes = compare_modes(model, lesions, settings.batch_size)
        write_text(run.folder / MODES, json.dumps(modes, indent=2))


def _with_paths(settings: Settings, plan: Plan) -> Settings:
    """Return a run's settings with the plan's paths, because the files may have moved after the run."""
    return dataclasses.replace(settings, **{name: getattr(plan.shared, name) for name in PATHS})


def _validation_images(path: Path, settings: Settings, resources: Resources) -> Sequence[Sample]:
    """Return the validation images at the training size; `path` is the checkpoint with the settings."""
    if settings.data is None:
        lesions = generate_datasets(settings, stored=False)[1]
        if not resources.trust:
            check_generated(path, len(lesions), f"if you trust it, {TRUST}")
        return lesions
    pairs = find_files(settings, "validation")
    if resources.cache is None:
        return UnstoredImages(pairs, settings.size)
    return LesionImages(pairs, settings.size, resources.threads, resources.cache, resources.bar)


def _overlays(
    plan: Plan, findings: list[Finding], resources: Resources, images: int
) -> dict[str, list[OverlayRow]]:
    """Return the predictions of every row with outlines for the same images; {} without a common seed.

    The images are chosen by the first row's Jaccard, and the first common seed is drawn.
    """
    findings = [finding for finding in findings if finding.outlines]
    if not findings:
        return {}
    by_seed = [{run.seed: run for run in finding.runs} for finding in findings]
    common = [seed for seed in plan.seeds if all(seed in runs for runs in by_seed)]
    if not common:
        return {}
    names = best_to_worst(by_seed[0][common[0]].jaccards, images)
    columns = {}
    for finding, runs in zip(findings, by_seed, strict=True):
        run, data = runs[common[0]], plan.shared.data
        rows = outlined_images(run, names, data, resources.device, resources.trust, plots.LARGEST_SIDE)
        found = {row.name: row for row in rows}
        columns[finding.row.label] = [found[name] for name in names]
    return columns


def factor_panels(plan: Plan, findings: list[Finding]) -> dict[str, list[plots.Point]]:
    """Return the values of each setting that the study changes alone, in order; {} for other studies.

    The panels show Jaccards: there are none for a study of diagnoses alone.
    """
    panels = {}
    if plan.shared.task == "diagnosis":
        return panels
    for name in plan.study.factors:
        given = getattr(plan.shared, name)
        values = [
            (getattr(finding.row.settings, name), finding)
            for finding in findings
            if dataclasses.replace(finding.row.settings, **{name: given}) == plan.shared
        ]
        if not isinstance(given, str):
            values.sort(key=lambda pair: pair[0])
        panels[name] = [
            plots.Point(
                as_text(value),
                [run.scores["model"]["mean"]["jaccard"] for run in finding.runs],
                value == given,
            )
            for value, finding in values
        ]
    return panels
