"""A trial: a damaged input in a folder of its own, the command that reads it, and what must hold then."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from r2unet.commands.main import main
from tests.assault.jail import Call, Outcome

CODES = (0, 1, 2, 130)
MEMORY, FACTOR = 64 * 2**20, 4  # what a command may take: MEMORY + FACTOR times the decoded size
TEMPORARY = re.compile(r"^\.minidl-.*|.*\.part$|^\.lock$")
NOT_FINITE = re.compile(r"\b(nan|inf)\b", re.IGNORECASE)

Files = dict[str, bytes]


def files_in(folder: Path) -> Files:
    """Return the content of all files in a folder, by their relative paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@dataclass
class Trial:
    """A command in a folder, and what is known about its result."""

    attack: str
    folder: Path
    words: list[str]
    count: int = 1  # how many inputs are damaged
    expected: Files | None = None  # what a success must write; None if the damage may change it
    may_change: tuple[str, ...] = ()  # inputs that the command is there to change, by the start of their path
    writes: str = "out"  # the start of the paths that the command may write
    partial: bool = False  # whether a command with an error may write a part of its files
    decoded: Callable[[], int] = int
    run: Callable[[], int | None] | None = None  # instead of the command line
    check: Callable[[Trial, Outcome, Files], str] | None = None  # returns a fault
    single: Callable[[], list[Trial]] | None = None  # the same trial for each of its inputs alone
    before: Files = field(default_factory=dict)

    def call(self) -> Call:
        """Return what the jail runs; the files before it are remembered."""
        self.before = files_in(self.folder)
        return Call(self.folder, self.run or (lambda: main(self.words)), self.decoded)

    def judge(self, outcome: Outcome) -> str:
        """Return what is wrong, "" if nothing is."""
        after = files_in(self.folder)
        new = {name: content for name, content in after.items() if self.before.get(name) != content}
        return (
            judge_process(outcome)
            or self._judge_files(outcome, after, new)
            or (self.check(self, outcome, new) if self.check else "")
        )

    def _judge_files(self, outcome: Outcome, after: Files, new: Files) -> str:
        if left := [name for name in after if TEMPORARY.match(Path(name).name) and name not in self.before]:
            return f"left over: {left[0]}"
        changed = [n for n in self.before if after.get(n) != self.before[n] and not self._is_output(n)]
        if changed:
            return f"an input was changed: {changed[0]}"
        if strange := [name for name in new if not self._is_output(name)]:
            return f"wrote {strange[0]}"
        written = [name for name in new if not name.startswith(self.may_change)]
        if outcome.code and written and not self.partial:
            return f"exit code {outcome.code}, but it wrote {written[0]}"
        if outcome.code == 0 and self.expected is not None:
            for name, content in self.expected.items():
                if after.get(name) != content:
                    return f"silent change of {name}"
        return ""

    def _is_output(self, name: str) -> bool:
        return name.startswith((self.writes, *self.may_change))

    def keep(self, place: Path, outcome: Outcome, fault: str) -> None:
        """Copy the input to a folder, with the command that repeats the trial and what it did."""
        shutil.copytree(self.folder, place, symlinks=True, dirs_exist_ok=True)
        for name, content in self.before.items():
            (place / name).write_bytes(content)
        for name in set(files_in(place)) - set(self.before):
            (place / name).unlink()
        command = shlex.join(["python", "-m", "r2unet", *self.words]) if not self.run else "(see the attack)"
        (place / "FAILURE.txt").write_text(
            f"attack: {self.attack}\nfault: {fault}\nrepeat: cd {place} && {command}\n"
            f"exit code: {outcome.code}, memory {outcome.memory}, decoded {outcome.decoded}\n"
            f"stdout:\n{outcome.out}\nstderr:\n{outcome.err}\n",
            errors="replace",
        )


def judge_process(outcome: Outcome) -> str:
    """Return what is wrong with how a command ended, what it printed and what memory it took."""
    if outcome.fault:
        return outcome.fault
    if outcome.code not in CODES:
        return f"exit code {outcome.code}"
    if "Traceback" in outcome.err:
        return "traceback on stderr"
    if "not enough memory" in outcome.err:
        return "not enough memory"
    if outcome.code == 2 and "error: " not in outcome.err:
        return "exit code 2 without an error"
    if not all(line.isprintable() for line in (outcome.out + outcome.err).split("\n")):
        return "a line that is not printable"
    if outcome.code == 0 and NOT_FINITE.search(outcome.out):
        return "a result that is not finite"
    if outcome.memory > MEMORY + FACTOR * outcome.decoded:
        return f"memory: {outcome.memory >> 20} MiB, honest size {outcome.decoded >> 20} MiB"
    return ""
