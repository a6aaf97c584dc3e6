"""A study trains each row with each seed once, wherever it is stopped, and says what its runs say."""

import csv
import json
import os
import shutil
import signal
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet.commands.options import build_parser
from r2unet.errors import InputError
from r2unet.scores.metrics import bootstrap_interval
from r2unet.study.compare import Resources, train_study
from r2unet.study.findings import agreement, collect, compare_runs, read_run
from r2unet.study.plan import begin_study, read_plan
from r2unet.study.studies import STUDIES, Variant, make_rows
from r2unet.training.settings import Settings
from r2unet.training.trainer import Interrupted, Trainer

# Two rows with two seeds, 6 and 2 images of 16 pixels, two epochs of two steps.
ROWS = ["--variant=U-Net: model=unet", "--variant=R2U-Net: steps=1"]
SMALL = ["--size=16", "--widths=2,4", "--batch-size=4", "--epochs=2", "--device=cpu"]
TIMES = {"seconds_per_epoch"}
PICTURES = {"bars.png", "curves.png", "overlays.png"}


def table(out):
    """The lines of table.csv without what is about time."""
    lines = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def isic_root(tmp_path_factory):
    """A folder laid out like ISIC 2017, with 5 lesions for training and 3 for validation."""
    from tests.r2unet.conftest import write_lesion

    root = tmp_path_factory.mktemp("data") / "isic"
    for number in range(8):
        write_lesion(root, "Training" if number < 5 else "Validation", number)
    return root


@pytest.fixture(scope="module")
def study(isic_root, tmp_path_factory):
    """The folder and the command of a study that was never stopped; never write into it."""
    from r2unet.commands.main import main

    out = tmp_path_factory.mktemp("studies") / "own"
    words = ["compare", "own", *ROWS, *SMALL, "--data", str(isic_root)]
    assert main([*words, "--out", str(out)]) == 0
    return out, words


def runs_of(out):
    return sorted(path.parent.relative_to(out).as_posix() for path in out.glob("*/*/last.npz"))


