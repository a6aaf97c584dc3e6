"""The command line: `r2unet train | compare | evaluate | predict | score | explain | export | summary`.

Only what a command needs is imported, when it runs, so that --help is quick. Results go to stdout; progress
and faults go to stderr. What a person can mend is one line and exit code 2; a training that was asked to
stop exits with 130, as programs do on Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

# Before NumPy is loaded: the products of matrices in a small network are too small to share between threads,
# which on a busy machine wait for each other several times as long as they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from minidl import checkpoint
from minidl.allocator import keep_freed_memory
from minidl.backend import DeviceError, TooLargeError, cuda_problem, describe, resolve_device
from minidl.ops.conv import convolution
from minidl.threads import set_threads
from r2unet.errors import InputError
from r2unet.fold import fold_all
from r2unet.images import written_whole
from r2unet.isic import LesionImages, find_pairs
from r2unet.model import R2UNet
from r2unet.options import build_parser, means_given
from r2unet.run import BEST, READY, begin, check_writable, load_datasets, load_model, new_model
from r2unet.sample import Sample
from r2unet.settings import Settings, flag


def train(options: argparse.Namespace) -> int:
    """Run `r2unet train`."""
    from r2unet.train import Interrupted, Trainer

    if options.resume and options.out is None:
        raise InputError("--resume: say which training goes on, with --out runs/NAME")
    out = options.out or Path("runs") / time.strftime("%Y-%m-%d-%H%M%S")
    settings, state = begin(out, _settings_given(options), options.resume)
    device = resolve_device(options.device)
    if not options.profile:
        check_writable("--out", out)
    if options.cache:
        check_writable("--cache", options.cache)

    bar = sys.stderr.isatty()
    say = _speaker(bar)
    data, whither = settings.data or "generated lesions", "to profile" if options.profile else f"into {out}"
    say(f"training on {data} on the {describe(device)}, {whither}")
    if options.device == "auto" and device == "cpu":
        say(f"not on a GPU: {cuda_problem()}")
    if options.resume and state is None:
        say(f"{out} holds no training to go on with: beginning one")
    option, remedy = f"--batch-size {settings.batch_size}", "lower it, or --size or --widths"
    try:
        with _enough_memory(option, settings.batch_size, settings.size, device, remedy):
            if device == "cpu":  # where it is measured; a GPU's memory holds other arrays
                say(_memory(settings))
            training, validation = load_datasets(settings, options.threads, options.cache, bar)
            say(f"{len(training)} images for training, {len(validation)} for validation")
            trainer = Trainer(settings, out, training, validation, device, options.threads, say, bar)
            if state:
                trainer.load_state(state)
                say(f"going on after {len(trainer.history)} epochs and {trainer.batches_done} batches")
            if options.profile:
                print(trainer.profile())
                return 0
            _print_scores(trainer.run())
    except Interrupted as stopped:
        print(f"{stopped} {means_given(options)}".rstrip(), file=sys.stderr)
        return 130
    print(f"the weights are in {out / BEST}")
    return 0


def _speaker(bar: bool) -> Callable[[str], None]:
    """Return what prints a line at once, where there is a bar above it."""
    if not bar:
        return partial(print, flush=True)
    from tqdm import tqdm

    return tqdm.write


def compare(options: argparse.Namespace) -> int:
    """Run `r2unet compare`."""
    from r2unet.compare import Means, reuse, train_study
    from r2unet.compare_report import write_report
    from r2unet.plan import begin_study
    from r2unet.train import Interrupted

    out, device, faults = options.out, resolve_device(options.device), []
    check_writable("--out", out)
    if options.cache:
        check_writable("--cache", options.cache)
    given = _settings_given(options)
    plan = begin_study(out, options.study, given, options.seeds, options.variant, options.only_report)
    bar = sys.stderr.isatty() and options.jobs == 1
    means, say = Means(device, options.conv, options.threads, options.cache, bar), _speaker(bar)
    if not options.only_report:
        reuse(out, plan, options.reuse, say)
        try:
            faults = train_study(out, plan, means, options.jobs, say)
        except Interrupted as stopped:
            print(f"{stopped} {means_given(options)}".rstrip(), file=sys.stderr)
            return 130
    for fault in faults:
        _complain(fault)
    print(write_report(out, plan, means, options.originals, options.pictures, say))
    print(f"the tables and pictures are in {out}")
    return 2 if faults else 0


def _memory(settings: Settings) -> str:
    """Say how much memory a training step will take on the CPU."""
    from r2unet.cost import in_words, memory_of, resident_bytes
    from r2unet.losses import LOSSES

    program, rng = resident_bytes(), np.random.default_rng(0)
    memory = memory_of(lambda: new_model(settings, rng), LOSSES[settings.loss], settings.multiple)
    return in_words(memory, settings.batch_size, settings.size, program)


@contextmanager
def _enough_memory(option: str, images: int, size: int, device: str, remedy: str) -> Iterator[None]:
    """Turn a lack of memory, the computer's or the GPU's, into an InputError that says what it was for."""
    try:
        yield
    except MemoryError:
        where = " on the GPU" if device == "cuda" else ""
        batch = (
            f"{images} images at once of {size} x {size} pixels" if images > 1 else f"{size} x {size} pixels"
        )
        raise InputError(f"{option}: not enough memory{where} for {batch}; {remedy}") from None


def _remedy(device: str) -> str:
    """Say what helps against a lack of memory where size and network are the checkpoint's."""
    return "use --device cpu" if device == "cuda" else "close other programs, or train a smaller network"


