"""`r2unet evaluate`: score a trained network on images with known masks, together with trivial baselines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.allocator import release_freed_memory
from minidl.backend import resolve_device
from r2unet.commands.messages import (
    explain_memory_error,
    memory_remedy,
    print_scores,
    warn_left_out,
    warn_types_unknown,
    warn_uncalibrated,
    write_json,
)
from r2unet.commands.options import (
    DATA,
    LABELS,
    add_checkpoint,
    add_device,
    add_pictures,
    add_post_processing,
    add_processes,
    add_size,
)
from r2unet.commands.values import given_path, new_file, number, picture
from r2unet.commands.workers import Loaded, Scorer, check_processes, load_network, results_of
from r2unet.data.folders import find_pairs, paths
from r2unet.data.lesion_images import UnstoredImages
from r2unet.data.pairs import SPLITS, Pair
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.files import check_outputs, check_writable
from r2unet.training.export import check_multiple
from r2unet.training.prediction_memory import check_generated, check_size, images_at_once
from r2unet.training.run_folder import generate_datasets
from r2unet.training.settings import LIMITS, Settings

if TYPE_CHECKING:
    from r2unet.scores.predictions import Outlined

HELP = "score a checkpoint and compare it with trivial baselines"
DETAILS = (
    "With --data, masks are compared at the images' original size, as in the ISIC challenge. Where "
    "the labels say only benign or malignant, that is scored instead of the types."
)


def add_options(p: argparse.ArgumentParser) -> None:
    add_checkpoint(p)
    text = f"{DATA} (default: generated lesions, if the network was trained on them)"
    p.add_argument("--data", metavar="DIR", help=text)
    p.add_argument("--labels", metavar="F", help=LABELS)
    p.add_argument(
        "--split",
        choices=SPLITS,
        default="validation",
        help="images to score; generated lesions have training and validation (default %(default)s)",
    )
    text = "score only the first N generated lesions (default: all, unless they are very many)"
    p.add_argument("--images", type=number(int, *LIMITS["images"]), metavar="N", help=text)
    add_post_processing(p)
    add_size(p)
    p.add_argument(
        "--json",
        type=new_file,
        nargs="?",
        const=True,
        metavar="F",
        help="print JSON, with the scores of every image, instead of a table; with F: print the table and "
        "write the JSON to F",
    )
    p.add_argument(
        "--compare-modes",
        action="store_true",
        help="check batch norm's running statistics: compare eval mode, which uses them, with train mode",
    )
    text = "draw the outlines on some of the images, from the best to the worst score"
    p.add_argument("--overlays", type=picture, metavar="F.png", help=text)
    p.add_argument(
        "--worst", action="store_true", help="with --overlays: draw the images with the worst scores"
    )
    add_pictures(p)
    text = "folder for figures of the diagnosis: ROC curves, reliability, confusion matrix"
    p.add_argument("--figures", type=given_path, metavar="DIR", help=text)
    add_device(p)
    add_processes(p)


def run(options: argparse.Namespace) -> int:
    result = _evaluate(options)
    if options.json is True:
        print(json.dumps(result, indent=2))
        return 0
    if options.json:
        write_json(options.json, result)
    print_scores(result["scores"])
    if "modes" in result:
        print("train mode compared with eval mode, on the same batches:")
        for name, value in result["modes"].items():
            print(f"  {name.replace('_', ' '):20} {value:.4f}")
    return 0


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the command prints as JSON, and draw the overlays."""
    device = resolve_device(options.device)
    check_processes(options, device)
    tables = [table for root in paths(options.data or "") for table in root.rglob("*.csv")]
    inputs = [options.checkpoint, *paths(options.labels or ""), *tables]
    for name, path in _outputs(options):
        check_writable(name, path.parent)
        check_outputs(name, [path], inputs)
    if options.worst and not options.overlays:
        raise InputError("--worst: has no effect without --overlays F.png; add it, or omit --worst")
    model, settings, state = load_network(options)
    _check_task(options, settings.task)
    warn_uncalibrated(options.checkpoint, settings, state)
    if options.data is None and settings.data is not None:
        raise InputError(
            "--data: is missing; the weights were trained on real images, not on generated lesions, so give "
            "a folder of images and masks"
        )
    if options.labels is not None and options.data is None:
        raise InputError("--labels: belongs to images of your own; give their folder with --data, or omit it")
    if options.images and options.data:
        raise InputError("--images: counts generated lesions; omit it, or --data")
    images = images_at_once(settings) if options.data is None else 1
    option, remedy = f"--checkpoint {options.checkpoint}", memory_remedy(device)
    with explain_memory_error(option, images, settings.size, device, remedy):
        return _score(options, (model.to(device), settings, state), device)


