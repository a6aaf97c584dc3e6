"""A small share of the assault (see `__main__.py`): every attack on files, a few kills, and pairs."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the assault needs Linux", allow_module_level=True)

from tests.assault.honest import make_honest
from tests.assault.image_attacks import data_images, pictures
from tests.assault.jail import Call, run_all, start, wait_for
from tests.assault.options import options
from tests.assault.plan import INPUTS, Assault
from tests.assault.table_attacks import challenge_tables
from tests.assault.trial import Trial, files_in
from tests.assault.weight_attacks import claimed_runs, resumed

SEED = 1
# 16 images each; a training; an evaluation; predictions of large images
FEW = {pictures: 3, resumed: 4, data_images: 4, claimed_runs: 4}


@pytest.fixture(scope="module")
def assault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assault")
    (folder / "honest").mkdir()
    make_honest(folder / "honest")
    return Assault(folder / "honest", folder, folder / "failures", SEED)


@pytest.mark.parametrize("attack", INPUTS, ids=lambda attack: attack.__name__)
def test_a_damaged_input_is_refused_in_one_line_or_changes_nothing(assault, attack):
    assault.files(attack, FEW.get(attack, 8))
    assert assault.counts["inputs", attack.__name__] >= 4
    assert assault.table().count("\n\n") == 0, assault.table()


@pytest.mark.parametrize("name", ["train", "workers", "predict", "export", "cache"])
def test_a_killed_command_loses_nothing(assault, name):
    assault.disturb("kills", name)
    assert assault.faults == {}


@pytest.mark.parametrize("name", ["train", "cache", "export"])
def test_two_processes_on_the_same_files_damage_nothing(assault, name):
    assault.disturb("pairs", name)
    assert assault.faults == {}


def test_a_program_of_its_own_refuses_a_damaged_input(assault, tmp_path):
    (tmp_path / "trial").mkdir()
    before = assault.counts["programs", "any command"]
    assault.program(pictures(assault.attacks, tmp_path / "trial"))
    assert assault.counts["programs", "any command"] == before + 1 and assault.faults == {}


class TestTheAssaultItself:
    """The assault is only as good as what it notices."""

    def fault(self, folder: Path, run, **more) -> str:
        folder.mkdir()
        trial = Trial("test", folder, [], run=run, **more)
        return trial.judge(run_all([trial.call()], folder.parent)[0])

    def test_notices_a_traceback(self, tmp_path):
        assert "ZeroDivisionError" in self.fault(tmp_path / "a", lambda: 1 // 0)

    def test_notices_a_crash_and_continues_after_it(self, tmp_path):
        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        calls = [Call(tmp_path, lambda: 0), Call(tmp_path, die), Call(tmp_path, lambda: 2)]
        outcomes = run_all(calls, tmp_path)
        assert [outcome.code for outcome in outcomes] == [0, None, 2]
        assert outcomes[1].fault == "the process died: SIGKILL"

    @pytest.mark.parametrize("wait", ["sleep", "compute"])
    def test_notices_a_hang(self, tmp_path, monkeypatch, wait):
        monkeypatch.setattr("tests.assault.jail.SECONDS", 0.3)

        def forever():
            while True:
                time.sleep(60 if wait == "sleep" else 0)

        assert self.fault(tmp_path / "a", forever).startswith("hangs")
        assert wait_for(start(Call(tmp_path, forever), tmp_path / "output")) is None

    def test_notices_memory_that_the_input_does_not_explain(self, tmp_path):
        def fill(megabytes: int) -> int:
            return len(bytearray(b"x") * (megabytes << 20)) and 0

        assert self.fault(tmp_path / "a", lambda: fill(100)).startswith("memory: ")
        assert self.fault(tmp_path / "b", lambda: fill(100), decoded=lambda: 10 << 20) == ""
        assert "MemoryError" in self.fault(tmp_path / "c", lambda: fill(3000))
        child, parent = [os.getpid()], os.getpid()
        assert self.fault(tmp_path / "d", lambda: 0, decoded=lambda: child.append(os.getpid()) or 0) == ""
        assert child == [parent, parent]  # the honest size is asked where memory has no limit

    def test_notices_files(self, tmp_path):
        def write(name: str, code: int = 0):
            return lambda: Path(name).write_text("x") and code

        assert self.fault(tmp_path / "a", write("out")) == ""
        assert self.fault(tmp_path / "b", write("out", 1)) == "exit code 1, but it wrote out"
        assert self.fault(tmp_path / "c", write("elsewhere")) == "wrote elsewhere"
        assert self.fault(tmp_path / "d", write("out.part")) == "left over: out.part"
        assert self.fault(tmp_path / "e", write("out"), expected={"out": b"y"}) == "silent change of out"

    def test_notices_an_exit_code_and_an_error_without_words(self, tmp_path):
        assert self.fault(tmp_path / "a", lambda: 3) == "exit code 3"
        assert self.fault(tmp_path / "b", lambda: 2) == "exit code 2 without an error"
        assert self.fault(tmp_path / "c", lambda: print("Jaccard nan") or 0) == "a result that is not finite"

    def test_repeats_the_same_inputs_for_the_same_seed(self, assault, tmp_path):
        inputs = []
        for name in ("a", "b", "c"):
            seed = 6 if name == "c" else 5
            again = Assault(assault.attacks.honest, tmp_path, tmp_path / "failures", seed)
            again.attacks.expected = assault.attacks.expected
            for attack in (pictures, challenge_tables, options):
                place = tmp_path / name / attack.__name__
                place.mkdir(parents=True)
                trial = attack(again.attacks, place)
                inputs.append((trial.words, files_in(place)))
        assert inputs[:3] == inputs[3:6] != inputs[6:]

    def test_a_killed_process_is_told_by_its_signal(self, tmp_path):
        pid = start(Call(tmp_path, lambda: time.sleep(60)), tmp_path / "output")
        os.kill(pid, signal.SIGKILL)
        assert wait_for(pid) == -signal.SIGKILL
