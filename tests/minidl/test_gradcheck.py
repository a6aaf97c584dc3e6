"""The gradient checker accepts correct derivatives and rejects wrong ones: all other tests rely on it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl import Function, Tensor, gradcheck, ops
from minidl.backend import cuda_problem
from minidl.gradcheck import GradientError, check_adjoint, check_vjp, function_checks
from minidl.implementation import choose
from minidl.operations import every_function
from minidl.ops import activation, elementwise, pool, reduce, shape
from minidl.ops.conv import definition as conv
from minidl.ops.conv import rows as row_views
from minidl.ops.linear import MatMul
from minidl.ops.norm import batch as norm
from minidl.ops.norm import fused_cpu
from minidl.ops.window import output_size, windows
from r2unet.network.blocks import RecurrentConv

FUNCTIONS = sorted(every_function(), key=lambda kind: kind.__name__)

# The faster implementations on the CPU, and the rows of the table that check them.
FASTER = {
    row_views.RowConv2d: "Conv2d, stride 1 (rows)",
    row_views.RowConvTranspose2d: "ConvTranspose2d, stride 1 (rows)",
    fused_cpu.FusedBatchNorm: "BatchNorm (fused)",
    fused_cpu.FusedBatchNormInference: "BatchNormInference (fused)",
    pool.RunningMaxPool2d: "MaxPool2d (running maximum)",
}


def failures() -> dict[str, str]:
    """Check every Function and return the error message of each check that fails."""
    rows = gradcheck.run(function_checks(np.random.default_rng(0)))
    return {row.name: row.message for row in rows if not row.passed}


def scaled(backward, factor: float, position: int = 0):
    """Wrap a backward so that one of its gradients is wrong by a factor."""

    def wrong(self, dy):
        gradients = backward(self, dy)
        if not isinstance(gradients, tuple):
            return gradients * factor
        return tuple(g * factor if i == position else g for i, g in enumerate(gradients))

    return wrong


class TestTheTable:
    def test_every_function_agrees(self):
        assert failures() == {}

    def test_every_function_agrees_on_each_device(self, device):
        rows = gradcheck.run(function_checks(np.random.default_rng(0), device), device)
        assert {row.name: row.message for row in rows if not row.passed} == {}

    def test_has_a_column_for_each_device_with_the_same_random_numbers(self, monkeypatch, capsys, device):
        monkeypatch.setattr(gradcheck, "other_checks", lambda *settings: iter(()))  # to save time
        assert gradcheck.main(["--device", "cpu", device]) == 0
        head, *lines, last = capsys.readouterr().out.splitlines()
        if device == "cpu":
            assert head.split() == ["name", "checked", "error", "tolerance", "verdict"]
            return
        assert head.split() == ["name", "checked", "cpu", device, "tolerance", "verdict"]
        agreeing, _, count, *_ = last.split()
        # Some checks exist on one device only.
        assert agreeing == count and len(lines) < int(count) < 2 * len(lines)
        (line,) = (line for line in lines if line.startswith("Reshape "))
        cpu, other, tolerance, verdict = line.split()[-4:]
        assert cpu == other and (tolerance, verdict) == ("1e-06", "ok")  # a copy is exact on every device

    def test_names_the_device_that_disagrees(self):
        rows = [
            gradcheck.Row("Exp", "vjp", 1e-9, 1e-6, device="cpu"),
            gradcheck.Row("Exp", "vjp", 1e-2, 1e-6, "backward gives 1", device="cuda"),
        ]
        _, line, last = gradcheck.as_table(rows).splitlines()
        assert line.split()[2:4] == ["1.0e-09", "1.0e-02"]
        assert line.endswith("FAILED on cuda  backward gives 1")
        assert last == "1 of 2 derivatives agree"

    @pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")
    def test_leaves_a_column_empty_if_a_device_has_no_such_check(self):
        rows = [
            gradcheck.Row("Exp", "vjp", 1e-9, 1e-6, device="cpu"),
            gradcheck.Row("UNet", "vjp", 2e-7, 1e-5, device="cpu"),
            gradcheck.Row("Exp", "vjp", 3e-9, 1e-6, device="cuda-on-cpu"),
        ]
        _, both, one, _ = gradcheck.as_table(rows).splitlines()
        assert both.split() == ["Exp", "vjp", "1.0e-09", "3.0e-09", "1e-06", "ok"]
        assert one.split() == ["UNet", "vjp", "2.0e-07", "1e-05", "ok"]

    def test_a_missing_device_is_an_error_in_one_line(self, capsys):
        with pytest.raises(SystemExit) as stop:
            gradcheck.main(["--device", "cpu", "cuda"])
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and out == ""
        assert err == f"python -m minidl.gradcheck: error: cuda: {cuda_problem()}; or use --device cpu\n"

    def test_every_function_agrees_for_other_random_numbers(self):
        for seed in range(1, 6):
            rows = gradcheck.run(function_checks(np.random.default_rng(seed)))
            assert max(row.error for row in rows) < 1e-6

    def test_has_a_row_for_every_function_and_for_the_network(self, capsys):
        assert gradcheck.main(["--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        names = [row["name"] for row in document["rows"]]
        assert document["passed"] is True
        assert {kind.__name__ for kind in FUNCTIONS} <= set(names)
        assert {"R2UNet in training", "R2UNet in evaluation"} <= set(names)
        assert all(row["error"] <= row["tolerance"] for row in document["rows"])

    def test_prints_what_was_checked_the_error_and_the_verdict(self, capsys, monkeypatch):
        monkeypatch.setattr(gradcheck, "other_checks", lambda *settings: iter(()))  # to save time
        assert gradcheck.main([]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["name", "checked", "error", "tolerance", "verdict"]
        assert lines[-1] == f"{len(lines) - 2} of {len(lines) - 2} derivatives agree"

    def test_has_a_row_for_every_faster_implementation(self):
        names = {name for name, *_ in function_checks(np.random.default_rng(0))}
        assert set(FASTER.values()) <= names

    @pytest.mark.parametrize("kind", FASTER, ids=lambda kind: kind.__name__)
    def test_a_forward_pass_that_raises_is_a_row_and_the_others_are_checked(self, kind, monkeypatch):
        def forward(self, *arguments):
            raise IndexError("axis 4 is out of bounds")

        monkeypatch.setattr(kind, "forward", forward)
        rows = gradcheck.run(function_checks(np.random.default_rng(0)))
        failed = {row.name: row.message for row in rows if not row.passed}
        assert failed[FASTER[kind]] == "axis 4 is out of bounds"
        assert {"Exp", "ReLU", "Concat"} <= {row.name for row in rows if row.passed}

    @pytest.mark.parametrize("seed", ["-1", "x"])
    def test_a_wrong_seed_is_an_error_in_one_line(self, seed, capsys):
        with pytest.raises(SystemExit) as stop:
            gradcheck.main(["--seed", seed])
        assert stop.value.code == 2
        assert "error: argument --seed: " in capsys.readouterr().err.splitlines()[-1]

    @pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="needs pipes that end their writer")
    @pytest.mark.parametrize("program", ["minidl.gradcheck", "minidl.operations"])
    def test_a_closed_pipe_ends_the_program_without_a_traceback(self, program):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", program]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
    @pytest.mark.parametrize(
        ("program", "words"),
        [
            ("minidl.operations", []),
            ("minidl.gradcheck", ["--help"]),
            ("r2unet.network.gradient_checks", ["--help"]),
        ],
    )
    def test_stdout_on_a_full_disk_is_an_error_in_one_line(self, program, words):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", program, *words]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert done.stderr.startswith("python -m minidl.") and "error: stdout: No space left" in done.stderr
        assert done.stderr.endswith("; free space, or write to another disk\n")

    def test_a_function_without_a_case_fails(self, monkeypatch):
        class Forgotten(Function):
            pass

        monkeypatch.setattr(Forgotten, "__module__", "minidl.ops.forgotten")
        monkeypatch.setattr(gradcheck, "every_function", lambda: iter([Forgotten]))
        assert "give it a row" in failures()["Forgotten"]


class TestAnErrorOfOneThousandthIsDetected:
    @pytest.mark.parametrize("kind", FUNCTIONS, ids=lambda kind: kind.__name__)
    def test_in_the_first_gradient_of_each_function(self, kind, monkeypatch):
        monkeypatch.setattr(kind, "backward", scaled(kind.backward, 1.001))
        assert "backward gives" in failures()[kind.__name__]

    @pytest.mark.parametrize("kind", FASTER, ids=lambda kind: kind.__name__)
    def test_in_the_first_gradient_of_each_faster_implementation(self, kind, monkeypatch):
        monkeypatch.setattr(kind, "backward", scaled(kind.backward, 1.001))
        assert "backward gives" in failures()[FASTER[kind]]

    @pytest.mark.parametrize("kind", FUNCTIONS, ids=lambda kind: kind.__name__)
    def test_by_the_command_with_exit_code_one(self, kind, monkeypatch, capsys):
        monkeypatch.setattr(kind, "backward", scaled(kind.backward, 1.001))
        monkeypatch.setattr(gradcheck, "other_checks", lambda *settings: iter(()))  # to save time
        assert gradcheck.main([]) == 1
        assert f"{kind.__name__} " in capsys.readouterr().out

    @pytest.mark.parametrize("position", [1, 2])
    @pytest.mark.parametrize("kind", [conv.Conv2d, conv.ConvTranspose2d, norm.BatchNorm])
    def test_in_the_other_gradients(self, kind, position, monkeypatch):
        monkeypatch.setattr(kind, "backward", scaled(kind.backward, 1.001, position))
        assert kind.__name__ in failures()

    def test_in_the_network_alone(self, monkeypatch, capsys):
        monkeypatch.setattr(conv.Conv2d, "backward", scaled(conv.Conv2d.backward, 1.001, position=1))
        monkeypatch.setattr(gradcheck, "function_checks", lambda *settings: iter(()))
        assert gradcheck.main([]) == 1
        assert "project.weight" in capsys.readouterr().out


def no_mean_terms(self, dy):
    """Differentiate batch norm as if its mean and variance were constants."""
    self.input_gradient = lambda *dz: norm.BatchNormInference.input_gradient(self, *dz)
    return batch_norm_backward(self, dy)


batch_norm_backward = norm.BatchNorm.backward


def not_negated(self, dy):
    """Differentiate Subtract as if it were Add."""
    return elementwise.unbroadcast(dy, self.shapes[0]), elementwise.unbroadcast(dy, self.shapes[1])


def overwriting_col2im(col, size, kernel, stride, padding):
    """col2im with `=` instead of `+=`: where windows overlap, only the last one counts."""
    (H, W), (KH, KW), (PH, PW) = size, kernel, padding
    OH, OW = output_size(size, kernel, stride, padding)
    col = col.reshape(len(col), -1, KH, KW, OH, OW)
    padded = np.zeros((*col.shape[:2], H + 2 * PH, W + 2 * PW))
    for kh, kw, rows, columns in windows(size, kernel, stride, padding):
        padded[:, :, rows, columns] = col[:, :, kh, kw]
    return padded[:, :, PH : PH + H, PW : PW + W]


def gradient_to_the_next_pixel(self, dy):
    """Max-pooling that passes the gradient to the pixel after the maximum."""
    self.winner = (self.winner + 1) % (self.kernel[0] * self.kernel[1])
    return pool_backward(self, dy)


pool_backward = pool.MaxPool2d.backward

BROKEN = [
    ("gradient of zero", conv.Conv2d, lambda self, dy: (self.x * 0, self.w * 0, dy.sum((0, 2, 3)) * 0)),
    ("wrong sign", elementwise.Subtract, not_negated),
    ("mean not divided", reduce.Mean, lambda self, dy: reduce.Sum.backward(self, dy)),
    ("batch norm without its mean terms", norm.BatchNorm, no_mean_terms),
    ("matmul transposed", MatMul, lambda self, dy: (dy @ self.b.swapaxes(-1, -2), self.b)),
    ("pixel next to the maximum", pool.MaxPool2d, gradient_to_the_next_pixel),
    ("parts exchanged", shape.Concat, lambda self, dy: (dy[:, -3:], dy[:, :-3])),
    ("crop off by one", shape.Pad, lambda self, dy: np.roll(dy, 1, axis=-1)[self.inner]),
    ("wrong axis", shape.Transpose, lambda self, dy: dy.transpose(self.axes).reshape(2, 3, 7, 6)),
    ("ReLU passes everything", activation.ReLU, lambda self, dy: dy),
    ("sigmoid of y, not x", activation.Sigmoid, lambda self, dy: dy * self.y),
    ("no gradient", elementwise.Exp, lambda self, dy: None),
    ("float32 gradient", elementwise.Log, lambda self, dy: (dy / self.a).astype(np.float32)),
    ("gradient not unbroadcast", elementwise.Multiply, lambda self, dy: (dy * self.b, dy * self.a)),
    ("exception", elementwise.Divide, lambda self, dy: 1 / 0),
]


class TestBrokenBackwards:
    @pytest.mark.parametrize(("name", "kind", "backward"), BROKEN, ids=[row[0] for row in BROKEN])
    def test_is_detected(self, name, kind, backward, monkeypatch):
        monkeypatch.setattr(kind, "backward", backward)
        assert kind.__name__ in failures()

    def test_overwriting_instead_of_adding_in_col2im(self, monkeypatch):
        monkeypatch.setattr(conv, "col2im", overwriting_col2im)
        assert {"Conv2d", "ConvTranspose2d"} <= set(failures())

    def test_an_overwriting_col2im_is_not_the_adjoint(self, rng):
        window = (3, 3), (1, 1), (1, 1)
        x, col = rng.normal(size=(1, 2, 5, 5)), rng.normal(size=(1, 18, 25))
        with pytest.raises(GradientError, match="<A x, y> = "):
            check_adjoint(
                lambda a: conv.im2col(a, *window), lambda a: overwriting_col2im(a, (5, 5), *window), x, col
            )

    def test_a_detached_step_of_the_recurrence(self, monkeypatch, capsys):
        def detached(self, x):
            y = self.norm[0](self.conv(x)).relu()
            for t in range(1, self.steps + 1):
                y = self.norm[t](self.conv(x + y.detach())).relu()
            return y

        monkeypatch.setattr(RecurrentConv, "forward", detached)
        assert gradcheck.main([]) == 1
        assert "R2UNet" in capsys.readouterr().out.split("FAILED")[0].splitlines()[-1]


class TestTheChecker:
    def test_a_cotangent_of_ones_passes_a_wrong_batch_norm(self, rng, monkeypatch):
        """The reason for random cotangents: the sum of a batch norm's outputs does not depend on x."""
        x, ones, zeros = rng.normal(size=(2, 3, 7, 6)), np.ones(3), np.zeros(3)
        kind = choose(norm.BatchNorm, "cpu")
        monkeypatch.setattr(kind, "backward", scaled(kind.backward, 2.0))

        image = Tensor(x, requires_grad=True)
        ops.batch_norm(image, Tensor(ones), Tensor(zeros))[0].backward(np.ones(x.shape))
        assert np.abs(image.grad).max() < 1e-12  # twice zero is zero: the error is invisible

        with pytest.raises(GradientError, match="input 0"):
            check_vjp(lambda a: ops.batch_norm(a, Tensor(ones), Tensor(zeros))[0], x, rng=rng)

    def test_returns_the_error_and_reports_both_numbers(self, rng):
        assert check_vjp(ops.exp, rng.normal(size=5), rng=rng) < 1e-8
        with pytest.raises(
            GradientError, match=r"input 0 \(5,\): backward gives -?\d.*difference -?\d.*> 1e-06"
        ):
            check_vjp(lambda x: x * x.detach(), rng.normal(size=5), rng=rng)

    def test_an_input_without_effect_is_rejected(self, rng):
        with pytest.raises(GradientError, match="input 1 .* no gradient arrived"):
            check_vjp(lambda a, b: a * 2.0, np.ones(3), np.ones(3), rng=rng)

    def test_a_nan_is_rejected(self, rng):
        with pytest.raises(GradientError), np.errstate(all="ignore"):
            check_vjp(lambda x: x * float("nan"), np.ones(3), rng=rng)

    def test_a_gradient_that_is_nan_is_reported_as_nan(self, rng, monkeypatch):
        monkeypatch.setattr(elementwise.Exp, "backward", lambda self, dy: dy * np.nan)
        with pytest.raises(
            GradientError, match=r"input 0 \(3,\): backward gives nan, a central difference \d"
        ):
            check_vjp(ops.exp, np.ones(3), rng=rng)

    def test_an_adjoint_can_be_checked_in_float32(self, rng):
        window = (3, 2), (2, 1), (1, 0)
        x = rng.normal(size=(2, 3, 8, 7)).astype(np.float32)
        col = rng.normal(size=(2, 18, 24)).astype(np.float32)
        error = check_adjoint(
            lambda a: conv.im2col(a, *window), lambda a: conv.col2im(a, (8, 7), *window), x, col, 1e-5
        )
        assert error < 1e-5