def _settings_given(options: argparse.Namespace) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(Settings)}
    return {name: value for name, value in vars(options).items() if name in names}


def evaluate(options: argparse.Namespace) -> int:
    """Run `r2unet evaluate`."""
    if options.checkpoint == READY and options.data is None:
        raise InputError(
            "--data: which photographs? Generated lesions tell nothing about weights for real ones; give a "
            "folder of images and masks, or a --checkpoint of yours"
        )
    answer = _evaluate(options)
    if options.json is True:
        print(json.dumps(answer, indent=2))
        return 0
    if options.json:
        _write_json(options.json, answer)
    _print_scores(answer["scores"])
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
    model, settings, state = load_model(options.checkpoint)
    images = settings.batch_size if options.data is None else 1
    option, remedy = f"--checkpoint {options.checkpoint}", _remedy(device)
    with _enough_memory(option, images, settings.size, device, remedy):
        return _scores(options, model.to(device), settings, state, device)


def _scores(
    options: argparse.Namespace, model: R2UNet, settings: Settings, state: dict[str, Any], device: str
) -> dict[str, Any]:
    from r2unet import evaluate, plots

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
    names, advised = ("tta", "clean_up"), state.get("prediction", {})
    given = {name: getattr(options, name) for name in names}
    return {name: bool(advised.get(name) if given[name] is None else given[name]) for name in names}


def _generated(settings: Settings, split: str) -> Sequence[Sample]:
    """Return the generated lesions of a split."""
    if split not in ("training", "validation"):
        raise InputError(f"--split {split}: generated lesions are for training or validation; give --data")
    training, validation = load_datasets(dataclasses.replace(settings, data=None))
    return training if split == "training" else validation


def _print_scores(scores: dict[str, Any]) -> None:
    """Print the table to stdout, and to stderr what the model does not beat."""
    from r2unet.evaluate import as_table, warnings

    print(as_table(scores), flush=True)
    for warning in warnings(scores):
        print(warning, file=sys.stderr)


def predict(options: argparse.Namespace) -> int:
    """Run `r2unet predict`."""
    from r2unet.predict import find_images, predict_files

    device = resolve_device(options.device)
    model, settings, state = load_model(options.checkpoint)
    files = find_images(options.paths)
    check_writable("--out", options.out)
    size, faults = options.size or settings.size, []
    extras = options.overlay, *_how_to_predict(options, state).values()
    remedy = "lower it" + (", or use --device cpu" if device == "cuda" else "")
    with _enough_memory(f"--size {size}", 1, size, device, remedy):
        folded = fold_all(model.to(device))
        for file, result in predict_files(folded, size, files, options.out, device, *extras):
            if isinstance(result, InputError):
                faults.append(result)
            else:
                print(f"{file}: {result:.1%} lesion", flush=True)
    done = len(files) - len(faults)
    print(f"{done} of {len(files)} masks are in {options.out}; no diagnosis, and no medical device")
    for fault in faults:
        _complain(fault)
    return 2 if faults else 0


