"""The comparison with other frameworks: its arithmetic, its checks and its output; no speeds are asserted."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    agreement,
    blocks,
    cpu,
    feed,
    folder,
    instructions,
    links,
    networks,
    processes,
    report,
    sections,
    shared,
)
from benchmarks.frameworks import OWN, import_dezero, installed
from benchmarks.timing import Spread, exponent, interleave, ratios, spread
from minidl.backend import problem_of
from r2unet.data.images import read_mask, write_mask
from r2unet.data.shared_samples import SharedSamples
from r2unet.data.synthetic import SyntheticLesions
from r2unet.network.model import R2UNet
from r2unet.training.settings import Settings
from tests.mpi import require_mpi

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


class TestTiming:
    def test_a_spread_is_the_median_the_minimum_and_the_maximum(self):
        assert spread([5.0, 1.0, 2.0]) == (2.0, 1.0, 5.0)
        assert spread([1.0, 4.0]) == (2.5, 1.0, 4.0)

    def test_a_ratio_is_computed_within_each_round_so_a_slow_round_cancels(self):
        seconds = {"ours": [1.0, 10.0, 1.2], "theirs": [2.0, 20.0, 2.0]}
        assert ratios(seconds, own="ours") == {"theirs": Spread(0.5, 0.5, 0.6)}

    def test_contenders_take_turns_and_the_warm_up_is_not_timed(self):
        calls = []
        contenders = {name: lambda name=name: calls.append(name) for name in "AB"}
        seconds = interleave(contenders, repeats=2, warmup=1)
        assert "".join(calls) == "ABABAB"
        assert {name: len(values) for name, values in seconds.items()} == {"A": 2, "B": 2}

    @pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
    def test_the_exponent_of_a_power_law_is_found(self, power):
        work = [64, 256, 1024, 4096]
        assert exponent(work, [3e-6 * w**power for w in work]) == pytest.approx(power, abs=1e-12)


class TestAgreement:
    def test_a_difference_of_a_thousandth_of_the_largest_element_is_allowed(self):
        own = np.array([10.0, 0.0])
        agreement.compare("y", own, own + 0.009)
        with pytest.raises(agreement.Disagreement, match="y: relative difference from ours 1.1e-03"):
            agreement.compare("y", own, own + 0.011)

    @pytest.mark.parametrize("other", [np.array([np.nan, 0.0]), np.zeros(3)], ids=["NaN", "shape"])
    def test_nan_and_another_shape_are_rejected(self, other):
        with pytest.raises(agreement.Disagreement):
            agreement.compare("y", np.array([10.0, 0.0]), other)

    @pytest.mark.parametrize("small", [True, False])
    def test_a_block_agrees_with_itself_and_not_with_other_inputs(self, small, rng):
        arrays = blocks.draw(2, 3, 8, rng)
        same = {OWN: blocks.OwnBlock(arrays), "other": blocks.OwnBlock(arrays)}
        agreement.check_blocks(same, small)
        for wrong in ({"weight": 1.1 * arrays.weight + 0.1}, {"dy": 1.1 * arrays.dy}):
            other = blocks.OwnBlock(arrays._replace(**wrong))
            with pytest.raises(agreement.Disagreement):
                agreement.check_blocks(same | {"other": other}, small)

    def test_a_network_with_another_learning_rate_is_rejected(self, rng):
        inputs = networks.draw(2, 16, rng)
        own, other = networks.OwnNetwork(inputs), networks.OwnNetwork(inputs)
        other.optimizer.lr *= 2.0
        with pytest.raises(agreement.Disagreement, match="loss"):
            agreement.check_networks({OWN: own, "other": other})

    @pytest.mark.skipif(not installed(), reason="no other framework is installed")
    def test_the_other_frameworks_compute_the_same_numbers(self, rng):
        agreement.check_blocks(blocks.make(blocks.draw(2, 4, 8, rng)), small=True)
        agreement.check_networks(networks.make(networks.draw(2, 16, rng)))

    def test_numpy_int_is_defined_only_while_dezero_is_imported(self):
        if "DeZero" not in installed():
            pytest.skip("DeZero is not installed")
        import_dezero()
        assert "int" not in vars(np)


class TestProcesses:
    def test_the_peak_memory_is_that_of_the_child_process(self):
        """An array of this block, 8 x 16 x 64 x 64, is 2 MiB; a step needs more, but less than `filled`."""
        filled = np.ones(2**26, np.float32)  # 256 MiB that must not be counted for the child process
        peaks = processes.compare_peaks(1, [OWN], "block", (8, 16, 64), repeats=1)
        assert filled[-1] == 1.0
        assert 2 * 2**20 < peaks["above_import"][OWN].median < peaks["absolute"][OWN].median < filled.nbytes

    def test_two_processes_take_the_steps_of_one(self):
        require_mpi()
        own = networks.OwnNetwork(networks.draw(3, 16, np.random.default_rng(0)))
        with shared.SharedNetwork(3, 16) as together:
            losses = [together.step() for _ in range(3)]
        assert losses == pytest.approx([own.step() for _ in range(3)], rel=1e-5)
        for what in ("allreduce", "exchanges"):
            assert all(0.0 < share < 1.0 for share in together.shares(what, last=3))
        assert 0 < together.memory["imported"] < together.memory["peak"]


class TestFolder:
    """The prediction of a folder of photographs."""

    @pytest.fixture
    def predicted(self, tmp_path):
        """Photographs, and the folders of the masks by the name of the contender, each with its memory."""
        (tmp_path / "photographs").mkdir()
        files = folder.write_photographs(tmp_path / "photographs", side=24, count=3)
        outs, peaks = {}, {}
        for name in folder.contenders():
            outs[name] = tmp_path / name
            outs[name].mkdir()
            with folder.predicting(name, 16, outs[name]) as do:
                do(files)
                peaks[name] = do([folder.PEAK] * 2)
        return files, outs, peaks

    def test_all_write_the_same_masks_and_another_mask_is_noticed(self, predicted):
        files, outs, peaks = predicted
        folder.check_masks(outs, files)
        masks = [read_mask(file) for file in sorted(outs[OWN].iterdir())]
        assert [mask.shape for mask in masks] == [(24, 24)] * 3
        assert all(0.0 < mask.mean() < 1.0 for mask in masks)
        assert len(set(peaks[folder.SHARED])) == 2  # of two processes
        write_mask(min(outs[folder.SHARED].iterdir()), 1 - masks[0])
        with pytest.raises(agreement.Disagreement, match="r2unet, 2 processes: 33.3% of the pixels"):
            folder.check_masks(outs, files)


class TestLinks:
    """The latency and the bandwidth of an Allreduce."""

    def test_the_line_of_exact_times_is_found(self):
        sizes = [8, 4096, 10**6, 10**8]
        line = links.fit(sizes, [3e-6 + size / 5e9 for size in sizes])
        assert line.latency == pytest.approx(3e-6, rel=1e-9)
        assert line.bandwidth == pytest.approx(5e9, rel=1e-9)
        assert line.seconds(5e9) == pytest.approx(1.0, rel=1e-5)

    def test_relative_errors_are_fitted_so_a_large_time_does_not_hide_the_latency(self):
        sizes = [8, 64, 512, 10**8, 2 * 10**8]
        line = links.fit(sizes, [3e-6, 3e-6, 3e-6, 0.02, 0.06])
        assert line.latency == pytest.approx(3e-6, rel=0.05)

    def test_two_processes_time_their_exchange_and_the_table_has_each_size(self):
        require_mpi()
        times = links.measure_link(2, (2, 1000))
        assert times.keys() == {8, 4000}
        assert all(len(seconds) == links.ROUNDS and min(seconds) > 0.0 for seconds in times.values())
        made = {8: [2e-6, 3e-6, 4e-6], 10**6: [200e-6] * 3}
        assert links.report(made).splitlines()[2:] == [
            "| 8 | 3.0 | 2.0 | 4.0 | 3.0 |",
            "| 1,000,000 | 200.0 | 200.0 | 200.0 | 200.0 |",
            "",
            "latency 3.0 us, bandwidth 5.08 GB/s",
        ]

    def test_a_network_of_other_widths_is_timed(self):
        model = R2UNet(widths=(2, 3), steps=2, rng=np.random.default_rng(0))
        parameters, seconds = links.time_step((2, 3), repeats=1)
        assert parameters == sum(p.data.size for p in model.parameters()) and seconds.median > 0.0


class TestFeed:
    """Batches prepared by threads and by worker processes."""

    @pytest.mark.parametrize("device", ["cpu", "cuda-on-cpu"])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_row_has_the_times_of_a_batch_and_on_a_gpu_of_a_step(self, device, workers):
        if problem := problem_of(device):
            pytest.skip(problem)
        settings = Settings(size=16, widths=(2,), batch_size=4)
        samples = SharedSamples(SyntheticLesions(24, 16, seed=0))
        row = feed.measure(settings, samples, device, threads=1, workers=workers)
        assert row[:2] == ("1", str(workers)) and len(row) == (4 if device == "cpu" else 5)
        assert all(float(text.split()[0]) > 0.0 for text in row[2:])
        assert not multiprocessing.active_children()


class TestCommandLine:
    def test_it_runs_as_a_module_and_as_a_file(self):
        for arguments in (["-m", "benchmarks.cpu"], ["benchmarks/cpu.py"]):
            assert "--torch-threads" in run(*arguments, "--help").stdout

    def test_the_options_list_every_part(self):
        assert tuple(sections.all_sections(torch_threads=1)) == cpu.SECTIONS
        assert set(report.WRITERS) == set(cpu.SECTIONS)

    def test_json_and_tables_contain_the_requested_parts(self, tmp_path):
        file = tmp_path / "measured.json"
        options = ["--quick", "--only", "block,startup,loading", "--repeats", "1", "--json", str(file)]
        done = run("-m", "benchmarks.cpu", *options)
        assert done.returncode == 0, done.stderr
        measured = json.loads(file.read_text())
        assert list(measured) == ["machine", "block", "loading", "startup"]
        assert measured["machine"]["numpy"] == np.__version__
        for names, part in (
            ({OWN, *installed()}, *measured["block"].values()),
            ({"training step", "decoded", "cached", "cached, augmented"}, measured["loading"]),
        ):
            assert set(part["times"]) == names
            for median, minimum, maximum in part["times"].values():
                assert 0 < minimum <= median <= maximum
        assert {"import r2unet", "r2unet --help"} <= set(measured["startup"]["times"])
        for title in ("### Recurrent convolution", "### Loading a batch", "### Start-up time"):
            assert title in done.stdout
        assert "### Peak memory" not in done.stdout

    def test_an_unknown_part_is_rejected(self):
        done = run("-m", "benchmarks.cpu", "--only", "speed")
        assert done.returncode == 2
        assert "must be one of block, train_step" in done.stderr

    def test_numbers_are_printed_with_three_digits(self):
        assert report.seconds((0.0123456, 0.01, 1.23456)) == "12.3 [10, 1230]"
        assert report.ratio(None) == ""


class TestIdeas:
    @pytest.mark.parametrize(
        "idea, expected", [("all", "rows"), ("definitions", "definition"), ("rows", "definition")]
    )
    def test_an_idea_about_the_implementation_holds_for_the_whole_process(self, idea, expected):
        program = f"""
