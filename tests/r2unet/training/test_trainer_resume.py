"""A training that can be stopped anywhere goes on, byte for byte, as if it had not been."""

import json
import signal
import subprocess
import sys

import pytest

from r2unet.commands.main import main
from r2unet.errors import InputError
from r2unet.training.run_folder import read_state
from r2unet.training.trainer import Interrupted, Trainer


def files(folder):
    """The bytes of what must not depend on whether a training was stopped."""
    return {name: (folder / name).read_bytes() for name in ("last.npz", "best.npz", "history.csv")}


def resume(run):
    """Go on with the newest state in the run's folder, to the end."""
    run.load_state(read_state(run.out / "last.npz"))
    return run.run()


class Stopping(Trainer):
    """Gets Ctrl-C in the middle of step `at`, counted over all epochs: 0 to 2 and 3 to 5."""

    at = 4

    def _step(self, batch):
        if self.schedule.steps == self.at:
            signal.raise_signal(signal.SIGINT)
        return super()._step(batch)


class TestCtrlC:
    # In mid-epoch, in an epoch's last step, in mid-epoch of the second, in the last step of all.
    @pytest.mark.parametrize("at, threads", [(0, 0), (0, 1), (1, 2), (2, 0), (4, 0), (4, 2), (5, 1)])
    def test_and_resume_leave_the_same_bytes(self, new_trainer, tmp_path, trained, at, threads):
        run = new_trainer(tmp_path, Stopping, threads=threads)
        run.at = at
        with pytest.raises(Interrupted, match="go on with: r2unet train --resume --out"):
            run.run()
        assert read_state(tmp_path / "last.npz")["schedule"]["steps"] == at + 1
        resume(new_trainer(tmp_path, threads=threads))
        assert files(tmp_path) == files(trained)

    def test_again_and_again_is_as_never(self, new_trainer, tmp_path, trained):
        for at in range(5):
            run = new_trainer(tmp_path, Stopping)
            run.at = at
            with pytest.raises(Interrupted):
                resume(run) if at else run.run()
        resume(new_trainer(tmp_path))
        assert files(tmp_path) == files(trained)

    def test_and_resume_leave_the_same_average(self, new_trainer, tmp_path):
        new_trainer(tmp_path / "never", ema=0.9).run()
        for at in (0, 3, 4):
            run = new_trainer(tmp_path / "stopped", Stopping, ema=0.9)
            run.at = at
            with pytest.raises(Interrupted):
                resume(run) if at else run.run()
        resume(new_trainer(tmp_path / "stopped", ema=0.9))
        assert files(tmp_path / "stopped") == files(tmp_path / "never")

    def test_while_validating_ends_the_epoch_first(self, new_trainer, tmp_path, trained):
        class Validating(Trainer):
            def _validate(self):
                signal.raise_signal(signal.SIGTERM)  # what a scheduler of jobs sends
                return super()._validate()

        with pytest.raises(Interrupted, match="stopped after 1 epochs and 0 of 3 batches"):
            new_trainer(tmp_path, Validating).run()
        resume(new_trainer(tmp_path, Validating))  # after the last epoch nothing is left to stop
        assert files(tmp_path) == files(trained) and (tmp_path / "overlays.png").exists()

    def test_twice_does_not_wait(self, new_trainer, tmp_path):
        class Impatient(Trainer):
            def _step(self, batch):
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                return super()._step(batch)

        with pytest.raises(KeyboardInterrupt):
            new_trainer(tmp_path, Impatient).run()

    def test_means_afterwards_what_it_did_before(self, new_trainer, tmp_path):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            new_trainer(tmp_path, Stopping).run()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def test_says_a_path_with_spaces_so_that_it_can_be_copied(self, new_trainer, tmp_path):
        with pytest.raises(Interrupted, match="--out '.*/my run'"):
            new_trainer(tmp_path / "my run", Stopping).run()

    def test_and_resume_leave_the_same_bytes_on_each_device(self, new_trainer, tmp_path, device):
        small = {"device": device, "widths": (2,)}
        with pytest.raises(Interrupted):
            new_trainer(tmp_path / "a", Stopping, **small).run()
        resume(new_trainer(tmp_path / "a", **small))
        new_trainer(tmp_path / "b", **small).run()
        assert files(tmp_path / "a") == files(tmp_path / "b")


