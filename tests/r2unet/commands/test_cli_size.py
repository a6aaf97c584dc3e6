"""The size at which a network sees images: that of its checkpoint, if this takes little memory, or --size."""

import json
import shutil
import tracemalloc
import weakref
from functools import partial

import pytest

from minidl import checkpoint
from minidl.profiler import memory_traced
from r2unet.commands.workers import Scorer
from r2unet.data import synthetic
from r2unet.network.model import UShape
from r2unet.scores import ranking
from r2unet.training import prediction_memory
from r2unet.training.checkpoints import read_state
from r2unet.training.settings import Settings

IMAGE = "ISIC-2017_Validation_Data/ISIC_0000006.jpg"


@pytest.fixture
def claiming(trained, tmp_path):
    """Return a function that writes the trained network with other settings, and returns its file."""

    def write(**settings):
        state = read_state(trained / "best.npz")
        state["settings"] |= settings
        checkpoint.save(tmp_path / "claiming.npz", state)
        return tmp_path / "claiming.npz"

    return write


@pytest.fixture
def commands(isic, tmp_path):
    """The commands that predict, without their checkpoint, and what each writes."""
    mask, table, figure = tmp_path / "masks", tmp_path / "scores.json", tmp_path / "e.png"
    return {
        "predict": (["predict", isic / IMAGE, "--out", mask], mask),
        "evaluate": (["evaluate", "--data", isic, "--json", table], table),
        "evaluate generated": (["evaluate", "--json", table], table),
        "explain": (["explain", isic / IMAGE, "--out", figure], figure),
    }


COMMANDS = ("predict", "evaluate", "evaluate generated", "explain")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_small_file_that_claims_large_images_is_refused_without_memory_for_them(
    r2unet, claiming, commands, name, monkeypatch
):
    monkeypatch.setattr(UShape, "answer", None)  # nothing is predicted
    words, out = commands[name]
    file = claiming(size=4096)
    with memory_traced():
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        code, stdout, stderr = r2unet(*words, "--checkpoint", file)
        peak = tracemalloc.get_traced_memory()[1] - before
    assert (code, stdout) == (2, "") and stderr.count("\n") == 1
    assert f"{file}: its network sees an image of 4096 x 4096 pixels" in stderr
    assert "if you trust it, add --size 4096, otherwise a smaller one" in stderr
    assert peak < 16 * 2**20 and not out.exists()


