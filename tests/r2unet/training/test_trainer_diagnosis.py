"""A training with the task "diagnosis" or "both": what it learns, saves, resumes, freezes and calibrates."""

import dataclasses
import json

import numpy as np
import pytest

from r2unet.data.classes import CLASSES
from r2unet.data.synthetic import SyntheticLesions
from r2unet.data.targets import class_labels, for_calibration
from r2unet.diagnosis.roc import mean_auc
from r2unet.errors import InputError
from r2unet.prediction.predict import Correction, predict
from r2unet.training.calibrate import calibrate, correction
from r2unet.training.checkpoints import initial_weights, load_model, read_state, write_state
from r2unet.training.export import from_training
from r2unet.training.refit import refit_head
from r2unet.training.run_folder import BEST, LAST
from r2unet.training.settings import Settings
from r2unet.training.state import quality

# Small lesions, but enough of them that each class has images for training, calibration and validation.
DIAGNOSIS = {"size": 16, "widths": (2, 4), "norm": "group", "images": 60, "batch_size": 12}
TASKS = ("diagnosis", "both")


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    """The folders of a finished training of each task; never write into them."""
    from r2unet.commands.main import main

    folders = {task: tmp_path_factory.mktemp("runs") / task for task in TASKS}
    options = ["--size=16", "--widths=2,4", "--norm=group", "--images=60", "--batch-size=12", "--epochs=2"]
    for task, out in folders.items():
        assert main(["train", *options, "--device=cpu", "--task", task, "--out", str(out)]) == 0
    return folders


@pytest.mark.parametrize("task", TASKS)
class TestHistory:
    def test_has_the_scores_of_the_answers_that_the_network_gives(self, diagnosed, task):
        history = read_state(diagnosed[task] / BEST)["history"]
        assert 0.0 <= history[0]["validation_auc"] <= 1.0
        assert ("validation_jaccard" in history[0]) == (task == "both")

    def test_the_best_epoch_has_the_highest_quality(self, diagnosed, task):
        history = read_state(diagnosed[task] / LAST)["history"]
        best = len(read_state(diagnosed[task] / BEST)["history"]) - 1
        assert quality(history[best]) == max(map(quality, history))


def test_the_quality_of_both_answers_is_the_sum_of_their_scores():
    assert quality({"validation_jaccard": 0.5, "validation_auc": 0.75}) == 1.25
    assert quality({"validation_jaccard": 0.5}) == 0.5


@pytest.mark.parametrize("task", TASKS)
def test_the_report_has_the_diagnosis_next_to_its_baselines(diagnosed, task):
    report = json.loads((diagnosed[task] / "report.json").read_text())
    types = report["diagnosis"]["types"]
    baselines = {"class shares"} | ({"logistic regression"} if task == "both" else set())
    assert types.keys() >= {"model", *baselines} and ("model" in report) == (task == "both")
    assert types["class shares"]["mean"]["auc"]["value"] == 0.5
    assert report["diagnosis"]["malignant"]["model"]["images"] == 12  # a fifth of 60
    for name in ("roc.png", "reliability.png", "confusion.png", "curves.png"):
        assert (diagnosed[task] / name).stat().st_size > 1000


@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_resumes_to_the_same_bytes(diagnosed, new_trainer, tmp_path, task):
    """Stopped after its first step, and resumed: the files are those of the run that was never stopped."""
    first = new_trainer(tmp_path, task=task, epochs=2, **DIAGNOSIS)
    first.train_step(next(first.feed.batches()))
    first.state.batches_done = 1
    first.save(LAST)
    second = new_trainer(tmp_path, task=task, epochs=2, **DIAGNOSIS)
    second.load_state(read_state(tmp_path / LAST))
    second.run()
    for name in (BEST, LAST, "report.json", "history.csv"):
        assert (tmp_path / name).read_bytes() == (diagnosed[task] / name).read_bytes(), name


