"""The measurements as Markdown, ready to stand in a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks.frameworks import OWN

BUSY = 0.5  # processes that were running on average in the minute before, beyond which a warning stands


def machine(m: Mapping[str, Any]) -> str:
    """Return the machine as a paragraph; a framework that is not installed is named."""
    here = ", ".join(f"{name} {number}" for name, number in m["frameworks"].items() if number)
    missing = [name for name, number in m["frameworks"].items() if not number]
    blas = m["threads"]["blas"] or m["threads"]["OPENBLAS_NUM_THREADS"]
    blas = "/".join(map(str, blas)) if isinstance(blas, list) else blas
    sentences = [
        f"{m['cpu']}, {m['cores']} cores, {m['system']}",
        f"Python {m['python']}, NumPy {m['numpy']} with {m['blas']}" + (f", {here}" if here else ""),
        f"Threads: {blas} for BLAS"
        + (f", {m['threads']['torch']} for PyTorch" if m["threads"]["torch"] else ""),
    ]
    if missing:
        sentences.append(f"Not installed and left out: {', '.join(missing)}")
    if m["load"] is not None:
        sentences.append(f"Load when it began: {m['load']:.1f}")
        if m["load"] > BUSY:
            sentences.append(
                "**Others were computing: whoever uses several threads loses most, trust no ratio**"
            )
    if m["commit"]:
        sentences.append(f"Commit {m['commit']}")
    return ". ".join(sentences) + ".\n\nEach number is the median [least, most]; a ratio is ours / theirs."


def comparison(title: str) -> Callable[[Mapping[str, Any]], str]:
    """Return a writer of times and ratios, a row for each shape and framework."""

    def write(section: Mapping[str, Any]) -> str:
        rows = [
            (shape, name, seconds(s), ratio(measured["ratios"].get(name)))
            for shape, measured in section.items()
            for name, s in measured["times"].items()
        ]
        return f"### {title}\n\n" + table(("shape", "framework", "ms", f"{OWN} / it"), rows)

    return write


def memory(section: Mapping[str, Any]) -> str:
    """Return the peaks."""
    rows = [
        (what, name, megabytes(s), megabytes(measured["absolute"][name]), ratio(measured["ratios"].get(name)))
        for what, measured in section.items()
        for name, s in measured["above_import"].items()
    ]
    head = ("what", "framework", "MB above imports", "MB in all", f"{OWN} / it, above imports")
    return "### Peak memory\n\n" + table(head, rows)


def scaling(section: Mapping[str, Any]) -> str:
    """Return the times as the work grows, and the exponents of the fits."""
    rows = [
        (f"{kind} {amount}", name, seconds(s), "")
        for kind, measured in section.items()
        for name, points in measured["times"].items()
        for amount, s in points.items()
    ]
    rows += [
        (f"exponent of {kind}", name, "", f"{p:.2f}")
        for kind, measured in section.items()
        for name, p in measured["exponent"].items()
    ]
    return "### How a training step grows\n\n" + table(("work", "framework", "ms", "exponent"), rows)


def loading(section: Mapping[str, Any]) -> str:
    """Return the seconds of a batch and its share of a step."""
    shares = section["share_of_step"]
    rows = [(name, seconds(s), ratio(shares.get(name))) for name, s in section["times"].items()]
    return "### Loading a batch\n\n" + table(("what", "ms", "of the step"), rows)


def startup(section: Mapping[str, Any]) -> str:
    """Return the seconds of each short process."""
    rows = [(f"`{name}`", seconds(s)) for name, s in section["times"].items()]
    return "### Starting\n\n" + table(("process", "ms"), rows)


def seconds(s: Iterable[float]) -> str:
    """Return a spread of seconds in milliseconds."""
    return _spread(s, 1e3)


def megabytes(s: Iterable[float]) -> str:
    """Return a spread of bytes in megabytes."""
    return _spread(s, 1e-6)


def ratio(s: Iterable[float] | None) -> str:
    """Return a spread of ratios, or nothing for ours."""
    return _spread(s, 1.0) if s else ""


def _spread(s: Iterable[float], unit: float) -> str:
    median, least, most = (_three_digits(value * unit) for value in s)
    return f"{median} [{least}, {most}]"


def _three_digits(value: float) -> str:
    """Return a number to three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):.10g}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


WRITERS = {
    "block": comparison("A recurrent convolution, forward and backward"),
    "train_step": comparison("A training step"),
    "inference": comparison("Inference"),
    "loading": loading,
    "memory": memory,
    "scaling": scaling,
    "startup": startup,
}
