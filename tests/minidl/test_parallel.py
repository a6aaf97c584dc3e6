"""Dividing batches, adding gradients, and the statistics of batch norm. Threads stand in for processes."""

import threading

import numpy as np
import pytest

from minidl import Tensor
from minidl.backend import array_module, to_numpy
from minidl.implementation import implementation
from minidl.nn import BatchNorm2d, Linear
from minidl.parallel import GradientSum, ParallelError, Processes, share_batches
from minidl.tensor import Parameter
from minidl.threads import available_cores, physical_cores


class Threads(Processes):
    """One of several threads of this process, which exchange arrays as processes would."""

    def __init__(self, rank: int, size: int, exchange: list, barrier: threading.Barrier) -> None:
        self.rank, self.size, self.exchange, self.barrier = rank, size, exchange, barrier

    def collect(self, content):
        self.exchange[self.rank] = content
        self.barrier.wait()
        everyones = list(self.exchange)
        self.barrier.wait()
        return everyones

    def broadcast(self, content):
        return self.collect(content)[0]

    def gather(self, array):
        return array_module(array).stack(self.collect(array))

    def sum(self, array):
        array[...] = sum(self.collect(array.copy()))


def in_threads(size: int, work) -> list:
    """Return the results of `work(processes)` in `size` threads."""
    exchange, barrier, results = [None] * size, threading.Barrier(size), [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, size, exchange, barrier))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def processes(rank: int, size: int) -> Processes:
    return Threads(rank, size, [], None)


class TestDividing:
    @pytest.mark.parametrize("size", range(1, 6))
    @pytest.mark.parametrize("images", range(1, 12))
    def test_every_image_has_one_process_and_the_weights_are_their_shares(self, size, images):
        taken = []
        for rank in range(size):
            one = processes(rank, size)
            one.divide(images)
            part = range(images)[one.part(images)]
            assert one.images == images and sum(one.weights) == pytest.approx(1.0)
            assert one.weight == (len(part) / images if one.weight else 0.0)
            taken += part if one.weight else []
        assert taken == list(range(images))  # in order

    def test_the_shares_differ_by_at_most_one_image(self):
        lengths = [len(range(10)[processes(rank, 4).part(10)]) for rank in range(4)]
        assert sorted(lengths) == [2, 2, 3, 3]

    def test_a_process_without_an_image_computes_the_first_one_with_the_weight_0(self):
        idle = processes(0, 3)
        idle.divide(1)
        assert idle.weights == (0.0, 0.0, 1.0) and idle.part(1) == slice(0, 1)


class TestGradientSum:
    def test_adds_gradients_and_losses_and_leaves_out_an_idle_process(self):
        def work(one):
            a, b, unused = (Parameter(np.zeros(n, np.float32)) for n in (2, 3, 1))
            add = GradientSum(one, [a, b, unused])
            for images in (3, 2):  # in the second step, process 0 has no image
                one.divide(images)
                a.grad, b.grad = (np.full(n, 1.0 + one.rank, np.float32) for n in (2, 3))
                loss = add(np.float32(10.0 * one.rank))
            return a.grad, b.grad, unused.grad, loss

        for a, b, unused, loss in in_threads(3, work):
            assert a.tolist() == [5.0, 5.0] and b.tolist() == [5.0, 5.0, 5.0]  # 2 + 3
            assert unused is None and loss == 30.0

    def test_a_gradient_of_the_next_step_does_not_contain_the_last_one(self):
        p = Parameter(np.zeros(2, np.float32))
        add = GradientSum(Processes(), [p])
        for value in (1.0, 2.0):
            p.grad = np.full(2, value, np.float32)
            add(np.float32(0.0))
            assert p.grad.tolist() == [value, value]


