"""Every error is one line that names its cause and the remedy, and leaves no half-written file."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidl import checkpoint
from minidl.backend import cuda_problem
from r2unet.commands.messages import explain_memory_error
from r2unet.errors import InputError
from r2unet.training.checkpoints import read_state

IMAGE = "ISIC-2017_Training_Data/ISIC_0000002.jpg"
MASK = "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000002_segmentation.png"


def assert_refused(result, *words):
    """Assert exit code 2 and one line on stderr that contains these words."""
    code, _, err = result
    assert code == 2, err
    assert err.startswith("r2unet: error: ") and err.count("\n") == 1, err
    for word in words:
        assert str(word) in err


def limited(kind, amount):
    """The code of a program to which the system gives at most `amount` bytes of the resource `kind`."""
    return f"import resource; resource.setrlimit(resource.{kind}, ({amount}, {amount}))\nsys.exit(main())"


def ended(child):
    """Wait for a program to end; return (exit code, stdout, stderr)."""
    out, err = child.communicate()
    return child.returncode, out, err


class TestTrainRefused:
    @pytest.mark.parametrize(
        "words, expected",
        [
            (["--size", "18", "--widths", "2,4,8"], ["--size 18", "must be divisible by 4", "--size 16"]),
            (["--size", "8"], ["16"]),
            (["--widths", "2,2,2,2,2,2,2,2"], ["--size 16", "at most 5 --widths"]),
            (["--widths", "2,2,2,2,2", "--images", "9"], ["batches of 4", "batch norm", "--batch-size"]),
            (["--batch-size", "1", "--widths", "2,2,2,2,2"], ["batches of 1", "--size 32"]),
        ],
    )
    def test_options_that_do_not_fit_together(self, r2unet, tiny, tmp_path, words, expected):
        assert_refused(r2unet("train", *tiny, "--out", tmp_path / "a", *words), *expected)
        assert not (tmp_path / "a").exists()

    @pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")
    def test_cuda_without_cuda(self, r2unet, tiny, tmp_path):
        result = r2unet("train", *tiny, "--out", tmp_path / "a", "--device", "cuda")
        assert_refused(result, "cuda: ", "--device cpu")
        assert not (tmp_path / "a").exists()

    def test_resume_without_out(self, r2unet):
        assert_refused(r2unet("train", "--resume"), "--resume", "--out runs/NAME")

    def test_an_existing_training(self, r2unet, tiny, trained):
        before = (trained / "last.npz").read_bytes()
        assert_refused(r2unet("train", *tiny, "--out", trained), f"--out {trained}", "--resume")
        assert_refused(
            r2unet("train", "--resume", "--widths", "8,16", "--out", trained),
            "--widths 8,16",
            "started with 2,4",
        )
        assert (trained / "last.npz").read_bytes() == before

    @pytest.mark.parametrize("inside", ["", "a", "a/b"])
    def test_out_that_is_a_file(self, r2unet, tiny, tmp_path, inside):
        (tmp_path / "file").write_text("notes")
        result = r2unet("train", *tiny, "--out", tmp_path / "file" / inside)
        assert_refused(result, "--out", f"{tmp_path / 'file'} is a file", "choose a folder")
        assert (tmp_path / "file").read_text() == "notes"

    def test_out_with_a_name_too_long_for_the_disk(self, r2unet, tiny, tmp_path):
        assert_refused(r2unet("train", *tiny, "--out", tmp_path / ("x" * 300)), "xxx", "check the path")

    def test_a_cache_that_cannot_be_written(self, r2unet, tiny, isic, tmp_path):
        (tmp_path / "file").write_text("notes")
        words = ["--data", isic, "--cache", tmp_path / "file", "--out", tmp_path / "a"]
        assert_refused(r2unet("train", *tiny, *words), "--cache", tmp_path / "file", "choose a folder")
        assert not (tmp_path / "a").exists()

    def test_a_damaged_checkpoint(self, r2unet, tmp_path, trained):
        content = (trained / "last.npz").read_bytes()
        for name, bad in (("empty", b""), ("cut", content[:-200]), ("text", b"weights")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "last.npz").write_bytes(bad)
            assert_refused(
                r2unet("train", "--resume", "--out", tmp_path / name), tmp_path / name / "last.npz"
            )
            assert (tmp_path / name / "last.npz").read_bytes() == bad

    def test_weights_that_are_not_finite(self, r2unet, tmp_path, trained):
        state = read_state(trained / "last.npz")
        state["model"]["head.weight"][...] = np.nan
        state["history"] = state["history"][:1]
        state["schedule"]["steps"] = 3
        checkpoint.save(tmp_path / "last.npz", state)
        before = (tmp_path / "last.npz").read_bytes()
        result = r2unet("train", "--resume", "--out", tmp_path)
        assert_refused(result, "last.npz: its parts do not fit together", "head.weight contains NaN")
        assert (tmp_path / "last.npz").read_bytes() == before

    def test_batches_larger_than_memory(self, program, tiny, tmp_path):
        large = ["--size", 512, "--widths", 64, "--images", 2, "--batch-size", 2, "--out", tmp_path / "a"]
        child = program("train", *tiny, *large, code=limited("RLIMIT_AS", 600 * 2**20))
        assert_refused(ended(child), "--batch-size 2", "not enough memory", "--widths")
        assert not (tmp_path / "a").exists()

    def test_no_space_for_an_exported_file(self, program, trained, tmp_path):
        words = "export", trained / "best.npz", "--out", tmp_path / "a" / "w.npz"
        child = program(*words, code=limited("RLIMIT_FSIZE", 4_000))
        assert_refused(ended(child), tmp_path / "a" / "w.npz", "cannot be written", "--out")
        assert list((tmp_path / "a").iterdir()) == []

    def test_no_space_for_the_checkpoint(self, program, tiny, tmp_path):
        child = program("train", *tiny, "--out", tmp_path / "a", code=limited("RLIMIT_FSIZE", 20_000))
        assert_refused(ended(child), tmp_path / "a" / "best.npz", "cannot be written", "--out")
        assert list(tmp_path.iterdir()) == []


def without_gpu(tmp_path, message):
    """The code of a program that finds CuPy installed but without a GPU that it can use."""
    (tmp_path / "packages" / "cupy").mkdir(parents=True)
    cupy = f"def arange(*a, **k): raise RuntimeError({message!r})"
    (tmp_path / "packages" / "cupy" / "__init__.py").write_text(cupy)
    return f"sys.path.insert(0, {str(tmp_path / 'packages')!r})\nsys.exit(main())"


class TestDevice:
    NO_GPU = "cudaErrorNoDevice: no CUDA-capable device is detected"
    REASON = "the driver finds no GPU; check `nvidia-smi`, and that CUDA_VISIBLE_DEVICES does not hide it"

    @pytest.mark.parametrize(
        "words",
        [
            ["train", "--size", 16, "--images", 2],
            ["evaluate", "--checkpoint", "best.npz"],
            ["predict", "--checkpoint", "best.npz", "a.jpg", "--out", "masks"],
        ],
    )
    def test_cuda_without_a_gpu(self, program, tmp_path, words):
        code = without_gpu(tmp_path, self.NO_GPU)
        child = program(*words, "--device", "cuda", code=code, cwd=tmp_path)
        assert_refused(ended(child), f"cuda: {self.REASON}; or use --device cpu")
        assert [path.name for path in tmp_path.iterdir()] == ["packages"]

    def test_auto_trains_on_the_cpu_and_says_why(self, program, tiny, tmp_path):
        words = ["train", *tiny, "--epochs", 1, "--device", "auto", "--out", tmp_path / "a"]
        code, out, _ = ended(program(*words, code=without_gpu(tmp_path, self.NO_GPU)))
        assert code == 0 and (tmp_path / "a" / "best.npz").exists()
        first, second = out.splitlines()[:2]
        assert first == f"training on generated lesions on the cpu, into {tmp_path / 'a'}"
        assert second == f"not on a GPU: {self.REASON}"

    @pytest.mark.parametrize("device, where", [("cuda", " on the GPU"), ("cpu", "")])
    def test_a_lack_of_memory_is_reported_with_what_needed_it(self, device, where):
        with (
            pytest.raises(InputError) as raised,
            explain_memory_error("--batch-size 8", 8, 256, device, "lower it, or --size or --widths"),
        ):
            raise MemoryError("Out of memory allocating 34,359,738,368 bytes")
        assert str(raised.value) == (
            f"--batch-size 8: not enough memory{where} for a batch of 8 images of 256 x 256 pixels; "
            "lower it, or --size or --widths"
        )


def cut(path):
    """Keep the first half of a file, as after an interrupted download."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def claim_a_huge_size(path, side=100_000):
    """Write a PNG whose header claims side x side pixels."""
    Image.new("L", (1, 1)).save(path, format="PNG")
    content = bytearray(path.read_bytes())
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def test_an_image_that_pillow_only_warns_about_is_also_one_line(program, isic, trained, tmp_path):
    """At this size Pillow warns instead of raising an error; its warning would add two lines."""
    image = isic / IMAGE
    claim_a_huge_size(image, side=11_000)
    words = ["predict", "--checkpoint", trained / "best.npz", image, "--out", tmp_path / "out"]
    _, err = program(*words).communicate()
    assert err.count("\n") == 1 and "million pixels" in err


