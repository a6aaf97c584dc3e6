"""The commands from end to end, as a user types them."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2unet import __version__
from r2unet.data.images import read_mask
from r2unet.network.model import R2AttentionUNet
from r2unet.scores import overlays
from r2unet.training.checkpoints import PRETRAINED, load_model, read_state

# A program that receives Ctrl-C in its second training step.
STOPPED = """
import signal
from r2unet.training.trainer import Trainer

def step(self, batch, _step=Trainer.train_step):
    if self.state.schedule.steps == 1:
        signal.raise_signal(signal.SIGINT)
    return _step(self, batch)

Trainer.train_step = step
sys.exit(main())
"""


class TestTrain:
    def test_on_a_folder_of_images(self, r2unet, tiny, isic, tmp_path):
        out = tmp_path / "runs" / "a"
        code, stdout, stderr = r2unet("train", *tiny, "--data", isic, "--out", out, "--threads", 2)
        assert code == 0
        assert f"training on {isic} on the cpu, into {out}" in stdout
        assert "5 images for training, 3 for validation" in stdout
        assert stdout.count("epoch ") == 2 and "Otsu's threshold" in stdout and "best.npz" in stdout
        assert all(line.startswith("warning: ") for line in stderr.splitlines())
        assert load_model(out / "best.npz")[1].data == str(isic)

    def test_on_one_image(self, r2unet, tiny, isic, tmp_path):
        for path in isic.glob("ISIC-2017_Training_*/ISIC_000000[1-4]*"):
            path.unlink()
        code, stdout, _ = r2unet("train", *tiny, "--data", isic, "--out", tmp_path / "a")
        assert code == 0 and "1 images for training" in stdout

    def test_writes_to_a_new_folder_by_default(self, r2unet, tiny, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert r2unet("train", *tiny)[0] == 0
        (out,) = (tmp_path / "runs").iterdir()
        assert out.name.startswith("20") and (out / "best.npz").exists()

    def test_resumes_with_fewer_options_and_ends_with_the_same_files(
        self, r2unet, program, tiny, isic, tmp_path
    ):
        one, two = tmp_path / "one", tmp_path / "two"
        assert r2unet("train", *tiny, "--data", isic, "--out", one)[0] == 0
        stopped = program("train", *tiny, "--data", isic, "--out", two, code=STOPPED)
        _, err = stopped.communicate()
        assert stopped.returncode == 130
        assert err.splitlines()[-1].endswith(f"resume with: r2unet train --resume --out {two} --device cpu")
        code, stdout, _ = r2unet("train", "--resume", "--out", two, "--device", "cpu")
        assert code == 0 and "resuming after 0 epochs and 2 batches" in stdout
        for name in ("last.npz", "best.npz", "history.csv"):
            assert (two / name).read_bytes() == (one / name).read_bytes()

    def test_resumes_with_data_that_moved(self, r2unet, tiny, isic, tmp_path):
        assert r2unet("train", *tiny, "--data", isic, "--out", tmp_path / "a")[0] == 0
        isic.rename(tmp_path / "moved")
        code, stdout, _ = r2unet("train", "--resume", "--out", tmp_path / "a", "--data", tmp_path / "moved")
        assert code == 0 and f"training on {tmp_path / 'moved'}" in stdout and "after 2 epochs" in stdout

    def test_resume_starts_a_new_training_if_there_is_none_and_says_so(self, r2unet, tiny, tmp_path):
        code, stdout, _ = r2unet("train", *tiny, "--resume", "--out", tmp_path / "new")
        assert code == 0 and "new contains no training run to resume; starting a new one" in stdout

    def test_a_checkpoint_restores_any_network(self, r2unet, tiny, isic, tmp_path):
        words = "--model r2-attention-unet --steps 1 --share-weights no --skips add --up nearest --norm group"
        out = tmp_path / "a"
        assert r2unet("train", *tiny, *words.split(), "--loss", "focal", "--out", out)[0] == 0
        model, settings, _ = load_model(out / "best.npz")
        assert type(model) is R2AttentionUNet and (settings.loss, model.steps) == ("focal", 1)
        assert (model.skips, model.norm, model.share_weights) == ("add", "group", False)
        checkpoint, images = ["--checkpoint", out / "best.npz"], isic / "ISIC-2017_Validation_Data"
        assert r2unet("train", "--resume", "--out", out, "--device", "cpu")[0] == 0
        assert r2unet("evaluate", *checkpoint, "--compare-modes")[0] == 0
        assert r2unet("predict", images, *checkpoint, "--out", tmp_path / "masks")[0] == 0
        code, _, err = r2unet("train", "--resume", "--out", out, "--model", "unet")
        assert code == 2 and "--model unet: this run was started with r2-attention-unet" in err

    def test_prints_first_how_much_memory_a_step_takes(self, r2unet, tiny, tmp_path):
        _, stdout, _ = r2unet("train", *tiny, "--out", tmp_path / "a")
        assert "a training step on 4 x 16 x 16 pixels takes about " in stdout.splitlines()[1]

    def test_profile_prints_a_table_and_writes_no_file(self, r2unet, tiny, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for more in ([], ["--checkpoint-blocks"], ["--out", tmp_path / "a", "--threads", 2]):
            code, stdout, _ = r2unet("train", *tiny, "--profile", *more)
            assert code == 0 and list(tmp_path.iterdir()) == []
            lines = [line.split() for line in stdout.splitlines()]
            start = next(i for i, words in enumerate(lines) if words[0] == "operation")
            assert {"Conv2d", "BatchNorm", "Add"} < {words[0] for words in lines[start + 1 :]}
            assert ("Recomputed" in stdout) == ("--checkpoint-blocks" in more)

    def test_activation_checkpointing_gives_the_same_weights_and_may_change_on_resume(
        self, r2unet, tiny, trained, tmp_path
    ):
        assert r2unet("train", *tiny, "--checkpoint-blocks", "--out", tmp_path / "a")[0] == 0
        (plain, _, _), (model, settings, _) = (load_model(d / "best.npz") for d in (trained, tmp_path / "a"))
        assert model.checkpoint_blocks and settings.checkpoint_blocks and not plain.checkpoint_blocks
        for name, array in plain.state_dict().items():
            assert model.state_dict()[name].tobytes() == array.tobytes()
        for choice in ("no", "yes"):
            words = "--resume", "--device", "cpu", "--checkpoint-blocks", choice
            assert r2unet("train", "--out", tmp_path / "a", *words)[0] == 0

    def test_cached_images_change_nothing(self, r2unet, tiny, isic, tmp_path):
        for name, more in (("a", []), ("b", ["--cache", tmp_path / "c"]), ("d", ["--cache", tmp_path / "c"])):
            assert r2unet("train", *tiny, "--data", isic, "--out", tmp_path / name, *more)[0] == 0
        contents = {(tmp_path / name / "last.npz").read_bytes() for name in "abd"}
        assert len(contents) == 1 and len(list((tmp_path / "c").iterdir())) == 2

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
    def test_a_signal_saves_and_prints_how_to_resume(self, program, tiny, tmp_path, number):
        # The tests themselves may run where both signals are ignored, as by nohup in the background.
        code = f"import signal\nsignal.signal({number}, signal.default_int_handler)\nsys.exit(main())"
        child = program("train", *tiny, "--epochs", 100_000, "--out", tmp_path / "a", code=code)
        while not child.stdout.readline().startswith("epoch "):
            assert child.poll() is None
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 130
        assert "all progress is saved; resume with: r2unet train --resume --out" in err
        assert "Traceback" not in err
        assert read_state(tmp_path / "a" / "last.npz")["history"]


class TestEvaluate:
    def test_prints_means_pooled_scores_an_interval_and_baselines(self, r2unet, trained):
        code, stdout, stderr = r2unet("evaluate", "--checkpoint", trained / "best.npz")
        assert code == 0
        for word in ("mean over 2 images", "pooled", "95 % of Jaccard", "model", "Otsu's", "all background"):
            assert word in stdout
        # After two epochs the network scores below Otsu's threshold, and stderr says so.
        assert stderr.startswith("warning: the model's mean Jaccard") and "warning" not in stdout

    def test_gives_the_scores_of_the_training_s_report(self, r2unet, trained):
        words = ["--checkpoint", trained / "best.npz", "--device", "cpu", "--json"]
        scores = json.loads(r2unet("evaluate", *words)[1])["scores"]
        report = json.loads((trained / "report.json").read_text())
        assert scores.keys() == report.keys()
        for name, expected in report.items():  # the folded network rounds differently, which may flip a pixel
            assert scores[name].keys() == expected.keys()
            for part, values in expected.items():
                assert scores[name][part] == pytest.approx(values, rel=0, abs=0.02), (name, part)

    def test_json_prints_one_object_to_stdout(self, r2unet, trained, isic, tmp_path):
        words = ["--data", isic, "--json", "--compare-modes", "--overlays", tmp_path / "new" / "o.png"]
        code, stdout, stderr = r2unet("evaluate", "--checkpoint", trained / "best.npz", *words)
        answer = json.loads(stdout)
        assert code == 0 and stderr == ""
        assert set(answer) == {"checkpoint", "split", "scores", "tta", "clean_up", "modes"}
        assert (answer["split"], answer["tta"], answer["clean_up"]) == ("validation", False, False)
        names = {"relative_rms", "relative_rms_settled", "jaccard_train_mode", "jaccard_eval_mode"}
        assert set(answer["modes"]) == names
        assert set(answer["scores"]["model"]["jaccard_by_image"]) == {f"ISIC_{n:07}" for n in (5, 6, 7)}
        with Image.open(tmp_path / "new" / "o.png") as picture:
            assert picture.format == "PNG" and picture.height > 3 * 200

    def test_json_with_a_name_writes_a_file_and_prints_the_table(self, r2unet, trained, tmp_path):
        words = ["evaluate", "--checkpoint", trained / "best.npz", "--json"]
        code, stdout, _ = r2unet(*words, tmp_path / "new" / "s.json")
        assert code == 0 and "mean over 2 images" in stdout
        assert json.loads((tmp_path / "new" / "s.json").read_text()) == json.loads(r2unet(*words)[1])

    @pytest.mark.parametrize("split, images", [("training", 10), ("validation", 2)])
    def test_generates_the_given_split(self, r2unet, trained, split, images):
        words = ["evaluate", "--checkpoint", trained / "best.npz", "--json", "--split", split]
        assert json.loads(r2unet(*words)[1])["scores"]["model"]["images"] == images

    @pytest.mark.parametrize("split, images", [("training", 5), ("validation", 3), ("all", 8)])
    def test_reads_the_given_split(self, r2unet, trained, isic, split, images):
        words = ["--data", isic, "--split", split, "--json"]
        _, stdout, _ = r2unet("evaluate", "--checkpoint", trained / "best.npz", *words)
        assert json.loads(stdout)["scores"]["model"]["images"] == images

    def test_tta_and_clean_up_change_the_scores(self, r2unet, trained, isic, tmp_path):
        accuracy = {}
        for words in ((), ("--tta",), ("--clean-up",), ("--tta", "--clean-up", "--data", isic)):
            more = ("--json", "--overlays", tmp_path / "o.png")
            code, stdout, _ = r2unet("evaluate", "--checkpoint", trained / "best.npz", *words, *more)
            answer = json.loads(stdout)
            assert code == 0
            assert (answer["tta"], answer["clean_up"]) == ("--tta" in words, "--clean-up" in words)
            accuracy[words] = answer["scores"]["model"]["mean"]["accuracy"]
        assert len(set(accuracy.values())) == 4

    def test_uses_the_post_processing_of_the_checkpoint_unless_options_override_it(
        self, r2unet, trained, tmp_path
    ):
        advised, best = tmp_path / "advised.npz", trained / "best.npz"
        assert r2unet("export", best, "--out", advised, "--tta", "--clean-up")[0] == 0
        as_advised = json.loads(r2unet("evaluate", "--checkpoint", advised, "--json")[1])
        asked = json.loads(r2unet("evaluate", "--checkpoint", best, "--tta", "--clean-up", "--json")[1])
        assert as_advised["scores"] == asked["scores"] and as_advised["tta"] and as_advised["clean_up"]
        words = "--no-tta", "--no-clean-up", "--json"
        plain = json.loads(r2unet("evaluate", "--checkpoint", advised, *words)[1])
        assert plain["scores"] == json.loads(r2unet("evaluate", "--checkpoint", best, "--json")[1])["scores"]

    def test_worst_draws_the_images_with_the_lowest_jaccard(
        self, r2unet, trained, isic, tmp_path, monkeypatch
    ):
        drawn = []
        monkeypatch.setattr(
            overlays, "plot_overlays", lambda rows, path: drawn.append([row.name for row in rows])
        )
        words = "--data", isic, "--split", "all", "--json", "--overlays", tmp_path / "o.png", "--pictures", 2
        for more in ((), ("--worst",)):
            stdout = r2unet("evaluate", "--checkpoint", trained / "best.npz", *words, *more)[1]
        jaccards = json.loads(stdout)["scores"]["model"]["jaccard_by_image"]
        ranked = sorted(jaccards, key=lambda name: -jaccards[name])
        assert drawn == [[ranked[0], ranked[-1]], ranked[-2:]]
        code, _, err = r2unet("evaluate", "--checkpoint", trained / "best.npz", "--worst")
        assert code == 2 and "--worst: has no effect without --overlays" in err

    def test_needs_photographs_for_weights_trained_on_photographs(self, r2unet, isic, tmp_path):
        shutil.copy(PRETRAINED["isic2017"], tmp_path / "copy.npz")
        for words in ((), ("--checkpoint", tmp_path / "copy.npz")):
            code, _, err = r2unet("evaluate", *words)
            assert code == 2 and "--data: is missing" in err
        code, stdout, _ = r2unet("evaluate", "--data", isic, "--json")
        answer = json.loads(stdout)
        assert code == 0 and answer["tta"] and answer["clean_up"]

    def test_compare_modes_prints_a_table(self, r2unet, trained):
        _, stdout, _ = r2unet("evaluate", "--checkpoint", trained / "best.npz", "--compare-modes")
        assert [line.split()[:-1] for line in stdout.splitlines()[-4:]] == [
            ["relative", "rms"],
            ["relative", "rms", "settled"],
            ["jaccard", "train", "mode"],
            ["jaccard", "eval", "mode"],
        ]


class TestPredict:
    def test_writes_a_mask_for_every_image(self, r2unet, trained, isic, tmp_path):
        out, folder = tmp_path / "masks", isic / "ISIC-2017_Validation_Data"
        words = "predict", folder, "--checkpoint", trained / "best.npz", "--out", out
        code, stdout, stderr = r2unet(*words, "--overlay", "--tta", "--clean-up", "--size", 21)
        assert code == 0 and stderr == ""
        lines = stdout.splitlines()
        assert [line.split(": ")[0] for line in lines[:-1]] == list(map(str, sorted(folder.iterdir())))
        assert lines[-1] == f"3 of 3 masks are in {out}; not a diagnosis, not a medical device"
        assert len(list(out.iterdir())) == 6
        mask = read_mask(out / "ISIC_0000006_segmentation_prediction.png")
        assert mask.shape == (24, 32)
        assert lines[1].endswith(f": {mask.mean():.1%} lesion")

    def test_uses_the_post_processing_of_the_checkpoint(self, r2unet, trained, tmp_path):
        best, speckled = trained / "best.npz", tmp_path / "noise.png"  # noise, where both change much
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(speckled)
        for advice in (["--tta"], ["--clean-up"]):
            assert r2unet("export", best, "--out", tmp_path / "advised.npz", *advice)[0] == 0
            masks = []
            for checkpoint, words in (
                (tmp_path / "advised.npz", []),
                (best, advice),
                (tmp_path / "advised.npz", [f"--no-{advice[0][2:]}"]),
            ):
                words = "predict", speckled, "--checkpoint", checkpoint, "--out", tmp_path, *words
                assert r2unet(*words)[0] == 0
                masks.append((tmp_path / "noise_segmentation_prediction.png").read_bytes())
            assert masks[0] == masks[1] != masks[2]

    def test_the_size_of_the_training_is_the_default(self, r2unet, trained, isic, tmp_path):
        file = isic / "ISIC-2017_Training_Data" / "ISIC_0000002.jpg"
        for name, size in (("a", []), ("b", ["--size", "16"]), ("c", ["--size", "64"])):
            words = ["predict", "--checkpoint", trained / "best.npz", file, "--out", tmp_path / name, *size]
            assert r2unet(*words)[0] == 0
        a, b, c = (next((tmp_path / name).iterdir()).read_bytes() for name in "abc")
        assert a == b != c

    def test_continues_after_a_bad_file_and_reports_it_at_the_end(self, r2unet, trained, isic, tmp_path):
        folder = isic / "ISIC-2017_Validation_Data"
        bad = folder / "ISIC_0000006.jpg"
        bad.write_bytes(bad.read_bytes()[:400])
        (folder / "ISIC_0000004.jpg").write_text("no image")
        words = ["predict", "--checkpoint", trained / "best.npz", folder, "--out", tmp_path / "masks"]
        code, stdout, stderr = r2unet(*words)
        assert code == 2 and "2 of 4 masks are in" in stdout
        first, second = stderr.splitlines()
        assert first.startswith(f"r2unet: error: {folder / 'ISIC_0000004.jpg'}: ")
        assert second.startswith(f"r2unet: error: {bad}: ")
        assert len(list((tmp_path / "masks").iterdir())) == 2


class TestExplain:
    def test_draws_a_figure(self, r2unet, trained, isic, tmp_path):
        image, out = isic / "ISIC-2017_Validation_Data" / "ISIC_0000006.jpg", tmp_path / "new" / "figure.png"
        code, stdout, stderr = r2unet("explain", image, "--checkpoint", trained / "best.npz", "--out", out)
        assert (code, stdout, stderr) == (0, f"the figure is in {out}\n", "")
        with Image.open(out) as picture:
            assert picture.format == "PNG" and min(picture.size) > 1000

    def test_refuses_a_missing_image_in_one_line(self, r2unet, trained, tmp_path):
        words = ("--checkpoint", trained / "best.npz", "--out", tmp_path / "figure.png")
        code, stdout, stderr = r2unet("explain", tmp_path / "nothing.jpg", *words)
        assert code == 2 and stdout == "" and stderr.count("\n") == 1 and "nothing.jpg" in stderr
        assert not (tmp_path / "figure.png").exists()


class TestSummary:
    def test_prints_a_line_per_layer_and_totals(self, r2unet):
        code, stdout, stderr = r2unet("summary", "--widths", "8,16,32,64", "--size", 128)
        lines = stdout.splitlines()
        assert code == 0 and stderr == ""
        assert lines[0].split()[0] == "layer" and lines[-2].split()[0] == "total" and len(lines) > 50
        assert lines[-1].startswith("a training step on 8 x 128 x 128 pixels takes about ")
        assert any(line.split()[:3] == ["encoder.3.project", "Conv2d", "64"] for line in lines)


class TestProgram:
    def test_help_imports_nothing_slow(self, program):
        code = "try: main(['--help'])\nexcept SystemExit: pass\n"
        code += "print(sorted({'matplotlib', 'PIL', 'tqdm', 'cupy'} & set(sys.modules)))"
        out, _ = program(code=code).communicate()
        assert out.splitlines()[-1] == "[]" and out.startswith("usage: r2unet")

    def test_version(self, r2unet):
        assert r2unet("--version")[:2] == (0, f"r2unet {__version__}\n")

    @pytest.mark.parametrize("words", [["summary"], ["--help"]])
    def test_a_closed_pipe_is_not_an_error(self, program, words):
        child = program(*words)
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait() == 141

    def test_ctrl_c_outside_of_a_training_prints_one_line(self, program):
        code = "from r2unet.commands import main as cli; import signal\n"
        # a program that a shell starts in the background inherits that Ctrl-C is ignored
        code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        code += "cli.build_parser = lambda: signal.raise_signal(signal.SIGINT)\nsys.exit(cli.main())"
        child = program(code=code)
        assert child.communicate() == ("", "r2unet: error: interrupted\n")
        assert child.returncode == 130


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
class TestRealImages:
    @pytest.fixture
    def originals(self):
        root = Path(os.environ["ISIC_ROOT"]) / "originals"
        if not root.is_dir():
            pytest.skip("ISIC_ROOT has no folder originals/")
        return root

    def test_masks_have_the_size_of_the_originals(self, r2unet, trained, originals, tmp_path):
        files = sorted((originals / "ISIC-2017_Validation_Data").glob("*.jpg"))[:2]
        assert r2unet("predict", "--checkpoint", trained / "best.npz", *files, "--out", tmp_path)[0] == 0
        for file in files:
            with (
                Image.open(file) as image,
                Image.open(tmp_path / f"{file.stem}_segmentation_prediction.png") as mask,
            ):
                assert mask.size == image.size and mask.mode == "L"

    def test_originals_are_scored(self, r2unet, trained, originals):
        words = ["evaluate", "--checkpoint", trained / "best.npz", "--data", originals, "--json"]
        scores = json.loads(r2unet(*words)[1])["scores"]
        assert scores["model"]["images"] == len(scores["model"]["jaccard_by_image"]) >= 2
        assert 0.6 < scores["all background"]["mean"]["accuracy"] < 0.95