class TestBatchNorm:
    @pytest.mark.parametrize("images, size", [(5, 2), (3, 3), (1, 2)])
    @pytest.mark.parametrize("code", ["auto", "definition"])
    def test_of_parts_of_a_batch_is_that_of_the_batch(self, rng, put, device, code, images, size):
        x = 3.0 + rng.standard_normal((images, 2, 4, 4))
        dy = rng.standard_normal(x.shape)
        whole = norm_and_gradients(put, x, dy, Processes())

        def work(one):
            one.divide(images)
            part = one.part(images)
            with implementation(code):
                return *norm_and_gradients(put, x[part], dy[part], one), one.weight

        results = in_threads(size, work)
        parts = [r for r in results if r[-1] > 0.0]
        for i in range(2):  # y and dx
            np.testing.assert_allclose(np.concatenate([r[i] for r in parts]), whole[i], rtol=0, atol=1e-12)
        for i in (2, 3):  # dg and db, which are added later
            np.testing.assert_allclose(sum(r[i] for r in parts), whole[i], rtol=0, atol=1e-12)
        for i in (4, 5):  # the running mean and variance, the same bits everywhere
            np.testing.assert_allclose(results[0][i], whole[i], rtol=1e-12)
            assert all(np.array_equal(r[i], results[0][i]) for r in results)

    def test_a_single_value_per_channel_is_enough_in_a_process_but_not_in_the_batch(self):
        def work(images):
            def one(processes):
                processes.divide(images)
                norm = BatchNorm2d(1)
                norm.processes = processes
                try:
                    return norm(Tensor(np.ones((1, 1, 1, 1), np.float32))).numpy().item()
                except ValueError as error:
                    return str(error)

            return in_threads(2, one)

        assert work(2) == [0.0, 0.0]
        assert all("too few for a variance" in message for message in work(1))


def norm_and_gradients(put, x, dy, processes):
    """Return y, dx, dg, db and the running statistics after one step of batch norm and ReLU."""
    norm = BatchNorm2d(x.shape[1]).to(np.float64)
    norm.weight.data = np.array([1.5, -0.5])
    norm.bias.data = np.array([0.1, 0.2])
    for leaf in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        leaf.data = put(leaf.data)
    norm.processes = processes if processes.size > 1 else None
    t = Tensor(put(x), requires_grad=True)
    y = norm(t, relu=True)
    y.backward(put(dy))
    arrays = y.data, t.grad, norm.weight.grad, norm.bias.grad, *norm.statistics()
    return tuple(to_numpy(a) for a in arrays)


class TestShareBatches:
    def test_every_process_gets_the_weights_of_process_0(self):
        def work(one):
            layer = Linear(2, 2, rng=np.random.default_rng(one.rank))
            share_batches(layer, one)
            return layer.weight.data

        weights = in_threads(3, work)
        expected = Linear(2, 2, rng=np.random.default_rng(0)).weight.data
        assert all(np.array_equal(w, expected) for w in weights)


class TestMustAgree:
    @pytest.mark.parametrize("values", [("a", "c"), ("ab", ""), ("a",)])
    def test_names_the_process_that_differs(self, values):
        def work(one):
            try:
                return one.must_agree("images", *(values if one.rank == 1 else ("a", "b")))
            except ParallelError as error:
                return str(error)

        expected = (
            "process 1 of 2 has other images than process 0; start all processes with the same command, "
            "program and files"
        )
        assert in_threads(2, work) == [expected, expected]

    def test_accepts_equal_values(self):
        assert in_threads(2, lambda one: one.must_agree("images", "a", b"b")) == [None, None]


def test_from_first_returns_the_result_of_process_0_or_raises_its_error():
    def fail():
        raise ValueError("of process 0")

    def work(one):
        result = one.from_first(lambda: one.rank + 7)
        with pytest.raises(ValueError, match="of process 0"):
            one.from_first(fail)
        return result

    assert in_threads(2, work) == [7, 7]


def test_cores_that_are_counted_once():
    assert 1 <= physical_cores() <= available_cores()
