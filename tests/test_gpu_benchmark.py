"""The GPU benchmarks, run without a GPU on tiny shapes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu_check, gpu_check_page, gpu_training
from benchmarks.gpu import Benchmark, relative_difference
from benchmarks.gpu_agreement import FLOAT64, largest_error, one_step, step_results
from benchmarks.gpu_clock import CudaClock, HostClock, rounds
from benchmarks.gpu_kernels import (
    BYTES,
    COMPUTE_BOUND,
    OPERATIONS,
    PARTS,
    REPEATS,
    Record,
    bytes_moved,
    measure,
    operations,
    recorded_launches,
    row,
)
from benchmarks.gpu_networks import COMPILED, GraphNetwork, OwnNetwork, draw
from benchmarks.gpu_report import as_markdown
from benchmarks.timing import Spread
from minidl import Tensor, ops
from minidl.backend import Kernels, cuda_problem, problem_of, to_device
from r2unet.training.run_folder import load_datasets

ROOT = Path(__file__).parents[1]
without_cuda = pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")
with_kernels = pytest.mark.skipif(
    problem_of("cuda-on-cpu") is not None, reason="the kernels cannot run on this CPU"
)


with_groups = pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")

# A part that starts another process, which locks a file as long as it lives, 30 s.
PROCESS_OF_PART = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("started", file=file, flush=True)
time.sleep(30)
"""
PART = f"""
import subprocess, sys
print("part", flush=True)
subprocess.run([sys.executable, "-c", {PROCESS_OF_PART!r}, sys.argv[1]])
"""

# gpu-check, with this as its only part.
INTERRUPTED = f"""
import signal, sys
from benchmarks import gpu_check
name, lock, out = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where Ctrl-C is ignored
gpu_check.PARTS = {{name: lambda checker: checker.process("-c", {PART!r}, lock, limit=60.0)._asdict()}}
sys.exit(gpu_check.main(["--device", "cpu", "--quick", "--only", name, "--out", out]))
"""


def started(lock: Path) -> bool:
    """Return whether the process of `PART` has started."""
    return lock.exists() and lock.read_text() == "started\n"


def ended(lock: Path) -> bool:
    """Return whether the process of `PART` has ended."""
    import fcntl  # Windows lacks it

    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def wait_for(condition: Callable[[Path], bool], lock: Path) -> None:
    end = time.monotonic() + 20.0
    while not condition(lock):
        assert time.monotonic() < end, f"not {condition.__name__}"
        time.sleep(0.02)


class SlowClock(HostClock):
    """A clock that returns 2 ms for every interval."""

    def seconds(self, start, end):
        return 2e-3


class TestRounds:
    def test_contenders_take_turns_in_each_round(self):
        calls = []
        contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
        seconds = rounds(contenders, repeats=2, warmup=1, clock=HostClock())
        assert calls == list("ababab")
        assert [len(seconds[name]) for name in "ab"] == [2, 2]


class TestCudaClock:
    def test_the_gpu_is_kept_busy_by_one_launch_of_one_thread_for_as_many_cycles_as_the_time_has(
        self, monkeypatch
    ):
        launches = []

        def raw_kernel(code, name):
            assert f"void {name}(long long cycles)" in code
            return lambda *launch: launches.append(launch)

        device = SimpleNamespace(attributes={"ClockRate": 1_980_000})  # kHz, of an H200
        cupy = SimpleNamespace(
            RawKernel=raw_kernel, cuda=SimpleNamespace(Device=lambda: device), int64=np.int64
        )
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        CudaClock().occupy(150.0)
        ((grid, block, (cycles,)),) = launches
        assert (grid, block, cycles) == ((1,), (1,), 297_000_000)
        assert cycles.dtype == np.int64  # the kernel's long long


