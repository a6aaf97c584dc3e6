"""The picture of a diagnosis shows outline, heat map and probabilities, for any image and any file name."""

import warnings

import numpy as np
import pytest
from PIL import Image

from r2unet.data.classes import CLASSES
from r2unet.errors import InputError
from r2unet.figures import PREDICTION, printable
from r2unet.prediction.diagnosis_picture import (
    BENIGN,
    MALIGNANT,
    DiagnosedImage,
    heat_on_grey,
    new_diagnosis_figure,
    plot_diagnosis,
    shrink,
)
from tests.r2unet.pixels import count_pixels

SEVEN = np.array([0.1, 0.3, 0.2, 0.05, 0.15, 0.12, 0.08])


def diagnosed(height=60, width=80, classes="types-7", probabilities=SEVEN, **other):
    image = np.full((height, width, 3), (200, 150, 120), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height * 3 // 4 + 1, width // 4 : width * 3 // 4 + 1] = 1
    heat = np.zeros((height, width), np.float32)
    heat[height // 2 :, width // 2 :] = np.linspace(0, 1, width - width // 2)
    values = DiagnosedImage("lesion.jpg", image, mask, heat, 2, np.array(probabilities), CLASSES[classes])
    return values._replace(**other)


def words(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


class TestContent:
    def test_names_the_file_the_explained_class_and_what_the_numbers_are_not(self):
        shown = words(new_diagnosis_figure(diagnosed()))
        assert {"lesion.jpg", "predicted outline", "evidence for basal cell carcinoma"} <= set(shown)
        assert "Probabilities of a teaching model, not a diagnosis." in shown

    def test_the_bars_are_the_probabilities_from_top_to_bottom_in_the_order_of_the_classes(self):
        axes = new_diagnosis_figure(diagnosed()).axes[-1]
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            "melanoma",
            "nevus",
            "basal cell carcinoma",
            "actinic keratosis",
            "benign keratosis",
            "dermatofibroma",
            "vascular lesion",
        ]
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], SEVEN)
        np.testing.assert_allclose(np.diff([bar.get_y() for bar in axes.patches]), 1)
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first bar is at the top
        assert [text.get_text() for text in axes.texts] == [f"{p:.2f}" for p in SEVEN]

    def test_malignant_classes_have_a_colour_of_their_own_and_the_legend_adds_them_up(self):
        from matplotlib.colors import to_hex

        axes = new_diagnosis_figure(diagnosed()).axes[-1]
        colours = [to_hex(bar.get_facecolor()) for bar in axes.patches]
        M, B = MALIGNANT, BENIGN
        assert colours == [M, B, M, M, B, B, B]
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [
            "malignant or pre-malignant: 0.35",
            "benign: 0.65",
        ]

    def test_the_legend_adds_up_two_classes_and_three(self):
        for classes, probabilities, malignant in (
            ("malignant", [0.8, 0.2], "0.20"),
            ("types-3", [0.5, 0.1, 0.4], "0.50"),
        ):
            values = diagnosed(classes=classes, probabilities=probabilities, explained=1)
            assert f"malignant or pre-malignant: {malignant}" in words(new_diagnosis_figure(values))

    def test_without_a_mask_the_first_panel_is_the_image_itself(self):
        figure = new_diagnosis_figure(diagnosed(mask=None))
        assert figure.axes[0].get_title() == "image"
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), diagnosed().image)

    def test_the_outline_is_on_the_image_and_on_the_heat_map(self):
        figure = new_diagnosis_figure(diagnosed())
        yellow = list(bytes.fromhex(PREDICTION[1:]))
        for axes in figure.axes[:2]:
            line = (axes.images[0].get_array() == yellow).all(axis=2)
            assert line[15, 20:61].all() and not line[16:45, 21:60].any()

    def test_says_that_there_is_no_evidence_where_the_heat_map_is_zero(self):
        figure = new_diagnosis_figure(diagnosed(heat=np.zeros((60, 80), np.float32)))
        assert figure.axes[1].get_title() == "no evidence for basal cell carcinoma"


