"""A run that is interrupted or killed and then resumed writes the same bytes as one that is not."""

import json
import shutil
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from r2unet.commands.main import main
from r2unet.errors import InputError
from r2unet.training.checkpoints import read_state, write_state
from r2unet.training.interruption import Interrupted
from r2unet.training.run_folder import start_or_resume
from r2unet.training.trainer import Trainer
from tests.r2unet.refusal import refusal


def files(folder):
    """Return the files that must not depend on interruptions, as bytes."""
    return {name: (folder / name).read_bytes() for name in ("last.npz", "best.npz", "history.csv")}


def resume(run):
    """Resume from the newest state in the folder of `run`, and train to the end."""
    run.load_state(read_state(run.out / "last.npz"))
    return run.run()


class InterruptedTrainer(Trainer):
    """Receives Ctrl-C in step `at`. Steps 0 to 2 are the first epoch, 3 to 5 the second."""

    at = 4

    def train_step(self, batch):
        if self.state.schedule.steps == self.at:
            signal.raise_signal(signal.SIGINT)
        return super().train_step(batch)


class TestCtrlC:
    # In the middle and in the last step of the first epoch and of the second.
    @pytest.mark.parametrize("at, threads", [(0, 0), (0, 1), (1, 2), (2, 0), (4, 0), (4, 2), (5, 1)])
    def test_and_resuming_give_the_same_bytes(self, new_trainer, tmp_path, trained, at, threads):
        run = new_trainer(tmp_path, InterruptedTrainer, threads=threads)
        run.at = at
        with pytest.raises(Interrupted, match="resume with: r2unet train --resume --out"):
            run.run()
        assert read_state(tmp_path / "last.npz")["schedule"]["steps"] == at + 1
        resume(new_trainer(tmp_path, threads=threads))
        assert files(tmp_path) == files(trained)

    def test_in_every_step_gives_the_same_bytes(self, new_trainer, tmp_path, trained):
        for at in range(5):
            run = new_trainer(tmp_path, InterruptedTrainer)
            run.at = at
            with pytest.raises(Interrupted):
                resume(run) if at else run.run()
        resume(new_trainer(tmp_path))
        assert files(tmp_path) == files(trained)

    def test_and_resuming_give_the_same_moving_average(self, new_trainer, tmp_path):
        new_trainer(tmp_path / "uninterrupted", ema=0.9).run()
        for at in (0, 3, 4):
            run = new_trainer(tmp_path / "interrupted", InterruptedTrainer, ema=0.9)
            run.at = at
            with pytest.raises(Interrupted):
                resume(run) if at else run.run()
        resume(new_trainer(tmp_path / "interrupted", ema=0.9))
        assert files(tmp_path / "interrupted") == files(tmp_path / "uninterrupted")

    def test_during_validation_takes_effect_after_the_epoch(self, new_trainer, tmp_path, trained):
        class InterruptedValidation(Trainer):
            def validate(self):
                signal.raise_signal(signal.SIGTERM)  # the signal of job schedulers
                return super().validate()

        with pytest.raises(Interrupted, match="stopped after 1 epochs and 0 of 3 batches"):
            new_trainer(tmp_path, InterruptedValidation).run()
        # After the last epoch nothing is left to interrupt.
        resume(new_trainer(tmp_path, InterruptedValidation))
        assert files(tmp_path) == files(trained) and (tmp_path / "overlays.png").exists()

    def test_twice_stops_at_once(self, new_trainer, tmp_path):
        class Impatient(Trainer):
            def train_step(self, batch):
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                return super().train_step(batch)

        with pytest.raises(KeyboardInterrupt):
            new_trainer(tmp_path, Impatient).run()

    def test_handlers_are_restored_afterwards(self, new_trainer, tmp_path):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            new_trainer(tmp_path, InterruptedTrainer).run()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def test_message_quotes_a_path_with_spaces(self, new_trainer, tmp_path):
        with pytest.raises(Interrupted, match="--out '.*/my run'"):
            new_trainer(tmp_path / "my run", InterruptedTrainer).run()

    def test_and_resuming_give_the_same_bytes_on_each_device(self, new_trainer, tmp_path, device):
        small = {"device": device, "widths": (2,)}
        with pytest.raises(Interrupted):
            new_trainer(tmp_path / "a", InterruptedTrainer, **small).run()
        resume(new_trainer(tmp_path / "a", **small))
        new_trainer(tmp_path / "b", **small).run()
        assert files(tmp_path / "a") == files(tmp_path / "b")