def score(options: argparse.Namespace) -> int:
    """Run `r2unet score`."""
    from r2unet.evaluate import as_table
    from r2unet.score import score_folders

    if options.json:
        check_writable("--json", options.json.parent)
    scores = score_folders(options.truth, options.predictions)
    if options.json:
        _write_json(options.json, scores)
    print(as_table({"predictions": scores}))
    return 0


def _write_json(path: Path, answer: dict[str, Any]) -> None:
    with written_whole(path) as file:
        file.write(json.dumps(answer, indent=2).encode())


def explain(options: argparse.Namespace) -> int:
    """Run `r2unet explain`."""
    from r2unet.explain import explain, plot_explanation
    from r2unet.predict import read_photograph

    device = resolve_device(options.device)
    check_writable("--out", options.out.parent)
    model, settings, _ = load_model(options.checkpoint)
    option = f"--checkpoint {options.checkpoint}"
    with _enough_memory(option, 1, settings.size, device, _remedy(device)):
        explanation = explain(model.to(device), read_photograph(options.image), settings.size, device)
        plot_explanation(explanation, options.out)
    print(f"the figure is in {options.out}")
    return 0


def export(options: argparse.Namespace) -> int:
    """Run `r2unet export`."""
    from r2unet.export import PYTORCH_SIZE, from_pytorch, from_training, halved

    check_writable("--out", options.out.parent)
    if options.pytorch:
        state = from_pytorch(options.source, options.steps, options.size or PYTORCH_SIZE)
    else:
        for name in ("steps", "size"):
            if getattr(options, name) is not None:
                raise InputError(f"{flag(name)}: a training's checkpoint knows it; leave it out")
        state = from_training(options.source)
    state = halved(state) if options.half else state
    checkpoint.save(options.out, {**state, "prediction": _how_to_predict(options, {})})
    numbers = sum(array.size for array in state["model"].values())
    print(f"{options.out}: {numbers:,} numbers in {options.out.stat().st_size:,} bytes; to use them:")
    print(f"r2unet predict --checkpoint {options.out} photo.jpg")
    return 0


def summary(options: argparse.Namespace) -> int:
    """Run `r2unet summary`."""
    from r2unet.summary import as_table, image_of_zeros, summarize

    settings = Settings(**_settings_given(options)).check()
    model = new_model(settings, np.random.default_rng(0))
    print(as_table(summarize(model, image_of_zeros(settings.size))))
    print(_memory(settings))
    return 0


COMMANDS = {
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "predict": predict,
    "score": score,
    "explain": explain,
    "export": export,
    "summary": summary,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # what it warns of is an error here, told in one line
    try:
        try:
            options = build_parser().parse_args(argv)
            keep_freed_memory()
            set_threads(getattr(options, "threads", 1))
            with convolution(getattr(options, "conv", "auto")):
                return COMMANDS[options.command](options)
        finally:
            print(end="", flush=True)  # here, where a full disk or a closed pipe can still be answered
    except (InputError, DeviceError, TooLargeError) as fault:
        return _complain(fault)
    except MemoryError:
        return _complain("not enough memory; a smaller --size, or fewer --widths, needs less")
    except BrokenPipeError:  # `r2unet summary | head`: the reader has seen enough
        _forget_output()
        return 141
    except OSError as fault:
        if fault.filename is None:
            _forget_output()
        return _complain(
            f"{fault.filename or 'output'}: {fault.strerror or fault}; check the path and the disk"
        )
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _complain(fault: object, code: int = 2) -> int:
    """Print one line on stderr, also where a file's name has two, and return the exit code."""
    print("r2unet: error:", " ".join(str(fault).splitlines()), file=sys.stderr)
    return code


def _forget_output() -> None:
    """Drop what could not be written to stdout, which Python would try once more on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
