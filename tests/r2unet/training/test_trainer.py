"""The training loop: its steps, the files it writes, early stopping, and values that are not finite."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.training.checkpoints import load_model, read_state
from r2unet.training.trainer import Trainer


class Scripted(Trainer):
    """A Trainer that takes the validation Jaccard of each epoch from a list, `script`."""

    def validate(self):
        return {**super().validate(), "validation_jaccard": self.script[len(self.state.history)]}


class TestStep:
    def test_training_reduces_the_loss(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, widths=(4, 8), epochs=40, images=4, lr=1e-2, augment=0.0)
        losses = []
        for batch in (batch for _ in range(40) for batch in run.feed.batches()):
            run.train_step(batch)
            losses.append(run.read_losses())
        assert losses[0] > 1 and losses[-1] < 0.4

    def test_the_loss_of_an_epoch_is_the_mean_over_its_images(self, new_trainer, tmp_path):
        losses = []

        class Recording(Trainer):
            def train_step(self, batch):
                super().train_step(batch)
                losses.extend([float(self.losses.unread[-1].loss)] * len(batch.names))

        run = new_trainer(tmp_path, Recording)
        run.run()
        assert len(losses) == 20  # each of 10 images in each of 2 epochs
        assert run.state.history[0]["train_loss"] == pytest.approx(np.mean(losses[:10]))
        assert run.state.history[1]["train_loss"] == pytest.approx(np.mean(losses[10:]))

    def test_the_scores_of_an_epoch_are_means_over_the_validation_images(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path)
        row = run.validate()
        batch = SyntheticLesions(2, 16, seed=1_000_003)
        run.validation = [batch[1]]
        second = run.validate()
        run.validation = [batch[0]]
        first = run.validate()
        for name, value in row.items():
            assert value == pytest.approx((first[name] + second[name]) / 2, rel=1e-5)

    @pytest.mark.parametrize("images, batch_size", [(1, 8), (3, 8), (5, 4)])
    def test_training_works_with_few_images_and_small_batches(
        self, new_trainer, tmp_path, images, batch_size
    ):
        run = new_trainer(tmp_path, batch_size=batch_size, epochs=1, images=images)
        run.run()
        assert run.state.schedule.steps == -(-images // batch_size)

    def test_a_batch_too_small_for_batch_norm_is_refused_before_training(self, new_trainer, tmp_path):
        with pytest.raises(
            InputError, match="9 images in batches of 4: the last batch would be a single image"
        ):
            new_trainer(tmp_path / "out", widths=(2,) * 5, images=9)
        assert not (tmp_path / "out").exists()


class TestFolder:
    def test_history_has_one_line_per_epoch(self, trained):
        with open(trained / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        state = read_state(trained / "last.npz")
        assert [{name: float(value) for name, value in row.items()} for row in rows] == state["history"]
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert {"lr", "train_loss", "validation_loss", "validation_jaccard", "validation_dice"} < set(rows[0])

    def test_pictures_and_report_are_written(self, trained):
        for name in ("curves.png", "overlays.png"):
            with Image.open(trained / name) as picture:
                assert picture.format == "PNG" and min(picture.size) > 100
        report = json.loads((trained / "report.json").read_text())
        assert report["model"]["images"] == 2 and "Otsu's threshold" in report
        best = max(row["validation_jaccard"] for row in read_state(trained / "last.npz")["history"])
        assert report["model"]["mean"]["jaccard"] == pytest.approx(best)

    def test_the_history_contains_the_last_learning_rate_of_each_epoch(self, trained):
        history = read_state(trained / "last.npz")["history"]
        assert all(0.0 < row["lr"] <= 1.0 for row in history)

    def test_no_other_file_is_written(self, trained):
        names = {"last.npz", "best.npz", "history.csv", "curves.png", "overlays.png", "report.json"}
        assert {path.name for path in trained.iterdir()} == names

    def test_a_checkpoint_contains_the_complete_state(self, trained):
        state = read_state(trained / "last.npz")
        assert set(state) == {
            *("program", "version", "settings", "model", "optimizer", "schedule", "random"),
            *("batches_done", "loss_sum", "history", "mean_mask", "names_sha256"),
        }
        assert state["schedule"]["steps"] == state["optimizer"]["steps"] == 6

    def test_best_is_the_first_epoch_with_the_best_jaccard(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, Scripted, epochs=4, images=4)
        run.script = [0.2, 0.6, 0.6, 0.4]
        run.run()
        assert len(read_state(tmp_path / "best.npz")["history"]) == 2
        assert len(read_state(tmp_path / "last.npz")["history"]) == 4

    def test_the_learning_rate_ends_at_zero(self, trained):
        state = read_state(trained / "last.npz")
        assert state["optimizer"]["lr"] == pytest.approx(0, abs=1e-12)
        assert state["history"][0]["lr"] > 1e-4

    def test_the_seed_determines_every_byte(self, new_trainer, tmp_path, trained):
        for seed in (0, 1):
            new_trainer(tmp_path / str(seed), seed=seed).run()
        last, same, other = ((f / "last.npz").read_bytes() for f in (trained, tmp_path / "0", tmp_path / "1"))
        assert last == same != other

    def test_a_folder_that_cannot_be_created_is_named(self, new_trainer, tmp_path):
        (tmp_path / "out").write_text("in the way")
        with pytest.raises(InputError, match="out/best.npz: cannot be written .*choose another --out"):
            new_trainer(tmp_path / "out").run()


class TestMovingAverage:
    def test_is_used_for_validation_and_prediction(self, new_trainer, tmp_path):
        seen = []

        class Recording(Trainer):
            def validate(self):
                seen.append(self.state.model.state_dict())
                return super().validate()

        run = new_trainer(tmp_path, Recording, ema=0.9, epochs=1)
        run.run()
        average = run.state.ema.state_dict()["average"]
        trained = {name: leaf.data for name, leaf in run.state.ema.leaves.items()}
        state = read_state(tmp_path / "best.npz")
        for name, array in load_model(tmp_path / "best.npz")[0].state_dict().items():
            assert (array == average[name]).all() and (seen[0][name] == average[name]).all(), name
            assert (state["trained"][name] == trained[name]).all(), name
        assert (average["head.weight"] != trained["head.weight"]).all()
        assert run.state.ema.steps == run.state.optimizer.steps == 3

    def test_does_not_change_the_training_of_the_weights(self, new_trainer, tmp_path, trained):
        new_trainer(tmp_path, ema=0.9).run()
        with_average, without = read_state(tmp_path / "last.npz"), read_state(trained / "last.npz")
        for name, array in without["model"].items():
            assert (with_average["trained"][name] == array).all(), name

    def test_has_its_own_running_statistics(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, ema=0.5, epochs=1)
        run.run()
        name = "encoder.0.first.norm.1.running_var"
        state = read_state(tmp_path / "last.npz")
        assert (state["model"][name] != state["trained"][name]).all()


class TestPatience:
    @pytest.mark.parametrize(
        "patience, epochs, best",
        [
            (0, 6, 5),  # never stops early
            (1, 3, 2),
            (2, 4, 2),  # an equal Jaccard is not an improvement
            (3, 6, 5),
        ],
    )
    def test_ends_a_run_that_does_not_improve(self, new_trainer, tmp_path, patience, epochs, best):
        lines = []
        run = new_trainer(tmp_path, Scripted, epochs=6, images=4, patience=patience, log=lines.append)
        run.script = [0.2, 0.5, 0.5, 0.4, 0.6, 0.1]
        run.run()
        assert len(run.state.history) == epochs == len(read_state(tmp_path / "last.npz")["history"])
        assert len(read_state(tmp_path / "best.npz")["history"]) == best
        assert (tmp_path / "report.json").exists()
        early = f"stopped early: no better validation score in {patience} epochs"
        assert (lines[-1] == early) == (epochs < 6)

    def test_has_the_same_effect_after_resuming(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, Scripted, epochs=6, images=4, patience=1)
        run.script = [0.2, 0.1]
        run.run()
        again = new_trainer(tmp_path, epochs=6, images=4, patience=1)
        again.load_state(read_state(tmp_path / "last.npz"))
        again.run()
        assert len(again.state.history) == 2


class TestProgress:
    def test_is_one_line_per_epoch_and_a_bar_on_stderr(self, new_trainer, tmp_path, capsys):
        lines = []
        new_trainer(tmp_path, log=lines.append, bar=True).run()
        out, err = capsys.readouterr()
        assert [line[:11] for line in lines] == ["epoch   1/2", "epoch   2/2"]
        assert lines[0].endswith("best") and "Jaccard" in lines[0]
        assert out == ""
        for part in ("epoch 1/2", "20/20", "images/s", "loss=", "<"):  # tqdm's [elapsed<remaining, rate]
            assert part in err

    def test_without_a_bar_stderr_is_empty(self, new_trainer, tmp_path, capsys):
        new_trainer(tmp_path, log=print).run()
        assert capsys.readouterr().err == ""


class TestOnEpochEnd:
    def test_receives_each_epoch_with_its_seconds(self, new_trainer, tmp_path):
        calls = []
        new_trainer(tmp_path, on_epoch_end=lambda *call: calls.append(call)).run()
        assert [epoch for epoch, _ in calls] == [1, 2]
        assert all(0.0 < seconds < 60.0 for _, seconds in calls)

    def test_receives_no_seconds_for_an_epoch_that_was_interrupted(self, new_trainer, tmp_path):
        calls = []
        run = new_trainer(tmp_path, on_epoch_end=lambda *call: calls.append(call))
        next(run.feed.batches())
        run.state.batches_done = 1
        run.run()
        assert calls[0] == (1, None) and calls[1][1] > 0.0


class TestNotFinite:
    def error_after(self, run, change) -> str:
        """Spoil the weights after the first epoch is saved; return the message that ends the training."""
        saved = []

        def log(line):
            saved.append((run.out / "last.npz").read_bytes())
            change(run.state.model)

        run.log = log
        with pytest.raises(InputError) as caught:
            run.run()
        assert saved == [(run.out / "last.npz").read_bytes()]  # the last good checkpoint is still there
        assert load_model(run.out / "last.npz")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_loss_ends_the_training_with_epoch_step_and_images(self, new_trainer, tmp_path):
        def change(model):
            model.head.weight.data[...] = np.inf

        message = self.error_after(new_trainer(tmp_path), change)
        assert message.startswith("the loss is nan in epoch 2, step 1, on synthetic_0000")
        assert message.count("synthetic_") == 4 and "lower --lr" in message

    def test_gradient_norm_ends_the_training(self, new_trainer, tmp_path):
        def change(model):
            model.head.weight.data[...] = 1e25  # the loss is finite, the square of its gradient is not

        message = self.error_after(new_trainer(tmp_path), change)
        assert message.startswith("the gradient norm is inf in epoch 2, step 1, on synthetic_0000")

    def test_validation_loss_ends_the_training_before_a_save(self, new_trainer, tmp_path):
        def change(model):
            model.encoder[0].first.norm[0].running_var.data[...] = np.nan  # not used in training

        message = self.error_after(new_trainer(tmp_path), change)
        assert message.startswith("the validation loss is nan in epoch 2, on synthetic_00000, ")

    def test_in_the_first_step_leaves_no_folder(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path / "out")
        run.state.model.head.weight.data[...] = np.nan
        with pytest.raises(InputError, match="epoch 1, step 1"):
            run.run()
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "damage, name",
        [
            (lambda state: state.model.head.weight.data.fill(np.nan), "trained.head.weight"),
            (lambda state: next(iter(state.optimizer.memory.values()))[3].fill(np.inf), "optimizer."),
            (
                lambda state: state.model.encoder[0].first.norm[0].running_var.data.fill(np.inf),
                "trained.encoder.0.first.norm.0.running_var",
            ),
            (lambda state: next(iter(state.ema.average.values())).fill(np.nan), "model."),
        ],
        ids=["weight", "moment", "running variance", "moving average"],
    )
    @pytest.mark.parametrize("name_of_file", ["last.npz", "best.npz"])
    def test_weights_and_moments_never_replace_a_saved_state(
        self, new_trainer, tmp_path, damage, name, name_of_file
    ):
        """After the last step of a training, no loss would show them."""
        run = new_trainer(tmp_path, ema=0.9)
        for batch in run.feed.batches():
            run.train_step(batch)
        run.save(name_of_file)
        before = (tmp_path / name_of_file).read_bytes()
        damage(run.state)
        with pytest.raises(InputError) as caught:
            run.save(name_of_file)
        message = str(caught.value)
        assert message.startswith(name) and "after 0 epochs and 0 steps" in message
        assert message.endswith("train again with a lower --lr")
        assert (tmp_path / name_of_file).read_bytes() == before
