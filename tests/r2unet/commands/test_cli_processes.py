"""--processes: the same files, the same text and the same exit codes as with one process."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidl.files import PREFIX
from r2unet.commands.main import main
from r2unet.data.images import read_mask
from r2unet.data.synthetic import make_lesion

OPTIONS = ["--size=16", "--widths=2,4", "--norm=group", "--images=18", "--batch-size=2", "--epochs=1"]
MASK = "_segmentation_prediction.png"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The best.npz of a network that predicts the outline and the diagnosis; never write there."""
    out = tmp_path_factory.mktemp("runs") / "both"
    assert main(["train", *OPTIONS, "--device=cpu", "--task=both", "--out", str(out)]) == 0
    return out / "best.npz"


@pytest.fixture
def photographs(tmp_path):
    """Four photographs; the second is damaged."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(4):
        image, _ = make_lesion(40, np.random.default_rng(number))
        Image.fromarray(image[4:36]).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_predict_writes_and_prints_the_same(r2unet, both, photographs, tmp_path):
    words = "predict", photographs, "--checkpoint", both, "--overlay", "--tta"
    answers, files = [], []
    for processes in (1, 2):
        out = tmp_path / "out"
        answers.append(r2unet(*words, "--out", out, "--processes", processes))
        files.append(contents(out))
        out.rename(tmp_path / f"out-{processes}")
    assert answers[0] == answers[1] and files[0] == files[1]
    code, stdout, err = answers[1]
    assert code == 2 and err.count("\n") == 1 and f"{photographs / '1.png'}: the image is damaged" in err
    assert [line.partition(":")[0] for line in stdout.splitlines()[:3]] == [
        str(photographs / f"{number}.png") for number in (0, 2, 3)
    ]
    pictures = [f"{n}_{kind}.png" for n in (0, 2, 3) for kind in ("diagnosis", "overlay")]
    assert set(files[1]) == {"diagnoses.csv", *pictures, *(f"{n}{MASK}" for n in (0, 2, 3))}


def test_evaluate_prints_the_same(r2unet, both, isic, tmp_path):
    # The generated lesions of the validation are in two batches, the last of one image.
    for words in ([], ["--data", isic, "--clean-up"]):
        words = ["evaluate", "--checkpoint", both, *words]
        answers = [r2unet(*words, "--json", "--processes", n) for n in (1, 2)]
        assert answers[0] == answers[1] and answers[0][0] == 0
        scores = json.loads(answers[1][1])["scores"]
        assert scores["model"]["images"] == 3 and {"diagnosis", "mean mask"} <= set(scores)


def test_evaluate_ends_with_the_same_error(r2unet, both, isic):
    damaged = next((isic / "ISIC-2017_Validation_Data").glob("*6.jpg"))
    damaged.write_bytes(damaged.read_bytes()[:300])
    answers = [r2unet("evaluate", "--checkpoint", both, "--data", isic, "--processes", n) for n in (1, 2)]
    assert answers[0] == answers[1] and answers[0][0] == 2
    assert answers[0][2].startswith(f"r2unet: error: {damaged}: the image is damaged")


def test_needs_no_more_processes_than_images(r2unet, both, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("r2unet.commands.workers.Processes", None)  # one image: none is started
    words = "--checkpoint", both, "--out", tmp_path / "out", "--processes", 64
    assert r2unet("predict", photographs / "0.png", *words)[0] == 0


@pytest.fixture
def predicting(program, both, tmp_path):
    """Two processes that predict sixty photographs, when the first is done, and the folder of the masks."""
    folder = tmp_path / "many"
    folder.mkdir()
    image, _ = make_lesion(40, np.random.default_rng(0))
    for number in range(60):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    words = "--checkpoint", both, "--size", 320, "--tta", "--processes", 2, "--out", tmp_path / "out"
    child = program("predict", folder, *words, start_new_session=True)
    assert "% lesion" in child.stdout.readline()
    yield child, tmp_path / "out"
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def assert_whole(out: Path):
    """Assert that the folder has whole masks of some of the images, their table, and nothing else."""
    names = {path.name for path in out.iterdir()}
    masks = {name for name in names if name.endswith(MASK)}
    assert names == {*masks, "diagnoses.csv"} and 0 < len(masks) < 60
    assert all(read_mask(out / name).shape == (40, 40) for name in masks)
    rows = (out / "diagnoses.csv").read_text().splitlines()[1:]
    assert 0 < len(rows) <= len(masks)


def test_ctrl_c_ends_all_with_one_line_and_whole_files(predicting):
    child, out = predicting
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=120)  # returns when no process has its output open
    assert (child.returncode, err) == (130, "r2unet: error: interrupted\n")
    assert_whole(out)


def worker_of(pid: int) -> int:
    """Return one of the processes that a process has started with multiprocessing."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes())


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds the processes in /proc, on Linux only"
)
def test_a_killed_process_ends_all_with_one_line_and_whole_files(predicting):
    child, out = predicting
    os.kill(worker_of(child.pid), signal.SIGKILL)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 2
    assert err == (
        "r2unet: error: a process ended with code -9, perhaps for lack of memory; repeat the command with "
        "fewer --processes\n"
    )
    for path in out.glob(f"{PREFIX}*"):  # of the killed process; the next command removes it
        path.unlink()
    assert_whole(out)


def test_refuses_to_share_a_gpu_and_to_profile_several(r2unet, both, photographs, tmp_path, monkeypatch):
    words = "--checkpoint", both, "--processes", 2
    profile = "predict", photographs, *words, "--out", tmp_path / "out", "--profile"
    code, _, err = r2unet(*profile)
    assert code == 2 and "--processes 2: --profile measures one process; omit one of the two" in err
    for command in ("predict", "evaluate"):
        monkeypatch.setattr(f"r2unet.commands.{command}.resolve_device", lambda name: "cuda")
        paths = [photographs, "--out", tmp_path / "out"] if command == "predict" else []
        code, _, err = r2unet(command, *paths, *words)
        assert code == 2 and "--processes 2: all would use the same GPU; add --device cpu" in err
    assert not (tmp_path / "out").exists()


def test_profile_prints_the_time_of_each_stage_and_of_each_operation(r2unet, both, photographs, tmp_path):
    words = "--checkpoint", both, "--out", tmp_path / "out", "--overlay", "--clean-up", "--profile"
    code, stdout, _ = r2unet("predict", photographs / "0.png", *words)
    plain, stages, operations = stdout.split("\n\n")
    assert code == 0 and "1 of 1 masks" in plain
    names = [line[:30].strip() for line in stages.splitlines()]
    assert names == [
        "of a photograph",
        "read",
        "shrink for the network",
        "network",
        "enlarge the probabilities",
        "threshold and clean-up",
        "write the mask",
        "draw the outline",
        "write the outline",
        "draw and write the diagnosis",
        "total",
    ]
    assert "Conv2d" in operations and "everything else" in operations
