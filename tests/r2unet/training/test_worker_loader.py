"""Batches prepared by worker processes: those of the threads, whatever happens to the processes."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from r2unet.data.targets import DiagnosisTargets
from r2unet.training.checkpoints import read_state
from r2unet.training.device_feed import DeviceFeed
from r2unet.training.feed import CpuFeed
from r2unet.training.interruption import Interrupted
from r2unet.training.trainer import Trainer
from r2unet.training.worker_loader import WorkerLoader
from tests.r2unet.training.test_feed import arrays, new_feed, random_samples
from tests.r2unet.training.test_trainer_resume import InterruptedTrainer, files, resume


def noisy(sample, rng):
    """A random transform: the sample, a number drawn for it, and the process that drew it."""
    return sample, int(rng.integers(10**9)), os.getpid()


def fails_at_105(sample, rng):
    if sample == 105:
        raise OSError("sample 105 cannot be read")
    return sample


def make(workers, transform=noisy, **options):
    return WorkerLoader(
        list(range(100, 111)),
        4,
        shuffle=True,
        rng=np.random.default_rng(3),
        transform=transform,
        workers=workers,
        **options,
    )


def without_processes(batches):
    return [[sample[:2] for sample in batch] for batch in batches]


def processes_of(batches):
    return {pid for batch in batches for _, _, pid in batch}


class TestWorkerLoader:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_has_the_batches_and_the_generator_of_a_loader_without_workers(self, workers):
        threads = make(workers=0, threads=2)
        with make(workers) as loader:
            for start in (0, 1, 2, 0):
                batches = list(loader.batches(start))
                assert without_processes(batches) == without_processes(threads)[start:]
                assert loader.rng.bit_generator.state == threads.rng.bit_generator.state
                assert os.getpid() not in processes_of(batches) and len(processes_of(batches)) <= workers
        assert not multiprocessing.active_children()

    def test_the_processes_remain_from_one_epoch_to_the_next_even_if_it_is_not_read_to_its_end(self):
        reference = make(workers=0)
        with make(workers=1) as loader:
            pids = set()
            for _ in range(3):
                batches = loader.batches()
                first = [next(batches)]
                assert without_processes(first) == without_processes(reference)[:1]
                pids |= processes_of(first)
        assert len(pids) == 1

    def test_without_workers_no_process_starts(self):
        with make(workers=0) as loader:
            assert processes_of(loader) == {os.getpid()}
            assert not multiprocessing.active_children()

    def test_an_exception_reaches_the_caller_in_its_place(self):
        reference, received = list(make(workers=0, transform=None)), []
        with pytest.raises(OSError, match="sample 105 cannot be read"), make(2, fails_at_105) as loader:
            for batch in loader:
                received.append(batch)
        assert received == reference[: len(received)] and 105 in reference[len(received)]

    def test_part_is_the_slice_that_is_loaded_here(self):
        def half(count):
            return slice(count // 2)

        with make(workers=1, part=half) as loader:
            assert without_processes(loader) == without_processes(make(workers=0, part=half))


class TestFeed:
    @pytest.mark.parametrize("start", [0, 2])
    def test_has_the_same_bits_as_with_threads(self, device, start):
        samples = list(random_samples(21, 24))
        targets = DiagnosisTargets(samples, ("nevus",))
        for kind in {CpuFeed, DeviceFeed if device != "cpu" else CpuFeed}:
            threads, workers = (new_feed(kind, samples, device, targets=targets, workers=w) for w in (0, 2))
            with workers.loader:
                for _ in range(2):  # epochs
                    expected, found = list(threads.batches(start)), list(workers.batches(start))
                    assert [batch.names for batch in found] == [batch.names for batch in expected]
                    for name in ("images", "masks", "targets"):
                        np.testing.assert_array_equal(arrays(found, name), arrays(expected, name))


class KillingTrainer(Trainer):
    """Kills one of its worker processes in the first step, and all of them in the last of the first epoch."""

    def train_step(self, batch):
        workers = multiprocessing.active_children()
        for victim in {0: workers[:1], 2: workers}.get(self.state.schedule.steps, []):
            victim.kill()
            victim.join()
        return super().train_step(batch)


class TestTraining:
    def test_writes_the_files_of_a_training_with_threads(self, new_trainer, tmp_path, trained):
        lines = []
        new_trainer(tmp_path, workers=2, log=lines.append).run()
        assert files(tmp_path) == files(trained) and not multiprocessing.active_children()
        assert lines[0] == "batches are prepared by 2 worker processes (there is no GPU)"

    def test_and_so_does_one_whose_workers_are_killed(self, new_trainer, tmp_path, trained, capsys):
        new_trainer(tmp_path, KillingTrainer, workers=3).run()
        assert files(tmp_path) == files(trained) and not multiprocessing.active_children()
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].endswith("; 2 more do its work") and lines[-1].endswith(
            "; this process does its work"
        )

    @pytest.mark.parametrize("at", [1, 4])
    def test_is_interrupted_and_resumed_with_another_number(self, new_trainer, tmp_path, trained, at):
        run = new_trainer(tmp_path, InterruptedTrainer, workers=2)
        run.at = at
        with pytest.raises(Interrupted):
            run.run()
        assert not multiprocessing.active_children()
        resume(new_trainer(tmp_path, workers=1))
        assert files(tmp_path) == files(trained)

    def test_is_profiled_and_leaves_no_process(self, r2unet, tiny, tmp_path):
        code, out, _ = r2unet("train", *tiny, "--profile", "--workers", 1, "--out", tmp_path / "a")
        assert code == 0 and "by 1 worker process " in out and not multiprocessing.active_children()

    @pytest.fixture
    def training(self, program, tiny, tmp_path):
        """A training that goes on for long, and its workers, when its first epoch has ended."""
        words = "train", *tiny, "--epochs", 100_000, "--workers", 2, "--out", tmp_path / "run"
        child = program(*words, start_new_session=True)
        lines = [child.stdout.readline()]
        while not lines[-1].startswith("epoch "):
            lines.append(child.stdout.readline())
            assert child.poll() is None
        assert "batches are prepared by 2 worker processes (there is no GPU)\n" in lines
        yield child
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_saves_when_a_signal_is_sent_to_all_its_group(self, training, tmp_path, number):
        os.killpg(training.pid, number)
        _, err = training.communicate(timeout=120)  # returns when no process has its output open
        assert training.returncode == 130
        assert err.count("\n") == 1 and err.endswith(" --device cpu --workers 2\n")
        assert read_state(tmp_path / "run" / "last.npz")["history"]

    def test_that_is_killed_leaves_no_process(self, training):
        training.kill()
        training.communicate(timeout=120)  # returns when no process has its output open
        assert training.returncode == -signal.SIGKILL


class TestStudy:
    @pytest.fixture
    def compare(self, r2unet, tiny, tmp_path):
        """Return a function that trains a study of two runs, and returns its result and both last.npz."""

        def run(name, *more):
            rows = "--variant", "a: steps=1", "--variant", "b: steps=2", "--seeds", "0"
            study = "compare", "own", *tiny, "--epochs", 1, *rows, "--pictures", 1
            result = r2unet(*study, "--out", tmp_path / name, *more)
            return *result, [path.read_bytes() for path in sorted((tmp_path / name).rglob("last.npz"))]

        return run

    def test_trains_one_run_after_another_with_workers(self, compare):
        code, out, _, states = compare("a", "--workers", 1)
        assert code == 0 and out.count("batches are prepared by 1 worker process (") == 2
        code, out, _, others = compare("b", "--jobs", 2)
        assert code == 0 and "worker" not in out and states == others and len(states) == 2

    def test_of_runs_at_the_same_time_is_refused_with_workers(self, compare):
        code, _, err, states = compare("c", "--jobs", 2, "--workers", 2)
        assert code == 2 and states == []
        assert "--workers 2: runs that are trained at the same time prepare their own batches; omit" in err
