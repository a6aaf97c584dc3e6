"""Compare the whole network on a GPU with the CPU: every number of one training step, and a training run.

    python -m benchmarks.gpu_agreement cuda step
    python -m benchmarks.gpu_agreement cuda training

print JSON. Each part is a list of checks, and each check has an error and a tolerance.

**A step** starts from the same weights and images on both devices. In float64 every gradient and every weight
must agree so closely that any mistake is visible. In float32 the same kernels compute with another type, and
two effects have to be allowed for. An activation may be 1e-7 on one device and -1e-7 on the other; the ReLU
then passes its gradient on one device only. If the devices disagree, the check is therefore repeated with
other images, a few times; a wrong derivative fails for all of them. Second, the first step of AdamW is as
large for a gradient that is only rounding error as for any other. The gradient of a bias before a batch norm
is only rounding error, so the weights of these biases are compared in float64 only.

**A training run** takes 200 steps on generated lesions. Its first losses must equal the CPU's. Training then
amplifies the rounding differences until the two runs diverge, so the last check is only that the loss falls.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_networks import STEPS, Inputs, OwnNetwork, draw
from minidl import Tensor, no_grad
from minidl.backend import to_device, to_numpy
from minidl.data import DataLoader, prefetched
from minidl.optim import AdamW, CosineLR, clip_grad_norm
from r2unet.data.augment import augment
from r2unet.data.sample import Batch, collate
from r2unet.data.synthetic import SyntheticLesions
from r2unet.network.losses import LOSSES
from r2unet.network.model import R2UNet
from r2unet.scores.metrics import confusion, summarize
from r2unet.training.settings import Settings

FLOAT64, FLOAT32 = 1e-8, 1e-4
FIRST_LOSS, FIRST_LOSSES, FALL = 1e-4, 2e-2, 0.8
TRIES = 4  # draws of the inputs, until no activation lies at the kink of a ReLU
COMPARED = 10  # steps of the training run that are repeated on the CPU
METHODS = ("auto", "im2col", "direct")


def check(name: str, error: float, tolerance: float) -> dict[str, Any]:
    """Return one row of the result: what was compared, its error, and whether it is within the tolerance."""
    return {"name": name, "error": error, "tolerance": tolerance, "passed": bool(error <= tolerance)}


def one_step(device: str, quick: bool) -> dict[str, Any]:
    """Compare one training step with the CPU's, in both dtypes and with each convolution algorithm."""
    plan = ((2, 3), 2, 8) if quick else ((8, 16, 32, 64), 4, 64)
    checks = []
    for dtype, tolerance in ((np.float64, FLOAT64), (np.float32, FLOAT32)):
        for method in METHODS[:1] if quick else METHODS:
            for seed in range(TRIES):
                inputs = draw(*plan, np.random.default_rng(seed))
                expected = step_results(inputs, "cpu", dtype, "im2col")
                actual = step_results(inputs, device, dtype, method)
                rows = []
                for kind in ("loss", "gradient", "weight"):
                    error, where = largest_error(expected, actual, kind, dtype)
                    rows.append(check(f"{kind}, {np.dtype(dtype)}, {method}: {where}", error, tolerance))
                if all(row["passed"] for row in rows):
                    break
            checks += [{**row, "draws": seed + 1} for row in rows]
    return {"passed": all(c["passed"] for c in checks), "checks": checks}


