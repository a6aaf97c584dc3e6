"""A graph on the emulator repeats recorded calls with recorded arguments, under the rules of a GPU."""

import gc

import numpy as np
import pytest

from minidl import Tensor, ops
from minidl.backend import problem_of, to_numpy
from minidl.cuda_on_cpu.array import Array, asarray, xp
from minidl.cuda_on_cpu.graph import CaptureError, captured, outside


@pytest.fixture
def x() -> Array:
    return asarray(np.arange(6, dtype=np.float32).reshape(2, 3))


class TestLaunch:
    def test_computes_with_the_values_that_the_arrays_have_then(self, x):
        with captured() as graph:
            y = (2.0 * x + 1.0).sum(0)
        for start in (0, 10):
            x[...] = asarray(np.full((2, 3), start, np.float32))
            graph.launch()
            assert y.tolist() == [4.0 * start + 2.0] * 3

    def test_changes_nothing_during_the_capture(self, x):
        with captured() as graph:
            x += 1.0
            x[0] = 7.0
            x[1].fill(9.0)
            xp.add(x, x, out=x)
        assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
        graph.launch()
        assert x.tolist() == [[14] * 3, [18] * 3]

    def test_uses_the_numbers_of_the_capture(self, x):
        factor = 2.0
        with captured() as graph:
            y = x * factor
        factor = 3.0  # noqa: F841
        graph.launch()
        assert y.tolist() == [[0, 2, 4], [6, 8, 10]]

    @pytest.mark.skipif(problem_of("cuda-on-cpu") is not None, reason="the kernels cannot run on this CPU")
    def test_runs_kernels(self, x):
        with captured() as graph:
            y = ops.relu(Tensor(x)).data
        assert np.isnan(y.get()).all()
        for sign in (1.0, -1.0):
            x[...] = x * sign
            graph.launch()
            assert y.tolist() == [[0, 1, 2], [3, 4, 5]] if sign > 0 else not y.get().any()

    def test_keeps_the_memory_of_the_capture_and_no_other(self):
        x = asarray(np.zeros((2, 3), np.float32))
        with captured() as graph:
            y = (x + 1.0) * 2.0  # x + 1 has no name
        del x
        gc.collect()
        with pytest.raises(CaptureError, match=r"array <f4 \(2, 3\) that no longer exists"):
            graph.launch()
        assert y.shape == (2, 3)

    def test_refuses_values_written_into_its_memory_because_every_launch_writes_there(self, x):
        with captured() as graph:
            own = xp.empty(2)
            with outside():
                other = xp.empty(2)
        with pytest.raises(CaptureError, match="every launch writes over it"):
            own[...] = 1.0
        other[...] = 1.0
        assert graph.memory and to_numpy(other).tolist() == [1.0, 1.0]

    def test_a_view_needs_no_work_and_follows_its_array(self, x):
        with captured() as graph:
            parts = x[0], x.T, x.reshape(-1), x[1, 2], *xp.split(x, [1], 1)
        assert graph.calls == []
        x[...] = x + 1.0
        assert [float(part.sum()) for part in parts] == [6, 21, 21, 6, 5, 16]

    def test_a_copy_of_a_view_is_work(self, x):
        with captured() as graph:
            copies = x.T.copy(), x.T.reshape(-1), x.astype(np.float64), xp.array(x), x.repeat(2, axis=0)
        assert len(graph.calls) == 5
        x[...] = x + 1.0
        graph.launch()
        assert [float(copy.sum()) for copy in copies] == [21, 21, 21, 21, 42]


NEEDS_THE_CPU = {
    "get": lambda x: x.get(),
    "item": lambda x: x[0, 0].item(),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.argmax()),
    "bool": lambda x: bool((x > 1).any()),
    "list": lambda x: x.tolist(),
    "an array from the CPU": lambda x: asarray(np.zeros(3)),
    "a list from the CPU": lambda x: xp.array([1.0, 2.0]),
    "a mask": lambda x: x[x > 2],
    "a shape that depends on values": lambda x: xp.unique(x),
    "many arrays joined": lambda x: xp.concatenate([x] * 9),
}


class TestCapture:
    @pytest.mark.parametrize("work", NEEDS_THE_CPU.values(), ids=NEEDS_THE_CPU)
    def test_refuses_what_needs_the_cpu(self, x, work):
        work(x)
        with pytest.raises(CaptureError), captured():
            work(x)
        work(x)  # the capture has ended

    @pytest.mark.parametrize(
        "product", [lambda x: x @ x.T, lambda x: x[0].dot(x[0]), lambda x: xp.vdot(x, x)]
    )
    def test_refuses_a_matrix_product_as_cupy_does(self, x, product):
        with pytest.raises(NotImplementedError, match="calling cuBLAS API during stream capture"), captured():
            product(x)

    def test_allows_a_single_number_from_the_cpu_which_is_an_argument(self):
        with captured() as graph:
            y = asarray(np.float32(3.0))
        graph.launch()
        assert y.item() == 3.0

    def test_joins_few_arrays(self, x):
        with captured() as graph:
            y = xp.concatenate([x] * 8)
        graph.launch()
        assert y.get().sum() == 8 * 15