class TestFrom:
    def test_the_encoder_and_the_head_start_from_the_checkpoint(self, diagnosed, new_trainer, tmp_path):
        settings = new_trainer(tmp_path, task="both", **DIAGNOSIS).settings
        lines = []
        weights = initial_weights(diagnosed["both"] / BEST, settings, lines.append)
        run = new_trainer(tmp_path, task="both", start=weights, **DIAGNOSIS)
        saved = load_model(diagnosed["both"] / BEST)[0].state_dict()
        for name, array in run.state.model.state_dict().items():
            np.testing.assert_array_equal(array, saved[name], err_msg=name)
        assert lines[0].endswith("new: none")

    def test_only_what_both_networks_have_is_taken(self, diagnosed, new_trainer, tmp_path):
        """From the diagnosis alone to both: the head pools over more, and there was no decoder."""
        settings = new_trainer(tmp_path, task="both", **DIAGNOSIS).settings
        weights = initial_weights(diagnosed["diagnosis"] / BEST, settings)
        assert {name.split(".")[0] for name in weights.arrays} == {"encoder"}

    @pytest.mark.parametrize(
        "other, option",
        [
            ({"widths": (3, 4)}, "--widths 2,4"),
            ({"model": "resunet"}, "--model r2unet"),
            ({"share_weights": False}, "--share-weights yes"),
            ({"tie_weights": False, "norm": "shared"}, "--tie-weights yes --norm group"),
        ],
    )
    def test_another_encoder_is_refused_with_the_options_to_give(self, diagnosed, other, option):
        path, settings = diagnosed["both"] / BEST, Settings(**{**DIAGNOSIS, **other})
        with pytest.raises(InputError) as caught:
            initial_weights(path, settings)
        assert str(caught.value) == (
            f"{path}: --from: its encoder is not that of this run; give the options of its training, "
            f"{option}, or another checkpoint"
        )

    def test_the_trained_weights_inherit_the_licence(self, diagnosed, new_trainer, tmp_path):
        """It stays with them when the training is resumed, calibrated and exported."""
        source, options = tmp_path / "licensed.npz", {"task": "both", "epochs": 1, **DIAGNOSIS}
        write_state(source, {**read_state(diagnosed["both"] / BEST), "licence": "CC BY-NC"})
        first, lines = new_trainer(tmp_path / "run", **options), []
        start = initial_weights(source, first.settings, lines.append)
        assert lines[1:] == ["the trained weights inherit its licence: CC BY-NC"]
        new_trainer(tmp_path / "run", start=start, **options).save(LAST)
        first.load_state(read_state(tmp_path / "run" / LAST))
        first.run()
        for state in (read_state(tmp_path / "run" / LAST), from_training(tmp_path / "run" / BEST)):
            assert state["licence"] == "CC BY-NC"

    def test_without_a_licence_none_is_stored(self, diagnosed):
        assert "licence" not in read_state(diagnosed["both"] / BEST)

    def test_a_licence_that_is_not_a_text_is_refused(self, diagnosed, new_trainer, tmp_path):
        state = {**read_state(diagnosed["both"] / BEST), "licence": 4}
        write_state(tmp_path / "a.npz", state)
        run = new_trainer(tmp_path, task="both", epochs=2, **DIAGNOSIS)
        calls = (lambda: initial_weights(tmp_path / "a.npz", run.settings), lambda: run.load_state(state))
        for call in calls:
            with pytest.raises(InputError, match="its licence is not a text"):
                call()


@pytest.mark.parametrize("norm", ["group", "per-step"])
def test_a_frozen_encoder_keeps_its_weights_and_running_statistics(new_trainer, tmp_path, norm):
    run = new_trainer(tmp_path, task="both", freeze_encoder=True, epochs=1, **{**DIAGNOSIS, "norm": norm})
    before = run.state.model.state_dict()
    run.run()
    changed = {name for name, array in run.state.model.state_dict().items() if (array != before[name]).any()}
    assert {name.split(".")[0] for name in changed} == {"up", "decoder", "head", "diagnosis"}


@pytest.fixture(scope="module", params=TASKS)
def refitted(request, tmp_path_factory):
    """The folders of the same training without and with --refit-head; never write into them."""
    from r2unet.commands.main import main

    folders = [tmp_path_factory.mktemp("runs") / name for name in ("without", "with")]
    words = ["--size=16", "--widths=2,4", "--norm=group", "--images=60", "--batch-size=12", "--epochs=1"]
    words += ["--ema=0.9", "--device=cpu", "--task", request.param]
    for out, more in zip(folders, ([], ["--refit-head"]), strict=True):
        assert main(["train", *words, *more, "--out", str(out)]) == 0
    return folders


