"""Train mode and eval mode are compared on the same batches."""

import numpy as np
import pytest

from minidl import Tensor
from minidl.nn import Conv2d, Module
from r2unet.data.sample import collate
from r2unet.data.synthetic import SyntheticLesions
from r2unet.network.blocks import RecurrentConv
from r2unet.network.model import R2UNet
from r2unet.scores.compare_modes import compare_modes
from r2unet.scores.metrics import confusion, jaccard


def test_the_modes_agree_without_batch_norm(rng):
    class Pixelwise(Module):
        def __init__(self):
            self.head = Conv2d(3, 1, 1, rng=rng)
            self.head.weight.data[...] = -1.0  # dark is lesion

        def forward(self, x):
            return self.head(x)

    modes = compare_modes(Pixelwise(), SyntheticLesions(3, 16, seed=0), batch_size=2)
    assert modes["relative_rms"] == modes["relative_rms_settled"] == 0
    assert modes["jaccard_train_mode"] == modes["jaccard_eval_mode"] > 0


def test_the_comparison_equals_separate_runs_and_restores_the_model(rng):
    model, data = R2UNet(widths=(2, 4), rng=rng).eval(), SyntheticLesions(5, 16, seed=3)
    before = model.state_dict()
    modes = compare_modes(model, data, batch_size=2)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for _, module in model.named_modules())

    logits = {True: [], False: []}
    for training in logits:
        for i in (0, 2, 4):
            batch = collate([data[k] for k in range(i, min(i + 2, 5))])
            model.load_state_dict(before)
            logits[training].append(model.train(training)(Tensor(batch.images)).numpy())
    train, evaluation = (np.concatenate(logits[mode]) for mode in (True, False))
    rms = np.sqrt(((train - evaluation) ** 2).mean() / (train**2).mean())
    assert modes["relative_rms"] == pytest.approx(float(rms), rel=1e-5) and rms > 0.1
    for mode, name in ((train, "jaccard_train_mode"), (evaluation, "jaccard_eval_mode")):
        expected = [jaccard(confusion(mode[i, 0] > 0, data[i].mask)) for i in range(5)]
        assert modes[name] == pytest.approx(np.mean(expected))


def test_the_modes_agree_on_the_batch_s_own_statistics_unless_steps_share_them(rng):
    data = SyntheticLesions(8, 32, seed=3)
    model = R2UNet(widths=(4, 8), rng=rng)
    # Not exactly zero: a batch is normalised with variance / m, running statistics hold variance / (m - 1).
    assert compare_modes(model, data, batch_size=4)["relative_rms_settled"] < 0.01

    for _, module in model.named_modules():
        if isinstance(module, RecurrentConv):
            module.norm = [module.norm[0]] * (module.steps + 1)
    assert compare_modes(model, data, batch_size=4)["relative_rms_settled"] > 0.1
