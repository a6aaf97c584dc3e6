"""Tasks are distributed to threads so that each runs once and the result does not change."""

import os
import threading

import numpy as np
import pytest

from minidl.threads import available_cores, for_each, get_threads, physical_cores, set_threads


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request):
    return request.param


@pytest.mark.parametrize("tasks", [0, 1, 2, 7, 100])
def test_every_task_runs_once(tasks, threads):
    done = np.zeros(tasks, int)

    def work(task):
        done[task] += 1

    for_each(work, range(tasks), threads)
    np.testing.assert_array_equal(done, 1)


def test_at_most_the_given_number_of_threads_run(threads):
    running, most, lock = 0, 0, threading.Lock()

    def work(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        np.ones((300, 300)) @ np.ones((300, 300))
        with lock:
            running -= 1

    for_each(work, range(50), threads)
    assert 1 <= most <= threads


def test_two_threads_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    for_each(lambda _: meeting.wait(), range(2), 2)  # a single thread would wait until the timeout


def test_an_exception_in_a_task_reaches_the_caller(threads):
    def work(task):
        if task == 17:
            raise ValueError("task 17")

    with pytest.raises(ValueError, match="task 17"):
        for_each(work, range(40), threads)


def test_numpy_s_error_state_of_the_caller_applies_in_every_thread(threads):
    with np.errstate(all="ignore"):
        for_each(lambda _: np.float32(1e30) * np.full(9, 1e30, np.float32), range(20), threads)


def test_the_default_is_one_thread():
    assert get_threads() == 1
    set_threads(3)
    assert get_threads() == 3
    set_threads(1)


def test_fewer_than_one_thread_is_rejected():
    with pytest.raises(ValueError, match="at least one thread, got 0"):
        set_threads(0)


def test_two_logical_cores_of_one_physical_core_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 4}, raising=False)
    for core, siblings in enumerate(["0,4", "1,5", "2,6", "3,7", "0,4"]):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert physical_cores(tmp_path) == 3
    assert physical_cores(tmp_path / "none") == 4  # unknown: the logical cores


def test_at_least_one_core_is_available():
    assert available_cores() >= 1
