"""The work of `predict` and `evaluate`, in this process or shared between several (--processes).

    with results_of(work, tasks, options, new_work) as results:

Every process reads the weights itself, once, by new_work(). Nothing is sent to it but the command line and
the names of files, and what it sends back is small. A task has the same result in any process, and the
results come in the order of the tasks: the output of a command is the same for any number of processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from minidl.allocator import keep_freed_memory
from minidl.ops.conv import convolution
from minidl.threads import set_threads
from r2unet.commands.options import post_processing
from r2unet.data.classes import CLASSES, scored_classes
from r2unet.errors import InputError
from r2unet.network.fold import fold_all
from r2unet.network.model import UShape
from r2unet.processes import Processes
from r2unet.training.calibrate import correction
from r2unet.training.checkpoints import load_model
from r2unet.training.prediction_memory import check_size, images_at_once
from r2unet.training.settings import Settings

if TYPE_CHECKING:
    from r2unet.diagnosis.evaluate import Diagnosed, Diagnoses
    from r2unet.prediction.photographs import Predictor
    from r2unet.scores.evaluate import ImageScores
    from r2unet.scores.predictions import Answered, Outlined

Loaded = tuple[UShape, Settings, dict[str, Any]]  # of `load_model`


def load_network(options: argparse.Namespace) -> Loaded:
    """Return the network of --checkpoint, with --size in its settings if it is given.

    Raises InputError if it cannot be read, or if it takes much memory and --size does not permit this.
    """
    model, settings, state = load_model(options.checkpoint)
    if options.size:
        return model, dataclasses.replace(settings, size=options.size), state
    check_size(options.checkpoint, settings, state["model"])
    return model, settings, state


def ignore_warnings_of_pillow() -> None:
    """Ignore what Pillow warns about: r2unet.data.images raises an error instead."""
    warnings.filterwarnings("ignore", module="PIL")


@contextmanager
def results_of(
    work: Callable[[Any], Any],
    tasks: Sequence[Any],
    options: argparse.Namespace,
    new_work: Callable[[], Callable[[Any], Any]],
) -> Iterator[Iterator[Any]]:
    """Yield the results of `work` on all tasks, in order; other processes make their own work."""
    count = min(options.processes, len(tasks))
    if count < 2:
        yield map(work, tasks)
        return
    with Processes(partial(_in_process, new_work, options), count) as processes:
        yield processes.map(tasks)


def _in_process(
    new_work: Callable[[], Callable[[Any], Any]], options: argparse.Namespace
) -> Callable[[Any], Any]:
    """Set a new process up as `main` sets up this one, and return its work."""
    ignore_warnings_of_pillow()
    keep_freed_memory()
    set_threads(options.threads)
    work = new_work()

    def with_convolution(task: Any) -> Any:
        with convolution(options.conv):
            return work(task)

    return with_convolution


def check_processes(options: argparse.Namespace, device: str) -> None:
    """Raise InputError if several processes would share a GPU, or would not be profiled."""
    if options.processes == 1:
        return
    option = f"--processes {options.processes}"
    if device == "cuda":
        raise InputError(f"{option}: all would use the same GPU; add --device cpu, or omit --processes")
    if getattr(options, "profile", False):
        raise InputError(f"{option}: --profile measures one process; omit one of the two")


def new_predictor(options: argparse.Namespace, device: str, loaded: Loaded | None = None) -> Predictor:
    """Return the work of `predict`: image file -> `Result` or InputError, with the results written.

    Without weights that are `loaded`, it reads them.
    """
    from r2unet.prediction.photographs import Predictor

    model, settings, state = loaded or load_network(options)
    post = post_processing(options, state)
    return Predictor(
        fold_all(model.to(device)),
        settings.size,
        options.out,
        device,
        options.overlay,
        **post,
        correction=correction(state, post["tta"]),
        classes=CLASSES[settings.classes],
    )


class Scored(NamedTuple):
    """What `evaluate` needs of one image; None for what the network's task does not include."""

    outline: ImageScores | None
    diagnosis: Diagnosed | None  # None also for an image without a class


class Scorer:
    """The work of `evaluate`: numbers of images in a batch -> what the report needs of each.

    `lesions` are pairs of files, or samples. Without weights that are `loaded`, it reads them.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        device: str,
        lesions: Sequence[Any],
        loaded: Loaded | None = None,
    ) -> None:
        from r2unet.diagnosis.evaluate import Diagnoses
        from r2unet.scores.baselines import all_baselines

        model, self.settings, state = loaded or load_network(options)
        self.lesions, self.files, self.device = lesions, options.data is not None, device
        self.model, self.post = fold_all(model.to(device)), post_processing(options, state)
        self.correction = correction(state, self.post["tta"])
        self.baselines = all_baselines(state.get("mean_mask"))
        self.diagnoses: Diagnoses | None = None  # of this process
        if self.settings.task != "outline":
            classes, entry = CLASSES[self.settings.classes], state.get("diagnosis")
            temperature = self.correction.temperature
            known = [pair.diagnosis for pair in lesions] if self.files else []  # generated lesions have types
            scored = scored_classes(known, classes)
            self.diagnoses = Diagnoses(classes, self.settings.size, entry, temperature, scored)

    def batches(self) -> list[range]:
        """Return the numbers of the images in each batch; an image file is a batch of its own."""
        step, count = 1 if self.files else images_at_once(self.settings), len(self.lesions)
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def __call__(self, batch: range) -> list[Scored]:
        """Predict the images of a batch and score each. Raises InputError for an unreadable image."""
        from r2unet.scores.evaluate import score_image

        task = self.settings.task
        answers = list(self.answers([self.lesions[i] for i in batch]))
        none = [None] * len(answers)
        outlines = (
            none
            if task == "diagnosis"
            else [score_image(*outlined, self.baselines) for outlined in self.outlined(answers)]
        )
        diagnoses = none if task == "outline" else [self.diagnoses.of_image(*answer) for answer in answers]
        return list(map(Scored, outlines, diagnoses))

    def answers(self, lesions: Sequence[Any]) -> Iterator[Answered]:
        """Yield each of some lesions with everything that is predicted for it."""
        from r2unet.scores.predictions import answer_originals, answer_samples

        more = {"device": self.device, "tta": self.post["tta"], "correction": self.correction}
        if self.files:
            return answer_originals(self.model, lesions, self.settings.size, **more)
        return answer_samples(self.model, lesions, images_at_once(self.settings), **more)

    def outlined(self, answers: Iterable[Answered]) -> Iterator[Outlined]:
        """Yield each sample with the outline to score, cleaned up if that is asked for."""
        from r2unet.scores.predictions import cleaned_up, outlines

        return cleaned_up(outlines(answers)) if self.post["clean_up"] else outlines(answers)