import gc
from benchmarks.ideas import IDEAS
from minidl.implementation import choose, name_of
from minidl.ops.conv import Conv2d
IDEAS[{idea!r}][1]()
gc.collect()
print(name_of(choose(Conv2d, "cpu", (8, 8, 3, 3), (1, 1), (1, 1))))
"""
        result = run("-c", program)
        assert (result.returncode, result.stdout) == (0, f"{expected}\n")

    @pytest.mark.parametrize(
        "idea, state",
        [
            ("products", "minidl.ops.conv.rows.product_by_row(3, 128, 192)"),
            ("pages", "minidl.allocator.mark_for_huge_pages.__name__ != 'no_change'"),
        ],
    )
    def test_an_idea_about_a_setting_changes_it(self, idea, state):
        program = f"""
import minidl.allocator, minidl.ops
from benchmarks.ideas import IDEAS
before = {state}
IDEAS[{idea!r}][1]()
print(before, {state})
"""
        result = run("-c", program)
        assert (result.returncode, result.stdout) == (0, "True False\n")


class TestInstructions:
    TEXT = """
.section .text.sums,"ax",@progbits
.text.sums:
.L_x_0:
        /*0000*/                   LDS R1, [R2] ;
.L_x_1:
        /*0010*/                   FFMA R0, R1, R2, R0 ;
        /*0020*/                   FFMA R3, R1, R2, R3 ;
        /*0030*/              @P0  BRA `(.L_x_1) ;
        /*0040*/                   IADD3 R4, R4, 0x1, RZ ;
        /*0050*/              @P1  BRA `(.L_x_0) ;
        /*0060*/                   EXIT ;
.L_x_2:
        /*0070*/                   BRA `(.L_x_2);
.section .text.empty,"ax",@progbits
.text.empty:
        /*0000*/                   EXIT ;
"""

    def test_loops_are_found_in_the_machine_code_with_their_instructions_and_multiply_adds(self):
        loops = instructions.loops_by_kernel(self.TEXT, "FFMA")
        assert loops == {"sums": [(0, 6, 2), (1, 4, 2)], "empty": []}
        assert [loop.instructions for loop in loops["sums"]] == [6, 3]

    def test_the_smallest_loop_with_the_most_multiply_adds_is_counted(self):
        loops = instructions.loops_by_kernel(self.TEXT, "FFMA")
        assert instructions.busiest(loops["sums"]) == (1, 4, 2)
        assert instructions.busiest(loops["empty"]) is None