# Kills itself, as the power or the system would: in a step after so many, or in the middle of a save.
KILLED = """
import os, signal, sys
from r2unet.commands import main as cli
from r2unet.training import trainer as train

train.SAVE_SECONDS = 0.0  # a save after every step
when, count, *words = sys.argv[1:]

def step(self, batch, _step=train.Trainer._step):
    if when == "step" and self.schedule.steps == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return _step(self, batch)

def fsync(descriptor, calls=[]):
    calls.append(descriptor)
    if when == "save" and len(calls) == int(count):
        os.ftruncate(descriptor, 1000)
        os.kill(os.getpid(), signal.SIGKILL)

train.Trainer._step, os.fsync = step, fsync
cli.main(words)
"""


class TestKill:
    # The saves: after steps 1, 2 and 3, best and last of epoch 1, and the same again.
    @pytest.mark.parametrize(
        "when, count, threads, steps",
        [
            ("step", 2, 1, 2),
            ("step", 5, 1, 5),
            ("save", 3, 2, 2),  # in the save of step 3: the file of step 2 still stands
            ("save", 5, 1, 3),  # between best.npz and last.npz
        ],
    )
    def test_leaves_a_whole_checkpoint_to_go_on_from(
        self, tiny, tmp_path, trained, when, count, threads, steps
    ):
        words = ["train", *tiny, "--threads", str(threads), "--out", str(tmp_path)]
        killed = subprocess.run([sys.executable, "-c", KILLED, when, str(count), *words], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert read_state(tmp_path / "last.npz")["schedule"]["steps"] == steps
        assert main([*words, "--resume"]) == 0
        assert files(tmp_path) == files(trained)


class TestGoingOn:
    def test_with_a_finished_training_only_reports(self, new_trainer, tmp_path, trained):
        for name in ("last.npz", "best.npz"):
            (tmp_path / name).write_bytes((trained / name).read_bytes())
        assert resume(new_trainer(tmp_path)) == json.loads((trained / "report.json").read_text())
        assert (tmp_path / "last.npz").read_bytes() == (trained / "last.npz").read_bytes()

    def test_with_another_number_of_images_is_refused(self, new_trainer, tmp_path, trained):
        run = new_trainer(tmp_path, images=13)
        with pytest.raises(InputError, match="holds other images than when this training began"):
            run.load_state(read_state(trained / "last.npz"))

    def test_with_as_many_other_images_is_refused(self, new_trainer, tmp_path, trained):
        run, state = new_trainer(tmp_path), read_state(trained / "last.npz")
        renamed = [sample._replace(name=f"other_{sample.name}") for sample in run.training]
        other = Trainer(run.settings, tmp_path, renamed, run.validation, threads=0)
        with pytest.raises(InputError, match="holds other images than when this training began"):
            other.load_state(state)

    def test_without_the_weights_behind_an_average_is_refused(self, new_trainer, tmp_path, trained):
        with pytest.raises(InputError, match="its parts do not fit together"):
            new_trainer(tmp_path, ema=0.9).load_state(read_state(trained / "last.npz"))

    @pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "random", "history", "batches_done"])
    def test_with_a_state_that_lacks_a_part_is_refused(self, new_trainer, tmp_path, trained, part):
        state = read_state(trained / "last.npz")
        del state[part]
        with pytest.raises(InputError, match="last.npz: its parts do not fit together"):
            new_trainer(tmp_path).load_state(state)

    def test_with_another_network_is_refused(self, new_trainer, tmp_path, trained):
        with pytest.raises(InputError, match="its parts do not fit together"):
            new_trainer(tmp_path, widths=(2, 6)).load_state(read_state(trained / "last.npz"))
