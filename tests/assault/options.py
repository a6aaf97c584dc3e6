"""Attacks the options of every command with values that hypothesis draws.

Values that are in order would start long work. So the data that they name does not exist, or, for `summary`,
the numbers are small.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import strategies as st

from r2unet.commands.main import COMMANDS
from r2unet.commands.options import Parser
from tests.assault.attacks import Attacks
from tests.assault.mutations import NUMBERS, TEXTS, Values
from tests.assault.trial import Trial

NOWHERE = {  # the last words: what a command reads does not exist
    "train": ["--data=nowhere", "--out=out"],
    "compare": ["--data=nowhere", "--out=out"],
    "evaluate": ["--data=nowhere"],
    "predict": ["nowhere.png"],
    "explain": ["nowhere.png", "--out=out.png"],
    "export": ["nowhere.npz", "--out=out.npz"],
    "score": ["nowhere", "nowhere"],
    "check": ["nowhere.npz"],
    "report": ["nowhere", "--out=out.html"],
    "summary": ["--size=16", "--widths=2,4", "--batch-size=2", "--steps=1"],
}


def _is_argument(word: str) -> bool:
    """Return whether the operating system can pass a word to a program."""
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return "\0" not in word


SIMPLE = st.sampled_from(["yes", "no", "0", "1", "16", "1,2", "cpu", "both", "-", "--", "="])
WORDS = st.one_of(NUMBERS.map(str), TEXTS, SIMPLE).filter(_is_argument)


def flags_of(command: str) -> list[str]:
    """Return the long options of a command."""
    parser = Parser()
    COMMANDS[command].add_options(parser)
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


def option_values() -> st.SearchStrategy[list[str]]:
    """Return a strategy for command lines."""

    @st.composite
    def line(draw: st.DrawFn) -> list[str]:
        command = draw(st.sampled_from([*COMMANDS]))
        flags, words = flags_of(command), [command]
        for _ in range(draw(st.integers(1, 4))):
            flag, value = draw(st.sampled_from(flags)), draw(WORDS)
            form = draw(st.integers(0, 3))
            words += [[f"{flag}={value}"], [flag, value], [flag], [flag[: len(value) + 2]]][form]
        if draw(st.booleans()):
            words.insert(draw(st.integers(0, len(words))), draw(WORDS))
        return words + NOWHERE[command]

    return line()


def options(a: Attacks, folder: Path) -> Trial:
    """Run a command with odd options."""
    if not hasattr(a, "lines"):
        a.lines = Values(option_values(), a.rng)
    return Trial("options", folder, a.lines(), writes="")
