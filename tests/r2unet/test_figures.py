"""Figures are written completely or not at all, and matplotlib is imported only to draw."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from minidl.profiler import memory_traced
from r2unet.errors import InputError
from r2unet.figures import (
    MOST_CROSSINGS,
    cell_height,
    contour_lines,
    draw_outline,
    new_figure,
    printable,
    save_figure,
)


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


@pytest.mark.parametrize("name", [r"$\frac$", "$x$ and $y$", r"\$a$", "$"])
def test_a_name_is_drawn_as_it_is_and_not_as_a_formula(tmp_path, name):
    figure = new_figure(4, 1)
    text = figure.text(0, 0.5, printable(name))
    save_figure(figure, tmp_path / "a.png")
    assert text._preprocess_math(text.get_text()) == (name, False)


@pytest.mark.parametrize(
    "shape, height", [((60, 80, 3), 1.5), ((80, 60), 8 / 3), ((20_000_000, 1), 4.0), ((1, 20_000_000), 0.4)]
)
def test_images_are_drawn_at_a_bounded_height(shape, height):
    assert cell_height(np.broadcast_to(np.uint8(0), shape), 2.0) == pytest.approx(height)


def test_a_line_of_pixels_has_no_outline(tmp_path):
    figure = new_figure(1, 1)
    draw_outline(figure.add_subplot(), np.array([[0, 1, 0]]), 0.5, "red")
    save_figure(figure, tmp_path / "a.png")


def test_a_contour_runs_through_the_middle_between_pixels():
    values = np.zeros((40, 60))
    values[10:20, 30:50] = 1
    (line,) = contour_lines(values, 0.5)
    assert line.min(axis=0).tolist() == [29.5, 9.5] and line.max(axis=0).tolist() == [49.5, 19.5]


def test_the_contour_of_noise_has_a_bounded_number_of_points(rng):
    noise = rng.random((600, 500))
    lines = np.concatenate(contour_lines(noise, 0.5))
    assert MOST_CROSSINGS / 5 < len(lines) < 1.5 * MOST_CROSSINGS
    assert (lines >= 0).all() and (lines <= (499, 599)).all()
    assert (lines.max(axis=0) > (480, 580)).all()  # of the whole image


def test_an_outline_that_is_drawn_keeps_no_array_of_all_pixels():
    values, axes = np.zeros((512, 512), np.float32), new_figure(1, 1).add_subplot()
    values[100:300, 100:300] = 1
    draw_outline(axes, values, 0.5, "red")  # what is imported is not counted
    with memory_traced():
        draw_outline(axes, values, 0.5, "red")
        kept, _ = tracemalloc.get_traced_memory()
    assert kept < values.nbytes / 10
