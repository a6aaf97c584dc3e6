"""The output of a training run: its progress bar, the line per epoch, and its history."""

import csv

from PIL import Image

from r2unet.training.reporting import epoch_line, progress_bar, write_history
from r2unet.training.settings import Settings

SETTINGS = Settings(batch_size=4, epochs=2)


class TestProgressBar:
    def test_continues_where_a_run_is_resumed(self):
        with progress_bar(SETTINGS, images=10, epochs_done=1, batches_done=1, show=True) as bar:
            assert (bar.total, bar.n) == (20, 14)

    def test_counts_a_last_batch_that_is_not_full(self):
        with progress_bar(SETTINGS, images=10, epochs_done=1, batches_done=3, show=True) as bar:
            assert (bar.total, bar.n) == (20, 20)  # batches of 4, 4 and 2 images


def test_the_line_of_an_epoch():
    row = {"epoch": 3, "train_loss": 0.51234, "validation_loss": 0.4, "validation_jaccard": 0.75}
    assert epoch_line({**row, "validation_dice": 0.8}, epochs=40, seconds=12.3, best=True) == (
        "epoch   3/40  loss 0.5123  validation: loss 0.4000  Jaccard 0.7500  Dice 0.8000  12 s  best"
    )


def test_the_history_is_written_as_a_table_and_a_picture(tmp_path):
    rows = [{"epoch": n, "train_loss": 1 / n, "validation_jaccard": 0.1 * n} for n in (1, 2, 3)]
    write_history(tmp_path / "new", rows)
    with open(tmp_path / "new" / "history.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in read] == rows
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.format == "PNG"
