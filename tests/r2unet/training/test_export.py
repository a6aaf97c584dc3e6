"""Exported weights predict the same as before, from a small file; so do weights from PyTorch."""

import os
import shutil

import numpy as np
import pytest

from minidl import Tensor, checkpoint, no_grad
from r2unet.data.sample import CENTRE, SCALE, to_input
from r2unet.errors import InputError
from r2unet.network.interop import read_pytorch
from r2unet.training.checkpoints import checkpoint_header, load_model, read_state
from r2unet.training.export import averaged, from_pytorch, from_training, to_half
from r2unet.training.settings import Settings, new_model

ALL_NETWORKS = pytest.mark.parametrize("name", ["U_Net", "R2U_Net", "AttU_Net", "R2AttU_Net"])


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (32, 16, 3)).astype(np.uint8)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a checkpoint and loads its network."""

    def through_a_file(state):
        checkpoint.save(tmp_path / "out.npz", state)
        return load_model(tmp_path / "out.npz")

    return through_a_file


def logits(model, x):
    with no_grad():
        return model(Tensor(x)).numpy()


class TestFromTraining:
    def test_predicts_the_same_as_the_training_checkpoint(self, trained, write, picture):
        model, settings, _ = load_model(trained / "best.npz")
        exported, same_settings, state = write(from_training(trained / "best.npz"))
        assert same_settings == settings
        assert (logits(exported, to_input([picture])) == logits(model, to_input([picture]))).all()
        assert set(state) == {"program", "version", "settings", "model", "mean_mask", "history"}

    def test_drops_the_two_moments_of_adam(self, trained):
        def numbers(node):
            if isinstance(node, dict | list):
                return sum(map(numbers, node.values() if isinstance(node, dict) else node))
            return np.size(node) if isinstance(node, np.ndarray) else 0

        model, _, state = load_model(trained / "best.npz")
        weights = sum(p.data.size for p in model.parameters())
        assert numbers(state) - numbers(from_training(trained / "best.npz")) == 2 * weights

    @pytest.mark.parametrize(
        "stored, exported",
        [
            ("/home/somebody/ISIC2017/", "ISIC2017"),
            (f"/home/somebody/HAM10000{os.pathsep}/data/ISIC2017", f"HAM10000{os.pathsep}ISIC2017"),
        ],
    )
    def test_shortens_the_paths_of_the_images_to_the_names_of_the_folders(
        self, trained, tmp_path, stored, exported
    ):
        state = read_state(trained / "best.npz")
        state["settings"] |= {"data": stored, "labels": "/home/somebody/labels.csv"}
        checkpoint.save(tmp_path / "best.npz", state)
        settings = from_training(tmp_path / "best.npz")["settings"]
        assert (settings["data"], settings["labels"]) == (exported, "labels.csv")

    def test_stores_another_size_and_nothing_else(self, trained, write, picture):
        before, after = (from_training(trained / "best.npz", size) for size in (None, 8))
        assert (before["settings"]["size"], after["settings"]["size"]) == (16, 8)
        assert {**before["settings"], "size": 8} == after["settings"]
        x = to_input([picture])
        assert (logits(write(after)[0], x) == logits(write(before)[0], x)).all()

    def test_refuses_a_size_that_the_levels_cannot_halve(self, trained):
        with pytest.raises(InputError, match="--size 15: must be divisible by 2 for this network"):
            from_training(trained / "best.npz", size=15)

    def test_refuses_a_file_that_is_not_a_checkpoint(self, tmp_path):
        with pytest.raises(InputError, match="no such checkpoint"):
            from_training(tmp_path / "none.npz")


class TestAveraged:
    @pytest.fixture
    def checkpoints(self, tmp_path):
        """Three checkpoints of the same network with other weights; the second is in half precision."""
        settings, files = Settings(size=16, widths=(2, 4), norm="group"), []
        for seed in range(3):
            model = new_model(settings, np.random.default_rng(seed))
            state = {**checkpoint_header(settings), "model": model.state_dict(), "history": []}
            files.append(tmp_path / f"{seed}.npz")
            checkpoint.save(files[-1], to_half(state) if seed == 1 else state)
        return files

    def test_each_weight_is_the_mean_of_those_of_all_trainings(self, checkpoints, write):
        first, *others = checkpoints
        model, _, state = write(averaged(from_training(first), others))
        weights = [load_model(path)[0].state_dict() for path in checkpoints]
        for name, array in model.state_dict().items():
            np.testing.assert_allclose(array, sum(w[name] for w in weights) / 3, rtol=1e-6, atol=1e-9)
        assert "history" not in state  # whose scores are those of another network

    def test_of_networks_with_batch_norm_is_refused(self, trained):
        with pytest.raises(InputError, match="--average: the network has batch norm"):
            averaged(from_training(trained / "best.npz"), [trained / "best.npz"])

    @pytest.mark.parametrize(
        "change", [{"widths": (2, 5)}, {"steps": 3}, {"skips": "add"}, {"model": "recurrent-unet"}], ids=str
    )
    def test_with_another_network_is_refused(self, checkpoints, tmp_path, change):
        settings = Settings(**{"size": 16, "widths": (2, 4), "norm": "group", **change})
        model, other = new_model(settings, np.random.default_rng(0)), tmp_path / "other.npz"
        checkpoint.save(other, {**checkpoint_header(settings), "model": model.state_dict()})
        with pytest.raises(
            InputError, match=rf"other.npz: --average: its --{next(iter(change))} is .*, that of"
        ):
            averaged(from_training(checkpoints[0]), [other])

    def test_the_pooling_of_a_network_without_an_outline_is_always_the_same(self, tmp_path):
        files = [tmp_path / name for name in ("a.npz", "b.npz")]
        for file, pooling in zip(files, ("both", "image"), strict=True):
            settings = Settings(size=16, widths=(2, 4), norm="group", task="diagnosis", pooling=pooling)
            model = new_model(settings, np.random.default_rng(0))
            checkpoint.save(file, {**checkpoint_header(settings), "model": model.state_dict()})
        averaged(from_training(files[0]), files[1:])

    @pytest.mark.parametrize(
        "change", [{"size": 32}, {"classes": "malignant"}, {"pooling": "image"}], ids=str
    )
    def test_what_does_not_change_the_weights_may_differ(self, checkpoints, tmp_path, change):
        settings = Settings(**{"size": 16, "widths": (2, 4), "norm": "group", **change})
        model, other = new_model(settings, np.random.default_rng(0)), tmp_path / "other.npz"
        checkpoint.save(other, {**checkpoint_header(settings), "model": model.state_dict()})
        averaged(from_training(checkpoints[0]), [other])


class TestToHalf:
    def test_changes_logits_by_less_than_one_percent(self, trained, write, picture):
        state = from_training(trained / "best.npz")
        single, half = write(state)[0], write(to_half(state))[0]
        a, b = (logits(model, to_input([picture])) for model in (single, half))
        assert 0 < np.abs(a - b).max() < 0.01 * np.abs(a).max()

    def test_refuses_a_weight_outside_the_range_of_float16(self, trained):
        state = from_training(trained / "best.npz")
        state["model"]["head.weight"] = state["model"]["head.weight"] * 0 + 70_000
        with pytest.raises(InputError, match="--half: a weight is beyond 65,504"):
            to_half(state)

    def test_converts_only_convolutions(self, trained):
        state = from_training(trained / "best.npz")
        for name, array in to_half(state)["model"].items():
            assert array.dtype == (np.float16 if array.ndim == 4 else np.float32), name
            np.testing.assert_allclose(array, state["model"][name], rtol=2**-11, atol=1e-7)

    def test_loaded_networks_still_compute_in_single_precision(self, trained, write):
        model, _, _ = write(to_half(from_training(trained / "best.npz")))
        assert {p.data.dtype for p in model.parameters()} == {np.dtype(np.float32)}


@pytest.fixture
def lee(lee_state, tmp_path):
    """Return a function that writes a stored PyTorch state_dict to a file."""

    def to_file(name):
        np.savez(tmp_path / f"{name}.npz", **lee_state(name))
        return tmp_path / f"{name}.npz"

    return to_file


class TestFromPytorch:
    @ALL_NETWORKS
    def test_predicts_the_same_as_the_original_program(self, lee, write, picture, name):
        """The original program scales images to -1 ... 1, and `read_pytorch` leaves the network unchanged."""
        theirs = read_pytorch(lee(name))
        scaled_as_there = (picture.transpose(2, 0, 1)[None] / np.float32(127.5) - 1).astype(np.float32)
        assert (CENTRE, SCALE) == (127.5, 63.75)
        steps = 2 if name.startswith("R2") else None
        ours, settings, _ = write(from_pytorch(lee(name), steps))
        assert (settings.size, settings.norm, settings.up) == (256, "shared", "nearest")
        np.testing.assert_allclose(
            logits(ours, to_input([picture])), logits(theirs, scaled_as_there), atol=1e-4
        )

    def test_needs_the_number_of_steps_of_a_recurrent_network(self, lee, write):
        with pytest.raises(InputError, match="does not contain the number of steps; give --steps"):
            from_pytorch(lee("R2U_Net"))
        assert write(from_pytorch(lee("R2U_Net"), steps=3, size=64))[1].steps == 3

    def test_steps_of_a_network_without_recurrence_are_refused(self, lee):
        with pytest.raises(InputError, match="steps 3: unet has no recurrence"):
            from_pytorch(lee("U_Net"), steps=3)

    def test_refuses_weights_that_are_not_finite(self, lee_state, tmp_path):
        state = lee_state("U_Net")
        state["Conv1.conv.1.running_var"][0] = np.nan
        np.savez(tmp_path / "nan.npz", **state)
        with pytest.raises(InputError, match="nan.npz: .*running_var contains NaN or infinity"):
            from_pytorch(tmp_path / "nan.npz")

    def test_refuses_other_numbers_of_channels(self, lee_state, tmp_path):
        state = lee_state("U_Net")
        state["Conv1.conv.0.weight"] = state["Conv1.conv.0.weight"][:, :1]
        np.savez(tmp_path / "grey.npz", **state)
        with pytest.raises(InputError, match="has 1 input and 1 output channels, but predict needs 3 and 1"):
            from_pytorch(tmp_path / "grey.npz")

    def test_refuses_a_size_that_the_levels_cannot_halve(self, lee):
        levels = len(read_pytorch(lee("U_Net")).widths)
        with pytest.raises(InputError, match=f"--size 17: must be divisible by {2 ** (levels - 1)}"):
            from_pytorch(lee("U_Net"), size=17)


class TestCommand:
    def test_writes_a_checkpoint_for_predict(self, r2unet, trained, isic, tmp_path):
        out = tmp_path / "small.npz"
        code, stdout, _ = r2unet("export", trained / "best.npz", "--out", out, "--half")
        assert code == 0 and stdout.endswith(f"r2unet predict --checkpoint {out} photo.jpg\n")
        photographs = isic / "ISIC-2017_Validation_Data"
        assert r2unet("predict", "--checkpoint", out, photographs, "--out", tmp_path / "masks")[0] == 0
        assert len(list((tmp_path / "masks").iterdir())) == 3

    def test_exports_weights_from_pytorch(self, r2unet, lee, tmp_path):
        words = "--pytorch", "--steps", 3, "--size", 64, "--out", tmp_path / "lee.npz"
        assert r2unet("export", lee("R2AttU_Net"), *words)[0] == 0
        _, settings, _ = load_model(tmp_path / "lee.npz")
        assert (settings.model, settings.steps, settings.size) == ("r2-attention-unet", 3, 64)

    @pytest.mark.parametrize("words", [[], ["--tta"], ["--tta", "--clean-up"]])
    def test_stores_the_recommended_post_processing(self, r2unet, trained, tmp_path, words):
        out = tmp_path / "small.npz"
        assert r2unet("export", trained / "best.npz", "--out", out, *words)[0] == 0
        advice = {"tta": "--tta" in words, "clean_up": "--clean-up" in words}
        assert read_state(out)["prediction"] == advice
        assert r2unet("export", out, "--out", tmp_path / "again.npz", "--half")[0] == 0
        assert read_state(tmp_path / "again.npz")["prediction"] == advice

    def test_creates_the_folder_and_quotes_paths_with_spaces(self, r2unet, trained, tmp_path):
        out = tmp_path / "new folder" / "a.npz"
        code, stdout, _ = r2unet("export", trained / "best.npz", "--out", out)
        assert code == 0 and f"--checkpoint '{out}' photo.jpg" in stdout and load_model(out)

    @pytest.mark.parametrize(
        "name, words",
        [("best.npz", "would replace"), ("last.npz", "part of a training run")],
    )
    def test_never_overwrites_a_training_run(self, r2unet, trained, tmp_path, name, words):
        for file in ("best.npz", "last.npz"):
            shutil.copy(trained / file, tmp_path)
        code, _, err = r2unet("export", tmp_path / "best.npz", "--out", tmp_path / name)
        assert code == 2 and f"--out {tmp_path / name}: " in err and words in err
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()

    @pytest.mark.parametrize("name", ["photo.jpg", "history.csv", "weights.safetensors", "weights"])
    def test_refuses_the_name_of_another_kind_of_file(self, r2unet, trained, tmp_path, name):
        (tmp_path / name).write_text("as before")
        code, _, err = r2unet("export", trained / "best.npz", "--out", tmp_path / name)
        assert code == 2 and f"--out: must be a name ending in .npz, got '{tmp_path / name}'" in err
        assert (tmp_path / name).read_text() == "as before"

    def test_a_state_dict_of_pytorch_needs_the_option(self, r2unet, lee, tmp_path):
        code, _, err = r2unet("export", lee("U_Net"), "--out", tmp_path / "a.npz")
        assert code == 2 and not (tmp_path / "a.npz").exists()
        assert f"{lee('U_Net')}: is a state_dict of PyTorch; convert it with `r2unet export --pytorch`" in err

    @pytest.mark.parametrize("size", ["0", "8193", "x"])
    def test_refuses_an_impossible_size(self, r2unet, trained, tmp_path, size):
        code, _, err = r2unet("export", trained / "best.npz", "--size", size, "--out", tmp_path / "a.npz")
        assert code == 2 and "--size: " in err and not (tmp_path / "a.npz").exists()

    def test_refuses_a_folder_as_output_file(self, r2unet, trained, tmp_path):
        code, _, err = r2unet("export", trained / "best.npz", "--out", tmp_path)
        assert code == 2 and "--out: must be the name of a file" in err

    def test_refuses_pytorch_options_for_a_training_checkpoint(self, r2unet, trained, tmp_path):
        code, _, err = r2unet("export", trained / "best.npz", "--out", tmp_path / "a.npz", "--steps", 3)
        assert code == 2 and "--steps: has no effect without --pytorch; omit the option" in err
        assert not (tmp_path / "a.npz").exists()
