"""The parts of the comparison: each takes the plan, checks that the numbers agree, and measures.

A measurement is [median, minimum, maximum] in seconds, bytes, or as a ratio ours / theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks import blocks, folder, loading, networks, processes
from benchmarks.agreement import SMALL, check_blocks, check_networks
from benchmarks.agreement import compare as check_agreement
from benchmarks.frameworks import OWN, installed
from benchmarks.plan import Plan
from benchmarks.shared import PROCESSES, SharedNetwork
from benchmarks.timing import exponent, interleave, ratios, spread


def compare(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Return the seconds of each contender, and the ratio of ours to each of the others."""
    seconds = interleave(contenders, repeats)
    times = {name: spread(values) for name, values in seconds.items()}
    return {"times": times, "ratios": ratios(seconds, OWN)}


def block(plan: Plan) -> dict[str, Any]:
    """Time a recurrent convolution, forward and backward, in every framework."""
    measured = {}
    for channels, size in plan.blocks:
        rng = np.random.default_rng(0)
        check_blocks(blocks.make(blocks.draw(plan.block_batch, channels, SMALL, rng)), small=True)
        contenders = blocks.make(blocks.draw(plan.block_batch, channels, size, rng))
        check_blocks(contenders, small=False)
        label = f"{channels} channels, {size} x {size}, batch {plan.block_batch}"
        measured[label] = compare(contenders, plan.repeats)
    return measured


def checked_networks(size: int, batch: int, steps: int = 3) -> dict[str, Any]:
    """Return the network in every framework that can build it, after checking that they agree."""
    made = networks.make(networks.draw(batch, size, np.random.default_rng(0)))
    check_networks(made, steps)
    return made


def train_step(plan: Plan) -> dict[str, Any]:
    """Time one training step of the network."""
    return _on_networks(plan, "step")


def inference(plan: Plan) -> dict[str, Any]:
    """Time the network in evaluation mode, without recording a graph."""
    return _on_networks(plan, "infer")


def _on_networks(plan: Plan, method: str) -> dict[str, Any]:
    measured = {}
    for size, batch in plan.networks:
        calls = {name: getattr(n, method) for name, n in checked_networks(size, batch).items()}
        measured[f"{size} x {size}, batch {batch}"] = compare(calls, plan.repeats)
    return measured


def scaling(plan: Plan) -> dict[str, Any]:
    """Time a training step against image and batch size; fit the exponents."""
    by_pixels = {size**2: (size, 1) for size in plan.sizes}
    by_batch = {batch: (plan.batch_size, batch) for batch in plan.batches}
    return {
        "pixels": _time_growing_work(by_pixels, plan.slow_repeats),
        "batch": _time_growing_work(by_batch, plan.slow_repeats),
    }


def _time_growing_work(work: Mapping[int, tuple[int, int]], repeats: int) -> dict[str, Any]:
    """Time a step for each amount of work, given as (size, batch)."""
    times: dict[str, dict[int, Any]] = {}
    for amount, (size, batch) in work.items():
        steps = {name: network.step for name, network in checked_networks(size, batch, steps=1).items()}
        for name, seconds in interleave(steps, repeats).items():
            times.setdefault(name, {})[amount] = spread(seconds)
    fits = {
        name: exponent(list(points), [s.median for s in points.values()]) for name, points in times.items()
    }
    return {"times": times, "exponent": fits}


def memory(plan: Plan, torch_threads: int) -> dict[str, Any]:
    """Measure the peak memory of a training step and of a block, each framework in its own process."""
    measured = {}
    for size, batch in plan.networks:
        frameworks = [name for name in (OWN, *installed()) if name in networks.IMPLEMENTATIONS]
        measured[f"training step, {size} x {size}, batch {batch}"] = processes.compare_peaks(
            torch_threads, frameworks, "train_step", (batch, size), plan.slow_repeats
        )
    for channels, size in plan.blocks:
        label = f"block, {channels} channels, {size} x {size}, batch {plan.block_batch}"
        measured[label] = processes.compare_peaks(
            torch_threads, [OWN, *installed()], "block", (plan.block_batch, channels, size), plan.slow_repeats
        )
    return measured


def shared_step(plan: Plan, torch_threads: int) -> dict[str, Any]:
    """Time a training step that two processes share, and measure their memory; without MPI, nothing."""
    name, measured = f"{OWN}, {PROCESSES} processes", {}
    for size, batch in plan.shared if find_spec("mpi4py") else ():
        single = checked_networks(size, batch, steps=1)
        fresh = networks.make(networks.draw(batch, size, np.random.default_rng(0)))[OWN]
        with SharedNetwork(batch, size) as shared:
            for _ in range(2):
                check_agreement(name, np.float64(fresh.step()), np.float64(shared.step()))
            calls = {name: shared.step, **{n: network.step for n, network in single.items()}}
            seconds = interleave(calls, plan.repeats)
            shares = {what: spread(shared.shares(what, plan.repeats)) for what in ("allreduce", "exchanges")}
        peaks = processes.compare_peaks(
            torch_threads, list(single), "train_step", (batch, size), plan.slow_repeats
        )
        measured[f"{size} x {size}, batch {batch}"] = {
            "times": {n: spread(values) for n, values in seconds.items()},
            "ratios": ratios(seconds, name),
            "shares": {name: shares},
            "memory": {name: spread([shared.memory["peak"]]), **peaks["absolute"]},
        }
    return measured


def predict_folder(plan: Plan, torch_threads: int) -> dict[str, Any]:
    """Time the prediction of a folder of photographs in two processes, and measure their memory."""
    return {
        f"{count} photographs of {side} x {side}, network {size} x {size}": folder.measure(
            side, size, count, plan.repeats, torch_threads
        )
        for side, size, count in plan.folders
    }


def all_sections(torch_threads: int) -> dict[str, Callable[[Plan], dict[str, Any]]]:
    """Return the function of each part by name, in the order in which they run."""
    return {
        "block": block,
        "train_step": train_step,
        "shared_step": partial(shared_step, torch_threads=torch_threads),
        "inference": inference,
        "predict_folder": partial(predict_folder, torch_threads=torch_threads),
        "loading": lambda plan: loading.measure(*plan.loaded, plan.slow_repeats),
        "memory": partial(memory, torch_threads=torch_threads),
        "scaling": scaling,
        "startup": lambda plan: processes.measure_startup(plan.repeats),
    }