class TestAStudy:
    def test_leaves_an_ordinary_run_for_every_row_and_seed(self, study, r2unet):
        out, _ = study
        assert runs_of(out) == ["r2u-net/seed-0", "r2u-net/seed-1", "u-net/seed-0", "u-net/seed-1"]
        before = (out / "u-net/seed-1/last.npz").read_bytes()
        code, stdout, _ = r2unet(
            "train", "--resume", "--out", out / "u-net/seed-1", "--model", "unet", "--seed", 1, "--size", 16
        )
        assert code == 0 and "going on after 2 epochs" in stdout
        assert (out / "u-net/seed-1/last.npz").read_bytes() == before

    def test_takes_the_same_trainings_from_another_study(self, study, isic_root, r2unet, tmp_path):
        out, _ = study
        rows = ["--variant=plain: model=unet", "--variant=R2U-Net: steps=2"]  # the first is the other's U-Net
        data = isic_root.parent / "isic" / ".." / "isic"  # the same folder, by another name
        words = "compare", "own", *rows, *SMALL, "--data", data, "--reuse", out, "--out", tmp_path / "b"
        code, stdout, _ = r2unet(*words)
        assert code == 0 and "2 rows x 2 seeds: 2 of 4 are finished" in stdout
        for seed in (0, 1):
            assert f"plain, seed {seed}: the same training as {out}/u-net/seed-{seed}\n" in stdout
            for name in ("best.npz", "report.json", "seconds.csv"):
                copied, made = (d / f"seed-{seed}" / name for d in (tmp_path / "b/plain", out / "u-net"))
                assert copied.read_bytes() == made.read_bytes()
        assert "the same training" not in r2unet(*words)[1]  # it is there already

    def test_takes_no_training_on_other_data_or_from_no_study(self, study, isic_root, r2unet, tmp_path):
        out, _ = study
        shutil.copytree(isic_root, tmp_path / "isic")
        words = "compare", "own", *ROWS, *SMALL, "--data", tmp_path / "isic", "--out", tmp_path / "b"
        code, stdout, _ = r2unet(*words, "--reuse", out)
        assert code == 0 and "0 of 4 are finished" in stdout
        assert "--reuse: no training there has the data and settings" in stdout
        code, _, err = r2unet(*words[:-1], tmp_path / "c", "--reuse", tmp_path)
        assert code == 2 and "study.json: is no plan of a study" in err and "choose another --reuse" in err
        assert not (tmp_path / "c").exists()
        code, _, err = r2unet(*words, "--reuse", out, "--only-report")
        assert code == 2 and "--reuse: is for trainings that are yet to come" in err

    def test_s_table_repeats_the_runs_own_numbers(self, study):
        out, _ = study
        lines = table(out)
        assert [(line["variant"], line["seed"]) for line in lines] == [
            ("U-Net", "0"),
            ("U-Net", "1"),
            ("R2U-Net", "0"),
            ("R2U-Net", "1"),
        ]
        for line in lines:
            folder = out / line["variant"].lower() / f"seed-{line['seed']}"
            history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
            jaccards = [float(row["validation_jaccard"]) for row in history]
            assert float(line["jaccard"]) == pytest.approx(max(jaccards), abs=1e-12)
            assert int(line["best_epoch"]) == 1 + jaccards.index(max(jaccards))
            assert (line["epochs"], line["images"]) == ("2", "3")
            best = history[int(line["best_epoch"]) - 1]
            for name in ("dice", "thresholded_jaccard", "accuracy", "sensitivity", "specificity"):
                assert float(line[name]) == pytest.approx(float(best[f"validation_{name}"]), abs=1e-12)

    def test_s_markdown_gives_the_mean_and_the_range_of_the_seeds(self, study):
        out, _ = study
        text = (out / "table.md").read_text()
        for variant in ("U-Net", "R2U-Net"):
            values = [float(line["jaccard"]) for line in table(out) if line["variant"] == variant]
            cell = f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
            (line,) = [line for line in text.splitlines() if line.startswith(f"| {variant} |")]
            assert cell in line
        assert "2 seeds (0,1)" in text and "Otsu's threshold" in text and "Not finished" not in text

    def test_s_trainings_are_compared_image_by_image(self, study):
        out, _ = study
        findings = collect(out, read_plan(out))
        jaccards = [list(run.jaccards.values()) for finding in findings for run in finding.runs]
        pairs = [np.corrcoef(a, b)[0, 1] for a, b in combinations(jaccards, 2)]
        alike = agreement(findings)
        assert alike.correlation == pytest.approx(np.mean(pairs))
        low = [i for i, each in enumerate(zip(*jaccards, strict=True)) if max(each) < 0.65]
        missing = 1 - np.mean(jaccards, axis=0)
        assert alike.low_everywhere == len(low)
        assert alike.share == pytest.approx(missing[low].sum() / missing.sum())
        assert f"correlate by {np.mean(pairs):.2f} with those in another" in (out / "table.md").read_text()
        alone = findings[0]._replace(runs=findings[0].runs[:1])
        assert agreement([alone]) is None

    def test_s_difference_is_paired_over_images_and_averaged_over_seeds(self, study):
        out, _ = study
        by_seed = []
        for seed in (0, 1):
            of = {
                row: json.loads((out / row / f"seed-{seed}/report.json").read_text())["model"]
                for row in ("u-net", "r2u-net")
            }
            a, b = (of[row]["jaccard_by_image"] for row in ("r2u-net", "u-net"))
            by_seed.append([a[name] - b[name] for name in sorted(a)])
        values = np.mean(by_seed, axis=0)  # (images,)
        difference = json.loads((out / "results.json").read_text())["rows"][1]["difference"]
        assert difference["mean"] == pytest.approx(values.mean())
        assert difference["by_seed"]["1"] == pytest.approx(np.mean(by_seed[1]))
        assert difference["interval"] == bootstrap_interval(values, np.random.default_rng(0))

    def test_s_json_holds_what_is_needed_to_repeat_it(self, study, isic_root):
        out, _ = study
        found = json.loads((out / "results.json").read_text())
        assert (found["study"], found["seeds"], found["unfinished"]) == ("own", [0, 1], [])
        assert found["settings"]["data"] == str(isic_root) and found["machine"]["device"] == "cpu"
        first, second = found["rows"]
        assert (first["settings"]["model"], second["settings"]["steps"]) == ("unet", 1)
        assert first["difference"] is None and len(second["runs"][1]["history"]) == 2
        assert [run["seconds"] > 0 for row in found["rows"] for run in row["runs"]] == [True] * 4

    def test_draws_its_pictures(self, study):
        out, _ = study
        assert {path.name for path in out.glob("*.png")} == PICTURES
        for name in PICTURES:
            with Image.open(out / name) as picture:
                assert np.asarray(picture.convert("L")).std() > 5
        with Image.open(out / "overlays.png") as picture:  # three images of 32 x 24 pixels
            assert picture.height == pytest.approx(150 * (0.7 + 3 * (1.5 * 24 / 32 + 0.06)), abs=2)

    def test_that_is_finished_trains_nothing_and_writes_the_same(self, study, r2unet, monkeypatch):
        out, words = study
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        monkeypatch.setattr(Trainer, "__init__", None)  # to make one would fail
        assert r2unet(*words, "--out", out)[0] == 0
        assert r2unet("compare", "own", "--only-report", "--out", out, "--device", "cpu")[0] == 0
        assert {path: path.read_bytes() for path in before} == before

    def test_gives_the_same_side_by_side(self, study, r2unet, tmp_path):
        out, words = study
        new, more = tmp_path / "b", ["--seeds", 1, "--jobs", 2, "--cache", tmp_path / "cache"]
        code, _, err = r2unet(*words, *more, "--out", new)
        assert (code, err) == (0, "")
        assert table(new) == [line for line in table(out) if line["seed"] == "1"]
        assert runs_of(new) == ["r2u-net/seed-1", "u-net/seed-1"]
        for run in runs_of(new):
            for name in ("last.npz", "best.npz"):
                assert (new / run / name).read_bytes() == (out / run / name).read_bytes()

    def test_goes_on_with_more_seeds(self, study, r2unet, tmp_path):
        out, _ = study
        new = tmp_path / "a"
        shutil.copytree(out, new)
        words = ["--seeds", "0,1,7", "--out", new, "--device", "cpu"]
        assert "2 rows x 3 seeds: 4 of 6 are finished" in r2unet("compare", "own", *words)[1]
        assert [line for line in table(new) if line["seed"] != "7"] == table(out)
        assert read_plan(new).seeds == (0, 1, 7) and len(table(new)) == 6

    def test_scores_originals_as_evaluate_does(self, study, r2unet, isic_root):
        out, _ = study
        code, _, _ = r2unet("compare", "own", "--only-report", "--originals", "--out", out)
        checkpoint = out / "u-net/seed-0/best.npz"
        answer = r2unet("evaluate", "--checkpoint", checkpoint, "--data", isic_root, "--json")[1]
        assert code == 0
        expected = json.loads(answer)["scores"]["model"]["mean"]
        assert float(table(out)[0]["jaccard"]) == pytest.approx(expected["jaccard"])
        assert "scored at their original size" in (out / "table.md").read_text()
        assert r2unet("compare", "own", "--only-report", "--out", out)[0] == 0  # as it was


