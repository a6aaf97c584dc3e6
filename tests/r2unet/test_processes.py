"""Tasks shared between processes: results in order, errors, and processes that are killed."""

import gc
import multiprocessing
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from r2unet.errors import InputError
from r2unet.processes import Processes


def new_work(folder: Path):
    """Record that a process prepares itself, and return its work on a task."""
    (folder / f"prepared-{os.getpid()}").touch(exist_ok=False)
    return partial(work, folder)


def work(folder: Path, task: str):
    """Do what the task says."""
    if task is None:
        return task + task
    if task.startswith("wait for "):
        deadline = time.monotonic() + 120
        while not (folder / task.removeprefix("wait for ")).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    elif task == "fail":
        raise InputError("a task failed")
    elif task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "die once" and not (folder / task).exists():
        (folder / task).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "die unless alone" and multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)
    elif task == "words":
        return sys.argv
    elif task == "arrays":
        return {
            "picture": np.arange(6, dtype=np.float32).reshape(2, 3),
            "nothing": np.zeros((0, 4)),
            "n": [7],
        }
    elif task == "more arrays":
        return np.full((1000, 100), 5)
    else:
        (folder / task).touch()
    return task, os.getpid()


class Heavy:
    """A work that needs more than a pipe holds, and whose process is killed while it reads it."""

    def __init__(self):
        self.content = np.zeros(1_000_000)

    def __setstate__(self, state):
        os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self):
        return str


def test_a_process_that_is_killed_as_it_starts_does_not_stop_this_one(capsys):
    with Processes(Heavy(), 2, keep_on=True) as processes:
        assert list(processes.map([1, 2, 3])) == ["1", "2", "3"]
    assert capsys.readouterr().err.splitlines()[1].endswith("; this process does its work")
    with pytest.raises(InputError, match="a process ended with code -9"), Processes(Heavy(), 2) as processes:
        list(processes.map([1, 2, 3]))


def test_the_names_of_many_files_are_not_sent_to_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["r2unet", "a.jpg", "b.jpg"])
    with Processes(partial(new_work, tmp_path), 1) as processes:
        assert list(processes.map(["words"])) == [["r2unet"]]
    assert sys.argv == ["r2unet", "a.jpg", "b.jpg"]


def unprepared():
    raise InputError("the weights are missing")


def test_results_come_in_order_although_the_first_task_ends_last(tmp_path):
    tasks = ["wait for c", "a", "b", "c"]
    with Processes(partial(new_work, tmp_path), 2) as processes:
        results = list(processes.map(tasks))
    pids = [pid for _, pid in results]
    assert [task for task, _ in results] == tasks
    assert len(set(pids[1:])) == 1 and pids[0] not in pids[1:]  # the free process took all other tasks
    assert {path.name for path in tmp_path.glob("prepared-*")} == {f"prepared-{pid}" for pid in pids}


def test_an_error_arrives_in_its_place_and_ends_the_other_processes(tmp_path):
    received = []
    with (
        pytest.raises(InputError, match="^a task failed$"),
        Processes(partial(new_work, tmp_path), 2) as processes,
    ):
        for task, _ in processes.map(["a", "fail", "wait for nothing", "b"]):
            received.append(task)
    assert received == ["a"] and not multiprocessing.active_children()


def test_a_process_that_is_killed_is_an_error_of_the_user(tmp_path):
    message = "a process ended with code -9, perhaps for lack of memory; repeat the command with fewer"
    with pytest.raises(InputError, match=message), Processes(partial(new_work, tmp_path), 2) as processes:
        list(processes.map(["wait for nothing", "die"]))
    assert not multiprocessing.active_children()


def test_an_error_in_the_preparation_is_the_error_of_a_task():
    with pytest.raises(InputError, match="the weights are missing"), Processes(unprepared, 1) as processes:
        list(processes.map(["a"]))


