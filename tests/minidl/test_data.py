"""Batches do not depend on the number of threads, and an epoch can be resumed at any batch."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest

from minidl.backend import device_of, to_numpy
from minidl.data import DataLoader, prefetched
from tests.minidl.simulated_streams import simulated_cupy

THREADS = (0, 1, 2, 5)


def noisy(sample, rng):
    """A random transform: the sample and a number drawn for it."""
    return sample, int(rng.integers(10**9))


def make(threads=0, seed=3, size=11, batch_size=4, **options):
    settings = {"shuffle": True, "transform": noisy, "rng": np.random.default_rng(seed), **options}
    return DataLoader(list(range(100, 100 + size)), batch_size, threads=threads, **settings)


def state_of(loader):
    return loader.rng.bit_generator.state["state"]


class Recorded:
    """A data set that records which of its samples were read."""

    def __init__(self, size):
        self.size, self.read = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.read.append(index)
        return index


@pytest.mark.parametrize("threads", THREADS)
class TestAnyNumberOfThreads:
    def test_without_shuffle_the_order_is_that_of_the_data_set(self, threads):
        loader = DataLoader("abcdefg", 3, threads=threads)
        assert list(loader) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
        assert list(loader) == list(loader)

    def test_neither_batches_nor_the_generator_depend_on_the_number_of_threads(self, threads):
        reference, loader = make(threads=0), make(threads)
        for _ in range(3):
            assert list(loader) == list(reference)
            assert state_of(loader) == state_of(reference)

    @pytest.mark.parametrize("start", [0, 1, 2, 3, 7])
    def test_starting_at_a_later_batch_yields_the_rest_of_the_epoch_and_the_same_state(self, threads, start):
        whole, rest = make(threads), make(threads)
        assert list(rest.batches(start)) == list(whole)[start:]
        assert state_of(rest) == state_of(whole)
        assert list(rest) == list(whole)  # the next epoch

    def test_collate_turns_the_transformed_samples_into_a_batch(self, threads):
        loader = make(threads, collate=lambda samples: sorted(sample for sample, _ in samples))
        assert sorted(sum(loader, [])) == list(range(100, 111))
        assert [len(batch) for batch in loader] == [4, 4, 3]

    def test_an_empty_data_set_has_no_batches(self, threads):
        loader = make(threads, size=0)
        assert len(loader) == 0 and list(loader) == []

    def test_an_exception_reaches_the_caller_after_the_batches_before_it(self, threads):
        def fails_at_seven(sample, rng):
            if sample == 107:
                raise OSError("sample 107 cannot be read")
            return sample

        loader = make(threads, batch_size=2, shuffle=False, transform=fails_at_seven)
        received = []
        with pytest.raises(OSError, match="sample 107 cannot be read"):
            for batch in loader:
                received.append(batch)
        assert received == [[100, 101], [102, 103], [104, 105]]
        assert threading.active_count() == 1 + self.others

    def test_stopping_early_ends_the_threads_and_leaves_the_rest_unread(self, threads):
        dataset = Recorded(1000)
        batches = iter(DataLoader(dataset, 5, threads=threads))
        assert next(batches) == [0, 1, 2, 3, 4]
        batches.close()
        assert threading.active_count() == 1 + self.others
        assert max(dataset.read) < 5 * (1 + 2 * threads)

    def test_it_can_be_iterated_again_after_stopping_early(self, threads):
        whole, stopped = make(threads), make(threads)
        for _ in stopped:
            break
        list(whole)
        assert list(stopped) == list(whole)

    @pytest.fixture(autouse=True)
    def count_other_threads(self):
        self.others = threading.active_count() - 1


class TestRandomness:
    def test_shuffle_is_a_permutation_drawn_from_the_generator(self):
        loader = DataLoader(range(11), 4, shuffle=True, rng=np.random.default_rng(3))
        expected = np.random.default_rng(3).permutation(11).tolist()
        assert sum(loader, []) == expected != list(range(11))

    def test_every_epoch_has_a_new_order_and_new_transforms(self):
        loader = make()
        first, second = sum(loader, []), sum(loader, [])
        assert sorted(s for s, _ in first) == sorted(s for s, _ in second) == list(range(100, 111))
        assert [s for s, _ in first] != [s for s, _ in second]
        assert {drawn for _, drawn in first}.isdisjoint(drawn for _, drawn in second)

    def test_every_sample_has_its_own_generator(self):
        drawn = [number for _, number in sum(make(), [])]
        assert len(set(drawn)) == len(drawn) == 11

    def test_a_transform_that_draws_more_numbers_does_not_affect_other_samples(self):
        def greedy(sample, rng):
            if sample % 2:
                rng.normal(size=100)
            return noisy(sample, rng)

        plain, disturbed = (dict(sum(make(transform=t), [])) for t in (noisy, greedy))
        assert all(plain[s] == disturbed[s] for s in plain if s % 2 == 0)
        assert all(plain[s] != disturbed[s] for s in plain if s % 2 == 1)

    def test_the_generator_advances_by_the_same_amount_however_much_is_read(self):
        read, unread = make(), make()
        list(read)
        unread.batches()
        assert state_of(read) == state_of(unread) != state_of(make())

    def test_the_seed_determines_the_batches(self):
        assert list(make(seed=3)) == list(make(seed=3)) != list(make(seed=4))

    def test_without_randomness_the_generator_is_not_used(self):
        loader = make(shuffle=False, transform=None)
        before = state_of(loader)
        assert sum(loader, []) == list(range(100, 111))
        assert state_of(loader) == before


class TestProbabilities:
    SHARES = np.array([0.5, 0.3, 0.2, 0.0])

    def many(self, count=20_000):
        """A loader of `count` samples in four groups, drawn so that the groups have the shares above."""
        group = np.arange(count) % 4
        return DataLoader(
            group,
            1000,
            shuffle=True,
            rng=np.random.default_rng(0),
            probabilities=self.SHARES[group] * 4 / count,
        )

    def test_samples_are_drawn_as_often_as_their_probabilities_say(self):
        drawn = np.concatenate(list(self.many()))
        assert len(drawn) == 20_000  # an epoch is as long as without probabilities
        frequencies = np.bincount(drawn, minlength=4) / len(drawn)
        # The standard deviation of a frequency is at most .5 / sqrt(20,000) = .0035.
        np.testing.assert_allclose(frequencies, self.SHARES, atol=0.012)
        assert frequencies[3] == 0.0

    def test_samples_are_drawn_with_replacement_from_the_generator(self):
        p = [0.1, 0.2, 0.3, 0.4]
        loader = DataLoader("abcd", 4, shuffle=True, rng=np.random.default_rng(5), probabilities=p)
        expected = np.random.default_rng(5).choice(list("abcd"), size=4, p=p).tolist()
        assert sum(loader, []) == expected and len(set(expected)) < 4

    def test_a_certain_sample_fills_every_batch_with_transforms_of_its_own(self):
        loader = make(size=3, batch_size=2, probabilities=[0.0, 1.0, 0.0])
        batches = list(loader)
        assert [[sample for sample, _ in batch] for batch in batches] == [[101, 101], [101]]
        assert len({drawn for batch in batches for _, drawn in batch}) == 3

    @pytest.mark.parametrize("threads", THREADS)
    @pytest.mark.parametrize("start", [0, 1, 2, 3])
    def test_an_interrupted_epoch_can_be_resumed(self, start, threads):
        p = np.random.default_rng(1).dirichlet(np.ones(11))
        whole, rest = make(threads=0, probabilities=p), make(threads, probabilities=p)
        assert list(rest.batches(start)) == list(whole)[start:]
        assert state_of(rest) == state_of(whole)
        assert list(rest) == list(whole) != list(make(probabilities=p))  # the next epoch, in another order

    def test_changing_the_array_afterwards_has_no_effect(self):
        p = np.array([0.0, 1.0, 0.0])
        loader = make(size=3, probabilities=p)
        p[:] = [1.0, 0.0, 0.0]
        assert {sample for sample, _ in sum(loader, [])} == {101}

    @pytest.mark.parametrize(
        ("p", "message"),
        [
            ([0.5, 0.5], r"a probability for each of 3 samples, got \(2,\)"),
            ([[0.2, 0.3, 0.5]], r"a probability for each of 3 samples, got \(1, 3\)"),
            ([0.7, -0.2, 0.5], "must be at least 0, got -0.2 for sample 1"),
            ([0.5, 0.5, np.nan], "must be at least 0, got nan for sample 2"),
            ([1.0, 1.0, 2.0], "must sum to 1, got 4.0; divide them by their sum"),
            ([0.0, 0.0, 0.0], "must sum to 1, got 0.0"),
            ([np.inf, 0.0, 0.0], "must sum to 1, got inf"),
        ],
    )
    def test_other_numbers_are_rejected(self, p, message):
        with pytest.raises(ValueError, match=f"DataLoader: .*{message}"):
            make(size=3, probabilities=p)

    def test_without_shuffle_they_are_rejected(self):
        with pytest.raises(ValueError, match="without shuffle, probabilities have no effect"):
            DataLoader("ab", 1, probabilities=[0.5, 0.5])


@pytest.mark.parametrize(("size", "batch_size", "count"), [(11, 4, 3), (12, 4, 3), (13, 4, 4), (3, 4, 1)])
def test_the_length_is_the_number_of_batches_including_a_short_last_one(size, batch_size, count):
    loader = make(size=size, batch_size=batch_size)
    assert len(loader) == count == len(list(loader))


def test_each_sample_is_read_once_an_epoch_by_a_python_int():
    dataset = Recorded(7)
    list(DataLoader(dataset, 3, shuffle=True, rng=np.random.default_rng(0)))
    assert sorted(dataset.read) == list(range(7))
    assert {type(index) for index in dataset.read} == {int}


def test_without_threads_a_batch_is_prepared_when_it_is_requested():
    dataset = Recorded(9)
    batches = iter(DataLoader(dataset, 3))
    assert dataset.read == []
    next(batches)
    assert dataset.read == [0, 1, 2]


def test_threads_prepare_batches_in_parallel():
    second_started = threading.Event()

    def waits_for_the_second(sample, rng):
        return second_started.set() if sample else second_started.wait(timeout=30)

    loader = DataLoader([0, 1], 1, transform=waits_for_the_second, rng=np.random.default_rng(0), threads=2)
    assert next(iter(loader)) == [True]


def test_stopping_early_does_not_wait_for_batches_that_have_not_started(monkeypatch):
    stopping, started = threading.Event(), []
    shutdown = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(
        ThreadPoolExecutor, "shutdown", lambda pool, **how: (stopping.set(), shutdown(pool, **how))
    )

    def waits_for_the_stop(sample, rng):
        started.append(sample)
        return sample == 0 or stopping.wait(timeout=5)

    rng = np.random.default_rng(0)
    batches = iter(DataLoader(range(9), 1, transform=waits_for_the_stop, rng=rng, threads=1))
    next(batches)
    batches.close()
    assert 2 not in started  # it was queued while the thread was busy with 1


@pytest.mark.parametrize(("batch_size", "threads"), [(0, 0), (-1, 0), (4, -1)])
def test_invalid_settings_are_rejected(batch_size, threads):
    with pytest.raises(ValueError, match="expected batch_size >= 1 and threads >= 0"):
        DataLoader([1], batch_size, threads=threads)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"transform": noisy}])
def test_randomness_without_a_generator_is_rejected(options):
    with pytest.raises(ValueError, match="need a generator"):
        DataLoader([1], 1, **options)


class Pair(NamedTuple):
    """A batch of two arrays of one dtype, and a list, which is not an array."""

    images: np.ndarray
    masks: np.ndarray
    names: list[str]


class Mixed(NamedTuple):
    """A batch of arrays of several dtypes."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray


