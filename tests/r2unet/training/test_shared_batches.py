"""Several processes that share each batch compute what one process computes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from minidl.parallel import Processes
from r2unet.training import state as training_state
from r2unet.training.run_folder import load_datasets
from r2unet.training.trainer import Trainer
from tests.mpi import require_mpi, run_processes
from tests.r2unet.training import shared_batches
from tests.r2unet.training.agreement_of_processes import KINDS, STEPS, differences


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    """What one process computes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_state, "new_model", training_state.new_model)  # restored afterwards
        return shared_batches.all_cases(Processes())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_gradients_weights_statistics_and_scores_are_those_of_one_process(alone, count, tmp_path):
    require_mpi()
    run_processes(count, Path(shared_batches.__file__), tmp_path / "result.npz")
    with np.load(tmp_path / "result.npz") as found:
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-12, err_msg=name)


class CountedProcesses(Processes):
    """Process 0 of two that have the same images; it counts the exchanges."""

    size, weights, exchanges = 2, (0.5, 0.5), 0

    def sum(self, array):
        self.exchanges += 1
        array *= 2.0

    def gather(self, array):
        self.exchanges += 1
        return np.stack((array, array))


# 13 norms: four in each of three blocks, one after the up-sampling.
@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"norm": "group"}, 1),
        ({"norm": "group", "task": "both"}, 2),
        ({"norm": "per-step"}, 2 * 13 + 1),
    ],
    ids=["group norm", "with a diagnosis", "batch norm"],
)
def test_a_step_exchanges_the_gradients_once_and_only_what_else_it_needs(changes, expected):
    settings = dataclasses.replace(shared_batches.SMALL, **changes).check()
    training, validation = load_datasets(dataclasses.replace(settings, images=35))
    data = (shared_batches.with_diagnoses(samples) for samples in (training, validation))
    processes = CountedProcesses()
    trainer = Trainer(settings, Path("unused"), *data, processes=processes)
    trainer.state.train_mode()
    trainer.train_step(next(trainer.divided(trainer.feed.batches(), trainer.feed.loader)))
    assert processes.exchanges == expected


class TestTheTableOfDifferences:
    def test_a_run_does_not_differ_from_itself(self, alone):
        assert differences(alone, alone, "per-step") == dict.fromkeys(KINDS, 0.0)
        assert differences(alone, alone, "group").keys() == {*KINDS} - {"running statistics"}

    @pytest.mark.parametrize(
        "kind, start",
        [("gradients", "gradient 7"), ("weights", "model.head"), ("loss and scores", "validation_dice")],
    )
    def test_a_difference_is_relative_to_all_arrays_of_its_kind(self, alone, kind, start):
        names = [name for name in alone if name.startswith(f"group/{start}")]
        found = alone | {name: 2.0 * alone[name] for name in names}
        apart = differences(found, alone, "group")
        assert {name for name, value in apart.items() if value} == {kind}
        assert 0.0 < apart[kind] < 1.0

    def test_the_gradients_of_each_step_are_compared_with_their_own_length(self, alone):
        names = [name for name in alone if name.startswith("group/gradient ")]
        last = [name for name in names if int(name.split()[1]) >= len(names) * (STEPS - 1) // STEPS]
        found = alone | {name: 1.5 * alone[name] for name in last}
        assert differences(found, alone, "group")["gradients"] == pytest.approx(0.5)
