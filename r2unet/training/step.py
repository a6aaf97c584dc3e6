"""One training step: the loss of a batch, its gradients, and the update of the weights.

**Graph.** On a GPU, the launches of a step are captured once as a CUDA graph and then launched as a whole
(`minidl.graph`); `launches` is this part of a step. Where it cannot be captured, the reason is printed, and
each kernel is launched by itself, with the same results.

**Several processes** (`minidl.parallel`) share each batch. Each computes the loss and the gradients of its
part, as shares of those of the whole batch, and all receive the sums.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl import Tensor
from minidl.backend import GPU, Array, CaptureError, to_device
from minidl.graph import GraphedStep
from minidl.optim import clip_grad_norm
from minidl.parallel import GradientSum, Processes
from r2unet.data.sample import Batch
from r2unet.errors import InputError
from r2unet.network.losses import Shares
from r2unet.network.model import Answer
from r2unet.training.settings import Settings, new_objective
from r2unet.training.state import TrainingState


class TrainingStep:
    """A function of a batch that updates the weights once.

    `graph` is one of `settings.GRAPHS`, `log` receives the reason if there can be no graph. Raises InputError
    for graph "yes" where there are no graphs.
    """

    def __init__(
        self,
        settings: Settings,
        state: TrainingState,
        device: str,
        processes: Processes,
        graph: str,
        log: Callable[[str], None],
    ) -> None:
        if graph == "yes" and device not in GPU:
            raise InputError(f"--graph yes: {device} launches no kernels; use --device cuda, or --graph auto")
        if graph == "yes" and processes.size > 1:
            raise InputError("--graph yes: processes exchange sums between kernels; use --graph auto")
        self.settings, self.state, self.device = settings, state, device
        self.processes, self.graph, self.log = processes, graph, log
        self.objective = new_objective(settings)
        if processes.size > 1:
            self.add_gradients = GradientSum(processes, state.optimizer.parameters)
        self.renew()

    def renew(self) -> None:
        """Forget a captured graph: it would read arrays that have been replaced since."""
        self.run: Callable[..., tuple[Array, Array | float]] = self.launches
        if self.device in GPU and self.graph != "no" and self.processes.size == 1:
            self.run = GraphedStep(self.launches, self.state.leaves(), self.device)

    @property
    def captured(self) -> bool:
        """Whether the step is launched as a graph."""
        return isinstance(self.run, GraphedStep) and self.run.captured

    def __call__(self, batch: Batch) -> tuple[Array, Array | float]:
        """Update the weights; return the loss of the whole batch and the norm of the gradient."""
        self.state.advance()
        arrays = [a for a in self._on_device(batch) if a is not None]
        try:
            results = self.run(*arrays)
        except CaptureError as error:
            self.without_graph(str(error))
            results = self.run(*arrays)
        self.state.schedule.step()
        return results

    def launches(
        self, images: Array, masks: Array, targets: Array | None = None
    ) -> tuple[Array, Array | float]:
        """Do the part of a step that the device computes; return the loss and the norm of the gradient."""
        state = self.state
        state.optimizer.zero_grad()  # first, because the step may need the gradients' memory
        _, loss = self.answer_and_loss(images, masks, targets)
        loss.backward()
        batch_loss = loss.data
        if self.processes.size > 1:
            batch_loss = self.add_gradients(batch_loss)
        gradient_norm = clip_grad_norm(state.optimizer.parameters, self.settings.clip)
        state.update()
        return batch_loss, gradient_norm

    def without_graph(self, reason: str) -> None:
        """Launch each kernel of a step by itself from now on. Raises InputError if a graph is required."""
        if self.graph == "yes":
            raise InputError(f"--graph yes: {reason}; use --graph auto, which trains without a graph")
        self.log(f"no CUDA graph: {reason}; each kernel is launched by itself")
        self.run = self.launches

    def forward(self, batch: Batch) -> tuple[Answer, Tensor]:
        """Return the network's answer to a batch, and its loss; for a part of a batch, its share of it."""
        return self.answer_and_loss(*self._on_device(batch))

    def answer_and_loss(self, images: Array, masks: Array, targets: Array | None) -> tuple[Answer, Tensor]:
        """Return the network's answer to images on the device, and its loss, or its share of a batch's."""
        answer = self.state.model.answer(Tensor(images))
        wanted = None if targets is None else Tensor(targets)
        return answer, self.objective(answer, Tensor(masks), wanted, shares=self._shares(wanted))

    def _on_device(self, batch: Batch) -> list[Array | None]:
        """Return the images, the masks and the targets, if there are any, on the device."""
        arrays = (batch.images, batch.masks, batch.targets)
        return [a if a is None else to_device(a, self.device) for a in arrays]

    def _shares(self, targets: Tensor | None) -> Shares | None:
        """Return the share of this process in the batch; None for a single process, which has all of it."""
        if self.processes.size == 1:
            return None
        weight = self.processes.weight
        if targets is None:
            return Shares(weight, 0.0)
        own = float(targets.data.sum()) if weight else 0.0
        everyones = self.processes.total(own)
        return Shares(weight, own / everyones if everyones else 0.0)