def pairs(count, size=3):
    """Batches in which no number occurs twice."""
    for i in range(count):
        images = np.arange(4.0 * size, dtype=np.float32).reshape(size, 2, 2) + 1000.0 * i
        yield Pair(images, images[:, 0] + 500.0, [f"{i}"])


def owner(array):
    """Return the array whose memory this view is a part of."""
    while array.base is not None:
        array = array.base
    return array


class TestPrefetched:
    def test_on_the_cpu_the_batches_are_passed_through(self):
        batches = list(pairs(3))
        assert all(a is b for a, b in zip(prefetched(batches, "cpu"), batches, strict=True))

    @pytest.mark.parametrize("count", [0, 1, 2, 5])
    def test_arrays_are_moved_to_the_device_and_other_parts_are_unchanged(self, device, count):
        received = list(prefetched(pairs(count), device))
        assert [batch.names for batch in received] == [[f"{i}"] for i in range(count)]
        for batch, original in zip(received, pairs(count), strict=True):
            for expected, array in zip(original[:2], batch[:2], strict=True):
                assert device_of(array) == device and array.dtype == np.float32
                np.testing.assert_array_equal(to_numpy(array), expected)

    def test_the_arrays_of_a_batch_are_sent_as_one(self, device):
        if device == "cpu":
            pytest.skip("nothing is copied on the CPU")
        (batch,) = prefetched(pairs(1), device)
        assert owner(batch.images) is owner(batch.masks)

    def test_arrays_of_several_dtypes_and_sizes_keep_them(self, device, rng):
        flags = rng.integers(0, 256, (5, 3), dtype=np.uint8)  # 15 bytes: the next array needs a gap before it
        batch = Mixed(
            flags, rng.normal(size=(2, 7)), np.empty((0, 4), np.int32), np.arange(3, dtype=np.int32)
        )
        (received,) = prefetched([batch], device)
        for found, expected in zip(received, batch, strict=True):
            assert device_of(found) == device and found.dtype == expected.dtype
            np.testing.assert_array_equal(to_numpy(found), expected)

    def test_arrays_that_are_not_contiguous_are_sent_in_order(self, device, rng):
        turned = rng.normal(size=(3, 4)).T
        (received,) = prefetched([Mixed(turned, turned, turned, turned)], device)
        np.testing.assert_array_equal(to_numpy(received.b), turned)

    def test_the_next_batch_is_sent_before_the_last_one_is_used(self, device):
        read = []
        batches = prefetched((read.append(i) or pair for i, pair in enumerate(pairs(4))), device)
        next(batches)
        assert read == ([0] if device == "cpu" else [0, 1])

    @pytest.mark.parametrize("late_copies", [True, False])
    @pytest.mark.parametrize("late_steps", [True, False])
    def test_on_a_gpu_each_step_reads_its_own_batch(self, monkeypatch, late_copies, late_steps):
        """Simulated: steps and copies run as early or as late as the events allow."""
        cupy = simulated_cupy(late_copies, late_steps)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        computing, found = cupy.cuda.get_current_stream(), []
        for batch in prefetched(pairs(9), "cuda"):
            images, masks = batch.images.numbers, batch.masks.numbers
            computing.add(lambda x=images, y=masks: found.append((x.copy(), y.copy())))
            del batch
        computing.run(len(computing.queue))
        for (images, masks), pair in zip(found, pairs(9), strict=True):
            np.testing.assert_array_equal(images, pair.images)
            np.testing.assert_array_equal(masks, pair.masks)
