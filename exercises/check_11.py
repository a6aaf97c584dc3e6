"""Checks of the exercises of chapter 11, docs/11-how-fast-and-why.md."""

import numpy as np


def limited_by_arithmetic(channels, kernel, bandwidth, rate):
    pixels = 64 * 64
    operations = 2 * channels * channels * kernel * kernel * pixels
    moved = 4 * (channels + channels) * pixels
    return operations / rate >= moved / bandwidth


def check_1(answers):
    devices = (
        (3, 2.99e12, 51.4e12),
        (3, 4.2e12, 51.1e12),
        (1, 4.2e12, 51.1e12),
        (3, 2e10, 5e10),
        (5, 1e11, 3e13),
    )
    for kernel, bandwidth, rate in devices:
        found = answers.arithmetic_channels(kernel, bandwidth, rate)
        expected = next(c for c in range(1, 10000) if limited_by_arithmetic(c, kernel, bandwidth, rate))
        assert found == expected, (
            f"{kernel} x {kernel}, {rate / bandwidth:.1f} operations a byte: {expected} channels, not {found}"
        )


def check_2(answers):
    step = (22.0, 39.2)  # seconds of the part and of the whole
    for part, whole, target in (
        (*step, 2.0),
        (*step, 3.0),
        (5.0, 10.0, 2.0),
        (9.0, 10.0, 5.0),
        (1.0, 4.0, 1.0),
    ):
        found = answers.needed_speedup(part, whole, target)
        problem = f"{part:g} of {whole:g} s, {target:g} times faster: "
        if whole / target <= whole - part:
            assert found == np.inf, (
                f"{problem}the rest alone takes {whole - part:g} s, and you say {found:.2f}"
            )
        else:
            reached = whole / (whole - part + part / found)
            assert np.isclose(reached, target), (
                f"{problem}with your {found:.2f} it is {reached:.2f} times faster"
            )


def check_3(answers):
    for name, kernels, launch, expected in (
        ("one kernel", [5.0], 1.0, 6.0),
        ("long kernels", [5.0, 5.0, 5.0], 1.0, 16.0),
        ("short kernels", [0.25, 0.25, 0.25], 1.0, 3.25),
        ("a long kernel, then short ones", [5.0, 0.5, 0.5, 0.5], 1.0, 7.5),
        ("short kernels, then a long one", [0.5, 0.5, 0.5, 5.0], 1.0, 9.0),
        ("no time to launch: a CUDA graph", [0.5, 0.5], 0.0, 1.0),
    ):
        found = answers.step_seconds(kernels, launch)
        assert np.isclose(found, expected), (
            f"{name}, {kernels}: the end is at {expected} s, you say {found} s"
        )