# Kills its own process without warning: in step `count`, or in the middle of save `count`.
KILLED = """
import os, signal, stat, sys
from r2unet.commands import main as cli
from r2unet.training import trainer as train

train.SAVE_SECONDS = 0.0  # save after every step
when, count, *words = sys.argv[1:]

def step(self, batch, _step=train.Trainer.train_step):
    if when == "step" and self.state.schedule.steps == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return _step(self, batch)

def fsync(descriptor, calls=[]):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        return
    calls.append(descriptor)
    if when == "save" and len(calls) == int(count):
        os.ftruncate(descriptor, 1000)
        os.kill(os.getpid(), signal.SIGKILL)

train.Trainer.train_step, os.fsync = step, fsync
cli.main(words)
"""


class TestKill:
    # The saves are: after steps 1, 2 and 3, best and last of epoch 1, then the same for epoch 2.
    @pytest.mark.parametrize(
        "when, count, threads, steps",
        [
            ("step", 2, 1, 2),
            ("step", 5, 1, 5),
            ("save", 3, 2, 2),  # in the save after step 3: the file of step 2 is still in place
            ("save", 5, 1, 3),  # between best.npz and last.npz
        ],
    )
    def test_leaves_an_intact_checkpoint_to_resume_from(
        self, tiny, tmp_path, trained, when, count, threads, steps
    ):
        words = ["train", *tiny, "--threads", str(threads), "--out", str(tmp_path)]
        killed = subprocess.run([sys.executable, "-c", KILLED, when, str(count), *words], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert read_state(tmp_path / "last.npz")["schedule"]["steps"] == steps
        assert main([*words, "--resume"]) == 0
        assert files(tmp_path) == files(trained)


class TestResuming:
    def test_a_finished_run_only_writes_the_report(self, new_trainer, tmp_path, trained):
        for name in ("last.npz", "best.npz"):
            (tmp_path / name).write_bytes((trained / name).read_bytes())
        assert resume(new_trainer(tmp_path)) == json.loads((trained / "report.json").read_text())
        assert (tmp_path / "last.npz").read_bytes() == (trained / "last.npz").read_bytes()

    def test_another_number_of_images_is_refused(self, new_trainer, tmp_path, trained):
        run = new_trainer(tmp_path, images=13)
        with pytest.raises(InputError, match="the images are not those of this run"):
            run.load_state(read_state(trained / "last.npz"))

    def test_other_images_of_the_same_number_are_refused(self, new_trainer, tmp_path, trained):
        run, state = new_trainer(tmp_path), read_state(trained / "last.npz")
        renamed = [sample._replace(name=f"other_{sample.name}") for sample in run.training]
        other = Trainer(run.settings, tmp_path, renamed, run.validation, threads=0)
        with pytest.raises(InputError, match="the images are not those of this run"):
            other.load_state(state)

    @pytest.mark.parametrize("names", [None, 3, np.zeros(3)])
    def test_names_of_images_that_are_no_text_are_refused(self, new_trainer, tmp_path, trained, names):
        state = {**read_state(trained / "last.npz"), "names_sha256": names}
        message = refusal(lambda: new_trainer(tmp_path).load_state(state))
        assert "the images are not those of this run" in message

    def test_a_moving_average_without_its_weights_is_refused(self, new_trainer, tmp_path, trained):
        with pytest.raises(InputError, match="its parts do not fit together"):
            new_trainer(tmp_path, ema=0.9).load_state(read_state(trained / "last.npz"))

    @pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "random", "history", "batches_done"])
    def test_an_incomplete_state_is_refused(self, new_trainer, tmp_path, trained, part):
        state = read_state(trained / "last.npz")
        del state[part]
        with pytest.raises(InputError, match="last.npz: its parts do not fit together"):
            new_trainer(tmp_path).load_state(state)

    @pytest.mark.parametrize(
        "part, value",
        [
            ("batches_done", 10**400),
            ("batches_done", -1),
            ("batches_done", 4),
            ("batches_done", 0.5),
            ("batches_done", "1"),
            ("loss_sum", 10**400),
            ("loss_sum", float("nan")),
            ("loss_sum", [1.0]),
            ("history", 3),
            ("history", [[]]),
            ("history", [{"epoch": 1}] * 2),
            ("history.0.epoch", 2),
            ("history.0.validation_jaccard", float("inf")),
            ("history.0.validation_jaccard", "0.5"),
            ("history.1.lr", None),
            ("schedule.steps", 10**400),
            ("schedule.steps", -6),
            ("schedule.steps", True),
            ("schedule.base_lr", float("nan")),
            ("schedule.base_lr", 0.5),
            ("optimizer.steps", 7),
            ("optimizer.mean", []),
            ("optimizer.mean.0", "text"),
            ("random", {}),
            ("random", {"bit_generator": "MT19937"}),
            ("random.state.state", -(2**200)),
            ("random.state.inc", "odd"),
            ("random.uinteger", 2**70),
            ("random.uinteger", 5.7),
            ("model", [1.0]),
        ],
    )
    def test_a_state_that_training_cannot_have_is_refused(self, new_trainer, tmp_path, trained, part, value):
        state = read_state(trained / "last.npz")
        *path, last = [int(name) if name.isdecimal() else name for name in part.split(".")]
        node = state
        for name in path:
            node = node[name]
        node[last] = value
        message = refusal(lambda: new_trainer(tmp_path).load_state(state))
        assert message.startswith(f"{tmp_path / 'last.npz'}: its parts do not fit") and len(message) < 600

    @pytest.mark.parametrize(
        "slot, value, words",
        [
            ("mean", np.nan, "the optimizer's mean is float32, or contains NaN"),
            ("square", np.inf, "the optimizer's square"),
            ("square", -1.0, "mean of squares contains a negative number"),
        ],
    )
    def test_moments_that_are_not_finite_or_negative_squares_are_refused(
        self, new_trainer, tmp_path, trained, slot, value, words
    ):
        state = read_state(trained / "last.npz")
        state["optimizer"][slot][3].flat[0] = value
        assert words in refusal(lambda: new_trainer(tmp_path).load_state(state))

    @pytest.mark.parametrize(
        "name, value", [("head.bias", np.nan), ("encoder.0.first.norm.0.running_var", -1)]
    )
    def test_weights_that_are_not_finite_or_a_negative_variance_are_refused(
        self, new_trainer, tmp_path, trained, name, value
    ):
        state = read_state(trained / "last.npz")
        state["model"][name][0] = value
        assert f"({name} contains " in refusal(lambda: new_trainer(tmp_path).load_state(state))

    def test_settings_of_a_huge_network_are_refused_without_memory_for_it(self, tmp_path, trained):
        state = read_state(trained / "last.npz")
        state["settings"] |= {"widths": [4096] * 4, "size": 16}
        write_state(tmp_path / "last.npz", state)
        tracemalloc.start()
        message = refusal(lambda: start_or_resume(tmp_path, {}, resume=True))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "its parts do not fit together" in message and peak < 20_000_000

    def test_another_network_is_refused(self, new_trainer, tmp_path, trained):
        with pytest.raises(InputError, match="its parts do not fit together"):
            new_trainer(tmp_path, widths=(2, 6)).load_state(read_state(trained / "last.npz"))


