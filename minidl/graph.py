"""A training step as a CUDA graph: captured once, then launched as a whole.

Python needs 35 ms to launch the kernels of a training step, whatever the GPU does (docs/gpu). A GPU that
computes faster waits for Python. A *CUDA graph* is a recording of launches: the kernels and their arguments.
One call launches all of them, without Python. On an H200 a step of R2U-Net (8 to 64 channels, 16 images of
256 x 256) took 35 to 63 ms launched by Python, and 11.0 as a graph.

The difficulty is that every launch of the graph uses the arguments of the capture, numbers and addresses:

    in a step                               in a graph it would be     therefore
    a number that changes: lr, 1 - b1^t     a constant                 kernels read it from a small array,
                                                                       written before the launch (`Numbers`)
    the arrays of a batch                   those of the capture       each batch is copied to the same arrays
    p.data = new array                      read at its old address    the last kernel copies it there
    addresses that Python sends to the GPU  refused                    sent after the capture (`constant`)
    float(norm)                             refused                    a step reads no number

So a step has two parts. `Optimizer.advance`, `EMA.advance` and the schedule are Python's. All else is `work`,
the function of a `GraphedStep`. The first call does the work as usual; this *warm-up* compiles the kernels
and allocates memory. A batch of another size, such as the last of an epoch, is computed as usual, too. The
results are the same to the bit, because the same kernels compute them from the same numbers.

Parameters and buffers may be replaced between two steps, by `load_state_dict` or by a step without the graph:
their values are copied to the old addresses before the next launch. All other arrays that the work reads must
stay where they are: the moments of Adam, and the averages of an EMA.

The graph reserves the memory of a whole step for itself (`backend.DeviceGraph`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minidl.backend import Array, DeviceGraph, Kernels, contiguous, cover
from minidl.nn import Buffer
from minidl.tables import tables, total
from minidl.tensor import Parameter

kernels = Kernels(__file__)

Leaf = Parameter | Buffer
Work = Callable[..., tuple[Array, ...]]


class GraphedStep:
    """A function of arrays that launches kernels; after a warm-up, all of them as one graph.

    `work(*inputs)` computes a step on the device and returns arrays. `leaves` are the parameters and buffers
    that it reads or replaces. The first two calls in a row with inputs of the same shapes are the warm-up and
    the capture. From then on, the graph serves these shapes. A call raises CaptureError, with the reason, if
    the work cannot be captured: nothing has been computed then, and `work` can be called instead.
    """

    def __init__(self, work: Work, leaves: Iterable[Leaf], device: str) -> None:
        self.work, self.leaves = work, list(leaves)
        self.graph = DeviceGraph(device)
        self.shapes: list[tuple] = []  # and dtypes, of the inputs of the graph or of the last call
        self.captured = False

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        shapes = [(a.shape, str(a.dtype)) for a in inputs]
        if self.captured:
            return self._replay(inputs) if shapes == self.shapes else self.work(*inputs)
        if shapes == self.shapes:
            self._capture(inputs)
            return self._replay(inputs)
        self.shapes = shapes
        return self._warm_up(inputs)

    def _warm_up(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Do the work once, with everything that the capture will do: compiling is impossible then."""
        self.homes = [contiguous(leaf.data) for leaf in self.leaves]
        with self.graph.prepared():
            return self._work_in_place(*inputs)

    def _capture(self, inputs: tuple[Array, ...]) -> None:
        """Record the work on copies of the inputs, whose addresses the graph will use for every batch."""
        self.inputs = [a.copy() for a in inputs]
        self.homes = [contiguous(leaf.data) for leaf in self.leaves]
        self._set_data(self.homes)
        try:
            self.outputs = self.graph.capture(lambda: self._work_in_place(*self.inputs))
        except BaseException:  # the new arrays have no values
            self._set_data(self.homes)
            self._set_gradients([None] * len(self.leaves))
            raise
        self.gradients = [getattr(leaf, "grad", None) for leaf in self.leaves]
        self.captured = True

    def _work_in_place(self, *inputs: Array) -> tuple[Array, ...]:
        """Do the work, and leave new parameters and buffers where the old ones were."""
        outputs = self.work(*inputs)
        self._move_home()
        return outputs

    def _move_home(self) -> None:
        """Copy every parameter and buffer that was replaced to its old address, in one launch."""
        moved = [
            (leaf, home) for leaf, home in zip(self.leaves, self.homes, strict=True) if leaf.data is not home
        ]
        if moved:
            old, new = [home for _, home in moved], [contiguous(leaf.data) for leaf, _ in moved]
            kernels.launch("copy_all", *cover(total(old)), old[0], *tables(old[0], old, new))
            self._set_data(self.homes)

    def _replay(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Launch the graph on this batch; return copies of its results, which the next launch overwrites."""
        self._move_home()
        for own, given in zip(self.inputs, inputs, strict=True):
            own[...] = given
        self.graph.launch()
        self._set_gradients(self.gradients)
        return tuple(a.copy() for a in self.outputs)

    def _set_data(self, arrays: list[Array]) -> None:
        for leaf, array in zip(self.leaves, arrays, strict=True):
            leaf.data = array

    def _set_gradients(self, gradients: list[Array | None]) -> None:
        for leaf, gradient in zip(self.leaves, gradients, strict=True):
            if isinstance(leaf, Parameter):
                leaf.grad = gradient
