"""The options: how they are parsed, and that an invalid one is refused in one line that names it."""

import dataclasses
from pathlib import Path

import pytest

from minidl.threads import physical_cores
from r2unet.commands import compare
from r2unet.commands.main import COMMANDS, build_parser
from r2unet.commands.options import add_cache, add_device, resources_given
from r2unet.training.checkpoints import PRETRAINED
from r2unet.training.settings import Settings, flag


def parse(line):
    return build_parser().parse_args(line.split())


class TestParsed:
    def test_settings_are_absent_unless_given(self):
        assert vars(parse("train")) == {
            "command": "train",
            "device": "auto",
            "conv": "auto",
            "threads": 1,
            "graph": "auto",
            "processes": None,
            "cache": None,
            "feed": "auto",
            "workers": "auto",
            "out": None,
            "resume": False,
            "profile": False,
            "start": None,
        }

    def test_a_complete_training_command(self):
        options = parse(
            "train --data DIR --size 128 --widths 8,16,32,64 --steps 2 --epochs 3 --batch-size 8 --lr 1e-3 "
            "--seed 0 --device cpu --out runs/NAME --resume"
        )
        assert (options.data, options.size, options.widths, options.steps) == ("DIR", 128, (8, 16, 32, 64), 2)
        assert (options.epochs, options.batch_size, options.lr, options.seed) == (3, 8, 1e-3, 0)
        assert (options.device, options.out, options.resume) == ("cpu", Path("runs/NAME"), True)

    def test_the_number_of_processes(self):
        assert parse("train --processes 2").processes == 2
        assert parse("train --processes auto").processes == "auto"

    def test_labels_go_with_data(self):
        for command in ("train", "compare variants --out DIR", "evaluate"):
            options = parse(f"{command} --data DIR --labels F.csv")
            assert (options.data, options.labels) == ("DIR", "F.csv")

    def test_the_options_of_the_diagnosis(self):
        options = parse(
            "train --task both --classes types-7 --pooling lesion --diagnosis-loss focal "
            "--diagnosis-weight 2 --class-weights balanced --label-smoothing 0.1 --balanced "
            "--freeze-encoder --from runs/a/best.npz"
        )
        assert (options.task, options.classes, options.pooling) == ("both", "types-7", "lesion")
        assert (options.diagnosis_loss, options.diagnosis_weight) == ("focal", 2.0)
        assert (options.class_weights, options.label_smoothing) == ("balanced", 0.1)
        assert options.balanced and options.freeze_encoder and options.start == Path("runs/a/best.npz")

    def test_pretrained_weights_are_selected_by_name(self):
        for command in ("predict a.jpg", "evaluate", "explain a.jpg --out f.png"):
            assert parse(command).checkpoint == PRETRAINED["isic2017"]
            assert parse(f"{command} --weights ham10000").checkpoint == PRETRAINED["ham10000"]

    def test_processes_are_a_number_or_the_physical_cores(self):
        for command in ("predict a.jpg", "evaluate"):
            assert parse(command).processes == 1
            assert parse(f"{command} --processes 3").processes == 3
            assert parse(f"{command} --processes auto").processes == physical_cores()

    def test_the_options_of_the_network_and_the_loss(self):
        line = "--model r2-attention-unet --share-weights no --tie-weights no"
        line += " --skips add --up nearest --norm group"
        assert parse("train --checkpoint-blocks --resume").checkpoint_blocks is True
        assert parse("summary --checkpoint-blocks no --batch-size 4").checkpoint_blocks is False
        for command in ("train --loss focal", "summary"):
            options = parse(f"{command} {line}")
            assert options.model == "r2-attention-unet"
            assert (options.share_weights, options.tie_weights) == (False, False)
            assert (options.skips, options.up, options.norm) == ("add", "nearest", "group")
        assert parse("train --share-weights yes --loss bce+dice").share_weights is True
        assert parse("train --tie-weights yes").tie_weights is True

    def test_the_options_of_evaluate_predict_summary_and_score(self):
        options = parse(
            "evaluate --checkpoint F --data DIR --split test --json --compare-modes --overlays o.png"
        )
        assert (options.split, options.json, options.compare_modes) == ("test", True, True)
        assert options.overlays == Path("o.png") and parse("evaluate --checkpoint F").split == "validation"
        options = parse("predict --checkpoint F a.jpg folder --out DIR --overlay --size 99")
        assert (options.paths, options.overlay, options.size) == ([Path("a.jpg"), Path("folder")], True, 99)
        assert (options.tta, options.clean_up) == (None, None)  # as stored in the checkpoint
        assert parse("evaluate --checkpoint F --tta --clean-up").tta is True
        assert parse("predict a.jpg --no-tta").tta is False
        assert parse("summary --widths 3 --size 7").widths == (3,)
        options = parse("score TRUTH PREDICTIONS --json F.json")
        assert (options.truth, options.predictions) == (Path("TRUTH"), Path("PREDICTIONS"))
        assert options.json == Path("F.json")

    def test_the_pretrained_weights_are_the_default(self):
        for line in ("evaluate", "predict a.jpg", "explain a.jpg --out f.png"):
            assert parse(line).checkpoint == PRETRAINED["isic2017"]
            assert parse(f"{line} --checkpoint F").checkpoint == Path("F")
        assert parse("predict a.jpg").out == Path("predictions")

    def test_json_goes_to_stdout_or_to_a_file(self):
        scores = [parse(f"evaluate --checkpoint F {words}").json for words in ("", "--json", "--json F.json")]
        assert scores == [None, True, Path("F.json")]

    def test_every_command_that_runs_a_network_has_threads(self):
        for line in ("train", "evaluate --checkpoint F", "predict a"):
            assert parse(line).threads == 1 and parse(f"{line} --threads 2").threads == 2
        assert parse("explain a.jpg --checkpoint F --out f.png --threads 2").threads == 2
        assert parse("compare own --out o --pictures 3 --threads 2").pictures == 3


