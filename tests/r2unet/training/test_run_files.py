"""Every number in the files of a finished run is checked, and a damaged file is named."""

import copy
import csv
import io
import json
import os

import pytest

from r2unet.scores.metrics import METRICS
from r2unet.study.findings import read_run
from r2unet.study.train_study import read_seconds, write_seconds
from r2unet.training.checkpoints import CONTENT_ERRORS
from r2unet.training.run_files import check_diagnoses, read_history, read_modes, read_report
from tests.r2unet.refusal import refusal

SCORES = {"images": 2, "mean": dict.fromkeys(METRICS, 0.5), "pooled": {"jaccard": 0.5}}
REPORT = {"model": {**SCORES, "jaccard_by_image": {"a": 0.25, "b": 0.75}}, "Otsu's threshold": SCORES}
HISTORY = [
    {"epoch": 1, "lr": 0.1, "validation_jaccard": 0.5},
    {"epoch": 2, "lr": 0.0, "validation_jaccard": 0.75},
]
MODES = {"relative_rms": 3.5, "jaccard_train_mode": 0.5, "jaccard_eval_mode": 0.25}


def as_csv(rows):
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_the_durations_does_not_wait(tmp_path):
    write_seconds(tmp_path, {1: 0.5, 2: 0.25})
    assert read_seconds(tmp_path) == {1: 0.5, 2: 0.25}
    (tmp_path / "seconds.csv").unlink()
    os.mkfifo(tmp_path / "seconds.csv")
    assert read_seconds(tmp_path) == {}


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "a"])
def test_an_impossible_duration_makes_all_unknown(tmp_path, seconds):
    (tmp_path / "seconds.csv").write_text(f"epoch,seconds\n1,0.5\n2,{seconds}\n")
    assert read_seconds(tmp_path) == {}


@pytest.fixture
def folder(tmp_path):
    """The files of a run."""
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    (tmp_path / "modes.json").write_text(json.dumps(MODES))
    (tmp_path / "history.csv").write_text(as_csv(HISTORY))
    return tmp_path


def read(folder):
    return read_run(folder, seed=0, modes="modes.json")


def changed(tree, path, value):
    """Return a copy of a tree with another value at a path of keys."""
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return tree


def test_valid_files_are_read_as_they_are(folder):
    assert read_report(folder / "report.json") == REPORT
    assert read_history(folder / "history.csv") == HISTORY
    assert read_modes(folder / "modes.json") == MODES
    assert read(folder).best_epoch == 2


@pytest.mark.parametrize(
    "path, value",
    [
        (["model"], None),
        (["model", "mean"], {}),
        (["model", "mean", "jaccard"], float("nan")),
        (["model", "mean", "jaccard"], 1.5),
        (["model", "mean", "dice"], "0.5"),
        (["model", "pooled"], [2.0]),
        (["model", "jaccard_by_image"], {}),
        (["model", "jaccard_by_image", "a"], 10**400),
        (["model", "jaccard_by_image", "a"], None),
        (["model", "images"], 3),
        (["Otsu's threshold", "mean"], 0.5),
    ],
)
def test_a_report_with_an_impossible_value_is_named(folder, path, value):
    (folder / "report.json").write_text(json.dumps(changed(REPORT, path, value)))
    message = refusal(lambda: read(folder))
    assert (
        message.startswith(f"{folder / 'report.json'}: is invalid (") and "run the command again" in message
    )


DIAGNOSIS = {
    "types": {"model": {"classes": ["benign", "malignant"]}},
    "by_image": {"a": {"class": "benign", "probabilities": [1.0000001, 0.0]}},
}


@pytest.mark.parametrize(
    "path, value",
    [
        (["types"], {}),
        (["by_image"], None),
        (["by_image", "a", "class"], "nevus"),
        (["by_image", "a", "probabilities"], [1.0]),
        (["by_image", "a", "probabilities"], [0.5, float("nan")]),
        (["by_image", "a", "probabilities"], [0.5, -0.1]),
    ],
)
def test_impossible_diagnoses_are_refused_and_none_are_not(path, value):
    for valid in (DIAGNOSIS, None):
        check_diagnoses(valid)
    with pytest.raises(CONTENT_ERRORS):
        check_diagnoses(changed(DIAGNOSIS, path, value))


@pytest.mark.parametrize("content", ["", "[]", "3", "{", "[" * 100_000, '{"model": ' * 100_000, "9" * 5000])
@pytest.mark.parametrize("name", ["report.json", "modes.json"])
def test_a_file_of_something_else_is_named(folder, name, content):
    (folder / name).write_text(content)
    message = refusal(lambda: read(folder))
    assert message.startswith(f"{folder / name}: is invalid (") and len(message) < 700


@pytest.mark.parametrize(
    "name, value", [("jaccard_train_mode", -1), ("relative_rms", "x"), ("relative_rms", None)]
)
def test_modes_with_an_impossible_value_are_named(folder, name, value):
    (folder / "modes.json").write_text(json.dumps({**MODES, name: value}))
    assert refusal(lambda: read(folder)).startswith(f"{folder / 'modes.json'}: is invalid (")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "epoch,lr\n",
        "epoch,lr\n1,0.1\n",
        "epoch,validation_jaccard\n1\n",
        "epoch,validation_jaccard\n1,0.5,7\n",
        "epoch,validation_jaccard\n1,nan\n",
        "epoch,validation_jaccard\n2,0.5\n",
        "epoch,validation_jaccard\n1,0.5\n1,0.5\n",
    ],
)
def test_a_history_that_is_incomplete_or_impossible_is_named(folder, content):
    (folder / "history.csv").write_text(content)
    assert refusal(lambda: read(folder)).startswith(f"{folder / 'history.csv'}: is invalid (")
