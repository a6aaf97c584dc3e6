"""A study trains each row once with each seed; interrupted or in parallel, it writes the same files."""

import os
import shutil
import signal

import pytest

from r2unet.commands.main import build_parser
from r2unet.study.plan import open_study, read_plan
from r2unet.study.report import write_report
from r2unet.study.train_study import Resources, train_study
from r2unet.training.interruption import Interrupted
from r2unet.training.trainer import Trainer
from tests.r2unet.study.conftest import read_table, trainings


class TestAStudy:
    def test_has_an_ordinary_training_for_every_row_and_seed(self, study, r2unet):
        out, _ = study
        assert trainings(out) == ["r2u-net/seed-0", "r2u-net/seed-1", "u-net/seed-0", "u-net/seed-1"]
        before = (out / "u-net/seed-1/last.npz").read_bytes()
        code, stdout, _ = r2unet(
            "train", "--resume", "--out", out / "u-net/seed-1", "--model", "unet", "--seed", 1, "--size", 16
        )
        assert code == 0 and "resuming after 2 epochs" in stdout
        assert (out / "u-net/seed-1/last.npz").read_bytes() == before

    def test_that_is_finished_trains_nothing_and_writes_the_same_report(self, study, r2unet, monkeypatch):
        out, words = study
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        monkeypatch.setattr(Trainer, "__init__", None)  # creating a Trainer would fail
        assert r2unet(*words, "--out", out)[0] == 0
        assert r2unet("compare", "own", "--only-report", "--out", out, "--device", "cpu")[0] == 0
        assert {path: path.read_bytes() for path in before} == before

    def test_removes_the_lock_of_a_process_that_was_killed_when_its_training_had_ended(self, study, r2unet):
        out, words = study
        left = out / "u-net/seed-0/.lock"
        left.write_text("process 1 on a machine")
        assert r2unet(*words, "--out", out)[0] == 0
        assert not left.exists()

    def test_gives_the_same_results_in_parallel_processes(self, study, r2unet, tmp_path):
        out, words = study
        new, more = tmp_path / "b", ["--seeds", 1, "--jobs", 2, "--cache", tmp_path / "cache"]
        code, _, err = r2unet(*words, *more, "--out", new)
        assert (code, err) == (0, "")
        assert read_table(new) == [line for line in read_table(out) if line["seed"] == "1"]
        assert trainings(new) == ["r2u-net/seed-1", "u-net/seed-1"]
        for training in trainings(new):
            for name in ("last.npz", "best.npz"):
                assert (new / training / name).read_bytes() == (out / training / name).read_bytes()

    def test_accepts_more_seeds(self, study, r2unet, tmp_path):
        out, _ = study
        new = tmp_path / "a"
        shutil.copytree(out, new)
        words = ["--seeds", "0,1,7", "--out", new, "--device", "cpu"]
        assert "2 rows x 3 seeds: 4 of 6 training runs are finished" in r2unet("compare", "own", *words)[1]
        assert [line for line in read_table(new) if line["seed"] != "7"] == read_table(out)
        assert read_plan(new).seeds == (0, 1, 7) and len(read_table(new)) == 6

    def test_finishes_the_other_trainings_if_one_fails(self, r2unet, study, tmp_path):
        _, words = study
        more = ["--variant=too deep: widths=2,2,2,2,2 batch-size=1", "--out", tmp_path, "--seeds", 0]
        code, stdout, err = r2unet(*words, *more)
        assert code == 2 and err.count("\n") == 1
        assert err.startswith("r2unet: error: too deep, seed 0: 5 images in batches of 1")
        assert "Not finished and left out: too deep with seed 0." in stdout and len(read_table(tmp_path)) == 2

    def test_reports_only_the_errors_if_every_training_fails(self, r2unet, isic_root, tmp_path):
        rows = [f"--variant={row}: widths=2,2,2,2,2 batch-size=1 steps={row}" for row in (1, 2)]
        words = ["own", *rows, "--size=16", "--device=cpu", "--data", isic_root, "--seeds", 0]
        code, _, err = r2unet("compare", *words, "--out", tmp_path)
        first, second = err.splitlines()
        assert code == 2 and "1, seed 0: 5 images in batches of 1" in first and "2, seed 0:" in second


class TestAnInterruptedStudy:
    def test_gives_the_same_results_when_resumed(self, study, tmp_path, isic_root, monkeypatch):
        out, words = study
        options = build_parser().parse_args([*words, "--out", str(tmp_path)])
        given = {name: getattr(options, name) for name in ("data", "size", "widths", "batch_size", "epochs")}
        plan = open_study(tmp_path, "own", given, [1], options.variant)
        step, steps = Trainer.train_step, []

        def interrupting(self, batch):
            steps.append(self.out)
            if len(steps) % 2:
                signal.raise_signal(signal.SIGINT)
            return step(self, batch)

        monkeypatch.setattr(Trainer, "train_step", interrupting)
        interruptions = 0
        while True:
            try:
                errors = train_study(tmp_path, plan, Resources(), log=lambda line: None)
            except Interrupted as stopped:
                interruptions += 1
                assert f"resume with: r2unet compare own --out {tmp_path}" in str(stopped)
            else:
                break
        assert (interruptions, len(steps), errors) == (4, 8, [])  # two epochs of two steps, twice
        before = {training: (out / training / "last.npz").read_bytes() for training in trainings(out)}
        for training in trainings(tmp_path):
            assert (tmp_path / training / "last.npz").read_bytes() == before[training]
        monkeypatch.undo()

        write_report(tmp_path, read_plan(tmp_path), Resources())
        assert read_table(tmp_path) == [line for line in read_table(out) if line["seed"] == "1"]

    @pytest.mark.parametrize("jobs, to", [(1, "group"), (2, "group"), (2, "parent")])
    def test_saves_at_a_single_ctrl_c_and_prints_how_to_resume(self, program, study, tmp_path, jobs, to):
        _, words = study
        more = ["--epochs", 100_000, "--jobs", jobs, "--out", tmp_path]
        child = program(*words, *more, start_new_session=True)
        started = set()
        while len(started) < jobs:  # until every parallel training has finished an epoch
            line = child.stdout.readline()
            assert child.poll() is None
            if "epoch " in line:
                started.add(line.partition(":")[0])
        os.killpg(child.pid, signal.SIGINT) if to == "group" else child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=300)
        assert child.returncode == 130 and err.count("\n") == 1, err
        how = "--jobs 2 --device cpu" if jobs == 2 else "--device cpu"
        assert err.rstrip().endswith(f"resume with: r2unet compare own --out {tmp_path} {how}")
        assert len(trainings(tmp_path)) == jobs and not list(tmp_path.glob("*/*/report.json"))