class TestKeepOn:
    """With `keep_on`, work goes on when processes are killed."""

    def test_another_process_does_the_task_of_one_that_was_killed(self, tmp_path, capsys):
        tasks = ["a", "die once", "b", "c"]
        with Processes(partial(new_work, tmp_path), 2, keep_on=True) as processes:
            assert [task for task, _ in processes.map(tasks)] == tasks
            again = list(processes.map(["d", "e"]))
        assert [task for task, _ in again] == ["d", "e"] and again[0][1] == again[1][1] != os.getpid()
        reason = "a worker process ended with code -9, perhaps for lack of memory"
        assert capsys.readouterr() == ("", f"{reason}; one more does its work\n")

    def test_this_process_does_what_is_left_when_all_were_killed(self, tmp_path, capsys):
        with Processes(partial(new_work, tmp_path), 2, keep_on=True) as processes:
            results = list(processes.map(["a", "die unless alone", "b"]))
            results += processes.map(["c"])
        assert [task for task, _ in results] == ["a", "die unless alone", "b", "c"]
        assert results[1][1] == results[3][1] == os.getpid()
        assert len(list(tmp_path.glob(f"prepared-{os.getpid()}"))) == 1
        assert capsys.readouterr().err.count("; this process does its work\n") == 1

    def test_an_error_of_a_task_is_still_an_error(self, tmp_path):
        with (
            pytest.raises(InputError, match="^a task failed$"),
            Processes(partial(new_work, tmp_path), 1, keep_on=True) as processes,
        ):
            list(processes.map(["fail"]))


def test_a_process_gets_its_next_task_before_the_next_result_is_asked_for(tmp_path):
    with Processes(partial(new_work, tmp_path), 1) as processes:
        results = processes.map(["a", "b"])
        assert next(results)[0] == "a"
        work(tmp_path, "wait for b")
        assert (tmp_path / "b").exists() and next(results)[0] == "b"


def test_a_bug_tells_where_it_is(tmp_path):
    with pytest.raises(TypeError) as caught, Processes(partial(new_work, tmp_path), 1) as processes:
        list(processes.map([None]))
    (note,) = caught.value.__notes__
    assert "in a process of its own" in note and "/test_processes.py" in note and ", in work\n" in note


def test_no_file_is_left_open(tmp_path):
    list(Processes(partial(new_work, tmp_path), 1).map(["first"]))  # starts what multiprocessing keeps
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    with Processes(partial(new_work, tmp_path), 3, keep_on=True) as processes:
        list(processes.map(["die once", "a", "b"]))
    del processes
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_is_left_of_an_earlier_map_is_dropped(tmp_path):
    with Processes(partial(new_work, tmp_path), 2) as processes:
        for first in ("a", "b"):
            assert next(processes.map([first, "unread", "wait for go", "unread", "unread"]))[0] == first
            (tmp_path / "go").touch()
        assert [task for task, _ in processes.map(["c", "d", "e"])] == ["c", "d", "e"]


def test_arrays_arrive_as_they_were_and_may_be_changed(tmp_path):
    with Processes(partial(new_work, tmp_path), 1) as processes:
        result, later = processes.map(["arrays", "more arrays"])
    assert result["n"] == [7] and result["nothing"].shape == (0, 4)
    np.testing.assert_array_equal(result["picture"], [[0, 1, 2], [3, 4, 5]])
    assert result["picture"].dtype == np.float32
    result["picture"][0, 0] = 9  # its own memory, not that of the process, nor that of a later result
    assert later.shape == (1000, 100) and (later == 5).all()


PROGRAM = """
import os, signal
from functools import partial
from pathlib import Path
from r2unet.processes import Processes
from tests.r2unet.test_processes import new_work

with Processes(partial(new_work, Path(sys.argv[1])), 2) as processes:
    try:
        os.killpg(0, signal.SIGINT)
    except KeyboardInterrupt:
        print([task for task, _ in processes.map(["a", "b"])], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ctrl_c_is_for_the_one_that_started_them_alone_and_they_end_when_it_is_killed(program, tmp_path):
    child = program(tmp_path, code=PROGRAM, cwd=Path(__file__).parents[2], start_new_session=True)
    out, err = child.communicate(timeout=120)  # returns when no process has its output open
    assert (child.returncode, out, err) == (-signal.SIGKILL, "['a', 'b']\n", "")
