"""A training's steps, what it leaves in its folder, and how it fails."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from minidl import Tensor
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.training.run_folder import load_model, read_state
from r2unet.training.trainer import Trainer, loss_of


class Scripted(Trainer):
    """Validates as usual, but reads the Jaccard of each epoch from a script."""

    def _validate(self):
        return {**super()._validate(), "validation_jaccard": self.script[len(self.history)]}


class TestStep:
    def test_the_loss_is_cross_entropy_plus_dice(self):
        masks = Tensor(np.array([[[[1, 0], [0, 0]]]], np.float32))
        undecided = loss_of(Tensor(np.zeros((1, 1, 2, 2), np.float32)), masks).item()
        dice = (2 * 0.5 + 1) / (4 * 0.5 + 1 + 1)  # 1 is added above and below
        assert undecided == pytest.approx(np.log(2) + 1 - dice)
        sure = loss_of(Tensor(np.array([[[[20, -20], [-20, -20]]]], np.float32)), masks).item()
        assert sure == pytest.approx(0, abs=1e-6)

    def test_training_makes_the_loss_small(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, widths=(4, 8), epochs=40, images=4, lr=1e-2, augment=0.0)
        losses = []
        for batch in (batch for _ in range(40) for batch in run.loader):
            run._step(batch)
            losses.append(run._look())
        assert losses[0] > 1 and losses[-1] < 0.4

    def test_the_epochs_loss_is_the_mean_over_images(self, new_trainer, tmp_path):
        losses = []

        class Recording(Trainer):
            def _step(self, batch):
                super()._step(batch)
                losses.extend([float(self.unseen[-1][0])] * len(batch.names))

        run = new_trainer(tmp_path, Recording)
        run.run()
        assert len(losses) == 20  # each of 10 images in each of 2 epochs
        assert run.history[0]["train_loss"] == pytest.approx(np.mean(losses[:10]))
        assert run.history[1]["train_loss"] == pytest.approx(np.mean(losses[10:]))

    def test_the_epochs_scores_are_those_of_the_validation_images(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path)
        row = run._validate()
        batch = SyntheticLesions(2, 16, seed=1_000_003)
        run.validation = [batch[1]]
        second = run._validate()
        run.validation = [batch[0]]
        first = run._validate()
        for name, value in row.items():
            assert value == pytest.approx((first[name] + second[name]) / 2, rel=1e-5)

    @pytest.mark.parametrize("images, batch_size", [(1, 8), (3, 8), (5, 4)])
    def test_few_images_and_small_batches_train(self, new_trainer, tmp_path, images, batch_size):
        run = new_trainer(tmp_path, batch_size=batch_size, epochs=1, images=images)
        run.run()
        assert run.schedule.steps == -(-images // batch_size)

    def test_a_batch_too_small_for_batch_norm_is_refused_at_once(self, new_trainer, tmp_path):
        with pytest.raises(InputError, match="9 images in batches of 4: one would be alone"):
            new_trainer(tmp_path / "out", widths=(2,) * 5, images=9)
        assert not (tmp_path / "out").exists()


class TestFolder:
    def test_history_has_a_line_an_epoch(self, trained):
        with open(trained / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        state = read_state(trained / "last.npz")
        assert [{name: float(value) for name, value in row.items()} for row in rows] == state["history"]
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert {"lr", "train_loss", "validation_loss", "validation_jaccard", "validation_dice"} < set(rows[0])

    def test_pictures_and_report_are_there(self, trained):
        for name in ("curves.png", "overlays.png"):
            with Image.open(trained / name) as picture:
                assert picture.format == "PNG" and min(picture.size) > 100
        report = json.loads((trained / "report.json").read_text())
        assert report["model"]["images"] == 2 and "Otsu's threshold" in report
        best = max(row["validation_jaccard"] for row in read_state(trained / "last.npz")["history"])
        assert report["model"]["mean"]["jaccard"] == pytest.approx(best)

    def test_the_history_tells_the_rate_each_epoch_ended_with(self, trained):
        history = read_state(trained / "last.npz")["history"]
        assert all(0.0 < row["lr"] <= 1.0 for row in history)

    def test_nothing_else_is(self, trained):
        names = {"last.npz", "best.npz", "history.csv", "curves.png", "overlays.png", "report.json"}
        assert {path.name for path in trained.iterdir()} == names

    def test_a_checkpoint_holds_all_that_decides_how_to_go_on(self, trained):
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

    def test_the_seed_decides_everything(self, new_trainer, tmp_path, trained):
        for seed in (0, 1):
            new_trainer(tmp_path / str(seed), seed=seed).run()
        last, same, other = ((f / "last.npz").read_bytes() for f in (trained, tmp_path / "0", tmp_path / "1"))
        assert last == same != other

    def test_one_that_cannot_be_made_is_named(self, new_trainer, tmp_path):
        (tmp_path / "out").write_text("in the way")
        with pytest.raises(InputError, match="out/best.npz: cannot be written .*choose another --out"):
            new_trainer(tmp_path / "out").run()


class TestMovingAverage:
    def test_is_what_is_validated_and_kept_to_predict_with(self, new_trainer, tmp_path):
        seen = []

        class Watching(Trainer):
            def _validate(self):
                seen.append(self.model.state_dict())
                return super()._validate()

        run = new_trainer(tmp_path, Watching, ema=0.9, epochs=1)
        run.run()
        average = run.ema.state_dict()["average"]
        trained = {name: leaf.data for name, leaf in run.ema.leaves.items()}
        state = read_state(tmp_path / "best.npz")
        for name, array in load_model(tmp_path / "best.npz")[0].state_dict().items():
            assert (array == average[name]).all() and (seen[0][name] == average[name]).all(), name
            assert (state["trained"][name] == trained[name]).all(), name
        assert (average["head.weight"] != trained["head.weight"]).all()
        assert run.ema.steps == run.optimizer.steps == 3

    def test_does_not_change_how_the_weights_are_trained(self, new_trainer, tmp_path, trained):
        new_trainer(tmp_path, ema=0.9).run()
        with_average, without = read_state(tmp_path / "last.npz"), read_state(trained / "last.npz")
        for name, array in without["model"].items():
            assert (with_average["trained"][name] == array).all(), name

    def test_scores_on_its_own_running_statistics(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, ema=0.5, epochs=1)
        run.run()
        name = "encoder.0.first.norm.1.running_var"
        state = read_state(tmp_path / "last.npz")
        assert (state["model"][name] != state["trained"][name]).all()


class TestPatience:
    @pytest.mark.parametrize(
        "patience, epochs, best",
        [
            (0, 6, 5),  # never stops
            (1, 3, 2),
            (2, 4, 2),  # as good is not better
            (3, 6, 5),
        ],
    )
    def test_ends_a_training_that_gets_no_better(self, new_trainer, tmp_path, patience, epochs, best):
        lines = []
        run = new_trainer(tmp_path, Scripted, epochs=6, images=4, patience=patience, say=lines.append)
        run.script = [0.2, 0.5, 0.5, 0.4, 0.6, 0.1]
        run.run()
        assert len(run.history) == epochs == len(read_state(tmp_path / "last.npz")["history"])
        assert len(read_state(tmp_path / "best.npz")["history"]) == best
        assert (tmp_path / "report.json").exists()
        early = f"no better validation Jaccard in {patience} epochs: stopped early"
        assert (lines[-1] == early) == (epochs < 6)

    def test_is_still_over_when_it_is_resumed(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, Scripted, epochs=6, images=4, patience=1)
        run.script = [0.2, 0.1]
        run.run()
        again = new_trainer(tmp_path, epochs=6, images=4, patience=1)
        again.load_state(read_state(tmp_path / "last.npz"))
        again.run()
        assert len(again.history) == 2


class TestProgress:
    def test_is_a_line_an_epoch_and_a_bar_on_stderr(self, new_trainer, tmp_path, capsys):
        lines = []
        new_trainer(tmp_path, say=lines.append, bar=True).run()
        out, err = capsys.readouterr()
        assert [line[:11] for line in lines] == ["epoch   1/2", "epoch   2/2"]
        assert lines[0].endswith("best") and "Jaccard" in lines[0]
        assert out == ""
        for part in ("epoch 1/2", "20/20", "images/s", "loss=", "<"):  # tqdm's [passed<left, rate]
            assert part in err

    def test_without_a_bar_stderr_stays_empty(self, new_trainer, tmp_path, capsys):
        new_trainer(tmp_path, say=print).run()
        assert capsys.readouterr().err == ""

    def test_goes_on_where_a_training_goes_on(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, bar=True)
        run.history, run.batches_done = [{}], 3  # the third batch holds only two images
        with run._progress() as bar:
            assert (bar.n, bar.total) == (20, 20)
        run.batches_done = 1
        with run._progress() as bar:
            assert bar.n == 14


class TestNotFinite:
    def refusal(self, run, change) -> str:
        """Let the weights go wrong once the first epoch is saved; return the line that ends the training."""
        saved = []

        def say(line):
            saved.append((run.out / "last.npz").read_bytes())
            change(run.model)

        run.say = say
        with pytest.raises(InputError) as caught:
            run.run()
        assert saved == [(run.out / "last.npz").read_bytes()]  # the last good one is still there
        assert load_model(run.out / "last.npz")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_loss_stops_with_epoch_step_and_images(self, new_trainer, tmp_path):
        def change(model):
            model.head.weight.data[...] = np.inf

        message = self.refusal(new_trainer(tmp_path), change)
        assert message.startswith("the loss is nan in epoch 2, step 1, on synthetic_0000")
        assert message.count("synthetic_") == 4 and "lower --lr" in message

    def test_gradient_stops_as_well(self, new_trainer, tmp_path):
        def change(model):
            model.head.weight.data[...] = 1e25  # the loss is finite, the square of its gradient is not

        message = self.refusal(new_trainer(tmp_path), change)
        assert message.startswith("the gradient's length is inf in epoch 2, step 1, on synthetic_0000")

    def test_validation_loss_stops_before_anything_is_saved(self, new_trainer, tmp_path):
        def change(model):
            model.encoder[0].first.norm[0].running_var.data[...] = np.nan  # unseen in training

        message = self.refusal(new_trainer(tmp_path), change)
        assert message.startswith("the validation loss is nan in epoch 2, on synthetic_00000, ")

    def test_in_the_first_step_leaves_no_folder(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path / "out")
        run.model.head.weight.data[...] = np.nan
        with pytest.raises(InputError, match="epoch 1, step 1"):
            run.run()
        assert not (tmp_path / "out").exists()
