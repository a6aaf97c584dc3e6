"""Several processes that share each batch compute what one process computes."""

from pathlib import Path

import numpy as np
import pytest

from minidl.parallel import Processes
from r2unet.training import state as training_state
from tests.mpi import require_mpi, run_processes
from tests.r2unet.training import shared_batches


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
