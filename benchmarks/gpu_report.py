"""The measurements of `gpu.py` as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.frameworks import OWN
from benchmarks.gpu_networks import COMPILED, COMPILED_GRAPH, EAGER, GRAPH, METHODS, TF32, TF32_OWN
from benchmarks.report import ratio, seconds, table

TITLES = {"step": "training step", "forward": "forward"}
WHICH_PEER = (
    f"`r2unet train` runs as *{GRAPH}* if the step can be captured, otherwise as *{OWN}, auto*. Compare it "
    f"with *{EAGER}* for the same arithmetic, all bits of float32, and with *{TF32}* for what an unmodified "
    f"PyTorch program does: it rounds to 10 bits in convolutions, as *{TF32_OWN}* does. *{COMPILED_GRAPH}* "
    f"is compiled and launched as a CUDA graph, like ours; *{COMPILED}* is launched kernel by kernel."
)
SHOWN = 0.01  # share of the time in kernels; kernels with a smaller share are only in the JSON


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return a table for each measured part, and the failures."""
    key = "Each number is the median [minimum, maximum]; a ratio is ours / theirs."
    parts = [f"Measured on {results['device']}. {key}"]
    if results["quick"]:
        parts.append("**A quick run on tiny shapes, which only shows that the program runs.**")
    if results["problems"]:
        parts.append("**Failures:**\n\n" + "\n".join(f"- {line}" for line in results["problems"]))
    if results["left_out"]:
        parts.append("Skipped:\n\n" + "\n".join(f"- {line}" for line in results["left_out"]))
    comparisons = {n: p for n, p in results.items() if isinstance(p, Mapping) and p.get("times")}
    if comparisons:
        parts.append(WHICH_PEER)
    for name, part in results.items():
        if name in comparisons:
            parts.append(comparison(name, part))
        elif name.endswith("memory"):
            parts.append(memory(name, part))
    profiles = {n: p for n, p in results.get("kernels", {}).items() if "kernels" in p}
    if profiles:
        parts.append(limits(results["kernels"]))
        parts += [kernels(n, part) for n, part in profiles.items()]
    return "\n\n".join(parts)


def comparison(name: str, part: Mapping[str, Any]) -> str:
    """Return the times of each network, and the ratios of ours to each of PyTorch's."""
    rows = []
    ours = [name for name in (*METHODS, GRAPH) if name in part["times"]["step"]]
    for call, times in part["times"].items():
        for contender, s in times.items():
            found = [part["ratios"][call].get(m, {}).get(contender) for m in ours]
            columns = [ratio(r) if r and not contender.startswith(OWN) else "" for r in found]
            rows.append((TITLES[call], contender, seconds(s), *columns))
    shape = f"widths {part['widths']}, batch {part['batch']}, {part['size']} x {part['size']}"
    relative = "; ".join(
        f"{contender}: " + ", ".join(f"{what} {error:.0e}" for what, error in found.items())
        for contender, found in list(part["differences"].items())[1:]
    )
    return (
        f"### {name[0].upper()}{name[1:]}: {shape}\n\n"
        + table(("what", "network", "ms", *(f"ratio of {m}" for m in ours)), rows)
        + f"\n\nRelative differences from the first (of norms): {relative}."
    )


def memory(name: str, part: Mapping[str, Any]) -> str:
    """Return the peaks of memory; `gpu_memory.py` defines them."""
    rows = [
        (who, peak["failed"], "")
        if "failed" in peak
        else (who, megabytes(peak["arrays"]), megabytes(peak["device"]))
        for who, peak in part.items()
    ]
    return f"### {name[0].upper()}{name[1:]} of a training step\n\n" + table(
        ("network", "MB in arrays", "MB of device memory"), rows
    )


def limits(part: Mapping[str, Any]) -> str:
    """Return the limits of the device."""
    first = next(p["limits"] for p in part.values() if "limits" in p)
    rows = [
        ("large copy, GB/s read and written", scaled(first["copy"], 1e-9)),
        ("large float32 product, TFLOP/s", scaled(first["product"], 1e-12)),
        ("the same with TF32, TFLOP/s", scaled(part["product with TF32"], 1e-12)),
    ]
    return "### Limits of the device\n\n" + table(("what", "rate"), rows)


def kernels(name: str, part: Mapping[str, Any]) -> str:
    """Return how a training step's time on the GPU is distributed over the kernels, and which are slow."""
    whole, inside = part["step"][0], part["in_kernels"]
    listed = [r for r in part["kernels"] if r["seconds_a_step"] >= SHOWN * inside]
    rows = [
        (
            r["name"],
            " ".join("x".join(map(str, s)) or "1" for s in r["shapes"]),
            f"{r['launches']:.0f}",
            f"{1e3 * r['seconds_a_step']:.3g}",
            scaled(r["seconds"], 1e6),
            f"{1e-9 * r['bytes_a_second']:.0f}" if r["bytes_a_second"] else "",
            f"{r['share_of_copy']:.0%}" + (" **slow**" if r["slow"] else "") if r["share_of_copy"] else "",
            f"{1e-12 * r['operations_a_second']:.2f}",
            f"{r['share_of_product']:.0%}",
        )
        for r in listed
    ]
    head = "kernel", "arrays", "launches", "ms/step", "us each", "GB/s", "of copy", "TFLOP/s", "of product"
    text = (
        f"The GPU needs {1e3 * whole:.3g} ms for a step, {1e3 * inside:.3g} ms of them for "
        f"{part['launches']:.0f} launches of our kernels. The rest, {1e3 * (whole - inside):.3g} ms, is "
        "CuPy's: sums, additions, products, copies. Kernels below 1 % are not shown. "
        f"{len(part['slow'])} memory-bound kernels on large arrays reach less than half the rate of the copy."
    )
    return f"### Kernels of a training step: {name}\n\n{text}\n\n{table(head, rows)}"


def megabytes(value: float | None) -> str:
    return "" if value is None else f"{1e-6 * value:.0f}"


def scaled(s: Iterable[float], unit: float) -> str:
    """Return a spread in another unit."""
    median, minimum, maximum = (f"{unit * value:.3g}" for value in s)
    return f"{median} [{minimum}, {maximum}]"