def _outputs(options: argparse.Namespace) -> list[tuple[str, Path]]:
    """Return the options that name a file to write, with that file."""
    from r2unet.diagnosis.evaluate import FIGURES

    outputs = [("--overlays", options.overlays), ("--json", options.json)]
    if options.figures:
        outputs += [("--figures", options.figures / name) for name in FIGURES]
    return [(name, path) for name, path in outputs if isinstance(path, Path)]


def _check_task(options: argparse.Namespace, task: str) -> None:
    """Raise InputError for an option about an answer that the network does not give."""
    for option, given, missing in (
        ("--figures", options.figures, "outline"),
        ("--overlays", options.overlays, "diagnosis"),
        ("--compare-modes", options.compare_modes, "diagnosis"),
    ):
        if given and task == missing:
            raise InputError(f"{option}: this network predicts only the {task}; omit the option")


def _score(options: argparse.Namespace, loaded: Loaded, device: str) -> dict[str, Any]:
    """Predict all masks, score them, and draw a few."""
    from r2unet.diagnosis.evaluate import plot_diagnoses
    from r2unet.scores.compare_modes import compare_modes
    from r2unet.scores.evaluate import summarize_images
    from r2unet.scores.overlays import plot_overlays
    from r2unet.scores.ranking import best_to_worst, best_to_worst_rows, worst

    model, settings, state = loaded
    lesions = _lesions(options, settings)
    scorer, new_scorer = Scorer(options, device, lesions, loaded), partial(Scorer, options, device, lesions)
    with results_of(scorer, scorer.batches(), options, new_scorer) as results:
        scored = [image for batch in results for image in batch]
    scores, rng = {}, np.random.default_rng(settings.seed)
    if settings.task != "diagnosis":
        scores |= summarize_images([image.outline for image in scored], rng)
    if settings.task != "outline":
        for image in scored:
            scorer.diagnoses.add(image.diagnosis)
        scores["diagnosis"] = scorer.diagnoses.report(rng)
        warn_types_unknown(scorer.diagnoses.classes, scorer.diagnoses.scored)
        if scores["diagnosis"] or _labelled(options, settings):
            warn_left_out(len(scored) - len(scorer.diagnoses.images), len(scored), settings)
        if options.figures:
            plot_diagnoses(scores["diagnosis"], options.figures)
    result = {"checkpoint": str(options.checkpoint), "split": options.split, **scorer.post, "scores": scores}
    if options.compare_modes:
        check_multiple(settings.size, settings.multiple)  # train mode adds no pixels
        settings.check_batches(len(lesions))
        if not options.size:
            check_size(options.checkpoint, settings, state["model"], min(settings.batch_size, len(lesions)))
        resized = UnstoredImages(lesions, settings.size) if options.data else lesions
        result["modes"] = compare_modes(model, resized, settings.batch_size)
    if options.overlays:
        # Predict the chosen images again, one by one: storing every original takes too much memory.
        choose = worst if options.worst else best_to_worst
        names = choose(scores["model"]["jaccard_by_image"], options.pictures)
        chosen = (pair for pair in lesions if pair.name in names) if options.data else lesions.named(names)
        plot_overlays(best_to_worst_rows(_one_by_one(scorer, chosen), len(names)), options.overlays)
    return result


def _labelled(options: argparse.Namespace, settings: Settings) -> bool:
    """Return whether every image needs a diagnosis: a network with both tasks has an outline to score."""
    return bool(options.labels or options.figures or settings.task == "diagnosis")


def _one_by_one(scorer: Scorer, lesions: Iterable[Any]) -> Iterator[Outlined]:
    """Yield each lesion with the outline to score, and release the memory of its prediction."""
    for lesion in lesions:
        yield from scorer.outlined(scorer.answers([lesion]))
        release_freed_memory()


def _lesions(options: argparse.Namespace, settings: Settings) -> Sequence[Pair] | SyntheticLesions:
    """Return the lesions to score: pairs of files, or generated lesions."""
    if options.data is None:
        return _generated(options, settings)
    lesions = find_pairs(
        options.data,
        options.split,
        options.labels,
        labelled=_labelled(options, settings),
        masks_needed=settings.task != "diagnosis",
    )
    inputs = [file for pair in lesions for file in (pair.image, pair.mask) if file]
    for name, path in _outputs(options):
        check_outputs(name, [path], inputs)
    return lesions


def _generated(options: argparse.Namespace, settings: Settings) -> SyntheticLesions:
    """Return the generated lesions of a split, or the first of them."""
    split = options.split
    if split not in ("training", "validation"):
        raise InputError(
            f"--split {split}: generated lesions have only training and validation; choose one of the "
            "two, or give --data"
        )
    training, validation = generate_datasets(settings, stored=False)
    lesions = training if split == "training" else validation
    if not options.images:
        remedy = "add --images N to score the first N"
        check_generated(options.checkpoint, len(lesions), remedy)
        return lesions
    return SyntheticLesions(min(options.images, len(lesions)), lesions.size, lesions.seed, stored=False)