class TestStopped:
    def test_anywhere_and_gone_on_with_it_leaves_the_same(self, study, tmp_path, isic_root, monkeypatch):
        out, words = study
        options = build_parser().parse_args([*words, "--out", str(tmp_path)])
        given = {name: getattr(options, name) for name in ("data", "size", "widths", "batch_size", "epochs")}
        plan = begin_study(tmp_path, "own", given, [1], options.variant)
        step, steps = Trainer._step, []

        def stopping(self, batch):
            steps.append(self.out)
            if len(steps) % 2:
                signal.raise_signal(signal.SIGINT)
            return step(self, batch)

        monkeypatch.setattr(Trainer, "_step", stopping)
        stops = 0
        while True:
            try:
                faults = train_study(tmp_path, plan, Resources(), say=lambda line: None)
            except Interrupted as stopped:
                stops += 1
                assert f"go on with: r2unet compare own --out {tmp_path}" in str(stopped)
            else:
                break
        assert (stops, len(steps), faults) == (4, 8, [])  # two epochs of two steps, twice
        for run in runs_of(tmp_path):
            assert (tmp_path / run / "last.npz").read_bytes() == (out / run / "last.npz").read_bytes()
        monkeypatch.undo()
        from r2unet.study.report import write_report

        write_report(tmp_path, read_plan(tmp_path), Resources())
        assert table(tmp_path) == [line for line in table(out) if line["seed"] == "1"]

    @pytest.mark.parametrize("jobs, to", [(1, "group"), (2, "group"), (2, "parent")])
    def test_by_ctrl_c_once_it_says_how_to_go_on(self, program, study, tmp_path, jobs, to):
        _, words = study
        more = ["--epochs", 100_000, "--jobs", jobs, "--out", tmp_path]
        child = program(*words, *more, start_new_session=True)
        seen = set()
        while len(seen) < jobs:  # each of the trainings that run is in the middle of it
            line = child.stdout.readline()
            assert child.poll() is None
            if "epoch " in line:
                seen.add(line.partition(":")[0])
        os.killpg(child.pid, signal.SIGINT) if to == "group" else child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=300)
        assert child.returncode == 130 and err.count("\n") == 1, err
        how = "--jobs 2 --device cpu" if jobs == 2 else "--device cpu"
        assert err.rstrip().endswith(f"go on with: r2unet compare own --out {tmp_path} {how}")
        assert len(runs_of(tmp_path)) == jobs and not list(tmp_path.glob("*/*/report.json"))