class TestCounting:
    """The operations of a convolution, compared with a loop over its output."""

    x, w, b, y = np.zeros((2, 3, 5, 4)), np.zeros((6, 3, 3, 2)), np.zeros(6), np.zeros((2, 6, 5, 3))

    def count(self) -> int:
        return sum(2 * 3 * 3 * 2 for _ in np.ndindex(self.y.shape))

    def test_operations_of_the_forward_pass(self):
        assert operations("implicit_gemm_forward_8", [self.x, self.w, self.b, self.y]) == self.count()

    def test_operations_of_the_adjoint_which_maps_y_to_x(self):
        assert operations("implicit_gemm_adjoint_8", [self.y, self.w, self.b, self.x]) == self.count()

    def test_operations_of_the_weight_gradient_do_not_depend_on_the_number_of_partial_sums(self):
        parts = np.zeros((7, *self.w.shape))
        assert operations("implicit_gemm_weight_gradient", [self.x, self.y, parts]) == self.count()

    @pytest.mark.parametrize("name", [*OPERATIONS, *COMPUTE_BOUND, *BYTES])
    def test_every_rule_is_for_a_kernel_that_exists(self, name):
        sources = [path.read_text(encoding="utf-8") for path in (ROOT / "minidl").rglob("*.cu")]
        macros = ("IMPLICIT_GEMM", "STRIPS_KERNEL", "COLUMNS_KERNEL", "POINTWISE")
        kernels = [f"void {name}", *(f"{macro}({name}" for macro in macros)]
        assert any(kernel in source for source in sources for kernel in kernels)

    def test_other_kernels_need_one_operation_per_element(self):
        assert operations("relu_forward", [self.x, self.x]) == self.x.size

    def test_bytes_are_the_sizes_of_all_arrays(self):
        assert bytes_moved("relu_forward", [self.x, self.x]) == 2 * 8 * self.x.size

    def test_bytes_are_unknown_for_tables_of_pointers(self):
        assert bytes_moved("scale_to_norm", [self.b]) is None


class TestRow:
    limits = {"copy": Spread(1e10, 1e10, 1e10), "product": Spread(1e12, 1e12, 1e12)}

    def row(self, name: str, count: float):
        record = Record(name, ((1,),), count, 4e9, launches=6, marks=[(0.0, 0.0)] * 2)
        return row(record, SlowClock(), steps=3, limits=self.limits)

    def test_rates_and_shares(self):
        measured = self.row("relu_forward", 16e6)  # in 2 ms
        assert measured["launches"] == 2
        assert measured["seconds_a_step"] == pytest.approx(4e-3)
        assert measured["bytes_a_second"] == pytest.approx(8e9)
        assert measured["share_of_copy"] == pytest.approx(0.8)
        assert measured["share_of_product"] == pytest.approx(2.0)

    @pytest.mark.parametrize(
        ("name", "count", "slow"),
        [
            ("relu_forward", 16e6, False),
            ("relu_forward", 9e6, True),  # 45 % of the rate of the copy
            ("relu_forward", 1e6, False),  # too small to judge
            ("implicit_gemm_forward_8", 9e6, False),  # limited by arithmetic
            ("scale_to_norm", None, False),
        ],
    )
    def test_a_memory_bound_kernel_below_half_the_rate_of_a_copy_is_slow(self, name, count, slow):
        assert self.row(name, count)["slow"] is slow


