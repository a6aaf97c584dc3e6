"""Every example runs from the command line and shows what its docstring promises."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidl import checkpoint
from r2unet.data.synthetic import SyntheticLesions
from r2unet.prediction.predict import probabilities
from r2unet.training.checkpoints import load_model

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAINING = ["--epochs", "4", "--size", "32", "--limit", "24"]


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs an example in this process and returns its variables at the end."""

    def run_example(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run_example


def train_isic(*arguments):
    """Return the command line of the training, with unbuffered output."""
    return [sys.executable, "-u", str(EXAMPLES / "train_isic.py"), *map(str, arguments)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder and the stdout of a short training on generated lesions."""
    out = tmp_path_factory.mktemp("trained")
    finished = subprocess.run(train_isic(*TRAINING, "--out", out), capture_output=True, text=True, check=True)
    return out, finished.stdout


def is_picture(path):
    """Return whether a file is an image that is not blank."""
    with Image.open(path) as image:
        return min(image.size) > 200 and np.asarray(image.convert("L")).std() > 10


def test_every_example_has_a_test():
    here = Path(__file__).read_text()
    assert all(path.name in here for path in EXAMPLES.glob("*.py"))


def test_scalar_graph_agrees_with_the_formulas_and_with_finite_differences(run, capsys):
    result = run("scalar_graph.py")
    assert set(result["gradients"]) == {"w", "x", "b"}
    for name, gradient in result["gradients"].items():
        assert gradient == pytest.approx(result["by_formula"][name], rel=1e-12)
        assert gradient == pytest.approx(result["by_difference"][name], rel=1e-9)
    assert "Sigmoid" in capsys.readouterr().out


def test_scalar_graph_splits_the_gradient_of_x_into_its_two_paths(run):
    result = run("scalar_graph.py")
    s = 1 / (1 + np.exp(-(-1.5 * 0.8 + 2.0)))
    assert result["paths"] == pytest.approx((s * (1 - s) * -1.5, 2 * 0.8), rel=1e-12)
    assert sum(result["paths"]) == pytest.approx(result["gradients"]["x"], rel=1e-12)


@pytest.mark.parametrize("changed", ["3.0 * (w * x + b).sigmoid() + 1.0", "(w * x).exp()"])
def test_scalar_graph_differentiates_another_expression(changed, tmp_path, capsys):
    source = (EXAMPLES / "scalar_graph.py").read_text()
    expression = "(w * x + b).sigmoid() + x**2\n"
    assert source.count(expression) == 1
    (tmp_path / "changed.py").write_text(source.replace(expression, changed + "\n"))
    result = runpy.run_path(str(tmp_path / "changed.py"), run_name="__main__")
    assert result["gradients"] == pytest.approx(result["by_difference"], rel=1e-6, abs=1e-9)
    assert ("constant" in capsys.readouterr().out) == ("1.0" in changed)


def test_spiral_mlp_classifies_points_that_are_not_in_its_training_set(run, tmp_path, capsys):
    result = run("spiral_mlp.py", "--steps", 200, "--out", tmp_path)
    first_loss = float(capsys.readouterr().out.splitlines()[2].split()[1])
    assert first_loss == pytest.approx(np.log(2), abs=0.1)
    assert result["loss"].item() < 0.01
    assert result["new_accuracy"] > 0.95
    assert not np.isin(result["new_points"], result["points"]).any()
    assert is_picture(tmp_path / "boundary.png")


def test_edge_filter_learns_the_filter_from_noise(run, tmp_path):
    result = run("edge_filter.py", "--out", tmp_path)
    assert np.abs(result["layer"].weight.numpy()[0, 0] - result["TRUE_KERNEL"]).max() < 1e-4
    assert result["curvature"] == pytest.approx(np.full(9, 2.0), rel=0.05)
    assert is_picture(tmp_path / "edges.png")


def test_edge_filter_halves_its_error_at_each_step(run, tmp_path):
    errors = [run("edge_filter.py", "--steps", n, "--out", tmp_path)["error"] for n in (0, 4)]
    assert errors[1] / errors[0] == pytest.approx(0.5**4, rel=0.25)


def test_edge_filter_learns_slowly_from_images_of_lesions(run, tmp_path):
    result = run("edge_filter.py", "--images", "lesions", "--out", tmp_path)
    assert result["error"] > 1.0
    assert result["curvature"][-1] / result["curvature"][0] > 100


def test_overfit_one_lesion_reaches_a_high_dice_in_both_modes(run, tmp_path):
    result = run("overfit_one_lesion.py", "--out", tmp_path)
    assert result["loss"].item() < 0.01
    assert result["training_dice"] > 0.95
    assert result["evaluation_dice"] > 0.95
    assert is_picture(tmp_path / "overlays.png")


def test_other_cameras_scores_the_pretrained_weights_on_the_same_lesions_with_each_camera(run, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i, lesion in enumerate(SyntheticLesions(3, 48, seed=0)):
        Image.fromarray(lesion.image).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(lesion.mask * np.uint8(255)).save(tmp_path / "masks" / f"{i}.png")
    result = run("other_cameras.py", "--data", tmp_path, "--split", "all", "--limit", 2)
    assert {len(values) for values in result["scores"].values()} == {2}
    assert len({tuple(values) for values in result["scores"].values()}) == len(result["CAMERAS"]) == 10
    sample = SyntheticLesions(1, 48, seed=5)[0]
    before = sample.image.copy(), sample.mask.copy()
    for name, camera in result["CAMERAS"].items():
        image, mask, *_ = camera(sample)
        assert image.dtype == mask.dtype == np.uint8 and image.shape[:2] == mask.shape, name
        assert (image.shape == sample.image.shape) == (name != "nearer")
    assert (sample.image == before[0]).all() and (sample.mask == before[1]).all()


@pytest.mark.parametrize("name", ["spiral_mlp.py", "edge_filter.py", "overfit_one_lesion.py"])
def test_a_negative_number_of_steps_is_refused(name, run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(name, "--steps", -1)
    message = f"{name}: error: argument --steps: must be at least 0, got -1"
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_train_isic_reduces_the_loss_and_writes_pictures(trained):
    out, printed = trained
    history = checkpoint.load(out / "last.npz")["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["train_loss"] < 0.9 * history[0]["train_loss"]
    assert printed.count("\nepoch ") == 4
    assert "Otsu's threshold" in printed
    assert is_picture(out / "curves.png")
    assert is_picture(out / "overlays.png")


def test_train_isic_saves_the_epoch_with_the_best_jaccard(trained):
    out, _ = trained
    history = checkpoint.load(out / "last.npz")["history"]
    kept = checkpoint.load(out / "best.npz")["history"][-1]
    assert kept["validation_jaccard"] == max(row["validation_jaccard"] for row in history)


def test_train_isic_saves_weights_that_load_model_reads(trained):
    out, _ = trained
    model, settings, _ = load_model(out / "best.npz")
    images = [sample.image for sample in SyntheticLesions(2, settings.size, seed=5)]
    assert probabilities(model, images).shape == (2, 32, 32)


def test_train_isic_resumes_after_a_kill_and_ends_with_the_same_weights(trained, tmp_path):
    command = train_isic(*TRAINING, "--out", tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        for line in training.stdout:
            if line.startswith("epoch 1/"):
                training.kill()
                break
    assert len(checkpoint.load(tmp_path / "last.npz")["history"]) < 4
    subprocess.run([*command, "--resume"], check=True, capture_output=True)

    whole, resumed = (checkpoint.load(out / "last.npz") for out in (trained[0], tmp_path))
    assert resumed["history"] == whole["history"]
    assert resumed["random"] == whole["random"]
    for name, weight in whole["model"].items():
        np.testing.assert_array_equal(resumed["model"][name], weight, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (TRAINING, "add --resume"),
        ([*TRAINING[:-1], "16", "--resume"], "other settings"),
        (["--size", "50"], "--size 50: must be divisible by 8, to be halved 3 times\n"),
        (["--limit", "0"], "--limit 0"),
        (["--limit", "-5"], "--limit -5: must be at least 1"),
        (["--out", "nowhere", "--data", "no_such_folder"], "no_such_folder"),
        (["--out", "nowhere", "--resume"], "no such checkpoint"),
    ],
)
def test_train_isic_reports_an_error_in_one_line(trained, arguments, message):
    command = train_isic("--out", trained[0], *arguments)
    stopped = subprocess.run(command, capture_output=True, text=True)
    assert stopped.returncode == 2
    assert message in stopped.stderr
    assert len(stopped.stderr.splitlines()) == 1


def test_train_isic_runs_on_real_images(isic_root, tmp_path):
    arguments = "--epochs", 1, "--size", 32, "--limit", 16, "--data", isic_root, "--out", tmp_path
    finished = subprocess.run(train_isic(*arguments), capture_output=True, text=True, check=True)
    assert "16 images for training, 16 for validation" in finished.stdout
    assert 0 < checkpoint.load(tmp_path / "best.npz")["history"][0]["train_loss"] < 3
    assert is_picture(tmp_path / "overlays.png")
