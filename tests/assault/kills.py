"""Kills commands at random moments, and starts two at a time on the same files.

A command is killed with SIGKILL, either after a random time or at a random file operation (Python's audit
events: a file is opened, renamed, removed; a folder is made). Then the same command is run to its end.
Nothing may be lost: the files must be those of a run that was never killed, and no temporary file may be
left.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from r2unet.commands.main import main
from tests.assault.attacks import Attacks
from tests.assault.honest import DATA, OUTLINE, STUDY, VARIANTS
from tests.assault.jail import Call, start, wait_for
from tests.assault.trial import TEMPORARY, Files, files_in

MAX_KILLS = 3  # in a row, before a command is run to its end
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
LONGEST = 1.2  # of a random moment, times the honest duration


class Command(NamedTuple):
    """A command that writes files, what it needs, and what it must have written in the end."""

    name: str
    words: list[str]
    again: list[str]  # the words that continue it
    needs: tuple[str, ...]
    result: Callable[[Files], Files]  # the files that must not depend on a kill
    pair_codes: tuple[int, ...] = (0,)  # of a second process at the same time


def _runs(files: Files) -> Files:
    """Return the files of training runs that contain no times, and are no figures."""
    names = ("last.npz", "best.npz", "history.csv", "report.json")
    return {name: content for name, content in files.items() if Path(name).name in names}


def _outputs(files: Files) -> Files:
    return {name: content for name, content in files.items() if name.startswith("out")}


def _cached(files: Files) -> Files:
    """Return the cache without the part of its name that depends on modification times, and the runs."""
    cached = {n.rpartition("-")[0]: c for n, c in files.items() if n.startswith("cache/")}
    return {**cached, **_runs(files)}


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "train",
            ["train", *OUTLINE, "--out=out"],
            ["train", *OUTLINE, "--out=out", "--resume"],
            (),
            _runs,
            (2,),
        ),
        Command(
            "workers",
            ["train", *OUTLINE, "--workers=2", "--out=out"],
            ["train", *OUTLINE, "--workers=2", "--out=out", "--resume"],
            (),
            _runs,
            (2,),
        ),
        Command(
            "compare", [*STUDY, *VARIANTS, "--out=out"], [*STUDY, *VARIANTS, "--out=out"], (), _runs, (0, 2)
        ),
        Command(
            "predict",
            ["predict", "data/images", "--checkpoint=both.npz", "--out=out"],
            ["predict", "data/images", "--checkpoint=both.npz", "--out=out"],
            ("data", "both.npz"),
            _outputs,
        ),
        Command(
            "export",
            ["export", "both/best.npz", "--half", "--out=out/w.npz"],
            ["export", "both/best.npz", "--half", "--out=out/w.npz"],
            ("both/best.npz",),
            _outputs,
        ),
        Command(
            "cache",
            ["train", *DATA, "--cache=cache", "--out=out"],
            ["train", *DATA, "--cache=cache", "--out=out", "--resume"],
            ("data",),
            _cached,
            (2,),
        ),
    )
}


class Honest(NamedTuple):
    """What an undisturbed command wrote, and how long it took."""

    files: Files
    seconds: float


class Kills:
    """Kills and pairs; `attacks` has the honest files and the random generator."""

    def __init__(self, attacks: Attacks, folder: Path) -> None:
        self.attacks, self.rng, self.folder = attacks, attacks.rng, folder
        self.honest: dict[str, Honest] = {}

    def prepare(self, command: Command) -> Path:
        """Return a new folder with what the command needs."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.attacks.copy(self.folder, *command.needs)
        return self.folder

    def undisturbed(self, command: Command) -> Honest:
        """Run the command once without a kill."""
        if command.name not in self.honest:
            folder = self.prepare(command)
            started = time.monotonic()
            code = wait_for(self.start(command.words, folder))
            assert code == 0, f"{command.name}: {code} {self.output(0)}"
            self.honest[command.name] = Honest(command.result(files_in(folder)), time.monotonic() - started)
        return self.honest[command.name]

    def start(self, words: Sequence[str], folder: Path, number: int = 0, prepare=int) -> int:
        call = Call(folder, lambda: main(list(words)))
        return start(call, self.folder.with_name(f"output-{number}"), prepare)

    def output(self, number: int) -> str:
        return self.folder.with_name(f"output-{number}").read_text(errors="replace")

    def kill(self, name: str) -> tuple[int, str]:
        """Kill a command up to three times and continue it; return the number of kills and the fault."""
        command = COMMANDS[name]
        honest = self.undisturbed(command)
        folder, kills, words = self.prepare(command), 0, command.words
        for _ in range(int(self.rng.integers(1, MAX_KILLS + 1))):
            if self._killed(words, folder, honest.seconds):
                kills += 1
            words = command.again
            if damaged := _damaged(command, files_in(folder), honest.files):
                return kills, f"{name}: after a kill {damaged} is damaged"
        code = wait_for(self.start(command.again, folder))
        if code != 0:
            return kills, f"{name}: exit code {code} after a kill: {self.output(0)[-2000:]}"
        return kills, self._compare(command, folder, honest.files)

    def _killed(self, words: Sequence[str], folder: Path, seconds: float) -> bool:
        """Run a command and kill it; return whether it was still running."""
        if self.rng.random() < 0.5:
            events = int(2 ** self.rng.uniform(0, 9))
            pid = self.start(words, folder, prepare=lambda: _die_at_event(events))
        else:
            pid = self.start(words, folder)
            time.sleep(self.rng.uniform(0, LONGEST * seconds))
            os.kill(pid, signal.SIGKILL)
        return wait_for(pid) == -signal.SIGKILL

    def pair(self, name: str) -> tuple[int, str]:
        """Start a command twice at the same time; return 1 and the fault."""
        command = COMMANDS[name]
        honest = self.undisturbed(command)
        folder = self.prepare(command)
        words = [command.words, command.words]
        if name == "cache":  # two trainings share the cache
            words[1] = [*words[0][:-1], "--out=out2"]
        first = self.start(words[0], folder, 0)
        time.sleep(float(self.rng.choice([0.0, self.rng.uniform(0, honest.seconds)])))
        second = self.start(words[1], folder, 1)
        codes = [wait_for(first), wait_for(second)]
        told = [code for code in codes if code != 0]
        texts = "".join(self.output(number)[-1000:] for number in (0, 1))
        allowed = (0,) if name == "cache" else (0, *command.pair_codes)
        if codes.count(0) < 1 or not set(codes) <= set(allowed):
            return 1, f"{name} twice: exit codes {codes}: {texts}"
        known = ("trains into this folder", "already contains a training run")
        if told and not any(text in texts for text in known):
            return 1, f"{name} twice: the second one was not told why: {texts}"
        files = files_in(folder)
        if name == "cache":
            runs = {n: c for n, c in files.items() if n.startswith("out2/")}
            if {n.replace("out2/", "out/"): c for n, c in _runs(runs).items()} != _runs(honest.files):
                return 1, "cache twice: the second training has another result"
            files = {n: c for n, c in files.items() if not n.startswith("out2/")}
        return 1, self._compare(command, folder, honest.files, files)

    def _compare(self, command: Command, folder: Path, honest: Files, files: Files | None = None) -> str:
        files = files_in(folder) if files is None else files
        if left := [name for name in files if TEMPORARY.match(Path(name).name)]:
            return f"{command.name}: left over: {left[0]}"
        found = command.result(files)
        if found.keys() != honest.keys():
            return f"{command.name}: files {sorted(found.keys() ^ honest.keys())} are missing or too many"
        changed = [name for name in honest if found[name] != honest[name]]
        return f"{command.name}: {changed[0]} differs from that of an undisturbed run" if changed else ""


def _damaged(command: Command, files: Files, honest: Files) -> str:
    """Return a file that is half-written: not whole, although it has its final name."""
    import io

    import numpy as np

    for name, content in files.items():
        if TEMPORARY.match(Path(name).name):
            continue
        if name.endswith(".npz"):
            try:
                with np.load(io.BytesIO(content)) as file:
                    dict(file)
            except Exception:
                return name
        elif name in honest and name.endswith((".png", ".npy")) and content != honest[name]:
            return name
    return ""


def _die_at_event(number: int) -> None:
    """Let this process kill itself at its nth file operation."""
    left = number

    def hook(event: str, args: tuple) -> None:
        nonlocal left
        if event in FILE_EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
