"""Checks the answers to the exercises: `make exercise N=3`, or `make exercise N=3 E=2` for one of them.

`chapter_03.py` has the tasks of chapter 3: functions without a body, or with a mistake to find. Fill them in.
`check_03.py` says right or wrong, and what to look at. `solutions/chapter_03.py` has one answer to each.
"""

import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent
CHAPTERS = sorted(int(path.stem[-2:]) for path in FOLDER.glob("check_*.py"))
USAGE = "Usage: make exercise N=3 for chapter 3, or make exercise N=3 E=2 for its second exercise."


def exercises(chapter: int) -> list[int]:
    """Return the numbers of a chapter's exercises."""
    checks = importlib.import_module(f"exercises.check_{chapter:02}")
    return sorted(int(name[6:]) for name in vars(checks) if re.fullmatch(r"check_\d", name))


def verdict(chapter: int, exercise: int, answers: ModuleType) -> str:
    """Check one exercise in a module of answers; return "right", "not done yet", or "wrong" and why."""
    check = getattr(importlib.import_module(f"exercises.check_{chapter:02}"), f"check_{exercise}")
    try:
        check(answers)
    except NotImplementedError:
        return "not done yet"
    except AssertionError as error:
        return f"wrong: {error}"
    except Exception as error:  # whatever the answer raises is reported next to its exercise
        return f"wrong: {type(error).__name__}: {error}{place(error, answers)}"
    return "right"


def place(error: Exception, answers: ModuleType) -> str:
    """Return the line of the answers in which an error was raised, as " (file, line 12)", or nothing."""
    line = line_of(error, answers.__file__)
    return f" ({Path(answers.__file__).name}, line {line})" if line else ""


def line_of(error: Exception, file: str) -> int | None:
    """Return the last line of a file that an error passed through, or None."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def main(argv: Sequence[str]) -> int:
    """Print the verdict on each exercise; return 0 if all are right, 1 if not, 2 for a wrong call."""
    if not __debug__:
        return complain(
            "The checks are assertions, which -O and PYTHONOPTIMIZE leave out; run it without them."
        )
    words = [word for word in argv if word]
    if not words or len(words) > 2 or not all(word.isdecimal() for word in words):
        return complain(USAGE)
    chapter = int(words[0])
    if chapter not in CHAPTERS:
        return complain(f"There are exercises for chapters 1 to {CHAPTERS[-1]}, not for {chapter}.")
    numbers = exercises(chapter)
    if len(words) == 2 and int(words[1]) not in numbers:
        return complain(f"Chapter {chapter} has exercises {numbers[0]} to {numbers[-1]}, not {words[1]}.")
    file = f"exercises/chapter_{chapter:02}.py"
    try:
        answers = importlib.import_module(f"exercises.chapter_{chapter:02}")
    except SyntaxError as error:
        return complain(f"{file}, line {error.lineno}: {error.msg}")
    except Exception as error:  # a wrong import, for example
        line = line_of(error, str(FOLDER / f"chapter_{chapter:02}.py"))
        return complain(f"{file}, line {line}: {type(error).__name__}: {error}")
    print(file)
    verdicts = [(n, verdict(chapter, n, answers)) for n in numbers if len(words) == 1 or n == int(words[1])]
    for number, result in verdicts:
        print(f"{chapter}.{number}  {result}")
    return int(any(result != "right" for _, result in verdicts))


def complain(message: str) -> int:
    """Print a message to standard error; return the exit status of a wrong call."""
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
