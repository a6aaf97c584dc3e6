"""The table of options: what is understood, what is refused, in one line that names the option."""

from pathlib import Path

import pytest

from r2unet.commands.options import build_parser, resources_given
from r2unet.training.run_folder import PRETRAINED
from r2unet.training.settings import Settings


def parse(line):
    return build_parser().parse_args(line.split())


class TestUnderstood:
    def test_settings_are_absent_unless_given(self):
        assert vars(parse("train")) == {
            "command": "train",
            "device": "auto",
            "conv": "auto",
            "threads": 1,
            "cache": None,
            "out": None,
            "resume": False,
            "profile": False,
        }

    def test_the_whole_line_of_a_training(self):
        options = parse(
            "train --data DIR --size 128 --widths 8,16,32,64 --steps 2 --epochs 3 --batch-size 8 --lr 1e-3 "
            "--seed 0 --device cpu --out runs/NAME --resume"
        )
        assert (options.data, options.size, options.widths, options.steps) == ("DIR", 128, (8, 16, 32, 64), 2)
        assert (options.epochs, options.batch_size, options.lr, options.seed) == (3, 8, 1e-3, 0)
        assert (options.device, options.out, options.resume) == ("cpu", Path("runs/NAME"), True)

    def test_the_network_and_the_loss(self):
        line = "--model r2-attention-unet --share-weights no --skips add --up nearest --norm group"
        assert parse("train --checkpoint-blocks --resume").checkpoint_blocks is True
        assert parse("summary --checkpoint-blocks no --batch-size 4").checkpoint_blocks is False
        for command in ("train --loss focal", "summary"):
            options = parse(f"{command} {line}")
            assert (options.model, options.share_weights) == ("r2-attention-unet", False)
            assert (options.skips, options.up, options.norm) == ("add", "nearest", "group")
        assert parse("train --share-weights yes --loss bce+dice").share_weights is True

    def test_evaluate_predict_and_summary(self):
        options = parse(
            "evaluate --checkpoint F --data DIR --split test --json --compare-modes --overlays o.png"
        )
        assert (options.split, options.json, options.compare_modes) == ("test", True, True)
        assert options.overlays == Path("o.png") and parse("evaluate --checkpoint F").split == "validation"
        options = parse("predict --checkpoint F a.jpg folder --out DIR --overlay --size 99")
        assert (options.paths, options.overlay, options.size) == (["a.jpg", "folder"], True, 99)
        assert (options.tta, options.clean_up) == (None, None)  # as the checkpoint says
        assert parse("evaluate --checkpoint F --tta --clean-up").tta is True
        assert parse("predict a.jpg --no-tta").tta is False
        assert parse("summary --widths 3 --size 7").widths == (3,)
        options = parse("score TRUTH PREDICTIONS --json F.json")
        assert (options.truth, options.predictions) == (Path("TRUTH"), Path("PREDICTIONS"))
        assert options.json == Path("F.json")

    def test_the_ready_weights_are_the_default(self):
        for line in ("evaluate", "predict a.jpg", "explain a.jpg --out f.png"):
            assert parse(line).checkpoint == PRETRAINED and parse(
                f"{line} --checkpoint F"
            ).checkpoint == Path("F")
        assert parse("predict a.jpg").out == Path("predictions")

    def test_scores_go_to_stdout_or_into_a_file(self):
        scores = [parse(f"evaluate --checkpoint F {words}").json for words in ("", "--json", "--json F.json")]
        assert scores == [None, True, Path("F.json")]

    def test_every_command_that_runs_a_network_takes_the_threads(self):
        for line in ("train", "evaluate --checkpoint F", "predict a"):
            assert parse(line).threads == 1 and parse(f"{line} --threads 2").threads == 2
        assert parse("explain a.jpg --checkpoint F --out f.png --threads 2").threads == 2
        assert parse("compare own --out o --pictures 3 --threads 2").pictures == 3


