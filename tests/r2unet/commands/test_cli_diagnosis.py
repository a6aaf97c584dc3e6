"""The commands with a network that predicts a diagnosis, as a user would type them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet.commands.main import main
from r2unet.data.synthetic import SyntheticLesions, make_lesion
from r2unet.training.calibrate import calibrate
from r2unet.training.checkpoints import PRETRAINED, load_model, read_state, write_state
from r2unet.training.refit import refit_head

TASKS = ("diagnosis", "both")
OPTIONS = ["--size=16", "--widths=2,4", "--norm=group", "--images=60", "--batch-size=12", "--epochs=1"]


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    """The best.npz of a training of each task; never write there."""
    folders = {task: tmp_path_factory.mktemp("runs") / task for task in TASKS}
    for task, out in folders.items():
        assert main(["train", *OPTIONS, "--device=cpu", "--task", task, "--out", str(out)]) == 0
    return {task: out / "best.npz" for task, out in folders.items()}


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(3):
        image, _ = make_lesion(40, np.random.default_rng(number))
        Image.fromarray(image[4:36]).save(folder / f"ISIC_000000{number}.png")
    return folder


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class TestTrain:
    def test_prints_the_scores_of_both_answers(self, r2unet, tmp_path):
        _, stdout, _ = r2unet("train", *OPTIONS, "--device=cpu", "--task=both", "--out", tmp_path / "run")
        for text in ("Jaccard", "AUC", "malignant or not", "class shares", "logistic regression"):
            assert text in stdout, text

    def test_starts_from_other_weights(self, r2unet, diagnosed, tmp_path):
        words = "--task=both", "--from", diagnosed["diagnosis"], "--freeze-encoder", "--out", tmp_path / "run"
        code, stdout, _ = r2unet("train", *OPTIONS, "--device=cpu", *words)
        assert code == 0 and f"start from {diagnosed['diagnosis']}; new: " in stdout
        before, after = (load_model(f)[0] for f in (diagnosed["diagnosis"], tmp_path / "run" / "best.npz"))
        for name, array in before.state_dict().items():
            if name.startswith("encoder."):
                np.testing.assert_array_equal(after.state_dict()[name], array)

    def test_images_without_one_of_its_classes_are_counted(self, r2unet, isic, tmp_path):
        labels = tmp_path / "labels.csv"
        rows = enumerate(("mel", "bcc", "nv", "seborrheic_keratosis", "mel", "mel", "nv", "bcc"))
        labels.write_text("image,dx\n" + "".join(f"ISIC_{n:07},{dx}\n" for n, dx in rows))
        words = "--classes=types-3", "--data", isic, "--labels", labels, "--task=both", "--profile"
        warning = "warning: 2 of 8 images have no diagnosis, or none of the network's classes (melanoma, "
        code, _, err = r2unet("train", *OPTIONS, "--device=cpu", *words)
        assert code == 0 and warning in err

    def test_refuses_to_freeze_an_encoder_that_has_learned_nothing(self, r2unet, tmp_path):
        words = "--task=both", "--freeze-encoder", "--out", tmp_path / "run"
        code, _, err = r2unet("train", *OPTIONS, *words)
        assert code == 2 and "--freeze-encoder: " in err and "--from F" in err
        assert not (tmp_path / "run").exists()

    def test_refuses_a_lesion_without_an_outline(self, r2unet, tmp_path):
        words = "--task=diagnosis", "--pooling=lesion", "--out", tmp_path / "run"
        code, _, err = r2unet("train", *OPTIONS, *words)
        assert code == 2 and "--pooling lesion: without an outline" in err and not (tmp_path / "run").exists()


class TestPredict:
    @pytest.mark.parametrize("task", TASKS)
    def test_writes_a_table_in_the_format_of_the_challenge(
        self, r2unet, diagnosed, photographs, tmp_path, task
    ):
        words = "--checkpoint", diagnosed[task], "--out", tmp_path / "out"
        code, stdout, _ = r2unet("predict", photographs, *words)
        rows = read_table(tmp_path / "out" / "diagnoses.csv")
        assert code == 0 and [row["image"] for row in rows] == [f"ISIC_000000{n}" for n in range(3)]
        assert list(rows[0]) == ["image", "melanoma", "seborrheic_keratosis", "nevus"]
        for row in rows:
            values = [float(row[name]) for name in list(row)[1:]]
            assert sum(values) == pytest.approx(1, abs=1e-5) and min(values) >= 0
        masks = list((tmp_path / "out").glob("*_segmentation_prediction.png"))
        assert len(masks) == (3 if task == "both" else 0)
        assert "malignant" in stdout and "not a diagnosis, not a medical device" in stdout

    def test_score_reads_the_table_of_any_names(self, r2unet, diagnosed, photographs, tmp_path):
        names = ["a\rb", 'c"d\r\n', "e,f"]
        for path, name in zip(sorted(photographs.iterdir()), names, strict=True):
            path.rename(photographs / f"{name}.png")
        words = "--checkpoint", diagnosed["diagnosis"], "--out", tmp_path / "out"
        assert r2unet("predict", photographs, *words)[0] == 0
        table = tmp_path / "out" / "diagnoses.csv"
        assert [row["image"] for row in read_table(table)] == names
        quoted = '"a\rb",1,0,0\n"c""d\r\n",0,1,0\n"e,f",0,0,1\n'
        (tmp_path / "truth.csv").write_bytes(f"image,melanoma,seborrheic_keratosis,nevus\n{quoted}".encode())
        code, out, _ = r2unet("score", tmp_path / "truth.csv", table)
        assert code == 0 and out.startswith("3 images; ")

    @pytest.mark.parametrize("task", TASKS)
    def test_draws_the_diagnosis_on_request(self, r2unet, diagnosed, photographs, tmp_path, task):
        words = "--checkpoint", diagnosed[task], "--out", tmp_path / "out", "--overlay"
        r2unet("predict", photographs / "ISIC_0000001.png", *words)
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert "ISIC_0000001_diagnosis.png" in names
        assert ("ISIC_0000001_overlay.png" in names) == (task == "both")

    def test_an_outline_network_writes_no_table(self, r2unet, trained, photographs, tmp_path):
        r2unet("predict", photographs, "--checkpoint", trained / "best.npz", "--out", tmp_path / "out")
        assert not (tmp_path / "out" / "diagnoses.csv").exists()

    def test_views_are_averaged_and_corrected(self, r2unet, diagnosed, photographs, tmp_path):
        tables = {}
        for option in ("--tta", "--no-tta"):
            words = "--checkpoint", diagnosed["both"], "--out", tmp_path / option, option
            r2unet("predict", photographs, *words)
            tables[option] = read_table(tmp_path / option / "diagnoses.csv")
        assert tables["--tta"] != tables["--no-tta"]

    def test_unknown_weights_are_refused(self, r2unet, photographs):
        code, _, err = r2unet("predict", photographs, "--weights", "imagenet")
        assert code == 2 and "--weights: must be one of isic2017, ham10000" in err


class TestUncalibratedProbabilities:
    """The temperature and the class weights are corrected only by what the end of a training stores."""

    @pytest.mark.parametrize("command", ["predict", "explain", "evaluate"])
    def test_are_a_warning(self, r2unet, diagnosed, photographs, tmp_path, command):
        words = [photographs / "ISIC_0000000.png"] if command != "evaluate" else []
        out = {"predict": ["--out", tmp_path], "explain": ["--out", tmp_path / "a.png"]}.get(command, [])
        for name, uncalibrated in (("last.npz", True), ("best.npz", False)):
            file = diagnosed["both"].with_name(name)
            code, _, err = r2unet(command, *words, "--checkpoint", file, *out)
            warning = f"warning: {file}: its probabilities are not calibrated, and the class weights"
            assert code == 0 and (warning in err) == uncalibrated
            assert ("or add the calibration with r2unet export --calibrate" in err) == uncalibrated

    def test_are_none_of_an_outline(self, r2unet, trained, photographs, tmp_path):
        words = "--checkpoint", trained / "last.npz", "--out", tmp_path
        assert r2unet("predict", photographs, *words)[2] == ""


class TestEvaluate:
    @pytest.mark.parametrize("task", TASKS)
    def test_scores_every_answer_and_draws_figures(self, r2unet, diagnosed, tmp_path, task):
        words = "--checkpoint", diagnosed[task], "--figures", tmp_path / "figures", "--json"
        code, stdout, _ = r2unet("evaluate", *words)
        scores = json.loads(stdout)["scores"]
        assert code == 0 and ("model" in scores) == (task == "both")
        report = json.loads((diagnosed[task].parent / "report.json").read_text())
        assert scores["diagnosis"]["by_image"] == report["diagnosis"]["by_image"]
        for name in ("roc", "reliability", "confusion"):
            with Image.open(tmp_path / "figures" / f"{name}.png") as figure:
                assert min(figure.size) > 300

    def test_options_about_a_missing_answer_are_refused(self, r2unet, diagnosed, trained, tmp_path):
        for checkpoint, option in (
            (trained / "best.npz", "--figures"),
            (diagnosed["diagnosis"], "--overlays"),
        ):
            code, _, err = r2unet("evaluate", "--checkpoint", checkpoint, option, tmp_path / "f.png")
            assert code == 2 and f"{option}: this network predicts only the" in err

    def test_without_labels_only_the_outline_can_be_scored(self, r2unet, diagnosed, isic, tmp_path):
        code, stdout, _ = r2unet("evaluate", "--checkpoint", diagnosed["both"], "--data", isic, "--json")
        scores = json.loads(stdout)["scores"]
        assert code == 0 and "model" in scores and scores["diagnosis"] is None
        for task, more in (("diagnosis", ()), ("both", ("--figures", tmp_path / "figures"))):
            words = "--checkpoint", diagnosed[task], "--data", isic, *more
            code, _, err = r2unet("evaluate", *words)
            assert code == 2 and "this image has no diagnosis" in err

    def test_images_without_one_of_its_classes_are_counted(self, r2unet, diagnosed, isic, tmp_path):
        classes = "(melanoma, seborrheic_keratosis, nevus)"
        words = f"images have no diagnosis, or none of the network's classes {classes}; "
        table = isic / "ISIC-2017_Validation_Part3_GroundTruth.csv"
        table.write_text("image_id,melanoma,seborrheic_keratosis\nISIC_0000005,1,0\nISIC_0000006,0,0\n")
        command = "evaluate", "--data", isic, "--checkpoint"
        assert f"warning: 1 of 3 {words}" in r2unet(*command, diagnosed["both"])[2]
        labels = tmp_path / "labels.csv"
        labels.write_text(
            "image,dx\n" + "".join(f"ISIC_{n:07},{'nv' if n < 6 else 'bcc'}\n" for n in range(8))
        )
        for task in TASKS:
            assert f"warning: 2 of 3 {words}" in r2unet(*command, diagnosed[task], "--labels", labels)[2]

    @pytest.mark.parametrize("task", TASKS)
    def test_labels_that_say_only_benign_or_malignant_give_the_scores_of_malignant_or_not(
        self, r2unet, diagnosed, isic, tmp_path, task
    ):
        """The same as where the types are known."""
        scores, words = {}, ("--data", isic, "--split=all", "--checkpoint", diagnosed[task], "--json")
        said = "the labels say only benign or malignant, so the types are unknown here and are not scored; "
        for table, names in (("types", ("mel", "nv")), ("malignancy", ("malignant", "benign"))):
            rows = [f"ISIC_{n:07},{names[n % 3 > 0]}\n" for n in range(8)]
            labels, figures = tmp_path / f"{table}.csv", tmp_path / table
            labels.write_text("".join([f"image,{'dx' if table == 'types' else 'malignant'}\n", *rows]))
            code, out, err = r2unet("evaluate", *words, "--labels", labels, "--figures", figures)
            assert code == 0 and (said in err) == (table == "malignancy") and "warning" not in err
            assert len(list(figures.iterdir())) == 3
            scores[table] = json.loads(out)["scores"]["diagnosis"]
        assert scores["malignancy"]["types"]["model"]["classes"] == ["benign", "malignant"]
        known, unknown = (scores[table]["malignant"] for table in ("types", "malignancy"))
        assert list(known) == list(unknown) and "class shares" in known
        for name, report in known.items():
            assert unknown[name]["positives"] == 3 and unknown[name]["confusion"] == report["confusion"]
            for metric in ("auc", "average_precision", "sensitivity", "specificity", "accuracy"):
                for part in ("value", "interval"):
                    assert unknown[name][metric][part] == pytest.approx(report[metric][part]), (name, metric)

    def test_of_an_outline_alone_no_image_is_left_out(self, r2unet, diagnosed, isic):
        """Nobody asked for the scores of a diagnosis where no image has one."""
        _, _, err = r2unet("evaluate", "--data", isic, "--checkpoint", diagnosed["both"])
        assert "have no diagnosis" not in err


class TestExport:
    def test_keeps_the_calibration_and_stores_a_licence(self, r2unet, diagnosed, photographs, tmp_path):
        out = tmp_path / "small.npz"
        r2unet("export", diagnosed["both"], "--half", "--out", out, "--licence", "CC BY-NC 4.0")
        before, after = read_state(diagnosed["both"]), read_state(out)
        assert after["diagnosis"]["temperature"] == before["diagnosis"]["temperature"]
        code, _, err = r2unet("predict", photographs, "--checkpoint", out, "--out", tmp_path / "out")
        assert code == 0 and "licence of the weights: CC BY-NC 4.0" in err

    def test_another_size_keeps_the_temperature_and_says_so(self, r2unet, diagnosed, tmp_path):
        source, out = diagnosed["both"], tmp_path / "small.npz"
        code, _, err = r2unet("export", source, "--size", 24, "--out", out)
        assert code == 0 and "the temperature of the diagnosis is still that of SOURCE; --calibrate" in err
        assert load_model(out)[1].size == 24
        assert read_state(out)["diagnosis"]["temperature"] == read_state(source)["diagnosis"]["temperature"]

    def test_calibrates_the_exported_weights_at_their_size(self, r2unet, diagnosed, tmp_path):
        out = tmp_path / "small.npz"
        code, _, err = r2unet("export", diagnosed["both"], "--size=24", "--half", "--calibrate", "--out", out)
        assert (code, err) == (0, "")
        model, settings, state = load_model(out)  # in half precision
        training = SyntheticLesions(settings.images, 24, seed=settings.seed)
        assert settings.size == 24 and state["diagnosis"]["temperature"] == pytest.approx(
            calibrate(model, settings, training)["temperature"], rel=1e-9
        )
        before = read_state(diagnosed["both"])["diagnosis"]["temperature"]
        assert state["diagnosis"]["temperature"]["one view"] != pytest.approx(before["one view"], rel=0.01)

    def test_calibrates_an_interrupted_run(self, r2unet, diagnosed, tmp_path):
        """At the same size and in single precision, the entry is the one that the end of a training adds."""
        state = read_state(diagnosed["both"])
        expected = state.pop("diagnosis")
        write_state(tmp_path / "interrupted.npz", state)
        out = tmp_path / "calibrated.npz"
        assert r2unet("export", tmp_path / "interrupted.npz", "--calibrate", "--out", out)[0] == 0
        found = read_state(out)["diagnosis"]
        assert found["temperature"] == expected["temperature"]
        for name in ("log_weights", "shares"):
            np.testing.assert_array_equal(found[name], expected[name])

    def test_a_file_that_claims_large_images_is_calibrated_only_at_a_given_size(
        self, r2unet, diagnosed, tmp_path
    ):
        state = read_state(diagnosed["both"])
        state["settings"] |= {"size": 1024, "batch_size": 4096}
        write_state(tmp_path / "claiming.npz", state)
        out = tmp_path / "a.npz"
        words = "export", tmp_path / "claiming.npz", "--calibrate", "--out", out
        code, _, err = r2unet(*words)
        assert code == 2 and "if you trust it, add --size 1024" in err and not out.exists()
        assert r2unet(*words, "--size", 16)[0] == 0 and load_model(out)[1].size == 16

    @pytest.mark.parametrize("task", TASKS)
    def test_refits_the_head_before_it_calibrates(self, r2unet, diagnosed, tmp_path, task):
        words = "export", diagnosed[task], "--half", "--calibrate"
        for name, more in (("old", ()), ("new", ("--refit-head",))):
            assert r2unet(*words, *more, "--out", tmp_path / f"{name}.npz")[0] == 0
        old, new = (read_state(tmp_path / f"{name}.npz") for name in ("old", "new"))
        changed = {name for name, array in new["model"].items() if (array != old["model"][name]).any()}
        assert changed == {"diagnosis.linear.weight", "diagnosis.linear.bias"}
        assert {n: a.dtype for n, a in new["model"].items()} == {n: a.dtype for n, a in old["model"].items()}
        model, settings, state = load_model(tmp_path / "new.npz")
        training = SyntheticLesions(settings.images, settings.size, seed=settings.seed)
        assert state["diagnosis"]["temperature"] == pytest.approx(
            calibrate(model, settings, training)["temperature"], rel=1e-9
        )

    def test_refits_a_head_for_other_classes_that_reads_more_levels(self, r2unet, diagnosed, tmp_path):
        source, out = diagnosed["both"], tmp_path / "new.npz"
        words = "--calibrate", "--refit-head", "--classes", "malignant", "--pooled-levels", "all"
        assert r2unet("export", source, *words, "--out", out)[0] == 0
        model, settings, state = load_model(out)
        assert (settings.classes, settings.pooled_levels) == ("malignant", "all")
        assert model.diagnosis.linear.weight.shape == (2, 4 * sum(settings.widths))
        assert state["diagnosis"]["shares"].shape == (2,)
        before = load_model(source)[0].state_dict()
        for name, array in model.state_dict().items():
            if not name.startswith("diagnosis."):
                np.testing.assert_array_equal(array, before[name])
        training = SyntheticLesions(settings.images, settings.size, seed=settings.seed)
        expected = model.diagnosis.linear.weight.numpy().copy()
        refit_head(model, settings, training)  # which depends on the features alone
        np.testing.assert_allclose(model.diagnosis.linear.weight.numpy(), expected, rtol=1e-5, atol=1e-7)
        code, stdout, _ = r2unet("evaluate", "--checkpoint", out)
        assert code == 0 and "malignant" in stdout and "melanoma" not in stdout

    @pytest.mark.parametrize("option", ["--classes=malignant", "--pooled-levels=all"])
    def test_another_head_must_be_fitted(self, r2unet, diagnosed, tmp_path, option):
        words = "export", diagnosed["both"], "--calibrate", option, "--out", tmp_path / "a.npz"
        code, _, err = r2unet(*words)
        assert (
            code == 2 and f"{option.partition('=')[0]}: needs a new head of the diagnosis; add --refit" in err
        )
        assert not (tmp_path / "a.npz").exists()

    def test_the_mean_of_trainings_keeps_the_temperature_and_says_so(self, r2unet, diagnosed, tmp_path):
        source, out = diagnosed["both"], tmp_path / "mean.npz"
        copy = shutil.copy(source, tmp_path / "copy.npz")
        code, _, err = r2unet("export", source, "--average", copy, "--out", out)
        assert code == 0 and "--average: the temperature of the diagnosis is still that of SOURCE" in err
        state, before = read_state(out), read_state(source)
        assert (
            "history" not in state and state["diagnosis"]["temperature"] == before["diagnosis"]["temperature"]
        )

    def test_a_link_to_itself_is_refused(self, r2unet, tmp_path):
        (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
        code, _, err = r2unet("export", tmp_path / "loop.npz", "--out", tmp_path / "mean.npz")
        assert (
            code == 2 and err.startswith(f"r2unet: error: {tmp_path / 'loop.npz'}: ") and err.count("\n") == 1
        )

    @pytest.mark.parametrize("names", [["source"], ["copy", "./copy"]])
    def test_no_training_counts_twice_in_the_mean(self, r2unet, diagnosed, tmp_path, monkeypatch, names):
        for name in ("source", "copy"):
            shutil.copy(diagnosed["both"], tmp_path / name)
        monkeypatch.chdir(tmp_path)
        code, _, err = r2unet("export", "source", "--average", *names, "--out", "mean.npz")
        assert code == 2 and f"--average {Path(names[-1])}: is given twice" in err
        assert not (tmp_path / "mean.npz").exists()

    def test_the_mean_of_trainings_inherits_their_licences(self, r2unet, diagnosed, tmp_path):
        files = [tmp_path / f"{name}.npz" for name in ("free", "first", "second", "mean")]
        for file, words in zip(files, ([], ["--licence", "CC BY-NC"], ["--licence", "CC BY"]), strict=False):
            r2unet("export", diagnosed["both"], *words, "--out", file)
        assert r2unet("export", files[0], "--average", *files[1:3], "--out", files[3])[0] == 0
        assert read_state(files[3])["licence"] == "CC BY-NC; CC BY"

    def test_the_mean_of_trainings_replaces_none_of_them(self, r2unet, diagnosed, tmp_path):
        source, other = diagnosed["both"], tmp_path / "other.npz"
        assert r2unet("export", source, "--out", other)[0] == 0
        before = other.read_bytes()
        code, _, err = r2unet("export", source, "--average", other, "--out", other)
        assert code == 2 and "would replace" in err and other.read_bytes() == before

    def test_weights_that_are_too_large_for_exact_probabilities_are_calibrated(
        self, r2unet, diagnosed, tmp_path
    ):
        state = read_state(diagnosed["both"])
        state["model"]["diagnosis.linear.weight"] *= np.float32(1e30)
        write_state(tmp_path / "large.npz", state)
        words = "export", tmp_path / "large.npz", "--calibrate", "--out", tmp_path / "a.npz"
        assert r2unet(*words)[0] == 0

    def test_trainings_with_other_classes_can_be_averaged_with_a_new_head(self, r2unet, diagnosed, tmp_path):
        source, other, out = diagnosed["both"], tmp_path / "other.npz", tmp_path / "mean.npz"
        words = "--calibrate", "--refit-head"
        assert r2unet("export", source, *words, "--classes=malignant", "--out", other)[0] == 0
        code, _, err = r2unet("export", source, "--average", other, "--out", out)
        assert code == 2 and "--average: its --classes is malignant, that of SOURCE types-3" in err
        assert not out.exists()
        assert r2unet("export", source, *words, "--average", other, "--out", out)[0] == 0
        assert r2unet("export", source, *words, "--out", tmp_path / "alone.npz")[0] == 0
        found, expected = read_state(out)["model"], read_state(tmp_path / "alone.npz")["model"]
        for name, array in found.items():  # the mean of equal weights
            np.testing.assert_array_equal(array, expected[name])

    def test_to_refit_the_head_needs_images(self, r2unet, diagnosed, tmp_path):
        code, _, err = r2unet("export", diagnosed["both"], "--refit-head", "--out", tmp_path / "a.npz")
        assert code == 2 and "--refit-head: needs the training images; add them: --calibrate DIR" in err

    @pytest.mark.parametrize(
        "options, end",
        [
            (["--calibrate"], "omit the option"),
            (["--refit-head"], "omit the option"),
            (["--classes", "--refit-head", "--calibrate"], "omit these options"),
        ],
    )
    def test_names_at_once_all_options_about_a_missing_diagnosis(
        self, r2unet, trained, tmp_path, options, end
    ):
        words = [f"{option}=malignant" if option == "--classes" else option for option in options]
        code, _, err = r2unet("export", trained / "best.npz", *words, "--out", tmp_path / "a.npz")
        message = f"error: {', '.join(options)}: this network predicts only the outline; {end}\n"
        assert code == 2 and err.endswith(message) and not (tmp_path / "a.npz").exists()

    def test_needs_the_folder_to_calibrate_a_network_of_real_images(self, r2unet, tmp_path):
        out = tmp_path / "a.npz"
        code, _, err = r2unet("export", PRETRAINED["isic2017"], "--calibrate", "--out", out)
        assert code == 2 and "add it: --calibrate DIR" in err and not out.exists()
        code, _, err = r2unet("export", PRETRAINED["isic2017"], "--calibrate", tmp_path, "--out", out)
        assert code == 2 and str(tmp_path) in err and not out.exists()


class TestScore:
    TRUTH = (
        "image_id,melanoma,seborrheic_keratosis\n"
        "ISIC_0000000,1.0,0.0\n"
        "ISIC_0000001,0.0,1.0\n"
        "ISIC_0000002,0.0,0.0\n"
    )

    def test_says_which_table_is_the_truth(self, r2unet):
        text = " ".join(r2unet("score", "--help")[1].split())
        assert "table of true diagnoses, with a column for each class, as in ISIC 2017 and 2018" in text
        assert "also write JSON to F; for masks, with the scores of every image" in text

    def test_scores_the_table_that_predict_wrote(self, r2unet, diagnosed, photographs, tmp_path):
        (tmp_path / "truth.csv").write_text(self.TRUTH)
        r2unet("predict", photographs, "--checkpoint", diagnosed["both"], "--out", tmp_path / "out")
        words = tmp_path / "truth.csv", tmp_path / "out" / "diagnoses.csv", "--json", tmp_path / "s.json"
        code, stdout, _ = r2unet("score", *words)
        scores = json.loads((tmp_path / "s.json").read_text())
        assert code == 0 and stdout.startswith("3 images; ranked by auc")
        rows = read_table(tmp_path / "out" / "diagnoses.csv")
        melanoma = [float(row["melanoma"]) for row in rows]
        auc = np.mean([np.heaviside(melanoma[0] - other, 0.5) for other in melanoma[1:]])
        assert scores["by_class"]["melanoma"]["auc"] == pytest.approx(auc)