class TestFaults:
    def test_of_one_training_do_not_stop_the_others(self, r2unet, study, tmp_path):
        _, words = study
        more = ["--variant=too deep: widths=2,2,2,2,2 batch-size=1", "--out", tmp_path, "--seeds", 0]
        code, stdout, err = r2unet(*words, *more)
        assert code == 2 and err.count("\n") == 1
        assert err.startswith("r2unet: error: too deep, seed 0: 5 images in batches of 1")
        assert "Not finished, and left out: too deep with seed 0." in stdout and len(table(tmp_path)) == 2


class TestRefused:
    @pytest.mark.parametrize(
        "words, told",
        [
            (["skips", "--out", "a", "--skips", "add"], "--skips: is what skips compares"),
            (["variants", "--out", "a", "--steps", "3"], "U-Net: --steps 3: unet has no recurrence"),
            (["own", "--out", "a"], "own: has no rows yet; give each with --variant"),
            (["own", "--out", "a", ROWS[0]], "own: needs two rows"),
            (["own", "--out", "a", ROWS[0], "--variant=u net: steps=1"], "another row has this name already"),
            (["own", "--out", "a", ROWS[0], "--variant=?: steps=1"], "cannot name a folder"),
            (["skips", "--out", "a", "--only-report"], "--only-report: a holds no study"),
            (["skips", "--out", "a", "--data", "nowhere"], "nowhere: there is no such folder"),
            (["skips", "--out", "a", "--originals", "--only-report"], "a holds no study"),
        ],
    )
    def test_before_anything_is_written(self, r2unet, tmp_path, monkeypatch, words, told):
        monkeypatch.chdir(tmp_path)
        code, _, err = r2unet("compare", *words)
        assert code == 2 and err.count("\n") == 1 and told in err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "words, told",
        [
            (["wings", "--out", "a"], "invalid choice: 'wings'"),
            (["skips"], "--out"),
            (["skips", "--out", "a", "--seeds", "0,one"], "got 'one'; write them as 0,1,2"),
            (["skips", "--out", "a", "--seeds", "1,1"], "a seed is there twice"),
            (["skips", "--out", "a", "--jobs", "0"], "--jobs: want a whole number from 1 to 64"),
            (["own", "--out", "a", "--variant", "steps=1"], "want LABEL: SETTING=VALUE"),
            (["own", "--out", "a", "--variant", "x: model=u-net"], "--model: want one of unet"),
            (["own", "--out", "a", "--variant", "x: seed=1"], "--seed=1"),
        ],
    )
    def test_as_an_option_that_cannot_be(self, r2unet, words, told):
        code, _, err = r2unet("compare", *words)
        assert code == 2 and err.count("\n") == 1 and told in err

    @pytest.mark.parametrize(
        "words, told",
        [
            (["skips"], "holds the study own, not skips"),
            (["own", "--epochs", 3], "--epochs 3: the study in"),
            (["own", "--seeds", "1,2"], "has seed 0 too; seeds can be added, not taken away"),
            (["own", "--variant", "x: steps=3"], "began with other rows"),
        ],
    )
    def test_where_another_study_is(self, r2unet, study, words, told):
        out, _ = study
        before = (out / "study.json").read_bytes()
        code, _, err = r2unet("compare", *words, "--out", out)
        assert code == 2 and err.count("\n") == 1 and told in err
        assert (out / "study.json").read_bytes() == before

    @pytest.mark.parametrize("content", ["", "[]", '{"study": "own"}', '{"study": "x", "variants": []}'])
    def test_a_plan_that_is_none(self, tmp_path, content):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(InputError, match="study.json: is no plan of a study"):
            read_plan(tmp_path)

    def test_a_report_without_a_finished_training(self, study, tmp_path):
        out, _ = study
        (tmp_path / "study.json").write_bytes((out / "study.json").read_bytes())
        with pytest.raises(InputError, match="no training of this study is finished"):
            collect(tmp_path, read_plan(tmp_path))

    def test_a_damaged_run_is_named(self, study, tmp_path):
        out, _ = study
        for name in ("report.json", "history.csv"):
            (tmp_path / name).write_bytes((out / "u-net/seed-0" / name).read_bytes())
        (tmp_path / "report.json").write_text("{")
        with pytest.raises(InputError, match="report.json: cannot be used"):
            read_run(tmp_path, 0)