class TestHeatOnGrey:
    def test_where_the_heat_is_zero_the_grey_image_is_unchanged(self, rng):
        image = rng.integers(0, 256, (5, 6, 3), np.uint8)
        drawn = heat_on_grey(image, np.zeros((5, 6), np.float32))
        with_pillow = np.array(Image.fromarray(image).convert("L"))
        np.testing.assert_allclose(drawn, np.broadcast_to(with_pillow[..., None], drawn.shape), atol=1)

    @pytest.mark.parametrize("grey", [0, 90, 180, 255])
    def test_more_heat_is_further_from_grey_on_dark_and_on_light_skin(self, grey):
        ramp = np.linspace(0, 1, 20)[None]
        drawn = heat_on_grey(np.full((1, 20, 3), grey, np.uint8), ramp)[0].astype(int)  # (20, 3)
        saturation = drawn.max(axis=1) - drawn.min(axis=1)
        assert (np.diff(saturation) > -2).all() and saturation[0] == 0 and saturation[-1] > 150

    def test_more_heat_is_brighter_on_dark_skin(self):
        drawn = heat_on_grey(np.full((1, 20, 3), 60, np.uint8), np.linspace(0, 1, 20)[None])[0]
        assert (np.diff(drawn @ [0.299, 0.587, 0.114]) > -1).all()


class TestSizes:
    @pytest.mark.parametrize("height, width", [(1, 1), (600, 900), (900, 600), (5, 2000), (2000, 5)])
    def test_any_shape_is_drawn_on_a_page_of_bounded_size(self, tmp_path, height, width):
        plot_diagnosis(diagnosed(height, width), tmp_path / "new" / "d.png")
        with Image.open(tmp_path / "new" / "d.png") as page:
            assert page.width == 1710 and 500 <= page.height <= 710
        assert count_pixels(tmp_path / "new" / "d.png", MALIGNANT) > 1000

    def test_a_large_image_is_shrunk_to_512_pixels_and_a_small_one_is_not(self):
        large = shrink(diagnosed(1500, 1000))
        assert large.image.shape == (512, 341, 3)
        assert large.mask.shape == large.heat.shape == (512, 341)
        assert set(np.unique(large.mask)) == {0, 1}
        assert shrink(diagnosed(30, 20)).image.shape == (30, 20, 3)

    @pytest.mark.parametrize(
        "wrong, message",
        [
            ({"mask": np.zeros((80, 60))}, r"image \(60, 80\), mask \(80, 60\)"),
            ({"heat": np.zeros((8, 8))}, r"heat map \(8, 8\) differ in size"),
            ({"probabilities": np.ones(3)}, r"7 classes, but probabilities of shape \(3,\)"),
            ({"explained": 7}, "a heat map of class 7"),
        ],
    )
    def test_arrays_that_do_not_fit_together_are_an_error(self, tmp_path, wrong, message):
        with pytest.raises(ValueError, match=message):
            plot_diagnosis(diagnosed(**wrong), tmp_path / "d.png")

    def test_drawing_does_not_change_the_arrays(self, tmp_path):
        values, copies = diagnosed(), diagnosed()
        plot_diagnosis(values, tmp_path / "d.png")
        for name in ("image", "mask", "heat", "probabilities"):
            np.testing.assert_array_equal(getattr(values, name), getattr(copies, name))

    def test_a_page_in_an_unknown_format_is_an_error_for_the_user(self, tmp_path):
        with pytest.raises(InputError, match="cannot draw a figure in this format"):
            plot_diagnosis(diagnosed(), tmp_path / "d.gif2")


class TestNames:
    @pytest.mark.parametrize(
        "name", [r"$\frac$.jpg", "$x", "a_b^{c", "100%.png", "<b>&amp;", "\N{CJK UNIFIED IDEOGRAPH-5B57}.jpg"]
    )
    def test_are_drawn_as_they_are_and_without_a_warning(self, tmp_path, name):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plot_diagnosis(diagnosed(name=name), tmp_path / "d.png")
        assert printable(name) in words(new_diagnosis_figure(diagnosed(name=name)))

    def test_control_characters_and_broken_bytes_are_question_marks(self, tmp_path):
        assert printable("a\nb\tc\udcff\u202e.jpg") == "a?b?c??.jpg"
        plot_diagnosis(diagnosed(name="a\nb\udcff.jpg"), tmp_path / "d.png")

    def test_long_names_are_shortened_in_the_middle(self):
        assert printable("a" * 60) == "a" * 60
        assert printable("a" * 300 + "b" * 40 + ".jpg") == "a" * 29 + "…" + "b" * 26 + ".jpg"
        assert len(printable("a" * 61)) == 60

    def test_the_longest_name_fits_on_the_page(self):
        figure = new_diagnosis_figure(diagnosed(name="W" * 300))
        box = figure.texts[0].get_window_extent(figure.canvas.get_renderer())
        assert box.x1 < figure.bbox.x1
