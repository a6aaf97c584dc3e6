"""--tf32 reaches cuBLAS, and is named in what a run prints and stores."""

from contextlib import contextmanager

from r2unet.training import trainer
from r2unet.training.checkpoints import read_state

SMALL = {"widths": (2,), "steps": 1, "images": 4, "epochs": 1}


def allowed_in(run, monkeypatch):
    """Run a training; return whether TF32 was allowed in each of its steps, and on which device."""
    now, steps = [], []

    @contextmanager
    def tf32(allowed, device):
        now.append((allowed, device))
        yield
        now.pop()

    step = trainer.Trainer.train_step
    monkeypatch.setattr(trainer, "tf32", tf32)
    monkeypatch.setattr(
        trainer.Trainer, "train_step", lambda run, batch: (steps.append(*now), step(run, batch))[1]
    )
    run.run()
    return steps


def test_it_is_off_by_default(new_trainer, tmp_path, monkeypatch):
    run = new_trainer(tmp_path, **SMALL)
    assert allowed_in(run, monkeypatch) == [(False, "cpu")]
    assert "tf32" not in (tmp_path / "history.csv").read_text()
    assert read_state(tmp_path / "best.npz")["settings"]["tf32"] is False


def test_it_is_allowed_in_each_step_and_stored_in_settings_and_history(new_trainer, tmp_path, monkeypatch):
    run = new_trainer(tmp_path, tf32=True, **SMALL)
    assert allowed_in(run, monkeypatch) == [(True, "cpu")]
    head, row = (line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines())
    assert dict(zip(head, row, strict=True))["tf32"] == "1"
    state = read_state(tmp_path / "last.npz")
    assert state["settings"]["tf32"] is True
    new_trainer(tmp_path, tf32=True, **SMALL).load_state(state)  # raises InputError for an unknown score


def test_it_is_named_in_what_is_printed(r2unet, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "run", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
    code, out, _ = r2unet("train", *tiny, "--tf32", "--out", tmp_path / "a")
    assert code == 130
    assert out.splitlines()[1] == "--tf32 has no effect here: cpu computes no product by cuBLAS"