class TestBadData:
    @pytest.mark.parametrize(
        "file, spoil, expected",
        [
            (IMAGE, Path.unlink, "has no image"),
            (MASK, Path.unlink, "has no mask"),
            (IMAGE, cut, "download it again"),
            (MASK, cut, "download it again"),
            (IMAGE, lambda path: path.write_text("plain text"), "not an image that Pillow can read"),
            (IMAGE, lambda path: path.write_bytes(b""), "empty"),
            (IMAGE, claim_a_huge_size, "million pixels"),
            (MASK, lambda path: Image.new("I;16", (32, 24)).save(path), "8 bits"),
            (MASK, lambda path: Image.new("RGB", (32, 24)).save(path), "one channel"),
            (MASK, lambda path: Image.new("L", (24, 32)).save(path), "24 x 32"),
        ],
    )
    @pytest.mark.parametrize("command", ["train", "evaluate"])
    def test_is_named_with_a_remedy_and_nothing_is_written(
        self, r2unet, tiny, isic, tmp_path, trained, command, file, spoil, expected
    ):
        spoil(isic / file)
        out = tmp_path / "out"
        if command == "train":
            words = ["train", *tiny, "--data", isic, "--out", out]
        else:
            words = ["evaluate", "--checkpoint", trained / "best.npz", "--data", isic]
            words += ["--split", "training", "--overlays", out / "o.png", "--json"]
        result = r2unet(*words)
        assert_refused(result, "ISIC_0000002", expected)
        assert not out.exists()
        assert command == "train" or result[1] == ""

    @pytest.mark.parametrize("command", ["train", "evaluate"])
    def test_a_missing_or_empty_folder(self, r2unet, tmp_path, trained, command):
        rest = ["--out", tmp_path / "a"] if command == "train" else ["--checkpoint", trained / "best.npz"]
        missing = tmp_path / "none"
        assert_refused(r2unet(command, "--data", missing, *rest), missing, "no such folder")
        (tmp_path / "empty").mkdir()
        assert_refused(r2unet(command, "--data", tmp_path / "empty", *rest), "images/ and masks/")
        assert not (tmp_path / "a").exists()