class TestResourcesGiven:
    """What an interrupted training prints after `r2unet train --resume`, so that it resumes bit for bit."""

    def test_are_empty_by_default_and_contain_no_settings(self):
        options = parse("train --size 32 --lr 0.1 --resume --out o")
        assert resources_given(options, add_device, add_cache) == ""
        options = parse("compare own --out o --device auto --seeds 0,1")
        assert resources_given(options, add_device, add_cache) == ""

    def test_are_written_as_they_were_given(self):
        words = "--device cpu --conv im2col --threads 2 --cache c"
        assert resources_given(parse(f"train --resume --out o {words}"), add_device, add_cache) == words
        options = build_parser().parse_args(["train", "--cache", "my images"])
        assert resources_given(options, add_device, add_cache) == "--cache 'my images'"

    def test_of_a_study_include_how_it_is_executed(self):
        words = "--jobs 2 --originals --pictures 3 --device cpu"
        options = parse(f"compare own --out o {words}")
        assert resources_given(options, compare.add_execution, add_device) == words


class TestRefused:
    @pytest.mark.parametrize(
        "line, words",
        [
            ("", "train|compare|evaluate|report|predict|score|explain|export|summary"),
            ("trian", "trian"),
            ("train --batchsize 8", "--batchsize"),
            ("train --size big", "--size: must be a whole number from 1 to 4096, got 'big'"),
            ("train --size 0", "--size: must be"),
            ("train --size 1e9", "--size: must be"),
            ("train --widths 8,16,", "--widths: must be a whole number from 1 to 4096, got ''"),
            ("train --widths 8,-16", "got '-16'; write them as 8,16,32,64"),
            ("train --widths 0", "got '0'"),
            ("train --widths 8163264", "got '8163264'"),
            ("train --widths 8.5", "got '8.5'"),
            ("train --steps -1", "--steps"),
            ("train --epochs 0", "--epochs"),
            ("train --batch-size 0", "--batch-size"),
            ("train --lr 0", "--lr: must be a number from 1e-12 to 100"),
            ("train --lr nan", "--lr"),
            ("train --lr inf", "--lr"),
            ("train --augment 2.1", "--augment: must be a number from 0 to 2, got '2.1'"),
            ("train --images 10000000", "--images"),
            ("train --seed -1", "--seed"),
            ("train --threads 0", "--threads: must be a whole number from 1 to 64"),
            ("train --threads 1000", "--threads"),
            ("train --processes 0", "--processes: must be a whole number from 1 to 64"),
            (
                "train --model u-net",
                "--model: must be one of unet, resunet, recurrent-unet, r2unet, attention",
            ),
            ("train --loss ce", "--loss: must be one of bce, dice, bce+dice, focal, tversky, got 'ce'"),
            ("train --skips sum", "--skips: must be one of concat, add, none, got 'sum'"),
            ("train --up bilinear", "--up: must be one of transposed, nearest"),
            ("train --norm layer", "--norm: must be one of per-step, shared, group"),
            ("train --share-weights True", "--share-weights: must be one of yes, no, got 'True'"),
            ("summary --loss bce", "--loss"),
            ("summary extra", "unrecognized arguments: extra; see r2unet summary --help"),
            ("train --device gpu", "--device: invalid choice: 'gpu'"),
            ("train --conv fft", "--conv: invalid choice: 'fft'"),
            ("evaluate --checkpoint F --split dev", "--split: invalid choice: 'dev'"),
            ("evaluate --checkpoint F --overlays o.jpg", "--overlays: must be a name ending in .png"),
            ("predict --checkpoint F --out o", "PATH"),
            ("export best.npz", "--out"),
            ("predict --checkpoint F a.jpg --out o --size 0", "--size: must be"),
            (
                "predict a.jpg --processes 0",
                "--processes: must be a whole number from 1 to 64, got '0'; or auto",
            ),
            ("evaluate --processes all", "got 'all'; or auto, the number of physical cores"),
            ("score TRUTH", "PREDICTIONS"),
            ("explain a.jpg --out f.gif", "--out: must be a name ending in .png"),
            ("summary --widths x", "--widths"),
        ],
    )
    def test_in_one_line_with_exit_code_2(self, capsys, line, words):
        with pytest.raises(SystemExit) as stop:
            parse(line)
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and out == ""
        assert err.startswith("r2unet") and err.count("\n") == 1 and words in err
        assert err.rstrip().endswith("--help")


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_each_command(self, capsys, command):
        with pytest.raises(SystemExit) as stop:
            parse(f"{command} --help")
        assert stop.value.code == 0 and f"r2unet {command}" in capsys.readouterr().out

    def test_lists_every_command_with_its_line(self, capsys):
        with pytest.raises(SystemExit):
            parse("--help")
        text = " ".join(capsys.readouterr().out.split())
        for name, command in COMMANDS.items():
            assert f"{name} {command.HELP}" in text

    def test_of_train_lists_every_setting(self, capsys):
        with pytest.raises(SystemExit):
            parse("train --help")
        text = capsys.readouterr().out
        for field in dataclasses.fields(Settings):
            assert f"{flag(field.name)} " in text

    def test_shows_the_defaults_and_the_disclaimer(self, capsys):
        with pytest.raises(SystemExit):
            parse("train --help")
        text = " ".join(capsys.readouterr().out.split())
        for shown in ("(default 8,16,32,64)", f"(default {Settings.lr})", f"(default {Settings.epochs})"):
            assert shown in text
        with pytest.raises(SystemExit):
            parse("--help")
        assert "not a medical device" in " ".join(capsys.readouterr().out.split())
