"""Figures are written completely or not at all, and matplotlib is imported only to draw."""

import subprocess
import sys

import pytest

from r2unet.errors import InputError
from r2unet.figures import new_figure, save_figure


def test_a_path_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file instead of a folder")
    with pytest.raises(InputError, match="runs.curves.png: cannot be written") as caught:
        save_figure(new_figure(2, 1), tmp_path / "runs" / "curves.png")
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_no_temporary_file(tmp_path):
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        save_figure(new_figure(2, 1), tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("name", ["curves", "curves.doc"])
def test_the_error_for_an_unknown_format_names_known_formats(tmp_path, name):
    with pytest.raises(InputError, match=r"end the name in \.png"):
        save_figure(new_figure(2, 1), tmp_path / name)


def test_figures_can_be_vector_graphics(tmp_path):
    save_figure(new_figure(2, 1), tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never(tmp_path):
    program = (
        "import sys, r2unet.scores.overlays, r2unet.training.curves as curves\n"
        "assert 'matplotlib' not in sys.modules and 'PIL' not in sys.modules\n"
        f"curves.plot_curves([], {str(tmp_path / 'curves.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