class TestMeansGiven:
    def test_are_none_by_default_and_never_settings(self):
        assert resources_given(parse("train --size 32 --lr 0.1 --resume --out o")) == ""
        assert resources_given(parse("compare own --out o --device auto --seeds 0,1")) == ""

    def test_can_be_given_again(self):
        words = "--device cpu --conv im2col --threads 2 --cache c"
        assert resources_given(parse(f"train --resume --out o {words}")) == words
        words = f"--jobs 2 --originals --pictures 3 {words}"
        assert resources_given(parse(f"compare own --out o {words}")) == words
        options = build_parser().parse_args(["train", "--cache", "my images"])
        assert resources_given(options) == "--cache 'my images'"


class TestRefused:
    @pytest.mark.parametrize(
        "line, words",
        [
            ("", "train|compare|evaluate|predict|score|explain|export|summary"),
            ("trian", "trian"),
            ("train --batchsize 8", "--batchsize"),
            ("train --size big", "--size: want a whole number from 1 to 4096, got 'big'"),
            ("train --size 0", "--size: want"),
            ("train --size 1e9", "--size: want"),
            ("train --widths 8,16,", "--widths: want a whole number from 1 to 4096, got ''"),
            ("train --widths 8,-16", "got '-16'; write them as 8,16,32,64"),
            ("train --widths 0", "got '0'"),
            ("train --widths 8163264", "got '8163264'"),
            ("train --widths 8.5", "got '8.5'"),
            ("train --steps -1", "--steps"),
            ("train --epochs 0", "--epochs"),
            ("train --batch-size 0", "--batch-size"),
            ("train --lr 0", "--lr: want a number from 1e-12 to 100"),
            ("train --lr nan", "--lr"),
            ("train --lr inf", "--lr"),
            ("train --augment 2.1", "--augment: want a number from 0 to 2, got '2.1'"),
            ("train --images 10000000", "--images"),
            ("train --seed -1", "--seed"),
            ("train --threads 0", "--threads: want a whole number from 1 to 64"),
            ("train --threads 1000", "--threads"),
            ("train --model u-net", "--model: want one of unet, resunet, recurrent-unet, r2unet, attention"),
            ("train --loss ce", "--loss: want one of bce, dice, bce+dice, focal, tversky, got 'ce'"),
            ("train --skips sum", "--skips: want one of concat, add, none, got 'sum'"),
            ("train --up bilinear", "--up: want one of transposed, nearest"),
            ("train --norm layer", "--norm: want one of per-step, shared, group"),
            ("train --share-weights True", "--share-weights: want one of yes, no, got 'True'"),
            ("summary --loss bce", "--loss"),
            ("train --device gpu", "--device: invalid choice: 'gpu'"),
            ("train --conv fft", "--conv: invalid choice: 'fft'"),
            ("evaluate --checkpoint F --split dev", "--split: invalid choice: 'dev'"),
            ("evaluate --checkpoint F --overlays o.jpg", "--overlays: want a name ending in .png"),
            ("predict --checkpoint F --out o", "PATH"),
            ("export best.npz", "--out"),
            ("predict --checkpoint F a.jpg --out o --size 0", "--size: want"),
            ("score TRUTH", "PREDICTION_DIR"),
            ("explain a.jpg --out f.gif", "--out: want a name ending in .png"),
            ("summary --widths x", "--widths"),
        ],
    )
    def test_with_one_line_and_exit_code_2(self, capsys, line, words):
        with pytest.raises(SystemExit) as stop:
            parse(line)
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and out == ""
        assert err.startswith("r2unet") and err.count("\n") == 1 and words in err
        assert err.rstrip().endswith("--help")


class TestHelp:
    @pytest.mark.parametrize(
        "command", ["train", "compare", "evaluate", "predict", "score", "explain", "summary"]
    )
    def test_of_each_command(self, capsys, command):
        with pytest.raises(SystemExit) as stop:
            parse(f"{command} --help")
        assert stop.value.code == 0 and f"r2unet {command}" in capsys.readouterr().out

    def test_shows_the_defaults_and_what_this_is_not(self, capsys):
        with pytest.raises(SystemExit):
            parse("train --help")
        text = " ".join(capsys.readouterr().out.split())
        for shown in ("(default 8,16,32,64)", f"(default {Settings.lr})", f"(default {Settings.epochs})"):
            assert shown in text
        with pytest.raises(SystemExit):
            parse("--help")
        assert "not a medical device" in " ".join(capsys.readouterr().out.split())