def test_resuming_a_run_whose_newest_state_is_damaged_gives_the_same_bytes(r2unet, tmp_path, trained):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    content = bytearray((out / "last.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "last.npz").write_bytes(content)
    code, _, err = r2unet("train", "--resume", "--device=cpu", "--out", out)
    assert code == 0 and "renaming it to last.npz.damaged and resuming from best.npz" in err
    assert files(out) == files(trained)
    assert (out / "last.npz.damaged").read_bytes() == content


class TestDeletedFiles:
    class Deleting(Trainer):
        """Deletes files of its folder in step `at`. Epoch 1 is the best, so best.npz is not saved again."""

        at, names = 4, ("best.npz",)

        def train_step(self, batch):
            if self.state.schedule.steps == self.at:
                for name in self.names:
                    shutil.rmtree(self.out) if name == "." else (self.out / name).unlink()
            return super().train_step(batch)

        def validate(self):
            scores = super().validate()
            return {**scores, "validation_jaccard": [0.5, 0.2][len(self.state.history)]}

    @pytest.mark.parametrize("names", [(), ("best.npz",), ("last.npz",), ("best.npz", "history.csv"), (".",)])
    def test_are_written_again_with_the_same_bytes(self, new_trainer, tmp_path, names):
        for out, deleted in ((tmp_path / "a", ()), (tmp_path / "b", names)):
            run = new_trainer(out, self.Deleting)
            run.names = deleted
            run.run()
        assert files(tmp_path / "b") == files(tmp_path / "a")
        assert (tmp_path / "b" / "report.json").exists()

    def test_and_ctrl_c_leave_a_run_to_resume(self, new_trainer, tmp_path):
        class Both(self.Deleting, InterruptedTrainer):
            pass

        run = new_trainer(tmp_path / "b", Both)
        run.names = (".",)
        with pytest.raises(Interrupted):
            run.run()
        assert (tmp_path / "b" / "best.npz").exists()

    def test_the_newest_state_replaces_a_best_one_that_was_deleted_between_two_runs(
        self, new_trainer, tmp_path
    ):
        new_trainer(tmp_path).run()
        (tmp_path / "best.npz").unlink()
        (tmp_path / "report.json").unlink()
        lines = []
        resume(new_trainer(tmp_path, log=lines.append))
        assert lines == [f"{tmp_path / 'best.npz'} is missing; the newest state takes its place"]
        assert (tmp_path / "report.json").exists()
