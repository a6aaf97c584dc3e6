"""All operations of the engine, with their definitions and faster implementations.

`python -m minidl.operations` prints a table: for each operation the file of its definition, and the faster
implementations on the CPU and on a GPU, the preferred one first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from minidl import average, ema, images, optim, recompute  # noqa: F401  (each defines operations)
from minidl.implementation import definitions, implementations
from minidl.output import run_program
from minidl.tensor import Function

__all__ = ["every_function", "outside_the_graph", "table"]


def every_function(base: type[Function] = Function) -> Iterator[type[Function]]:
    """Yield the definition of every operation of this package, found among the subclasses of Function."""
    for kind in base.__subclasses__():
        if kind.__module__.partition(".")[0] == "minidl" and kind.implementation == "definition":
            yield kind
        yield from every_function(kind)


def outside_the_graph() -> Iterator[Callable]:
    """Yield the definitions that are plain functions, because nothing is differentiated."""
    for definition in definitions():
        if not isinstance(definition, type) and definition.__module__.partition(".")[0] == "minidl":
            yield definition


def table() -> str:
    """Return the table in Markdown."""
    functions = sorted(every_function(), key=lambda kind: (kind.__module__, kind.__qualname__))
    lines = ["| operation | definition | CPU | GPU |", "|---|---|---|---|"]
    for definition in (*functions, *outside_the_graph()):
        cells = [", ".join(implementations(definition, device)) or "definition" for device in ("cpu", "cuda")]
        file = definition.__module__.replace(".", "/") + ".py"
        lines.append(f"| {definition.__name__} | {file} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(run_program("python -m minidl.operations", main))
