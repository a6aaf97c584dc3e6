"""Train for one epoch in float64, in as many processes as mpiexec starts, and store everything computed.

    mpiexec -n 2 python tests/r2unet/training/shared_batches.py result.npz

9 images in batches of 4: the last batch has one image. Of the 7 images for validation it has three. The cases
cover every norm and every loss.
"""

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np

from minidl.connect import connect
from minidl.parallel import Processes
from r2unet.training import state as training_state
from r2unet.training.run_folder import load_datasets
from r2unet.training.settings import Settings, new_model
from r2unet.training.state import arrays_in
from r2unet.training.trainer import Trainer

# The gradient of a bias before a batch norm is 0 up to rounding, about 1e-16. Adam divides it by its eps,
# 1e-8, so lr must be small for weights that agree to 1e-12.
SMALL = Settings(size=16, widths=(2, 4), steps=1, batch_size=4, epochs=1, lr=1e-5, classes="malignant")
CASES = {
    "per-step": {},
    "shared": {"norm": "shared", "loss": "tversky", "ema": 0.9},
    "group": {"norm": "group", "loss": "focal"},
    "recomputed": {"checkpoint_blocks": True, "loss": "dice"},
    "both": {"task": "both", "loss": "bce", "diagnosis_weight": 0.3},
    "diagnosis": {
        "task": "diagnosis",
        "pooling": "image",
        "diagnosis_loss": "focal",
        "class_weights": "balanced",
        "balanced": True,
    },
}


class Float64Trainer(Trainer):
    """A trainer that computes in float64 and records the clipped gradients of every step."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.in_float32, self.step.answer_and_loss = self.step.answer_and_loss, self.answer_and_loss

    def answer_and_loss(self, *arrays):
        return self.in_float32(*(a if a is None else a.astype(np.float64) for a in arrays))

    def train_step(self, batch):
        super().train_step(batch)
        self.gradients = [*getattr(self, "gradients", []), *(p.grad for p in self.state.optimizer.parameters)]
        self.gradients = [g.copy() for g in self.gradients]


def train(case: str, processes: Processes) -> dict[str, np.ndarray]:
    """Return the gradients of all steps, the state after the epoch, and the validation scores."""
    settings = dataclasses.replace(SMALL, **CASES[case]).check()
    training, validation = load_datasets(dataclasses.replace(settings, images=35))
    training, validation = ([s[i] for i in range(n)] for s, n in ((training, 9), (validation, 7)))
    trainer = Float64Trainer(
        settings, Path("unused"), with_diagnoses(training), with_diagnoses(validation), processes=processes
    )
    with np.errstate(all="ignore"):
        loss = trainer.train_epoch(Bar())
        scores = trainer.validate()
    found = {f"gradient {i}": g for i, g in enumerate(trainer.gradients)}
    found |= dict(arrays_in(trainer.state.state_dict()))
    return found | {"loss": np.array(loss)} | {name: np.array(score) for name, score in scores.items()}


def with_diagnoses(samples):
    """Give every second image a malignant lesion; the last has no diagnosis."""
    types = ["melanoma", "nevus"]
    named = [s._replace(diagnosis=types[i % 2], lesion=f"lesion {i}") for i, s in enumerate(samples)]
    return [*named[:-1], named[-1]._replace(diagnosis=None)]


class Bar:
    """A progress bar that shows nothing."""

    def set_description(self, text):
        pass

    def set_postfix(self, **values):
        pass

    def update(self, images):
        pass


def all_cases(processes: Processes) -> dict[str, np.ndarray]:
    """Return what all cases computed, by "case/name"."""
    training_state.new_model = lambda settings, rng: new_model(settings, rng).to(np.float64)
    return {f"{case}/{name}": a for case in CASES for name, a in train(case, processes).items()}


if __name__ == "__main__":
    everyone = connect()
    results = all_cases(everyone)
    equal = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in results.values())).hexdigest()
    everyone.must_agree("results", equal)  # to the bit
    if everyone.rank == 0:
        np.savez(sys.argv[1], **results)
    everyone.close()
