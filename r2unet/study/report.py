"""What a study leaves to be read: tables, pictures, and one file with everything.

    DIR/table.md        a line a row: means over seeds, and the difference to the first row
    DIR/table.csv       a line a training, with all scores
    DIR/bars.png        the same as a picture      DIR/curves.png    the validation's Jaccard by epoch
    DIR/overlays.png    images with the outlines of every row
    DIR/factors.png     of studies that change one setting at a time: Jaccard against its value
    DIR/results.json    all of it, with the settings, the seeds, the machine and the commit

All is made from the trainings' folders, so it can be made again. What takes long, scores at the original size
and in train mode, is kept there beside report.json.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from minidl.backend import describe
from r2unet.data.isic import LesionImages, find_pairs
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.files import output_file
from r2unet.plots import OverlayRow, shrunk
from r2unet.scores import evaluate
from r2unet.study import plots as compare_plots
from r2unet.study.compare import FINISHED, Resources
from r2unet.study.findings import Finding, Run, collect
from r2unet.study.plan import Plan
from r2unet.study.tables import as_csv, as_json, as_markdown, baselines
from r2unet.training.run_folder import BEST, load_datasets, load_model
from r2unet.training.settings import Settings, as_text

ORIGINALS, MODES = "report-originals.json", "modes.json"


def write_report(
    out: Path,
    plan: Plan,
    resources: Resources,
    originals: bool = False,
    images: int = 6,
    say: Callable[[str], None] = print,
) -> str:
    """Write all files of the study in `out` from its finished trainings; return the table.

    `originals` scores at the images' original size, and `images` is how many are drawn. Raises InputError
    where no training is finished, or something cannot be read or written.
    """
    if originals and plan.shared.data is None:
        raise InputError("--originals: generated lesions have no other size; leave it out, or give --data")
    for run in (run for finding in collect(out, plan) for run in finding.runs):
        _score_besides(run, plan, resources, originals, say)
    findings = collect(out, plan, ORIGINALS if originals else FINISHED, MODES if plan.study.modes else None)
    device = describe(resources.device)
    table = as_markdown(plan, findings, originals, device)
    _write(out / "table.md", table)
    _write(out / "table.csv", as_csv(findings))
    _write(out / "results.json", json.dumps(as_json(plan, findings, originals, device), indent=2))
    compare_plots.plot_bars(findings, out / "bars.png", baselines(findings).get("Otsu's threshold"))
    compare_plots.plot_learning(findings, out / "curves.png")
    if columns := _outlines(plan, findings, resources, images):
        compare_plots.plot_outlines(columns, out / "overlays.png")
    if panels := factor_panels(plan, findings):
        compare_plots.plot_factors(panels, out / "factors.png")
    return table


def _write(path: Path, text: str) -> None:
    with output_file(path) as file:
        file.write(text.encode())


def _score_besides(
    run: Run, plan: Plan, resources: Resources, originals: bool, say: Callable[[str], None]
) -> None:
    """Score a training at the original size and in train mode, where that is asked for and not yet done."""
    wanted = [name for name, asked in ((ORIGINALS, originals), (MODES, plan.study.modes)) if asked]
    missing = [name for name in wanted if not (run.folder / name).exists()]
    if not missing:
        return
    model, settings, state = load_model(run.folder / BEST)
    model.to(resources.device)
    if ORIGINALS in missing:
        say(f"scoring {run.folder} at the original size")
        predictions = evaluate.predict_originals(
            model, find_pairs(plan.shared.data, "validation"), settings.size, resources.device
        )
        scores = evaluate.report(predictions, state.get("mean_mask"), np.random.default_rng(settings.seed))
        _write(run.folder / ORIGINALS, json.dumps(scores, indent=2))
    if MODES in missing:
        say(f"scoring {run.folder} in train mode")
        lesions = _validation(dataclasses.replace(settings, data=plan.shared.data), resources)
        settings.check_batches(len(lesions))
        modes = evaluate.compare_modes(model, lesions, settings.batch_size)
        _write(run.folder / MODES, json.dumps(modes, indent=2))


def _validation(
    settings: Settings, resources: Resources, names: Sequence[str] | None = None
) -> Sequence[Sample]:
    """Return the validation images, or those of these names, at the training size."""
    if settings.data is None:
        lesions = load_datasets(settings)[1]
        return lesions if names is None else [s for s in lesions if s.name in names]
    pairs = find_pairs(settings.data, "validation")
    if names is not None:  # too few for a cache of their own
        return LesionImages([pair for pair in pairs if pair.name in names], settings.size)
    return LesionImages(pairs, settings.size, resources.threads, resources.cache, resources.bar)


def _outlines(
    plan: Plan, findings: list[Finding], resources: Resources, images: int
) -> dict[str, list[OverlayRow]]:
    """Predict some images, chosen by the first row's Jaccard, with the first seed that all rows have."""
    seeds = [{run.seed: run for run in finding.runs} for finding in findings]
    common = next((seed for seed in plan.seeds if all(seed in runs for runs in seeds)), None)
    if common is None:
        return {}
    names = evaluate.evenly_ranked(seeds[0][common].jaccards, images)
    columns = {}
    for finding, runs in zip(findings, seeds, strict=True):
        run = runs[common]
        model, settings, _ = load_model(run.folder / BEST)
        model.to(resources.device)
        if plan.shared.data is None:
            lesions = _validation(settings, resources, names)
            predictions = evaluate.predict_samples(model, lesions, settings.batch_size, resources.device)
        else:
            pairs = [p for p in find_pairs(plan.shared.data, "validation") if p.name in names]
            predictions = evaluate.predict_originals(model, pairs, settings.size, resources.device)
        drawn = {
            s.name: shrunk(OverlayRow(s.image, s.mask, probability, s.name, run.jaccards[s.name]))
            for s, probability in predictions
        }
        columns[finding.row.label] = [drawn[name] for name in names]
    return columns


def factor_panels(plan: Plan, findings: list[Finding]) -> dict[str, list[compare_plots.Point]]:
    """Return, for each setting that the study changes alone, its values in order; {} for other studies."""
    panels = {}
    for name in plan.study.factors:
        values = [
            (getattr(finding.row.settings, name), finding)
            for finding in findings
            if dataclasses.replace(finding.row.settings, **{name: getattr(plan.shared, name)}) == plan.shared
        ]
        if not isinstance(getattr(plan.shared, name), str):
            values.sort(key=lambda pair: pair[0])
        panels[name] = [
            compare_plots.Point(
                as_text(value),
                [run.scores["model"]["mean"]["jaccard"] for run in finding.runs],
                value == getattr(plan.shared, name),
            )
            for value, finding in values
        ]
    return panels
