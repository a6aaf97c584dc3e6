"""The commands that use what is trained: `r2unet evaluate | predict | score | explain | export`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import resolve_device
from r2unet.commands.messages import complain, enough_memory, print_scores
from r2unet.data.isic import LesionImages, find_pairs
from r2unet.data.sample import Sample
from r2unet.errors import InputError
from r2unet.files import output_file
from r2unet.network.fold import fold_all
from r2unet.network.model import R2UNet
from r2unet.training.run_folder import POST_PROCESSING, check_writable, load_datasets, load_model
from r2unet.training.settings import Settings, flag


def evaluate(options: argparse.Namespace) -> int:
    """Run `r2unet evaluate`."""
    answer = _evaluate(options)
    if options.json is True:
        print(json.dumps(answer, indent=2))
        return 0
    if options.json:
        _write_json(options.json, answer)
    print_scores(answer["scores"])
    if "modes" in answer:
        print("train mode against eval mode, on the same batches:")
        for name, value in answer["modes"].items():
            print(f"  {name.replace('_', ' '):20} {value:.4f}")
    return 0


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Compute what `r2unet evaluate` prints, and draw its overlays."""
    device = resolve_device(options.device)
    if options.overlays:
        check_writable("--overlays", options.overlays.parent)
    if isinstance(options.json, Path):
        check_writable("--json", options.json.parent)
    if options.worst and not options.overlays:
        raise InputError("--worst: draws nothing without --overlays F.png; give both, or neither")
    model, settings, state = load_model(options.checkpoint)
    if options.data is None and settings.data is not None:
        raise InputError(
            "--data: which photographs? Generated lesions tell nothing about weights for real ones; give a "
            "folder of images and masks"
        )
    images = settings.batch_size if options.data is None else 1
    option, remedy = f"--checkpoint {options.checkpoint}", _remedy(device)
    with enough_memory(option, images, settings.size, device, remedy):
        return _scores(options, model.to(device), settings, state, device)


def _scores(
    options: argparse.Namespace, model: R2UNet, settings: Settings, state: dict[str, Any], device: str
) -> dict[str, Any]:
    from r2unet import plots
    from r2unet.scores import evaluate

    folded = fold_all(model)
    if options.data is None:
        lesions = _generated(settings, options.split)
        run = partial(evaluate.predict_samples, folded, batch_size=settings.batch_size)
    else:
        lesions = find_pairs(options.data, options.split)
        run = partial(evaluate.predict_originals, folded, size=settings.size)

    how = _how_to_predict(options, state)

    def predict(lesions: Sequence[Any]) -> Iterator[evaluate.Prediction]:
        predictions = run(lesions, device=device, tta=how["tta"])
        return evaluate.cleaned_up(predictions) if how["clean_up"] else predictions

    rng = np.random.default_rng(settings.seed)
    scores = evaluate.report(predict(lesions), state.get("mean_mask"), rng)
    answer = {"checkpoint": str(options.checkpoint), "split": options.split, **how, "scores": scores}
    if options.compare_modes:
        settings.check_batches(len(lesions))
        small = LesionImages(lesions, settings.size) if options.data else lesions
        answer["modes"] = evaluate.compare_modes(model, small, settings.batch_size)
    if options.overlays:
        # Predicted once more: to keep every original until all are ranked would take too much memory.
        choose = evaluate.worst if options.worst else evaluate.evenly_ranked
        names = choose(scores["model"]["jaccard_by_image"], options.pictures)
        chosen = [lesion for lesion in lesions if lesion.name in names]
        plots.plot_overlays(evaluate.from_best_to_worst(predict(chosen), len(names)), options.overlays)
    return answer


def _how_to_predict(options: argparse.Namespace, state: dict[str, Any]) -> dict[str, bool]:
    """Return whether to take eight views and to clean up: as the options say, else as the checkpoint does."""
    advice, given = state.get("prediction", {}), {name: getattr(options, name) for name in POST_PROCESSING}
    return {name: bool(advice.get(name) if said is None else said) for name, said in given.items()}


def _generated(settings: Settings, split: str) -> Sequence[Sample]:
    """Return the generated lesions of a split."""
    if split not in ("training", "validation"):
        raise InputError(f"--split {split}: generated lesions are for training or validation; give --data")
    training, validation = load_datasets(dataclasses.replace(settings, data=None))
    return training if split == "training" else validation


def predict(options: argparse.Namespace) -> int:
    """Run `r2unet predict`."""
    from r2unet.prediction.predict import find_images, predict_files

    device = resolve_device(options.device)
    model, settings, state = load_model(options.checkpoint)
    files = find_images(options.paths)
    check_writable("--out", options.out)
    size, faults = options.size or settings.size, []
    how = _how_to_predict(options, state)
    remedy = "lower it" + (", or use --device cpu" if device == "cuda" else "")
    with enough_memory(f"--size {size}", 1, size, device, remedy):
        folded = fold_all(model.to(device))
        for file, result in predict_files(folded, size, files, options.out, device, options.overlay, **how):
            if isinstance(result, InputError):
                faults.append(result)
            else:
                print(f"{file}: {result:.1%} lesion", flush=True)
    done = len(files) - len(faults)
    print(f"{done} of {len(files)} masks are in {options.out}; no diagnosis, and no medical device")
    for fault in faults:
        complain(fault)
    return 2 if faults else 0


def score(options: argparse.Namespace) -> int:
    """Run `r2unet score`."""
    from r2unet.scores.evaluate import as_table
    from r2unet.scores.score import score_folders

    if options.json:
        check_writable("--json", options.json.parent)
    scores = score_folders(options.truth, options.predictions)
    if options.json:
        _write_json(options.json, scores)
    print(as_table({"predictions": scores}))
    return 0


def explain(options: argparse.Namespace) -> int:
    """Run `r2unet explain`."""
    from r2unet.prediction.explain import explain, plot_explanation
    from r2unet.prediction.predict import read_photograph

    device = resolve_device(options.device)
    check_writable("--out", options.out.parent)
    model, settings, _ = load_model(options.checkpoint)
    option = f"--checkpoint {options.checkpoint}"
    with enough_memory(option, 1, settings.size, device, _remedy(device)):
        explanation = explain(model.to(device), read_photograph(options.image), settings.size, device)
        plot_explanation(explanation, options.out)
    print(f"the figure is in {options.out}")
    return 0


def export(options: argparse.Namespace) -> int:
    """Run `r2unet export`."""
    from r2unet.training.export import PYTORCH_SIZE, from_pytorch, from_training, halved, write

    check_writable("--out", options.out.parent)
    if options.pytorch:
        state = from_pytorch(options.source, options.steps, options.size or PYTORCH_SIZE)
    else:
        for name in ("steps", "size"):
            if getattr(options, name) is not None:
                raise InputError(f"{flag(name)}: is for --pytorch; a training's checkpoint knows its own")
        state = from_training(options.source)
    state = {**(halved(state) if options.half else state), "prediction": _how_to_predict(options, state)}
    write(state, options.source, options.out)
    numbers = sum(array.size for array in state["model"].values())
    print(f"{options.out}: {numbers:,} numbers in {options.out.stat().st_size:,} bytes; to use them:")
    print(f"r2unet predict --checkpoint {shlex.quote(str(options.out))} photo.jpg")
    return 0


def _remedy(device: str) -> str:
    """Say what helps against a lack of memory where size and network are the checkpoint's."""
    return "use --device cpu" if device == "cuda" else "close other programs, or train a smaller network"


def _write_json(path: Path, answer: dict[str, Any]) -> None:
    with output_file(path) as file:
        file.write(json.dumps(answer, indent=2).encode())
