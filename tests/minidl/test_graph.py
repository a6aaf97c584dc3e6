"""A training step as a graph gives the same bits as one that is launched kernel by kernel."""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from minidl import Tensor, ops
from minidl.backend import CaptureError, DeviceGraph, Numbers, constant, device_of, to_numpy
from minidl.cuda_on_cpu.graph import CaptureError as EmulatorError
from minidl.ema import EMA, average_all
from minidl.graph import GraphedStep
from minidl.implementation import implementation
from minidl.nn import BatchNorm2d, Conv2d, Module
from minidl.optim import SGD, Adam, AdamW, CosineLR, clip_grad_norm

SIZES = (2, 2, 2, 1, 2)  # of the batches: a warm-up, the capture, replays, and one batch as usual


@pytest.fixture
def device(device):
    if device == "cpu":
        pytest.skip("the CPU launches no kernels")
    return device


class Network(Module):
    """A convolution that is applied twice, with a norm that has running statistics."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.first, self.conv = Conv2d(1, 2, 1, rng=rng), Conv2d(2, 2, 3, padding=1, rng=rng)
        self.norm = BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.norm(self.conv(x), relu=True)
        return ops.concat([self.norm(self.conv(x + y)), y])


class Training:
    """A network, an optimizer, a schedule and a moving average, and the two parts of their step."""

    def __init__(self, device: str, optimizer: Callable = AdamW) -> None:
        self.model = Network().to(device)
        self.leaves = [leaf for _, leaf in (*self.model.named_parameters(), *self.model.named_buffers())]
        self.optimizer = optimizer(self.model.parameters(), 0.1)
        self.schedule = CosineLR(self.optimizer, total_steps=8)
        self.ema = EMA(self.model, 0.9)
        self.step = self.work

    def graphed(self, device: str) -> "Training":
        self.step = GraphedStep(self.work, self.leaves, device)
        return self

    def work(self, images, masks):
        self.optimizer.zero_grad()
        logits = self.model(Tensor(images))
        loss = ops.binary_cross_entropy_with_logits(logits, Tensor(masks))
        loss.backward()
        norm = clip_grad_norm(self.optimizer.parameters, 0.1)
        self.optimizer.update_parameters()
        self.ema.update_average()
        return loss.data, norm

    def train(self, batches, before_step=lambda number: None) -> list[bytes]:
        """Take a step for each batch; return the bits of everything that it computes."""
        bits = []
        for number, batch in enumerate(batches):
            before_step(number)
            self.optimizer.advance()
            self.ema.advance()
            results = self.step(*batch)
            self.schedule.step()
            gradients = [p.grad for p in self.optimizer.parameters]
            arrays = *results, *gradients, *(leaf.data for leaf in self.leaves)
            bits += [to_numpy(a).tobytes() for a in (*arrays, *self.ema.average.values())]
        return bits + [to_numpy(row).tobytes() for row in self.optimizer.rows.values()]


def reload(model, state, number):
    """Load the initial weights before step 3."""
    if number == 3:
        model.load_state_dict(state)


@pytest.fixture
def batches(put, rng):
    images = [put(rng.normal(size=(n, 1, 4, 3)).astype(np.float32)) for n in SIZES]
    masks = [put((rng.random((n, 4, 4, 3)) < 0.5).astype(np.float32)) for n in SIZES]
    return list(zip(images, masks, strict=True))


@pytest.fixture
def expected(device, batches):
    """What the steps compute without a graph."""
    return Training(device).train(batches)


class TestBits:
    def test_losses_gradients_weights_statistics_moments_and_averages(self, device, batches, expected):
        graphed = Training(device).graphed(device)
        assert graphed.train(batches) == expected
        assert graphed.step.captured

    def test_of_adam_whose_decay_is_part_of_the_gradient(self, device, batches):
        def optimizer(parameters, lr):
            return Adam(parameters, lr, weight_decay=0.5)

        graphed = Training(device, optimizer).graphed(device)
        assert graphed.train(batches[:3]) == Training(device, optimizer).train(batches[:3])

    def test_after_other_weights_were_loaded(self, device, batches):
        runs = []
        for training in (Training(device), Training(device).graphed(device)):
            runs.append(
                training.train(
                    [*batches[:3], batches[4]], partial(reload, training.model, training.model.state_dict())
                )
            )
        assert runs[0] == runs[1]

    def test_results_are_copies_which_the_next_step_does_not_overwrite(self, device, batches):
        training, losses, values = Training(device).graphed(device), [], []
        for batch in batches[:3]:
            training.optimizer.advance()
            losses.append(training.step(*batch)[0])
            values.append(float(losses[-1]))
        assert [float(loss) for loss in losses] == values
        assert len(set(values)) == 3
        assert device_of(losses[-1]) == device


class TestMutants:
    """A graph with a mistake gives other results, so that the tests above would find it."""

    def test_a_forgotten_learning_rate(self, device, batches, expected, monkeypatch):
        write = Numbers.write

        def forget(number):
            if number == 2:  # the numbers of the capture remain
                monkeypatch.setattr(Numbers, "write", lambda numbers, *values: None)

        assert Training(device).graphed(device).train(batches, forget) != expected
        monkeypatch.setattr(Numbers, "write", write)

    def test_stale_inputs(self, device, batches, expected):
        training = Training(device).graphed(device)

        def move_inputs(number):
            if number == 2:
                training.step.stale = training.step.inputs  # the graph reads these
                training.step.inputs = [a.copy() for a in training.step.inputs]

        assert training.train(batches, move_inputs) != expected

    def test_weights_that_are_not_copied_back(self, device, batches, expected, monkeypatch):
        monkeypatch.setattr(GraphedStep, "_move_home", lambda step: None)
        assert Training(device).graphed(device).train(batches) != expected

    def test_moments_that_moved(self, device, batches, expected):
        training = Training(device).graphed(device)

        def move_moments(number):
            if number == 2:
                training.optimizer.load_state_dict(training.optimizer.state_dict())

        if device == "cuda":
            pytest.skip("a GPU does not notice: the old memory may still hold the old moments")
        with pytest.raises(EmulatorError, match="no longer exists"):
            training.train(batches, move_moments)


def refusal(training, batches) -> str:
    """Return why the step cannot be captured, and check that the training can continue without a graph."""
    step = training.step
    step(*batches[0])
    data = [leaf.data for leaf in training.leaves]
    before = [to_numpy(a).tobytes() for a in data]
    with pytest.raises(CaptureError) as error:
        step(*batches[1])
    assert all(leaf.data is a for leaf, a in zip(training.leaves, data, strict=True))
    assert [to_numpy(a).tobytes() for a in data] == before
    assert all(p.grad is None for p in training.optimizer.parameters)
    training.work(*batches[1])
    return str(error.value)


class TestRefusal:
    def test_of_a_product_by_cublas(self, device, batches):
        with implementation("im2col", of=(ops.conv.Conv2d,)):
            reason = refusal(Training(device).graphed(device), batches)
        assert reason.startswith("cuBLAS computes a matrix product")

    def test_of_an_optimizer_whose_learning_rate_is_pythons(self, device, batches):
        reason = refusal(Training(device, SGD).graphed(device), batches)
        assert reason == "SGD receives its learning rate from Python, not from the device"

    def test_of_a_moving_average_by_its_definition(self, device, batches):
        with implementation("definition", of=[average_all]):
            reason = refusal(Training(device).graphed(device), batches)
        assert reason == "the moving average receives d from Python, not from the device"

    def test_of_numbers_that_are_written_in_the_graph(self, device, batches):
        training = Training(device)
        work = training.work
        training.work = lambda *arrays: (training.optimizer.advance(), work(*arrays))[1]
        reason = refusal(training.graphed(device), batches)
        assert reason == "the numbers of a step must be written before the graph is launched"

    def test_of_a_number_that_is_read(self, device, batches):
        training = Training(device)
        work = training.work
        training.work = lambda *arrays: [a * float(a) for a in work(*arrays)]
        assert refusal(training.graphed(device), batches)

    def test_of_too_little_memory(self, device, batches):
        training = Training(device)
        work, calls = training.work, []

        def too_large(*arrays):
            calls.append(arrays)
            if len(calls) == 2:
                raise MemoryError
            return work(*arrays)

        training.work = too_large
        reason = refusal(training.graphed(device), batches)
        assert reason == "there is not enough memory for the graph's own memory pool"


class FakeCuPy:
    """The parts of CuPy that a capture uses, which write down the order of their calls."""

    def __init__(self) -> None:
        self.calls = []
        self.cuda = self
        self.outside = self.Stream(name="outside")

    def Stream(self, name="own", non_blocking=False):
        return FakeStream(name, self.calls)

    def MemoryPool(self):
        return SimpleNamespace(malloc="own pool")

    def get_default_memory_pool(self):
        return SimpleNamespace(malloc="the ordinary pool")

    def get_current_stream(self):
        return self.outside

    @contextmanager
    def using_allocator(self, malloc):
        self.calls.append(f"allocate from {malloc}")
        try:
            yield
        finally:
            self.calls.append("allocate as before")

    def empty(self, shape, dtype):
        return np.full(shape, 255, dtype)

    def asarray(self, array):
        self.calls.append("copy from the CPU")
        return array


class FakeStream:
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __enter__(self):
        self.calls.append("own stream")

    def __exit__(self, *error):
        self.calls.append("outside stream")

    def record(self):
        return self.name

    def wait_event(self, event):
        self.calls.append(f"{self.name} waits for {event}")

    def begin_capture(self):
        self.calls.append("begin capture")

    def end_capture(self):
        self.calls.append("end capture")
        return SimpleNamespace(launch=lambda: self.calls.append("launch"))


class TestOnAGpu:
    """The calls of CuPy, with a stand-in for it, because CuPy itself needs a GPU."""

    @pytest.fixture
    def cupy(self, monkeypatch):
        fake = FakeCuPy()
        monkeypatch.setitem(sys.modules, "cupy", fake)
        return fake

    def test_work_is_captured_in_a_stream_and_with_memory_of_its_own(self, cupy):
        graph = DeviceGraph("cuda")
        with graph.prepared():
            cupy.calls.append("warm-up")
        table = graph.capture(lambda: constant(np.arange(3), "cuda"))
        graph.launch()
        around = ["own waits for outside", "own stream", "allocate from own pool"]
        after = ["allocate as before", "outside stream", "outside waits for own"]
        constant_memory = ["allocate from the ordinary pool", "allocate as before"]
        capture = ["begin capture", *constant_memory, "end capture"]
        copy = ["copy from the CPU"]
        assert cupy.calls == [*around, "warm-up", *after, *around, *capture, *after, *copy, "launch"]
        assert table.tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        "error, reason",
        [
            (
                NotImplementedError("calling cuBLAS API during stream capture is currently unsupported"),
                "cuBLAS",
            ),
            (MemoryError("Out of memory allocating 512 bytes"), "there is not enough memory"),
            (
                RuntimeError("cudaErrorStreamCaptureUnsupported: not permitted\nmore"),
                "cudaErrorStreamCapture",
            ),
        ],
    )
    def test_a_failed_capture_is_ended_and_its_reason_given_in_one_line(self, cupy, error, reason):
        graph = DeviceGraph("cuda")

        def work():
            raise error

        with pytest.raises(CaptureError) as refused:
            graph.capture(work)
        assert str(refused.value).startswith(reason) and "\n" not in str(refused.value)
        assert cupy.calls[3:] == [
            *("begin capture", "end capture"),
            *("allocate as before", "outside stream", "outside waits for own"),
        ]
        assert constant(np.zeros(1), "cpu") is not None  # no capture is in progress
