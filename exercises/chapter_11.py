"""Exercises of chapter 11, docs/11-how-fast-and-why.md.

Fill in the functions. `make exercise N=11` says which are right.
"""

from collections.abc import Sequence


def arithmetic_channels(kernel: int, bandwidth: float, rate: float) -> int:
    """Return from how many channels C on a convolution is limited by arithmetic: the roofline's corner.

    The convolution has C input and C output channels, a kernel x kernel window, stride 1, and numbers of 4
    bytes. A device moves `bandwidth` bytes and does `rate` operations in a second; a multiply-add is two
    operations. x is read once and y is written once. Return the smallest C for which the arithmetic takes at
    least as long as the memory traffic.

    Chapter 11, "The intensity of a layer".
    """
    raise NotImplementedError("exercise 11.1")


def needed_speedup(part: float, whole: float, target: float) -> float:
    """Return how many times faster a part must become, so that the whole becomes `target` times faster.

    Of `whole` seconds, `part` are spent in the part, and the rest stays as it is. If no speed of the part is
    enough, return math.inf: this is Amdahl's law. (Before, the weight gradient of the chapter takes 22.0 of
    39.2 ms. Can it alone double the speed of a step? Make it three times as fast?)

    Chapter 11, "Where the time of a step goes".
    """
    raise NotImplementedError("exercise 11.2")


def step_seconds(kernels: Sequence[float], launch: float) -> float:
    """Return when the last kernel of a step ends.

    Python launches the kernels one after the other and never waits: kernel k = 0, 1, ... is launched at the
    time (k + 1) `launch`. The GPU runs one kernel at a time, in order, for kernels[k] seconds. A kernel
    starts when it has been launched and the one before has ended. The answer is at least the sum of the
    kernels and at least the time of all launches. Often it is more than both.

    Chapter 11, "Waiting for Python".
    """
    raise NotImplementedError("exercise 11.3")