@pytest.mark.parametrize("name", COMMANDS[:3])
def test_with_size_the_same_file_is_used_at_that_size(r2unet, trained, claiming, commands, name):
    words, out = commands[name]
    written = []
    for options in (
        ["--checkpoint", trained / "best.npz"],
        ["--checkpoint", claiming(size=4096), "--size", 16],
    ):
        assert r2unet(*words, *options)[0] == 0
        if out.is_dir():
            written.append([path.read_bytes() for path in sorted(out.iterdir())])
        else:
            written.append(json.loads(out.read_text())["scores"])
    assert written[0] == written[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_its_own_large_size_is_permitted_by_the_option(r2unet, trained, commands, name, monkeypatch):
    monkeypatch.setattr(prediction_memory, "UNASKED", 0)  # any size is too large
    words, out = commands[name]
    best = ["--checkpoint", trained / "best.npz"]
    assert r2unet(*words, *best)[0] == 2 and not out.exists()
    assert r2unet(*words, *best, "--size", 16)[0] == 0 and out.exists()


class TestRuns:
    """`report` and `compare` predict at the size of each run."""

    @pytest.fixture
    def study(self, r2unet, tiny, tmp_path):
        rows = ["--variant", "a: steps=1", "--variant", "b: steps=2"]
        assert r2unet("compare", "own", *tiny, "--seeds=0", *rows, "--out", tmp_path / "study")[0] == 0
        return tmp_path / "study"

    def test_report_asks_before_it_predicts_at_a_large_size(
        self, r2unet, trained, claiming, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(UShape, "answer", None)  # nothing is predicted
        run, page = tmp_path / "run", tmp_path / "page.html"
        shutil.copytree(trained, run)
        (run / "best.npz").write_bytes(claiming(size=4096).read_bytes())
        code, stdout, stderr = r2unet("report", run, "--out", page)
        assert (code, stdout) == (2, "") and stderr.count("\n") == 1 and not page.exists()
        assert "best.npz: its network sees an image of 4096 x 4096" in stderr
        assert "if you trust it, add --trust; or omit the images: --pictures 0" in stderr
        assert r2unet("report", run, "--out", page, "--pictures=0")[0] == 0

    def test_report_with_permission(self, r2unet, trained, tmp_path, monkeypatch):
        monkeypatch.setattr(prediction_memory, "UNASKED", 0)  # any size is too large
        words = ["report", trained, "--out", tmp_path / "page.html"]
        assert r2unet(*words)[0] == 2 and r2unet(*words, "--trust")[0] == 0

    def test_report_generates_only_the_lesions_that_it_draws(
        self, r2unet, trained, claiming, tmp_path, monkeypatch
    ):
        run = tmp_path / "run"
        shutil.copytree(trained, run)
        (run / "best.npz").write_bytes(claiming(images=1000).read_bytes())
        made, generate = [], synthetic._generate
        monkeypatch.setattr(synthetic, "_generate", lambda *of: made.append(of) or generate(*of))
        assert r2unet("report", run, "--out", tmp_path / "page.html")[0] == 0
        assert len(made) == 2  # the validation images of the run

    def test_compare_asks_before_it_predicts_at_a_large_size(self, r2unet, study, claiming, monkeypatch):
        words = ["compare", "own", "--only-report", "--out", study]
        assert r2unet(*words)[0] == 0
        best = study / "a" / "seed-0" / "best.npz"
        content = best.read_bytes()
        state = read_state(best)
        state["settings"] |= {"size": 4096}
        checkpoint.save(best, state)
        with monkeypatch.context() as changed:
            changed.setattr(UShape, "answer", None)  # nothing is predicted
            code, _, stderr = r2unet(*words)
        assert code == 2 and stderr.count("\n") == 1
        assert f"{best}: its network sees an image of 4096" in stderr and "add --trust" in stderr
        best.write_bytes(content)
        monkeypatch.setattr(prediction_memory, "UNASKED", 0)
        code, _, stderr = r2unet(*words)
        assert code == 2 and "study.json: its network sees an image of 16" in stderr
        assert r2unet(*words, "--trust")[0] == 0


def test_evaluate_generates_very_many_lesions_only_if_it_is_told_to(r2unet, claiming, monkeypatch):
    made, generate = [], synthetic._generate
    monkeypatch.setattr(synthetic, "_generate", lambda *of: made.append(of) or generate(*of))
    file = claiming(images=1_000_000)
    with monkeypatch.context() as changed:
        changed.setattr(UShape, "answer", None)  # nothing is predicted
        code, stdout, stderr = r2unet("evaluate", "--checkpoint", file)
    assert (code, stdout, made) == (2, "", []) and stderr.count("\n") == 1
    assert f"{file}: was trained with settings that give 200,000 generated lesions" in stderr
    assert "add --images N to score the first N" in stderr
    assert r2unet("evaluate", "--checkpoint", file, "--images=3")[0] == 0 and len(made) == 3
    code, _, stderr = r2unet("evaluate", "--images=3", "--data=anywhere")
    assert code == 2 and "--images: counts generated lesions" in stderr


@pytest.fixture
def alive(monkeypatch):
    """How many of all generated images are in memory, each time that one is generated."""
    images, counts, generate = [], [], synthetic._generate

    def counted(*of):
        made = generate(*of)
        images.append(weakref.ref(made[0]))
        counts.append(sum(image() is not None for image in images))
        return made

    monkeypatch.setattr(synthetic, "_generate", counted)
    return counts


def test_evaluate_does_not_store_the_lesions_that_it_generates(r2unet, claiming, alive):
    assert r2unet("evaluate", "--checkpoint", claiming(images=200))[0] == 0
    assert len(alive) == 40 and max(alive) <= 12  # a batch has 4


def test_the_images_to_draw_are_predicted_one_by_one(r2unet, claiming, alive, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "shrink", partial(ranking.shrink, side=8))  # as large images are shrunk
    file, words = claiming(images=60, batch_size=2), ["--overlays", tmp_path / "a.png", "--pictures=12"]
    assert r2unet("evaluate", "--checkpoint", file, *words)[0] == 0
    assert len(alive) == 12 + 12 and max(alive) <= 4  # scored, and then drawn


def test_training_export_and_check_accept_any_size(r2unet, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_memory, "UNASKED", 0)
    best = tmp_path / "run" / "best.npz"
    assert r2unet("train", *tiny, "--out", tmp_path / "run")[0] == 0
    (tmp_path / "run" / "report.json").unlink()
    assert r2unet("train", *tiny, "--resume", "--out", tmp_path / "run")[0] == 0
    assert r2unet("export", best, "--out", tmp_path / "a.npz")[0] == 0
    assert r2unet("check", best, tmp_path / "a.npz")[0] == 0


def test_the_batches_of_a_checkpoint_are_bounded(r2unet, claiming, monkeypatch):
    monkeypatch.setattr(
        prediction_memory,
        "UNASKED",
        3 * prediction_memory.prediction_memory(Settings(size=16, widths=(2, 4))),
    )
    predicted, kept, answer, score = [], [], UShape.answer, Scorer.__call__
    monkeypatch.setattr(UShape, "answer", lambda model, x: predicted.append(len(x.data)) or answer(model, x))
    monkeypatch.setattr(Scorer, "__call__", lambda self, batch: kept.append(len(batch)) or score(self, batch))
    assert r2unet("evaluate", "--checkpoint", claiming(batch_size=4096, images=40))[0] == 0
    assert predicted == kept == [3, 3, 2]


def test_comparing_modes_needs_the_option_for_large_batches(r2unet, claiming, monkeypatch):
    one = prediction_memory.prediction_memory(Settings(size=16, widths=(2, 4)))
    monkeypatch.setattr(prediction_memory, "UNASKED", one)
    words = ["evaluate", "--compare-modes", "--checkpoint", claiming(batch_size=4096, images=400)]
    code, _, stderr = r2unet(*words)
    assert code == 2 and "sees 80 images of 16 x 16 pixels" in stderr and stderr.count("\n") == 1
    assert r2unet(*words, "--size", 16)[0] == 0


@pytest.mark.parametrize("name", ["explain", "evaluate"])
def test_sizes_that_the_network_cannot_halve_are_refused_where_nothing_is_padded(
    r2unet, trained, commands, name
):
    words, out = commands[name]
    more = ["--compare-modes"] if name == "evaluate" else []
    code, _, stderr = r2unet(*words, *more, "--checkpoint", trained / "best.npz", "--size", 15)
    advice = "--size 15: must be divisible by 2 for this network; try --size 16\n"
    assert code == 2 and stderr == f"r2unet: error: {advice}" and not out.exists()
