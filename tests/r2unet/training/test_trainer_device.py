"""Training on another device than the CPU: the same steps, whose losses are looked at late but in time."""

import math

import numpy as np
import pytest

from minidl import backend
from minidl.backend import device_of, to_numpy
from minidl.ops.conv import METHODS, convolution
from r2unet.errors import InputError
from r2unet.training import trainer as train
from r2unet.training.run_folder import load_model, read_state

SMALL = {"widths": (2,)}  # one level, for what takes many steps


def one_step(trainer):
    """Take one step on the first batch; return the loss, the gradients, and all weights and statistics."""
    trainer._step(next(iter(trainer.loader)))
    gradients = {name: to_numpy(p.grad) for name, p in trainer.model.named_parameters()}
    return trainer._look(), gradients, trainer.model.state_dict()


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
                # A bias before a batch norm has a gradient of rounding errors, whose sign Adam follows.
                settled = np.abs(expected_gradients[name]) > 1e-4
                value, state[name] = value[settled], state[name][settled]
            np.testing.assert_allclose(state[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        compared = sum((np.abs(g) > 1e-4).sum() for g in expected_gradients.values())
        assert compared > 0.8 * sum(g.size for g in expected_gradients.values())

    def test_leaves_its_loss_on_the_device(self, new_trainer, tmp_path, device):
        run = new_trainer(tmp_path, device=device)
        run._step(next(iter(run.loader)))
        loss, length, names = run.unseen[0]
        assert device_of(loss) == device and len(names) == 4
        assert device == "cpu" or device_of(length) == device

    def test_refuses_images_of_another_dtype_in_one_sentence(self, new_trainer, tmp_path, device):
        run = new_trainer(tmp_path, device=device)
        batch = next(iter(run.loader))
        with pytest.raises(TypeError) as fault:
            run._step(batch._replace(images=batch.images.astype(np.float64)))
        assert str(fault.value) == (
            "Conv2d got tensors of different dtypes: float64 (4, 3, 16, 16) and float32 (2, 3, 1, 1); "
            "convert one of them with .to(...) first"
        )


class TestLooking:
    @pytest.fixture(autouse=True)
    def no_save_in_between(self, monkeypatch):
        """A save looks, too, and comes by the clock."""
        monkeypatch.setattr(train, "SAVE_SECONDS", math.inf)

    def looks(self, monkeypatch, run):
        """Train to the end; return how many steps each look at the losses took in."""
        counts = []
        to_floats = train.to_floats
        monkeypatch.setattr(
            train, "to_floats", lambda numbers: (counts.append(len(numbers) // 2), to_floats(numbers))[1]
        )
        run.run()
        return [count for count in counts if count]

    def test_is_after_every_step_on_the_cpu(self, new_trainer, tmp_path, monkeypatch):
        assert self.looks(monkeypatch, new_trainer(tmp_path, **SMALL)) == [1] * 6

    def test_is_seldom_on_a_device_and_at_an_epoch_s_end(self, new_trainer, tmp_path, monkeypatch, device):
        if device == "cpu":
            pytest.skip("looking costs nothing there")
        monkeypatch.setattr(train, "STEPS_UNSEEN", 2)
        run = new_trainer(tmp_path, device=device, **SMALL)  # epochs of 3 batches
        assert self.looks(monkeypatch, run) == [2, 1, 2, 1]

    def test_late_adds_up_to_the_same_epoch(self, new_trainer, tmp_path, monkeypatch, device):
        new_trainer(tmp_path / "a", device=device, **SMALL).run()
        monkeypatch.setattr(train, "STEPS_UNSEEN", 1)
        new_trainer(tmp_path / "b", device=device, **SMALL).run()
        assert (tmp_path / "a" / "last.npz").read_bytes() == (tmp_path / "b" / "last.npz").read_bytes()

    @pytest.mark.parametrize("saves", [False, True])
    def test_late_names_the_first_step_that_was_not_finite(
        self, new_trainer, tmp_path, monkeypatch, device, saves
    ):
        """Step 2 of 3 goes wrong, and step 3 with it, before anybody looks; or a save follows each step."""

        class Spoiled(train.Trainer):
            def _step(self, batch):
                if self.schedule.steps == 4:  # the second of epoch 2
                    self.spoiled = batch.names
                    self.model.head.weight.data = self.model.head.weight.data * np.float32(np.nan)
                super()._step(batch)

        if saves:
            monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
        run = new_trainer(tmp_path, Spoiled, device=device, **SMALL)
        with pytest.raises(InputError) as fault:
            run.run()
        told = f"the loss is nan in epoch 2, step 2, on {', '.join(run.spoiled)}; look"
        assert str(fault.value).startswith(told)
        load_model(tmp_path / "last.npz")  # which refuses weights that are not finite
        assert read_state(tmp_path / "last.npz")["schedule"]["steps"] == (4 if saves else 3)


def test_what_a_kernel_cannot_count_is_told_in_one_line(r2unet, tiny, tmp_path, device, monkeypatch):
    if device == "cpu":
        pytest.skip("no kernel runs there")
    monkeypatch.setattr(backend, "LARGEST", 100)
    code, _, err = r2unet("train", *tiny, "--device", device, "--out", tmp_path / "a")
    assert code == 2 and err.startswith("r2unet: error: ") and err.count("\n") == 1, err
    assert err.endswith(" is too large for the kernel's 32 bits; use a smaller batch\n")


@pytest.mark.parametrize("method", METHODS)
def test_the_command_line_from_end_to_end(r2unet, isic, tmp_path, device, method):
    chosen = ["--device", device, "--conv", method]
    small = ["--size=16", "--widths=2,4", "--batch-size=2", "--epochs=1", "--images=4"]
    code, out, _ = r2unet("train", *small, *chosen, "--out", tmp_path / "a")
    assert code == 0 and out.startswith(f"training on generated lesions on the {device}")
    best = tmp_path / "a" / "best.npz"
    assert r2unet("evaluate", "--checkpoint", best, "--compare-modes", *chosen)[0] == 0
    folder = isic / "ISIC-2017_Validation_Data"
    assert r2unet("predict", "--checkpoint", best, folder, "--out", tmp_path / "masks", *chosen)[0] == 0
    assert len(list((tmp_path / "masks").iterdir())) == 3
