"""What an assault consists of: every attack with its share, and the counts of a run."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.assault import image_attacks, jail, special_attacks, table_attacks, weight_attacks
from tests.assault.attacks import Attacks
from tests.assault.kills import COMMANDS, Kills
from tests.assault.options import options
from tests.assault.trial import Trial, judge_process

# How many damaged inputs a long run aims at. Each attack gets time until it has its share.
INPUTS: dict[Callable[[Attacks, Path], Trial], int] = {
    image_attacks.pictures: 29_000,
    image_attacks.masks: 800,
    image_attacks.data_images: 200,
    weight_attacks.checkpoints: 4_600,
    weight_attacks.resumed: 400,
    weight_attacks.pytorch: 2_000,
    weight_attacks.claimed_sizes: 400,
    weight_attacks.claimed_runs: 100,
    weight_attacks.directories: 1_000,
    weight_attacks.trees: 200,
    table_attacks.challenge_tables: 2_400,
    table_attacks.labels: 600,
    table_attacks.metadata: 600,
    table_attacks.caches: 600,
    table_attacks.studies: 300,
    table_attacks.checks: 400,
    image_attacks.sizes: 300,
    special_attacks.full_disks: 400,
    special_attacks.special_folders: 400,
    special_attacks.special_files: 500,
    options: 1_500,
}
KILLS = {"train": 130, "workers": 60, "compare": 60, "predict": 120, "export": 90, "cache": 100}
PAIRS = {"train": 30, "workers": 10, "cache": 30, "compare": 15, "predict": 15, "export": 10}
TRIALS = 10  # in one child of the jail
PROGRAMS = 0.004  # the share of the trials that also run as a program of its own
KEPT = 5  # inputs that are kept of the same fault


class Assault:
    """Runs attacks in turn, so that all reach the same share of their goals, and counts what they found."""

    def __init__(self, honest: Path, scratch: Path, failures: Path, seed: int) -> None:
        self.scratch, self.failures = scratch, failures
        self.rng = np.random.default_rng(seed)
        self.attacks = Attacks(honest, self.rng)
        self.kills = Kills(self.attacks, scratch / "killed")
        self.counts: Counter[tuple[str, str]] = Counter()  # (kind, attack) -> inputs
        self.failed: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()  # exit codes of the trials

    def run(self, seconds: float, save: Callable[[], None] = lambda: None) -> None:
        """Attack for so many seconds."""
        started = saved = time.monotonic()
        while time.monotonic() - started < seconds:
            self.step()
            if time.monotonic() - saved > 20:
                save()
                saved = time.monotonic()

    def step(self) -> None:
        """Run the attack that is furthest from its goal."""
        goals: dict[tuple[str, str], tuple[int, Callable[[], None]]] = {}
        for attack, goal in INPUTS.items():
            goals["inputs", attack.__name__] = goal, lambda attack=attack: self.files(attack)
        for name, goal in KILLS.items():
            goals["kills", name] = goal, lambda name=name: self.disturb("kills", name)
        for name, goal in PAIRS.items():
            goals["pairs", name] = goal, lambda name=name: self.disturb("pairs", name)
        behind = min(goals, key=lambda key: self.counts[key] / goals[key][0])
        goals[behind][1]()

    def files(self, attack: Callable[[Attacks, Path], Trial], trials: int = TRIALS) -> None:
        """Run some trials of an attack."""
        folder = self.scratch / "trials"
        prepared = []
        for number in range(trials):
            place = folder / str(number)
            place.mkdir(parents=True)
            prepared.append(attack(self.attacks, place))
        self._judge(attack.__name__, prepared)
        for trial in prepared:
            if not trial.run and self.rng.random() < PROGRAMS:
                self.program(trial)
        shutil.rmtree(folder, ignore_errors=True)

    def _judge(self, name: str, trials: list[Trial]) -> None:
        """Run trials and count what they found; a failure of several inputs is narrowed down to one."""
        outcomes = jail.run_all([trial.call() for trial in trials], self.scratch)
        for trial, outcome in zip(trials, outcomes, strict=True):
            self.codes[f"{name} {outcome.code}"] += trial.count
            self.counts["inputs", name] += trial.count
            fault = trial.judge(outcome)
            if fault and trial.single:
                alone = trial.single()
                faults = [
                    (one, each, one.judge(each))
                    for one, each in zip(
                        alone, jail.run_all([t.call() for t in alone], self.scratch), strict=True
                    )
                ]
                if any(found for *_, found in faults):
                    for one, each, found in faults:
                        self._note("inputs", name, found, one, each)
                    continue
            self._note("inputs", name, fault, trial, outcome)

    def program(self, trial: Trial) -> None:
        """Run the command of a trial as a program of its own."""
        output = self.scratch / "program"
        pid = jail.start(jail.Call(trial.folder, jail.program(trial.words)), output)
        code = jail.wait_for(pid)
        text = output.read_text(errors="replace")
        hang = "" if code is not None else "hangs"
        outcome = jail.Outcome(code, text, text, fault=hang)
        self.counts["programs", "any command"] += 1
        self._note("programs", "any command", judge_process(outcome), trial, outcome)

    def disturb(self, kind: str, name: str) -> None:
        """Kill a command, or start it twice."""
        count, fault = (self.kills.kill if kind == "kills" else self.kills.pair)(name)
        self.counts[kind, name] += count
        if fault:
            self.failed[kind, name] += 1
            self.faults[fault] += 1
            place = self._place(f"{kind}-{name}")
            shutil.copytree(self.kills.folder, place)
            (place / "FAILURE.txt").write_text(f"{fault}\ncommand: {COMMANDS[name].words}\n")

    def _note(self, kind: str, name: str, fault: str, trial: Trial, outcome: jail.Outcome) -> None:
        if not fault:
            return
        self.failed[kind, name] += 1
        signature = f"{name}: {fault.strip().splitlines()[-1][:200]}"
        self.faults[signature] += 1
        if self.faults[signature] <= KEPT:
            trial.keep(self._place(name), outcome, fault)

    def _place(self, name: str) -> Path:
        """Return a new folder for a failing input."""
        self.failures.mkdir(parents=True, exist_ok=True)
        return self.failures / f"{len(list(self.failures.iterdir())):04}-{name}"

    # The results

    def table(self) -> str:
        """Return the counts in Markdown."""
        lines = ["| what | attack | how many | failures |", "|---|---|---|---|"]
        for kind in ("inputs", "programs", "kills", "pairs"):
            keys = [key for key in self.counts if key[0] == kind]
            lines += [f"| {kind} | {k[1]} | {self.counts[k]:,} | {self.failed[k]} |" for k in keys]
        for signature, count in self.faults.most_common():
            lines.append(f"\n{count} x {signature}")
        return "\n".join(lines)

    def save(self, path: Path, seconds: float) -> None:
        """Write the counts to a file in JSON."""
        content = {
            "seconds": round(seconds),
            "processor seconds": round(sum(os.times()[:4])),
            "counts": {" ".join(key): count for key, count in self.counts.items()},
            "failed": {" ".join(key): count for key, count in self.failed.items()},
            "faults": self.faults,
            "exit codes": self.codes,
        }
        path.write_text(json.dumps(content, indent=2))