class TestEvaluateAndPredict:
    @pytest.mark.parametrize("name", ["empty.npz", "foreign.npz", "odd.npz", "none.npz", "."])
    @pytest.mark.parametrize("command", [["evaluate"], ["predict", "none.jpg", "--out", "out"]])
    def test_a_bad_checkpoint(self, r2unet, trained, tmp_path, command, name):
        state = read_state(trained / "best.npz")
        (tmp_path / "empty.npz").write_bytes(b"")
        np.savez(tmp_path / "foreign.npz", x=np.zeros(3))
        checkpoint.save(tmp_path / "odd.npz", {**state, "settings": {**state["settings"], "widths": [2, 6]}})
        assert_refused(r2unet(*command, "--checkpoint", tmp_path / name), tmp_path / name)

    def test_labels_without_data(self, r2unet, trained, tmp_path):
        for command in (
            ["evaluate", "--checkpoint", trained / "best.npz"],
            ["train", "--out", tmp_path / "a"],
        ):
            result = r2unet(*command, "--labels", tmp_path / "labels.csv")
            assert_refused(result, "--labels", "--data")

    def test_labels_of_other_images(self, r2unet, trained, isic, tmp_path):
        (tmp_path / "labels.csv").write_text("ISIC_0000900,benign\n")
        words = "--checkpoint", trained / "best.npz", "--data", isic, "--labels", tmp_path / "labels.csv"
        assert_refused(r2unet("evaluate", *words), "labels.csv: line 1: no image of this name was found")

    @pytest.mark.parametrize("text", ["", ":"])
    def test_paths_that_name_nothing(self, r2unet, trained, isic, tmp_path, text):
        for command in (
            ["evaluate", "--checkpoint", trained / "best.npz"],
            ["train", "--out", tmp_path / "a"],
        ):
            for words in (["--data", text], ["--data", isic, "--labels", text]):
                assert_refused(r2unet(*command, *words), "; give ")
        assert_refused(r2unet("evaluate", "--checkpoint", trained / "best.npz", "--labels", text), "--data")
        assert not (tmp_path / "a").exists()

    def test_a_split_without_generated_lesions(self, r2unet, trained):
        result = r2unet("evaluate", "--checkpoint", trained / "best.npz", "--split", "test")
        assert_refused(result, "--split test", "give --data")

    def test_overlays_under_a_file_before_anything_is_computed(self, r2unet, trained):
        overlays = trained / "history.csv" / "o.png"
        result = r2unet("evaluate", "--checkpoint", trained / "best.npz", "--overlays", overlays)
        assert_refused(result, "--overlays", "history.csv is a file")
        assert result[1] == ""

    def test_compare_modes_where_one_image_is_too_small_for_batch_norm(self, r2unet, tiny, tmp_path):
        small = ["--widths", "2,2,2,2,2", "--images", 6, "--epochs", 1, "--out", tmp_path]
        assert r2unet("train", *tiny, *small)[0] == 0
        result = r2unet("evaluate", "--checkpoint", tmp_path / "best.npz", "--compare-modes")
        assert_refused(result, "1 images in batches of 4", "batch norm")

    def test_a_missing_image_before_anything_is_written(self, r2unet, trained, isic, tmp_path):
        words = ["predict", "--checkpoint", trained / "best.npz", isic / IMAGE, tmp_path / "none.jpg"]
        assert_refused(r2unet(*words, "--out", tmp_path / "masks"), tmp_path / "none.jpg", "no such file")
        assert not (tmp_path / "masks").exists()

    @pytest.mark.parametrize(
        "words", [["predict", ""], ["predict", IMAGE, "--out", ""], ["train", "--out", ""], ["check", ""]]
    )
    def test_an_empty_path_is_not_this_folder(self, r2unet, isic, monkeypatch, words):
        monkeypatch.chdir(isic)
        code, out, err = r2unet(*words)
        assert (code, out) == (2, "")
        assert "must be a path, got ''; write . for this folder" in err

    def test_an_image_larger_than_memory(self, program, trained, isic, tmp_path):
        words = ["predict", "--checkpoint", trained / "best.npz", isic / IMAGE, "--out", tmp_path / "masks"]
        child = program(*words, "--size", 4096, code=limited("RLIMIT_AS", 600 * 2**20))
        assert_refused(ended(child), "--size 4096: not enough memory for 4096 x 4096 pixels; lower it")

    def test_an_explanation_larger_than_memory(self, program, trained, isic, tmp_path):
        words = ["explain", isic / IMAGE, "--checkpoint", trained / "best.npz", "--out", tmp_path / "e.png"]
        more = ["--size", 4096, "--device", "cpu"]
        child = program(*words, *more, code=limited("RLIMIT_AS", 600 * 2**20))
        expected = "best.npz: not enough memory for 4096 x 4096 pixels; close other programs"
        assert_refused(ended(child), expected, "give a smaller --size")

    def test_a_file_in_the_place_of_the_folder_for_masks(self, r2unet, trained, isic):
        words = ["predict", "--checkpoint", trained / "best.npz", isic / IMAGE, "--out", isic / MASK]
        assert_refused(r2unet(*words), f"--out {isic / MASK}", "choose a folder")

    def test_a_file_name_of_two_lines_is_printed_in_one(self, r2unet, trained, tmp_path):
        file = tmp_path / "two\nlines.jpg"
        file.write_text("no image")
        words = ["predict", "--checkpoint", trained / "best.npz", file, "--out", tmp_path / "out"]
        assert_refused(r2unet(*words), "two lines.jpg")


def test_export_on_a_full_disk_names_the_file_and_leaves_nothing(program, trained, tmp_path):
    words = ["export", trained / "best.npz", "--out", tmp_path / "a.npz"]
    child = program(*words, code=limited("RLIMIT_FSIZE", 1000))
    assert_refused(ended(child), f"{tmp_path / 'a.npz'}: cannot be written", "free space")
    assert list(tmp_path.iterdir()) == []


class TestSummary:
    def test_a_size_that_the_levels_cannot_halve(self, r2unet):
        assert_refused(r2unet("summary", "--size", 100), "--size 100", "try --size 96")

    def test_a_network_larger_than_memory(self, program):
        large = ["--widths", "4096,4096", "--size", 16]
        child = program("summary", *large, code=limited("RLIMIT_AS", 2**30))
        assert_refused(ended(child), "not enough memory", "lower --size or --widths")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
    def test_stdout_on_a_full_disk(self, program):
        with open("/dev/full", "w") as full:
            child = program("summary", "--widths", 2, "--size", 16, stdout=full)
            assert_refused(ended(child), "No space left")
