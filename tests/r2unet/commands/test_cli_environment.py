"""Odd names, closed streams and early signals: one line and the right exit code, never a traceback."""

import json
import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from r2unet.errors import visible

BYTES = os.fsdecode(b"leg\xff.png")  # a name that is not UTF-8
CONTROL = "\x1b[31mred\n.png"

# Runs the program, and sends it Ctrl-C while it imports NumPy.
CTRL_C = """
import runpy, signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == "numpy":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_module("r2unet", run_name="__main__")
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of images with names that are hard to print or to write."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in (BYTES, CONTROL, "x" * 228 + ".png", "$\\frac$.png", "normal.png"):
        Image.new("RGB", (20, 20)).save(folder / name)
    return folder


def test_text_that_is_not_printable_is_shown_as_escape_sequences():
    assert visible("皮膚 a$b\\.png") == "皮膚 a$b\\.png"
    assert visible("\x1b[31m\n\udcff\u202e") == "\\x1b[31m\\n\\udcff\\u202e"


def test_predict_continues_after_a_name_that_is_too_long_and_prints_all_others(
    program, folder, trained, tmp_path
):
    child = program("predict", folder, "--checkpoint", trained / "best.npz", "--out", tmp_path / "out")
    out, err = child.communicate()
    assert child.returncode == 2
    assert err.count("\n") == 1 and "a shorter name" in err
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert (tmp_path / "out" / os.fsdecode(b"leg\xff_segmentation_prediction.png")).exists()
    assert "leg\\udcff.png: " in out and "\\x1b[31mred\\n.png: " in out and "\x1b" not in out
    assert "4 of 5 masks" in out and out.count("\n") == 5


def test_trains_and_evaluates_on_images_of_any_name(r2unet, folder, tiny, tmp_path):
    (folder / ("x" * 228 + ".png")).unlink()
    (tmp_path / "masks").mkdir()
    for path in folder.iterdir():
        Image.new("L", (20, 20)).save(tmp_path / "masks" / path.name)
    words = "--data", tmp_path, "--cache", tmp_path / "cache", "--epochs=1"
    code, _, err = r2unet("train", *tiny, *words, "--out", tmp_path / "a")
    assert code == 0 and "Traceback" not in err
    words = "--data", tmp_path, "--split", "all", "--checkpoint", tmp_path / "a" / "best.npz"
    code, out, _ = r2unet("evaluate", *words, "--overlays", tmp_path / "o.png", "--json")
    assert code == 0 and {BYTES[:-4], CONTROL[:-4]} < set(
        json.loads(out)["scores"]["model"]["jaccard_by_image"]
    )


@pytest.mark.parametrize("name", [BYTES, CONTROL])
@pytest.mark.parametrize(
    "words",
    [["predict", "{}"], ["predict", "a.png", "--checkpoint", "{}"], ["score", "{}", "{}"], ["{}"]],
)
def test_errors_about_any_name_are_one_printable_line(program, tmp_path, name, words):
    child = program(*(word.format(tmp_path / name) for word in words), env={**os.environ, "LC_ALL": "C"})
    _, err = child.communicate()
    assert child.returncode == 2 and err.count("\n") == 1 and "Traceback" not in err
    assert err.rstrip("\n").isprintable()


class TestTextFromFiles:
    """Somebody else may have made a file; its text must not reach the terminal as control characters."""

    def test_a_licence(self, r2unet, trained, folder, tmp_path):
        words = "--licence", "\x1b[31mfree", "--out", tmp_path / "w.npz"
        assert r2unet("export", trained / "best.npz", *words)[0] == 0
        words = "--checkpoint", tmp_path / "w.npz", "--out", tmp_path / "out"
        code, _, err = r2unet("predict", folder / "normal.png", *words)
        assert code == 0 and err == "licence of the weights: \\x1b[31mfree\n"

    def test_the_columns_of_a_table(self, r2unet, tmp_path):
        for name, values in (("truth", "1,0\nb,0,1"), ("predictions", "0.5,0.5\nb,0.5,0.5")):
            (tmp_path / f"{name}.csv").write_text(f"image,\x1b[31m,B\na,{values}\n")
        code, out, _ = r2unet("score", tmp_path / "truth.csv", tmp_path / "predictions.csv")
        assert code == 0 and "\\x1b[31m" in out and "\x1b" not in out

    def test_the_folder_of_a_damaged_cache(self, r2unet, isic, tiny, tmp_path):
        cache = tmp_path / CONTROL
        words = "--data", isic, "--cache", cache, "--epochs=1"
        for out in ("a", "b"):
            code, _, err = r2unet("train", *tiny, *words, "--out", tmp_path / out)
            assert code == 0 and "\x1b" not in err
            for path in cache.iterdir():
                path.write_bytes(b"damaged")
        assert "red\\n.png/isic-16-" in err and "reading the images again" in err


def test_a_closed_stderr_is_no_error(trained, folder, tmp_path):
    words = "predict", folder / "normal.png", "--checkpoint", trained / "best.npz", "--out", tmp_path / "out"
    command = " ".join(f"'{word}'" for word in (sys.executable, "-m", "r2unet", *words))
    finished = subprocess.run(f"{command} 2>&-", shell=True, capture_output=True, text=True)
    assert finished.returncode == 0 and "1 of 1 masks" in finished.stdout
    finished = subprocess.run(f"{command} --size 0 2>&- >&-", shell=True, capture_output=True, text=True)
    assert finished.returncode == 2


def test_training_without_stderr(tiny, tmp_path):
    words = " ".join([*tiny, "--epochs=1", f"--out={tmp_path / 'a'}"])
    command = f"'{sys.executable}' -m r2unet train {words} 2>&-"
    assert subprocess.run(command, shell=True, capture_output=True).returncode == 0
    assert (tmp_path / "a" / "report.json").exists()


def test_ctrl_c_during_the_imports_ends_the_program_without_a_traceback():
    # The tests themselves may run where Ctrl-C is ignored.
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{CTRL_C}"
    finished = subprocess.run([sys.executable, "-c", code, "summary"], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (130, "")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_an_ignored_ctrl_c_stays_ignored():
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{CTRL_C}"
    finished = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True)
    assert finished.returncode == 0 and finished.stdout.startswith("r2unet ")


def test_two_dashes_as_a_value_are_refused(r2unet, tiny):
    code, _, err = r2unet("train", *tiny, "--out=--")
    assert code == 2 and err.count("\n") == 1 and "argument --out: expected a value, got '--'" in err


def test_predict_says_that_a_folder_contains_only_masks(r2unet, trained, isic):
    masks = isic / "ISIC-2017_Validation_Part1_GroundTruth"
    code, _, err = r2unet("predict", masks, "--checkpoint", trained / "best.npz")
    assert code == 2
    assert "contains only masks or drawings, such as ISIC_0000005_segmentation.png; give the folder" in err