def step_results(inputs: Inputs, device: str, dtype: type, method: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the loss, the gradients before clipping and the weights after one step, by parameter name."""
    network = OwnNetwork(inputs, device, method)
    network.model.to(dtype)
    network.images, network.masks = network.images.to(dtype), network.masks.to(dtype)
    parameters = dict(network.model.named_parameters())
    network.optimizer = AdamW(parameters.values(), 1e-3)
    loss = to_numpy(network.forward_backward())
    gradients = {name: to_numpy(p.grad).copy() for name, p in parameters.items()}
    clip_grad_norm(network.optimizer.parameters, 1.0)
    network.optimizer.step()
    weights = {name: to_numpy(p.data) for name, p in parameters.items()}
    return {"loss": {"loss": loss}, "gradient": gradients, "weight": weights}


def largest_error(expected: dict, actual: dict, kind: str, dtype: type) -> tuple[float, str]:
    """Return the largest relative difference (of norms) and the name of the parameter that has it.

    The gradient of a bias before a batch norm is zero, so the scale is the norm of the weight's gradient.
    """
    a, b, errors = expected[kind], actual[kind], {}
    for name in a:
        bias = name.endswith("bias") and ".norm" not in name
        if bias and kind == "weight" and dtype == np.float32:
            continue
        weight = a[name.replace("bias", "weight")] if bias else a[name]
        scale = max(np.linalg.norm(a[name]), np.linalg.norm(weight))
        errors[name] = float(np.linalg.norm(a[name] - b[name]) / scale)
    name = max(errors, key=errors.get)
    return errors[name], name


class Training:
    """A minimal training run on generated lesions: the steps of `r2unet train`, without its files."""

    def __init__(self, device: str, settings: Settings, steps: int, seed: int = 0) -> None:
        for_weights, for_batches = np.random.default_rng(seed).spawn(2)
        self.device, self.settings, self.steps = device, settings, steps
        self.model = R2UNet(widths=settings.widths, steps=STEPS, rng=for_weights).to(device)
        self.optimizer = AdamW(self.model.parameters(), settings.lr, weight_decay=settings.weight_decay)
        self.schedule = CosineLR(self.optimizer, steps, steps // 10)
        self.loader = DataLoader(
            SyntheticLesions(settings.images, settings.size, seed=seed),
            settings.batch_size,
            shuffle=True,
            rng=for_batches,
            transform=partial(augment, strength=settings.augment),
            collate=collate,
        )

    def batches(self) -> Iterator[Batch]:
        """Yield batches, epoch after epoch."""
        while True:
            yield from prefetched(self.loader.batches(), self.device)

    def run(self, steps: int) -> list[float]:
        """Take `steps` steps and return their losses; synchronise with the device only at the end."""
        losses = []
        for _, batch in zip(range(steps), self.batches(), strict=False):
            loss = LOSSES[self.settings.loss](
                self.model(self.to_tensor(batch.images)), self.to_tensor(batch.masks)
            )
            self.optimizer.zero_grad()
            loss.backward()
            clip_grad_norm(self.optimizer.parameters, self.settings.clip)
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.data)
        return [float(loss) for loss in losses]

    def to_tensor(self, array: Any) -> Tensor:
        return Tensor(to_device(array, self.device))

    def validate(self, images: int, seed: int = 1_000_003) -> dict[str, float]:
        """Return the mean scores on lesions that were not used for training."""
        self.model.eval()
        counts = []
        lesions = SyntheticLesions(images, self.settings.size, seed=seed)
        for batch in DataLoader(lesions, self.settings.batch_size, collate=collate):
            with no_grad():
                predicted = self.model(self.to_tensor(batch.images)).numpy() > 0.0
            counts += [confusion(*pair) for pair in zip(predicted, batch.masks > 0.5, strict=True)]
        return summarize(counts, np.random.default_rng(0))["mean"]


def train(device: str, quick: bool) -> dict[str, Any]:
    """Train on the device, and on the CPU for the first steps; compare the losses and score the network."""
    settings = Settings(size=64, images=128, batch_size=8, lr=3e-3, augment=0.25)
    steps, compared, held_out = 200, COMPARED, 32
    if quick:
        settings = Settings(size=16, widths=(2, 3), images=4, batch_size=2, lr=1e-2, augment=0.25)
        steps, compared, held_out = 12, 2, 2
    expected = Training("cpu", settings, steps).run(compared)
    training = Training(device, settings, steps)
    started = time.monotonic()
    losses = training.run(steps)
    seconds = time.monotonic() - started
    errors = [abs(a - b) / abs(a) for a, b in zip(expected, losses, strict=False)]
    tenth = max(1, steps // 10)
    fall = float(np.mean(losses[-tenth:]) / np.mean(losses[:tenth]))
    checks = [
        check("first loss, difference from the CPU", errors[0], FIRST_LOSS),
        check(f"first {compared} losses, largest difference from the CPU", max(errors), FIRST_LOSSES),
        check("last tenth of the losses / first tenth", fall, 1.0 if quick else FALL),
    ]
    return {
        "passed": all(c["passed"] for c in checks),
        "checks": checks,
        "steps": steps,
        "seconds": seconds,
        "losses": losses,
        "cpu_losses": expected,
        "validation": training.validate(held_out),
    }


PARTS = {"step": one_step, "training": train}

if __name__ == "__main__":
    device, part, *rest = sys.argv[1:]
    result = PARTS[part](device, quick="--quick" in rest)
    print(json.dumps(result))
    sys.exit(0 if result["passed"] else 1)
