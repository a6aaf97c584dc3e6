"""Work is shared out to threads so that every task is done once, and nothing else changes."""

import threading

import numpy as np
import pytest

from minidl.threads import available_cores, for_each, get_threads, set_threads


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request):
    return request.param


@pytest.mark.parametrize("tasks", [0, 1, 2, 7, 100])
def test_every_task_is_done_once(tasks, threads):
    done = np.zeros(tasks, int)

    def work(task):
        done[task] += 1

    for_each(work, range(tasks), threads)
    np.testing.assert_array_equal(done, 1)


def test_no_more_threads_work_than_asked_for(threads):
    together, most, lock = 0, 0, threading.Lock()

    def work(_):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        np.ones((300, 300)) @ np.ones((300, 300))
        with lock:
            together -= 1

    for_each(work, range(50), threads)
    assert 1 <= most <= threads


def test_two_threads_do_work_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    for_each(lambda _: meeting.wait(), range(2), 2)  # a single thread would wait for the other in vain


def test_an_exception_of_a_task_reaches_the_caller(threads):
    def work(task):
        if task == 17:
            raise ValueError("task 17")

    with pytest.raises(ValueError, match="task 17"):
        for_each(work, range(40), threads)


def test_the_caller_s_error_state_holds_in_every_thread(threads):
    with np.errstate(all="ignore"):
        for_each(lambda _: np.float32(1e30) * np.full(9, 1e30, np.float32), range(20), threads)


def test_one_thread_computes_unless_more_are_asked_for():
    assert get_threads() == 1
    set_threads(3)
    assert get_threads() == 3
    set_threads(1)


def test_less_than_one_thread_is_refused():
    with pytest.raises(ValueError, match="at least one thread, got 0"):
        set_threads(0)


def test_there_is_at_least_one_core():
    assert available_cores() >= 1
