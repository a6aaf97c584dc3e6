"""The measurements as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

BUSY = 0.5  # load average of the last minute above which the page has a warning


def machine(m: Mapping[str, Any]) -> str:
    """Return the description of the machine as a paragraph, including frameworks that are not installed."""
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
        sentences.append(f"Not installed and skipped: {', '.join(missing)}")
    if m["load"] is not None:
        sentences.append(f"Load average at the start: {m['load']:.1f}")
        if m["load"] > BUSY:
            sentences.append(
                "**Other processes were running, which slows multithreaded code: do not trust the ratios**"
            )
    if m["commit"]:
        sentences.append(f"Commit {m['commit']}")
    return (
        ". ".join(sentences) + ".\n\nEach number is the median [minimum, maximum]; a ratio is ours / theirs."
    )


def comparison(title: str) -> Callable[[Mapping[str, Any]], str]:
    """Return a function that writes times and ratios, one row per shape and framework."""

    def write(section: Mapping[str, Any]) -> str:
        rows = [
            (shape, name, seconds(s), ratio(measured["ratios"].get(name)))
            for shape, measured in section.items()
            for name, s in measured["times"].items()
        ]
        return f"### {title}\n\n" + table(("shape", "framework", "ms", "ratio"), rows)

    return write


def shared_step(section: Mapping[str, Any]) -> str:
    """Return times, memory, and the shares of a step that are spent in exchanges between processes."""
    rows = []
    for shape, measured in section.items():
        for name, s in measured["times"].items():
            shares = measured["shares"].get(name, {})
            exchanged = [percent(shares.get(what)) for what in ("allreduce", "exchanges")]
            numbers = seconds(s), ratio(measured["ratios"].get(name)), megabytes(measured["memory"][name])
            rows.append((shape, name, *numbers, *exchanged))
    head = ("shape", "framework", "ms", "ratio", "MB in total", "Allreduce, %", "all exchanges, %")
    return "### Training step in two processes\n\n" + table(head, rows)


def predict_folder(section: Mapping[str, Any]) -> str:
    """Return the time of a photograph, and the memory of all processes of a contender."""
    rows = [
        (shape, name, seconds(s), ratio(measured["ratios"].get(name)), megabytes(measured["memory"][name]))
        for shape, measured in section.items()
        for name, s in measured["times"].items()
    ]
    head = ("folder", "framework", "ms a photograph", "ratio", "MB in total")
    return "### Prediction of a folder\n\n" + table(head, rows)


def memory(section: Mapping[str, Any]) -> str:
    """Return the peaks of memory."""
    rows = [
        (what, name, megabytes(s), megabytes(measured["absolute"][name]), ratio(measured["ratios"].get(name)))
        for what, measured in section.items()
        for name, s in measured["above_import"].items()
    ]
    head = ("what", "framework", "MB above imports", "MB in total", "ratio above imports")
    return "### Peak memory\n\n" + table(head, rows)


def scaling(section: Mapping[str, Any]) -> str:
    """Return the times for growing work and the fitted exponents."""
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
    return "### Scaling of the training step\n\n" + table(("work", "framework", "ms", "exponent"), rows)


def loading(section: Mapping[str, Any]) -> str:
    """Return the time to load a batch and its ratio to the time of a step."""
    shares = section["share_of_step"]
    rows = [(name, seconds(s), ratio(shares.get(name))) for name, s in section["times"].items()]
    return "### Loading a batch\n\n" + table(("what", "ms", "ratio to the step"), rows)


def startup(section: Mapping[str, Any]) -> str:
    """Return the time of each short process."""
    rows = [(f"`{name}`", seconds(s)) for name, s in section["times"].items()]
    return "### Start-up time\n\n" + table(("process", "ms"), rows)


def seconds(s: Iterable[float]) -> str:
    """Return a spread of seconds in milliseconds."""
    return _spread(s, 1e3)


def megabytes(s: Iterable[float]) -> str:
    """Return a spread of bytes in megabytes."""
    return _spread(s, 1e-6)


def percent(s: Iterable[float] | None) -> str:
    """Return a spread of shares in per cent, or an empty string for none."""
    return _spread(s, 100.0) if s else ""


def ratio(s: Iterable[float] | None) -> str:
    """Return a spread of ratios, or an empty string for our own row."""
    return _spread(s, 1.0) if s else ""


def _spread(s: Iterable[float], unit: float) -> str:
    median, minimum, maximum = (_three_digits(value * unit) for value in s)
    return f"{median} [{minimum}, {maximum}]"


def _three_digits(value: float) -> str:
    """Return a number rounded to three significant digits, without an exponent."""
    return f"{float(f'{value:.3g}'):.10g}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


WRITERS = {
    "block": comparison("Recurrent convolution, forward and backward"),
    "train_step": comparison("Training step"),
    "shared_step": shared_step,
    "inference": comparison("Inference"),
    "predict_folder": predict_folder,
    "loading": loading,
    "memory": memory,
    "scaling": scaling,
    "startup": startup,
}
