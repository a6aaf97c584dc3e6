"""Training on every device: the same steps; the losses are read late on a GPU, but before each save."""

import math

import numpy as np
import pytest

from minidl import backend
from minidl.backend import device_of, to_numpy
from minidl.ops.conv import METHODS, convolution
from r2unet.errors import InputError
from r2unet.training import loss_log, trainer
from r2unet.training.checkpoints import load_model, read_state

SMALL = {"widths": (2,)}  # one level, because these runs take many steps


def one_step(run):
    """Run one step on the first batch; return the loss, the gradients, and all weights and statistics."""
    run.train_step(next(run.feed.batches()))
    gradients = {name: to_numpy(p.grad) for name, p in run.state.model.named_parameters()}
    return run.read_losses(), gradients, run.state.model.state_dict()


class TestStep:
    @pytest.mark.parametrize("method", METHODS)
    def test_agrees_with_the_cpu_in_all_weights(self, new_trainer, tmp_path, device, method):
        settings = {"widths": (4, 8), "batch_size": 2, "images": 2, "augment": 0.0}
        with convolution("im2col"):
            expected_loss, expected_gradients, expected = one_step(new_trainer(tmp_path, **settings))
        with convolution(method):
            loss, gradients, state = one_step(new_trainer(tmp_path, device=device, **settings))
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        for name, value in expected.items():
            if name in gradients:
                np.testing.assert_allclose(gradients[name], expected_gradients[name], atol=1e-5, err_msg=name)
                # A bias before batch norm has a gradient of rounding errors, whose sign Adam follows.
                settled = np.abs(expected_gradients[name]) > 1e-4
                value, state[name] = value[settled], state[name][settled]
            np.testing.assert_allclose(state[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        compared = sum((np.abs(g) > 1e-4).sum() for g in expected_gradients.values())
        assert compared > 0.8 * sum(g.size for g in expected_gradients.values())

    def test_leaves_its_loss_on_the_device(self, new_trainer, tmp_path, device):
        run = new_trainer(tmp_path, device=device)
        run.train_step(next(run.feed.batches()))
        loss, gradient_norm, names, images = run.losses.unread[0]
        assert device_of(loss) == device and len(names) == images == 4
        assert device == "cpu" or device_of(gradient_norm) == device

    def test_refuses_images_of_another_dtype_in_one_sentence(self, new_trainer, tmp_path, device):
        run = new_trainer(tmp_path, device=device)
        batch = next(run.feed.batches())
        with pytest.raises(TypeError) as fault:
            run.train_step(batch._replace(images=batch.images.astype(np.float64)))
        assert str(fault.value) == (
            "Conv2d got tensors of different dtypes: float64 (4, 3, 16, 16) and float32 (2, 3, 1, 1); "
            "convert one of them with .to(...) first"
        )


class TestReadingLosses:
    @pytest.fixture(autouse=True)
    def no_timed_saves(self, monkeypatch):
        """A save reads the losses, too, and its time depends on the clock."""
        monkeypatch.setattr(trainer, "SAVE_SECONDS", math.inf)

    def steps_per_read(self, monkeypatch, run):
        """Train to the end; return the number of steps in each read of the losses."""
        counts = []
        to_floats = loss_log.to_floats
        monkeypatch.setattr(
            loss_log, "to_floats", lambda numbers: (counts.append(len(numbers) // 2), to_floats(numbers))[1]
        )
        run.run()
        return [count for count in counts if count]

    def test_follows_every_step_on_the_cpu(self, new_trainer, tmp_path, monkeypatch):
        assert self.steps_per_read(monkeypatch, new_trainer(tmp_path, **SMALL)) == [1] * 6

    def test_is_rare_on_other_devices_and_at_the_end_of_each_epoch(
        self, new_trainer, tmp_path, monkeypatch, device
    ):
        if device == "cpu":
            pytest.skip("reading costs nothing there")
        monkeypatch.setattr(trainer, "STEPS_PER_READ", 2)
        run = new_trainer(tmp_path, device=device, **SMALL)  # epochs of 3 batches
        assert self.steps_per_read(monkeypatch, run) == [2, 1, 2, 1]

    def test_late_gives_the_same_mean_loss(self, new_trainer, tmp_path, monkeypatch, device):
        new_trainer(tmp_path / "a", device=device, **SMALL).run()
        monkeypatch.setattr(trainer, "STEPS_PER_READ", 1)
        new_trainer(tmp_path / "b", device=device, **SMALL).run()
        assert (tmp_path / "a" / "last.npz").read_bytes() == (tmp_path / "b" / "last.npz").read_bytes()

    @pytest.mark.parametrize("saves", [False, True])
    def test_late_names_the_first_step_that_was_not_finite(
        self, new_trainer, tmp_path, monkeypatch, device, saves
    ):
        """Steps 2 and 3 of 3 are not finite and are read together, or a save follows each step."""

        class Spoiled(trainer.Trainer):
            def train_step(self, batch):
                if self.state.schedule.steps == 4:  # the second of epoch 2
                    self.spoiled = batch.names
                    weight = self.state.model.head.weight
                    weight.data = weight.data * np.float32(np.nan)
                super().train_step(batch)

        if saves:
            monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
        run = new_trainer(tmp_path, Spoiled, device=device, **SMALL)
        with pytest.raises(InputError) as fault:
            run.run()
        expected = f"the loss is nan in epoch 2, step 2, on {', '.join(run.spoiled)}; check"
        assert str(fault.value).startswith(expected)
        load_model(tmp_path / "last.npz")  # raises InputError for weights that are not finite
        assert read_state(tmp_path / "last.npz")["schedule"]["steps"] == (4 if saves else 3)


def test_an_array_too_large_for_a_kernel_is_refused_in_one_line(r2unet, tiny, tmp_path, device, monkeypatch):
    if device == "cpu":
        pytest.skip("the CPU runs no kernel")
    monkeypatch.setattr(backend.kernels, "LARGEST", 100)
    code, _, err = r2unet("train", *tiny, "--device", device, "--out", tmp_path / "a")
    assert code == 2 and err.startswith("r2unet: error: ") and err.count("\n") == 1, err
    assert err.endswith(" is too large for the kernel's 32 bits; use a smaller batch\n")


@pytest.mark.parametrize("method", METHODS)
def test_train_evaluate_and_predict_from_the_command_line(r2unet, isic, tmp_path, device, method):
    chosen = ["--device", device, "--conv", method]
    small = ["--size=16", "--widths=2,4", "--batch-size=2", "--epochs=1", "--images=4"]
    code, out, _ = r2unet("train", *small, *chosen, "--out", tmp_path / "a")
    assert code == 0 and out.startswith(f"training on generated lesions on the {device}")
    best = tmp_path / "a" / "best.npz"
    assert r2unet("evaluate", "--checkpoint", best, "--compare-modes", *chosen)[0] == 0
    folder = isic / "ISIC-2017_Validation_Data"
    assert r2unet("predict", "--checkpoint", best, folder, "--out", tmp_path / "masks", *chosen)[0] == 0
    assert len(list((tmp_path / "masks").iterdir())) == 3
