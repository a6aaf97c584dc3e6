"""What `gpu.py` measured, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.gpu_networks import CALLS, METHODS
from benchmarks.report import ratio, seconds, table

TITLES = {"forward": "forward", "forward_backward": "forward + backward", "step": "training step"}
SHOWN = 0.01  # of the time in kernels: rarer ones are in the JSON


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return a table for each part that was measured, and what went wrong."""
    parts = [f"Measured on {results['device']}. Each number is the median [least, most]."]
    if results["quick"]:
        parts.append("**A trial on shapes too small to tell anything: it only shows that the program runs.**")
    if results["problems"]:
        parts.append("**What went wrong:**\n\n" + "\n".join(f"- {line}" for line in results["problems"]))
    if results["left_out"]:
        parts.append("Left out:\n\n" + "\n".join(f"- {line}" for line in results["left_out"]))
    for name, part in results.items():
        if isinstance(part, Mapping) and "times" in part:
            parts.append(comparison(name, part))
        elif name.endswith("memory"):
            parts.append(memory(name, part))
    if "kernels" in results:
        parts.append(limits(results["kernels"]))
        parts += [kernels(n, part) for n, part in results["kernels"].items() if "kernels" in part]
    return "\n\n".join(parts)


def comparison(name: str, part: Mapping[str, Any]) -> str:
    """Return the times of each contender, and the ratios of ours to each of PyTorch's."""
    rows = []
    for call in CALLS:
        for contender, s in part["times"][call].items():
            ours = [part["ratios"][call].get(m, {}).get(contender) for m in METHODS]
            columns = [ratio(r) if r and contender not in METHODS else "" for r in ours]
            rows.append((TITLES[call], contender, seconds(s), *columns))
    shape = f"widths {part['widths']}, batch {part['batch']}, {part['size']} x {part['size']}"
    apart = "; ".join(
        f"{contender}: " + ", ".join(f"{what} {error:.0e}" for what, error in found.items())
        for contender, found in list(part["differences"].items())[1:]
    )
    return (
        f"### {name[0].upper()}{name[1:]}: {shape}\n\n"
        + table(("what", "who", "ms", *(f"{m} / it" for m in METHODS)), rows)
        + f"\n\nApart from the first, as a share of its length: {apart}."
    )


def memory(name: str, part: Mapping[str, Any]) -> str:
    """Return the peaks; `gpu_memory.py` says what they are."""
    rows = [
        (who, peak["failed"], "")
        if "failed" in peak
        else (who, megabytes(peak["arrays"]), megabytes(peak["device"]))
        for who, peak in part.items()
    ]
    return f"### {name[0].upper()}{name[1:]} of a training step\n\n" + table(
        ("who", "MB in arrays", "MB taken from the device"), rows
    )


def limits(part: Mapping[str, Any]) -> str:
    """Return what the device can reach."""
    first = next(p["limits"] for p in part.values() if "limits" in p)
    rows = [
        ("large copy, GB/s read and written", scaled(first["copy"], 1e-9)),
        ("large float32 product, TFLOP/s", scaled(first["product"], 1e-12)),
        ("the same with TF32, TFLOP/s", scaled(part["product with TF32"], 1e-12)),
    ]
    return "### What the device can reach\n\n" + table(("what", "rate"), rows)


def kernels(name: str, part: Mapping[str, Any]) -> str:
    """Return where a training step's time goes on the GPU, the kernels that take most, and those too slow."""
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
    head = "kernel", "arrays", "launches", "ms a step", "us each", "GB/s", "of copy", "TFLOP/s", "of product"
    text = (
        f"The GPU works {1e3 * whole:.3g} ms on a step, {1e3 * inside:.3g} ms of them in "
        f"{part['launches']:.0f} launches of our kernels. The rest, {1e3 * (whole - inside):.3g} ms, is "
        "CuPy's: sums, additions, products, copies. Kernels below 1 % are left out. Of those that only move "
        f"numbers, {len(part['slow'])} on large arrays are slower than half a copy."
    )
    return f"### Kernels of a training step: {name}\n\n{text}\n\n{table(head, rows)}"


def megabytes(value: float | None) -> str:
    return "" if value is None else f"{1e-6 * value:.0f}"


def scaled(s: Iterable[float], unit: float) -> str:
    """Return a spread in another unit."""
    median, least, most = (f"{unit * value:.3g}" for value in s)
    return f"{median} [{least}, {most}]"