@with_kernels
class TestRecordedLaunches:
    def test_every_launch_is_recorded_by_name_and_shapes(self):
        x = to_device(np.ones((2, 3), np.float32), "cuda-on-cpu")
        records = {}
        with recorded_launches(HostClock(), records):
            ops.sigmoid(Tensor(x))
            ops.sigmoid(Tensor(x))
        (record,) = records.values()
        assert (record.name, record.shapes, len(record.marks)) == ("sigmoid_forward", ((2, 3), (2, 3)), 2)
        assert (record.bytes, record.launches) == (2 * 24, 2)

    def test_each_step_marks_another_part_of_its_launches_and_counts_all(self):
        arrays = [to_device(np.ones((2, n), np.float32), "cuda-on-cpu") for n in (1, 2, 3, 4)]
        records, marked = {}, []
        for turn in range(3):
            with recorded_launches(HostClock(), records, turn, parts=3):
                for x in arrays:
                    ops.sigmoid(Tensor(x))
            marked.append([len(r.marks) for r in records.values()])
        assert marked == [[1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]
        assert [r.launches for r in records.values()] == [3, 3, 3, 3]

    def test_launches_are_not_recorded_after_the_block(self):
        launch = Kernels.launch
        with pytest.raises(ZeroDivisionError), recorded_launches(HostClock(), {}):
            raise ZeroDivisionError
        assert Kernels.launch is launch

    def test_all_kernels_of_a_training_step_are_measured(self, monkeypatch):
        monkeypatch.setattr("benchmarks.gpu_kernels.clock_of", lambda device: SlowClock())
        inputs = draw((2, 3), 1, 4, np.random.default_rng(0))
        step = OwnNetwork(inputs, "cuda-on-cpu", "im2col").step
        found = measure(step, "cuda-on-cpu", quick=True, parts=2, repeats=1)
        names = {r["name"] for r in found["kernels"]}
        assert {"im2col", "col2im", "max_pool2d_forward_2x2", "cross_entropy", "adam"} <= names
        assert found["launches"] > len(names)
        assert found["in_kernels"] == pytest.approx(2e-3 * found["launches"])
        assert found["kernels"][0]["seconds_a_step"] >= found["kernels"][-1]["seconds_a_step"]

    def test_each_launch_of_a_step_is_timed_as_often_as_asked_even_if_a_step_has_one(self, monkeypatch):
        monkeypatch.setattr("benchmarks.gpu_kernels.clock_of", lambda device: SlowClock())
        measured = []

        def keep(record, *others):
            measured.append(record)
            return row(record, *others)

        monkeypatch.setattr("benchmarks.gpu_kernels.row", keep)
        x = Tensor(to_device(np.ones((2, 3), np.float32), "cuda-on-cpu"))
        measure(lambda: ops.sigmoid(x), "cuda-on-cpu", quick=True)
        assert (PARTS, REPEATS) == (8, 3)
        assert [(len(r.marks), r.launches) for r in measured] == [(3, 24)]


class TestBenchmark:
    def benchmark(self, seconds: float = 600.0, groups: tuple[str, ...] = ("networks",)) -> Benchmark:
        return Benchmark("cpu", quick=True, seconds=seconds, log=lambda line: None, groups=groups)

    def run(self, part: str) -> dict:
        benchmark = self.benchmark()
        benchmark.results[part] = dict(benchmark.parts())[part]()
        return benchmark.results

    def test_each_convolution_algorithm_is_timed_in_each_call_and_reported(self):
        results = self.run("small")
        times = results["small"]["times"]
        assert list(times) == ["step", "forward"]
        assert {"r2unet, auto", "r2unet, im2col", "r2unet, direct"} <= times["step"].keys()
        assert "| training step | r2unet, im2col |" in as_markdown(results)
        json.dumps(results)

    def test_a_network_that_computes_different_numbers_is_reported_and_not_timed(self, monkeypatch):
        def network_factories(inputs, device):
            wrong = inputs._replace(state={name: 1.5 * a for name, a in inputs.state.items()})
            return {"right": lambda: OwnNetwork(inputs, device), "wrong": lambda: OwnNetwork(wrong, device)}

        monkeypatch.setattr("benchmarks.gpu.network_factories", network_factories)
        results = self.run("small")
        assert list(results["small"]["times"]["step"]) == ["right"]
        (problem,) = results["problems"]
        assert problem.startswith("small, wrong: ValueError: not timed: logits differs by")

    def test_a_failing_part_does_not_stop_the_others(self):
        class Broken(Benchmark):
            def parts(self):
                yield "first", lambda: 1 / 0
                yield "second", lambda: "measured"

        *_, results = Broken("cpu", quick=True, seconds=60.0, log=lambda line: None).run()
        assert results["second"] == "measured"
        assert results["problems"] == ["first: ZeroDivisionError: division by zero"]
        assert results["left_out"] == [] and list(results["seconds"]) == ["first", "second"]

    def test_parts_without_time_are_left_out_and_nothing_failed(self):
        class Slow(Benchmark):
            def parts(self):
                yield "first", lambda: setattr(self, "deadline", 0.0)
                yield "second", lambda: 1 / 0

        *_, results = Slow("cpu", quick=True, seconds=60.0, log=lambda line: None).run()
        assert "second" not in results
        assert results["left_out"] == ["second: no time was left"]
        assert results["problems"] == []
        assert "- second: no time was left" in as_markdown(results)

    def test_a_network_for_which_no_time_is_left_is_not_created_and_none_is_timed(self, monkeypatch):
        benchmark = self.benchmark()

        def network_factories(inputs, device):
            def last():
                benchmark.deadline = 0.0
                return OwnNetwork(inputs, device)

            return {"last": last, "too late": lambda: 1 / 0}

        monkeypatch.setattr("benchmarks.gpu.network_factories", network_factories)
        *_, results = benchmark.run()
        assert results["left_out"] == ["small, too late: no time was left", "small, step: no time was left"]
        assert results["small"]["times"] == {} and results["problems"] == []
        assert "### Small" not in as_markdown(results)

    def test_the_training_step_is_timed_first_and_kept_if_no_time_is_left_for_the_forward_pass(
        self, monkeypatch
    ):
        benchmark = self.benchmark()

        def slow_rounds(*arguments):
            benchmark.deadline = 0.0
            return rounds(*arguments)

        monkeypatch.setattr("benchmarks.gpu.rounds", slow_rounds)
        *_, results = benchmark.run()
        assert list(results["small"]["times"]) == ["step"]
        assert results["left_out"] == ["small, forward: no time was left"]
        assert "| training step | r2unet, im2col |" in as_markdown(results)

    def test_without_time_to_compile_nothing_is_timed_beside_the_compiled_network(self):
        *_, results = self.benchmark(seconds=24.0, groups=("compiled",)).run()
        assert results["left_out"] == [
            "small, PyTorch, compiled: no time was left",
            "small, PyTorch, compiled, CUDA graph: no time was left",
        ]
        assert not results[f"small, {COMPILED}"] and results["problems"] == []
        assert "###" not in as_markdown(results)

    @pytest.mark.parametrize(
        ("group", "function", "measured", "left_out"),
        [
            ("kernels", "measure", "r2unet, direct", "kernels, r2unet, im2col"),
            ("memory", "measure_peak_in_process", "r2unet, auto", "memory of (2, 3), r2unet, im2col"),
        ],
    )
    def test_kernels_and_memory_keep_what_was_measured_before_the_time_was_over(
        self, monkeypatch, group, function, measured, left_out
    ):
        benchmark = self.benchmark(groups=(group,))

        def last(*arguments, **options):
            benchmark.deadline = 0.0
            return {"arrays": 1e6}

        monkeypatch.setattr(f"benchmarks.gpu.{function}", last)
        *_, results = benchmark.run()
        (part,) = (p for n, p in results.items() if n.endswith(group))
        assert part[measured] == {"arrays": 1e6} and "r2unet, im2col" not in part
        assert results["left_out"][0] == f"{left_out}: no time was left"
        assert results["problems"] == []

    @with_kernels
    @pytest.mark.parametrize("norm", ["per-step", "group"])
    def test_the_kernels_are_those_of_a_network_with_the_chosen_norm(self, norm):
        benchmark = Benchmark("cuda-on-cpu", True, 600.0, lambda line: None, ["kernels"], norm)
        *_, results = benchmark.run()
        names = {row["name"] for row in results["kernels"]["r2unet, direct"]["kernels"]}
        of_group_norm = {"group_normalise", "group_gradient_sums", "group_input_gradient"}
        assert names & of_group_norm == (of_group_norm if norm == "group" else set())
        assert results["problems"] == []

    def test_a_relative_difference_is_a_ratio_of_norms(self):
        assert relative_difference(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)


class TestAgreement:
    @with_kernels
    def test_a_step_on_the_kernels_equals_that_of_the_cpu(self):
        found = one_step("cuda-on-cpu", quick=True)
        assert found["passed"], found
        assert len(found["checks"]) == 6

    @pytest.mark.parametrize("kind", ["gradient", "weight"])
    @pytest.mark.parametrize(
        "name", ["encoder.0.first.conv.weight", "encoder.0.first.conv.bias", "head.bias"]
    )
    def test_a_difference_in_any_number_is_detected(self, kind, name):
        inputs = draw((2, 3), 1, 4, np.random.default_rng(0))
        expected = step_results(inputs, "cpu", np.float64, "im2col")
        found = step_results(inputs, "cpu", np.float64, "im2col")
        assert largest_error(expected, found, kind, np.float64)[0] == 0.0
        found[kind][name] = found[kind][name].copy()
        found[kind][name].flat[0] += 1e-6
        error, where = largest_error(expected, found, kind, np.float64)
        assert where == name
        assert error > FLOAT64


class TestGpuTraining:
    def test_as_many_epochs_as_fit_with_their_validations_into_nine_tenths_of_the_time(self):
        assert gpu_training.epochs_within(60.0, step=0.02, steps=100, validation=0.0) == 27
        assert gpu_training.epochs_within(60.0, step=0.02, steps=100, validation=1.0) == 18
        assert gpu_training.epochs_within(1.0, step=0.02, steps=100, validation=1.0) == 1

    @pytest.mark.parametrize(
        ("reading", "limit", "training"), [(4.0, 90.0, 60.0), (43.0, 90.0, 32.0), (71.0, 90.0, None)]
    )
    def test_if_reading_the_images_took_long_it_trains_for_less(
        self, monkeypatch, capsys, reading, limit, training
    ):
        clock, trained = iter([0.0, reading]), []
        monkeypatch.setattr(gpu_training.time, "monotonic", lambda: next(clock))
        monkeypatch.setattr(gpu_training, "load_datasets", lambda *arguments, **options: ([], []))

        def train(settings, data, device, seconds):
            trained.append(seconds)
            return {"passed": True}

        monkeypatch.setattr(gpu_training, "train", train)
        assert gpu_training.main(["ISIC", "--seconds", "60", "--limit", f"{limit}"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert trained == ([training] if training else [])
        assert found["passed"]
        assert training or found["note"] == "not run: reading the images took 71 s"

    def test_trains_and_reports_an_epoch_and_the_jaccard(self, monkeypatch):
        settings = dataclasses.replace(gpu_training.QUICK, images=8)
        planned = []
        monkeypatch.setattr(gpu_training, "epochs_within", lambda *times: planned.append(times) or 1)
        found = gpu_training.train(settings, load_datasets(settings), "cpu", seconds=0.01)
        assert planned == [(0.01, found["seconds_a_step"], 4, found["seconds_a_validation"])]
        assert found["epochs"] >= 1 and found["passed"]  # at least one, however short the time
        assert found["seconds_an_epoch"] > 0 and found["seconds_a_step"] > 0
        assert found["seconds_a_validation"] > 0
        assert 0.0 <= found["jaccard"] <= 1.0
        part = {**found, "seconds_an_epoch": 1.25, "epochs": 3, "jaccard": 0.5}
        assert gpu_check_page.summary_of(part) == (
            "3 epochs of 1.2 s, validation included; validation Jaccard 0.500"
        )


@with_kernels
class TestGraphNetwork:
    def test_replays_the_same_loss_and_gradient(self):
        inputs = draw((2, 3), 1, 4, np.random.default_rng(0))
        own, graph = (kind(inputs, "cuda-on-cpu") for kind in (OwnNetwork, GraphNetwork))
        assert float(own.forward_backward()) == float(graph.forward_backward())
        assert graph.gradients.captured
        assert own.gradient().tobytes() == graph.gradient().tobytes()


class TestGpuCheck:
    def run(self, *words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "benchmarks.gpu_check", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    @without_cuda
    def test_without_cuda_it_prints_the_reason_in_one_line(self, tmp_path):
        done = self.run("--out", str(tmp_path))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"gpu-check: error: cuda: {cuda_problem()}\n"
        assert list(tmp_path.iterdir()) == []

    @with_kernels
    def test_parts_run_and_their_results_are_written(self, tmp_path):
        done = self.run(
            *("--device", "cuda-on-cpu", "--quick", "--only", "tests", "training"),
            *("--minutes", "60", "--out", str(tmp_path)),
        )
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "cuda-on-cpu.json").read_text())
        assert found["parts"]["tests"]["passed_tests"] > 10
        assert len(found["parts"]["training"]["losses"]) == 12
        page = (tmp_path / "cuda-on-cpu.md").read_text()
        assert "| Tests of the operations | passed |" in page
        assert "| first loss, difference from the CPU |" in page

    def checker(self, tmp_path: Path, seconds: float = 300.0) -> gpu_check.Checker:
        return gpu_check.Checker("cpu", quick=True, out=tmp_path, seconds=seconds)

    def test_the_parts_before_the_last_have_limits_that_leave_time_for_it(self):
        assert list(gpu_check.PARTS) == list(gpu_check.SECONDS) == list(gpu_check.TITLES)
        assert list(gpu_check.PARTS)[0] == "tests" and list(gpu_check.PARTS)[-1] == "compiled"
        assert gpu_check.MINUTES == 5.0

    def test_a_part_without_time_is_reported_as_not_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(gpu_check, "PARTS", {"gradients": lambda checker: 1 / 0})
        checker = self.checker(tmp_path, seconds=0.0)
        assert checker.run(["gradients"])
        page = (tmp_path / "cpu.md").read_text()
        assert "| Gradient checks | passed | 0 | not run: no time was left |" in page

    def test_the_parts_that_time_nothing_run_at_the_same_time(self, tmp_path, monkeypatch):
        together = Barrier(2, timeout=30)

        def part(checker):
            together.wait()
            return {"passed": True}

        monkeypatch.setattr(gpu_check, "PARTS", {"gradients": part, "agreement": part})
        assert self.checker(tmp_path).run(["gradients", "agreement"])

    def test_results_are_written_after_each_part(self, tmp_path, monkeypatch):
        seen = []

        def second(checker):
            seen.append(list(json.loads((tmp_path / "cpu.json").read_text())["parts"]))
            return {"passed": True}

        monkeypatch.setattr(
            gpu_check, "PARTS", {"kernels": lambda checker: {"passed": True}, "memory": second}
        )
        assert self.checker(tmp_path).run(["kernels", "memory"])
        assert seen == [["kernels"]]

    def test_the_tests_of_several_processes_are_added(self):
        ok = gpu_check.ProcessResult(0, "...\n7 passed, 2 skipped in 1.0s\n", "")
        none = gpu_check.ProcessResult(5, "3 deselected in 0.1s\n", "")
        wrong = gpu_check.ProcessResult(1, "F\n1 failed, 4 passed, 1 error in 1.0s\n", "what failed")
        assert gpu_check.test_results([ok, none, ok]) == {
            "passed": True,
            "processes": 3,
            "passed_tests": 14,
            "skipped": 4,
        }
        assert gpu_check.failures(wrong) == "F\n1 failed, 4 passed, 1 error in 1.0s\nwhat failed"
        lines = "==== FAILURES ====\nwhy\nFAILED tests/test_a.py::test_b\n"
        found = gpu_check.failures(gpu_check.ProcessResult(1, f"F\n{lines}", "Error in sys.excepthook:"))
        assert found == f"{lines}...\nFAILED tests/test_a.py::test_b"
        found = gpu_check.test_results([ok, wrong])
        assert (found["passed"], found["passed_tests"], found["failed"], found["error"]) == (False, 11, 1, 1)
        assert "what failed" in found["problem"]
        assert not gpu_check.test_results([none])["passed"]
        assert not gpu_check.test_results([ok, gpu_check.ProcessResult(None, "7 passed", "")])["passed"]

    @pytest.mark.parametrize(
        ("lines", "note"),
        [
            ([], None),
            (["large, r2unet, auto, CUDA graph: CaptureError: cuBLAS"], None),
            (
                ["large, PyTorch: no time was left", "large, step: no time was left"],
                "no time was left for: large, PyTorch; large, step",
            ),
        ],
    )
    def test_a_benchmark_ends_before_its_limit_and_what_it_left_out_is_a_note(
        self, tmp_path, monkeypatch, lines, note
    ):
        checker, commands = self.checker(tmp_path), []

        def process(*arguments, limit):
            commands.append((arguments, limit))
            Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps({"left_out": lines}))
            return gpu_check.ProcessResult(0, "", "")

        monkeypatch.setattr(checker, "process", process)
        monkeypatch.setattr(checker, "limit", lambda name: 70.0)
        checker.run(["networks", "memory"])
        minutes = [float(arguments[arguments.index("--minutes") + 1]) for arguments, _ in commands]
        assert [60.0 * m for m in minutes] == pytest.approx([55.0, 60.0], abs=0.1)
        assert [limit for _, limit in commands] == [70.0, 70.0]
        assert checker.results["parts"]["networks"].get("note") == note
        line = f"| Training steps compared with PyTorch | passed | 0 | {note or ''} |"
        assert line in (tmp_path / "cpu.md").read_text()

    def test_a_benchmark_with_less_time_than_its_margin_measures_nothing(self, tmp_path, monkeypatch):
        checker = self.checker(tmp_path, seconds=3600.0)
        monkeypatch.setattr(checker, "limit", lambda name: 8.0)
        monkeypatch.setattr(checker, "process", partial(self.unlimited, checker.process))
        part = gpu_check.run_benchmark(checker, "networks")
        assert part["passed"], part
        assert part["note"] == "no time was left for: small"

    @staticmethod
    def unlimited(process, *arguments, limit):
        return process(*arguments, limit=600.0)

    @pytest.mark.parametrize("problems", [[], ["small, PyTorch, compiled: ValueError: not timed"]])
    def test_compiling_may_take_too_long_but_what_failed_before_is_reported(
        self, tmp_path, monkeypatch, problems
    ):
        checker = self.checker(tmp_path)

        def process(*arguments, limit):
            Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps({"problems": problems}))
            return gpu_check.ProcessResult(None, "", "took more than 70 s")

        monkeypatch.setattr(checker, "process", process)
        part = gpu_check.run_benchmark(checker, "compiled")
        assert part["passed"] == (not problems)
        assert part["note"] == "not finished: no time was left"
        assert part.get("problem", "") == "\n".join(problems)

    def test_the_training_on_images_gets_its_minute_and_the_time_limit(self, tmp_path, monkeypatch):
        checker, commands = self.checker(tmp_path), []

        def process(*arguments, limit):
            commands.append((arguments, limit))
            return gpu_check.ProcessResult(0, '{"passed": true}', "")

        monkeypatch.setenv("ISIC_ROOT", "ISIC2017")
        monkeypatch.setattr(checker, "process", process)
        monkeypatch.setattr(checker, "limit", lambda name: 100.0)
        assert gpu_check.run_real(checker) == {"passed": True}
        ((arguments, limit),) = commands
        assert arguments[1:3] == ("benchmarks.gpu_training", "ISIC2017")
        assert arguments[-5:] == ("--seconds", "60", "--limit", "90", "--quick")
        assert limit == 100.0

    def test_the_time_to_start_the_device_is_part_of_the_five_minutes(self, tmp_path, monkeypatch):
        clock = iter([0.0, 8.0])
        seen = []

        class Seen(gpu_check.Checker):
            def __init__(self, device, quick, out, seconds):
                seen.append(seconds)
                super().__init__(device, quick, out, seconds)

        monkeypatch.setattr(gpu_check, "Checker", Seen)
        monkeypatch.setattr(gpu_check, "PARTS", {"gradients": lambda checker: {"passed": True}})
        monkeypatch.setattr(gpu_check.time, "monotonic", lambda: next(clock, 8.0))
        assert gpu_check.main(["--device", "cpu", "--only", "gradients", "--out", str(tmp_path)]) == 0
        assert seen == [292.0]

    def test_without_a_folder_of_images_the_training_on_them_says_what_to_set(self, tmp_path, monkeypatch):
        monkeypatch.delenv("ISIC_ROOT", raising=False)
        found = gpu_check.run_real(self.checker(tmp_path))
        assert found == {"passed": True, "note": "not run: set ISIC_ROOT to the folder of ISIC 2017"}

    def test_a_failing_part_is_reported_and_the_others_still_run(self, tmp_path, monkeypatch):
        parts = {"gradients": lambda checker: 1 / 0, "agreement": lambda checker: {"passed": True}}
        monkeypatch.setattr(gpu_check, "PARTS", parts)
        assert not self.checker(tmp_path).run(list(parts))
        page = (tmp_path / "cpu.md").read_text()
        assert "| Gradient checks | **failed** |" in page
        assert "ZeroDivisionError: division by zero" in page
        assert "| One training step compared with the CPU | passed |" in page

    @with_groups
    def test_a_part_that_takes_too_long_is_ended_with_all_its_processes_and_its_output_is_kept(
        self, tmp_path
    ):
        lock = tmp_path / "lock"
        for limit in (1.0, 4.0, 16.0, 64.0):  # until the part had the time to start its process
            done = self.checker(tmp_path).process("-c", PART, str(lock), limit=limit)
            if started(lock):
                break
        wait_for(ended, lock)
        assert (done.code, done.output) == (None, "part\n")
        assert gpu_check.from_json(done)["problem"].endswith(f"took more than {limit:.0f} s")

    @with_groups
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("name", ["training", "memory"])  # at the same time as others, and alone
    def test_ctrl_c_ends_all_processes(self, tmp_path, name, number):
        lock = tmp_path / "lock"
        words = ["-c", INTERRUPTED, name, str(lock), str(tmp_path)]
        child = subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        wait_for(started, lock)
        child.send_signal(number)
        wait_for(ended, lock)
        err = child.communicate()[1]
        assert child.returncode == 130 and err.splitlines()[1:] == ["gpu-check: interrupted"]
        assert not (tmp_path / "cpu.json").exists()  # an interrupted part has not failed

    @without_cuda
    def test_tests_fail_if_the_requested_device_does_not_work(self, tmp_path):
        words = ["tests/minidl/ops/test_activation.py", "--device", "cuda", "-q", "-p", "no:cacheprovider"]
        done = self.checker(tmp_path).process("-m", "pytest", *words, limit=60.0)
        assert done.code == 1
        last = done.output.strip().splitlines()[-1]
        assert "error" in last
        assert "passed" not in last
        assert "skipped" not in last