class TestTheReadyStudies:
    @pytest.mark.parametrize("name", ["variants", "skips", "norm", "tuning"])
    def test_are_of_settings_that_can_be(self, name):
        rows = make_rows(STUDIES[name].variants, Settings(data="isic"))
        assert len(rows) == {"variants": 7, "skips": 3, "norm": 6, "tuning": 11}[name]
        assert len({row.folder for row in rows}) == len({row.settings for row in rows}) == len(rows)

    def test_tuning_keeps_the_values_around_one_that_is_given(self):
        labels = [row.label for row in make_rows(STUDIES["tuning"].variants, Settings(lr=2e-3))]
        assert {"lr 0.0003", "lr 0.001", "lr 0.003"} <= set(labels) and "steps 2" not in labels

    def test_rows_share_their_images(self):
        with pytest.raises(InputError, match="other: --images must be the same in all rows"):
            make_rows([Variant("other", {"images": 5})], Settings())

    def test_norm_also_scores_in_train_mode(self, r2unet, tmp_path):
        words = ["--images", 6, "--seeds", 0, "--epochs", 1, *SMALL[:3], "--device", "cpu"]
        code, stdout, _ = r2unet("compare", "norm", *words, "--out", tmp_path)
        assert code == 0 and "Jaccard, train mode" in stdout
        for line in table(tmp_path):
            folder = tmp_path / line["variant"].lower().replace(", ", "-") / "seed-0"
            modes = json.loads((folder / "modes.json").read_text())
            assert float(line["jaccard_train_mode"]) == modes["jaccard_train_mode"]
            assert float(line["jaccard"]) == pytest.approx(modes["jaccard_eval_mode"])
            if "group" in line["variant"]:
                assert line["jaccard_train_mode"] == line["jaccard_eval_mode"]

    def test_tuning_draws_a_panel_a_factor(self, r2unet, tmp_path, monkeypatch):
        from r2unet.study import report as compare_report
        from r2unet.study import studies

        factors = {"lr": (1e-3, 1e-2), "loss": ("bce", "bce+dice"), "steps": (2, 0)}
        small = STUDIES["tuning"]._replace(variants=studies._one_at_a_time(**factors), factors=tuple(factors))
        monkeypatch.setitem(STUDIES, "tuning", small)
        words = ["--images", 6, "--seeds", 0, "--epochs", 1, *SMALL[:3], "--device", "cpu"]
        assert r2unet("compare", "tuning", *words, "--out", tmp_path)[0] == 0
        assert (tmp_path / "factors.png").exists()
        plan = read_plan(tmp_path)
        panels = compare_report.factor_panels(plan, collect(tmp_path, plan))
        assert {name: [(p.value, p.default) for p in points] for name, points in panels.items()} == {
            "lr": [("0.001", True), ("0.01", False)],
            "loss": [("bce+dice", True), ("bce", False)],
            "steps": [("0", False), ("2", True)],
        }
        jaccards = {line["variant"]: float(line["jaccard"]) for line in table(tmp_path)}
        assert panels["lr"][1].jaccards == [jaccards["lr 0.01"]]


def test_generated_lesions_of_two_seeds_are_images_of_their_own(study):
    out, _ = study
    runs = [[read_run(out / row / f"seed-{seed}", seed) for seed in (0, 1)] for row in ("r2u-net", "u-net")]
    same, own = (compare_runs(*runs, same_images) for same_images in (True, False))
    assert same.mean == pytest.approx(own.mean) and same.by_seed == own.by_seed
    assert same.interval != own.interval


def test_variants_are_written_as_the_options_of_train():
    line = ["compare", "own", "--out", "a", "--variant", "a b, t=3: model=r2unet widths=2,4 share_weights=no"]
    (variant,) = build_parser().parse_args(line).variant
    assert variant == ("a b, t=3", {"model": "r2unet", "widths": (2, 4), "share_weights": False})
    assert build_parser().parse_args(line).out == Path("a")