class TestRefit:
    def test_replaces_the_head_of_the_best_epoch_alone(self, refitted):
        without, new = (read_state(out / BEST) for out in refitted)
        changed = {n for n, a in new["model"].items() if (a != without["model"][n]).any()}
        assert changed == {"diagnosis.linear.weight", "diagnosis.linear.bias"}
        last = [read_state(out / LAST) for out in refitted]
        for name, array in last[0]["model"].items():
            np.testing.assert_array_equal(last[1]["model"][name], array)

    def test_fits_the_head_to_the_training_images_before_the_temperature(self, refitted):
        model, settings, state = load_model(refitted[1] / BEST)
        training = SyntheticLesions(settings.images, settings.size, seed=settings.seed)
        found = state["diagnosis"]["temperature"]
        assert found == pytest.approx(calibrate(model, settings, training)["temperature"])
        expected = load_model(refitted[0] / BEST)[0]
        refit_head(expected, settings, training)
        for name in ("weight", "bias"):
            np.testing.assert_array_equal(
                getattr(model.diagnosis.linear, name).data, getattr(expected.diagnosis.linear, name).data
            )

    def test_a_training_resumes_with_the_head_that_it_has_trained(self, refitted, new_trainer, tmp_path):
        """Also from best.npz, if last.npz is damaged."""
        settings = load_model(refitted[1] / BEST)[1]
        options = {name: getattr(settings, name) for name in ("task", "ema", "refit_head")}
        run = new_trainer(tmp_path, epochs=1, **options, **DIAGNOSIS)
        run.load_state(read_state(refitted[1] / BEST))
        expected = read_state(refitted[1] / LAST)["model"]
        for name, array in run.state.state_dict()["model"].items():
            np.testing.assert_array_equal(array, expected[name])

    def test_an_outline_alone_has_no_head_to_refit(self, new_trainer, tmp_path):
        new_trainer(tmp_path, task="outline", refit_head=True)

    def test_a_head_that_is_too_large_is_refused_before_the_training(self, new_trainer, tmp_path):
        options = {**DIAGNOSIS, "widths": (1, 900), "task": "both", "refit_head": True}
        with pytest.raises(InputError, match="--refit-head: the head has 10,803 numbers"):
            new_trainer(tmp_path, **options)


def test_balanced_sampling_draws_all_classes_equally_often(new_trainer, tmp_path):
    run = new_trainer(tmp_path, task="diagnosis", balanced=True, **{**DIAGNOSIS, "images": 200})
    classes = CLASSES["types-3"]
    label = {s.name: c for s, c in zip(run.training, class_labels(run.training, classes), strict=True)}
    known = {s.name for s in run.training if not for_calibration(s)}
    drawn = [label[n] for _ in range(20) for b in run.feed.batches() for n in b.names if n in known]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)


def test_balanced_sampling_changes_nothing_without_a_diagnosis(new_trainer, tmp_path):
    drawn = [
        [batch.names for batch in new_trainer(tmp_path, balanced=balanced).feed.batches()]
        for balanced in (False, True)
    ]
    assert drawn[0] == drawn[1]


class TestCalibration:
    def test_its_images_are_never_told_their_class(self, new_trainer, tmp_path):
        run = new_trainer(tmp_path, task="diagnosis", **DIAGNOSIS)
        targets = run.targets(list(run.training)).sum(axis=1)
        kept = np.array([for_calibration(sample) for sample in run.training])
        assert 0 < kept.sum() < 15 and (targets[kept] == 0).all() and (targets[~kept] > 0).all()

    def test_the_temperature_fits_the_images_that_were_kept(self, diagnosed):
        """No other temperature gives their classes a higher likelihood."""
        model, settings, _ = load_model(diagnosed["both"] / BEST)
        training = SyntheticLesions(300, 16, seed=5)
        entry = calibrate(model, settings, training)
        kept = [s for s in training if for_calibration(s)]
        labels = class_labels(kept, CLASSES["types-3"])

        def likelihood(factor):
            fix = correction({"diagnosis": entry}, tta=False)
            fix = Correction(fix.temperature * factor, fix.log_weights)
            p = predict(model, [s.image for s in kept], correction=fix).diagnosis
            return np.log(p[np.arange(len(kept)), labels]).mean()

        assert len(kept) > 20 and likelihood(1.0) > max(likelihood(0.9), likelihood(1.1))

    def test_the_weights_of_the_classes_are_divided_out(self):
        """Softmax with weights (4, 1) in the loss learns 4 p : q; the correction returns p : q."""
        logits = np.log([[4 * 0.2, 0.8]])
        np.testing.assert_allclose(Correction(1.0, np.log([4.0, 1.0]))(logits), [[0.2, 0.8]])


def test_it_learns_to_tell_the_generated_lesions_apart(new_trainer, tmp_path):
    settings = {"size": 32, "widths": (4, 8, 16), "images": 150, "batch_size": 8, "epochs": 4, "lr": 1e-2}
    run = new_trainer(tmp_path, task="diagnosis", norm="group", augment=0.0, **settings)
    run.run()
    p = predict(load_model(tmp_path / BEST)[0], [s.image for s in run.validation]).diagnosis
    assert mean_auc(p, run.validation_labels) > 0.75


def test_a_class_without_images_is_an_error(new_trainer, tmp_path):
    with pytest.raises(InputError, match="--classes: .*basal_cell_carcinoma"):
        new_trainer(tmp_path, task="diagnosis", classes="types-7", **DIAGNOSIS)


def test_an_unchanged_outline_training_has_no_diagnosis(new_trainer, tmp_path):
    state = new_trainer(tmp_path).state
    assert not any(name.startswith("diagnosis") for name in state.model.state_dict())
    assert dataclasses.asdict(state.settings)["task"] == "outline"
