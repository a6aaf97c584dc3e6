"""The figure of a network shows the right channels of the right layers on the right scale."""

import numpy as np
import pytest
from PIL import Image

from minidl import Tensor, no_grad
from minidl.nn import Conv2d
from minidl.ops import relu
from r2unet.data.classes import CLASSES
from r2unet.data.sample import to_input
from r2unet.errors import InputError
from r2unet.figures import PREDICTION, new_figure
from r2unet.network.diagnosis import LEVELS
from r2unet.network.model import R2UNet
from r2unet.prediction.diagnosis_picture import heat_on_grey
from r2unet.prediction.explain import explain, plot_explanation
from r2unet.prediction.explain_diagnosis import (
    Evidence,
    ExplainedDiagnosis,
    draw_evidence,
    draw_mask,
    highest_evidence,
)
from r2unet.prediction.feature_maps import most_varying
from r2unet.prediction.heat_map import evidence
from r2unet.prediction.predict import Correction, predict, probabilities
from r2unet.training.checkpoints import checkpoint_header, write_state
from r2unet.training.settings import Settings, new_model
from tests.r2unet.pixels import count_pixels, read_pixels


@pytest.fixture
def model(rng):
    return R2UNet(widths=(4, 6, 8), steps=2, rng=rng).eval()


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def explanation(model, image):
    return explain(model, image, 16)


def standardized(features):
    return (features - features.mean()) / features.std()


def test_the_channels_that_vary_most_are_chosen(rng):
    features = np.zeros((4, 3, 3))
    features[1], features[2], features[3] = 1000.0, 2 * rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    assert most_varying(features, 1) == [2]
    assert most_varying(features, 2) == [2, 3]
    assert most_varying(features, 9) == [0, 1, 2, 3]


class TestExplanation:
    def test_contains_the_image_as_the_network_sees_it_and_its_prediction(self, model, image, explanation):
        np.testing.assert_array_equal(explanation.image, image)
        np.testing.assert_allclose(explanation.probability, probabilities(model, [image])[0], atol=1e-6)
        assert explain(model, image.repeat(3, axis=0), 16).image.shape == (16, 16, 3)

    def test_shows_every_level_of_the_encoder_at_its_own_size(self, model, image, explanation):
        encoder = explanation.sections[0]
        assert [row.maps[0].shape for row in encoder.rows] == [(16, 16), (8, 8), (4, 4)]
        assert [len(row.maps) for row in encoder.rows] == [4, 6, 6]  # all channels, six at most
        assert encoder.rows[2].label == "level 3\n8 channels\n4 x 4 pixels"
        with no_grad():
            first = model.encoder[0](Tensor(to_input([image]))).numpy()[0]
        np.testing.assert_allclose(encoder.rows[0].maps[1], standardized(first[1]), atol=1e-4)
        assert encoder.rows[0].titles[1] == f"channel 1, sd {first[1].std():.1f}"

    def test_shows_the_steps_of_the_recurrence_on_one_scale(self, model, image, explanation):
        section = explanation.sections[1]
        layer = model.encoder[0].first
        with no_grad():
            x = model.encoder[0].project(Tensor(to_input([image])))
            y = relu(layer.norm[0](layer.conv(x)))
            steps = [y]
            for t in (1, 2):
                y = relu(layer.norm[t](layer.conv(x + y)))
                steps.append(y)
        for row, step in zip(section.rows, steps, strict=True):
            np.testing.assert_allclose(np.stack(row.maps), step.numpy()[0], rtol=1e-5, atol=1e-6)
        values = np.stack([row.maps for row in section.rows])
        assert section.limits == (0.0, pytest.approx(np.quantile(values, 0.995)))
        assert [row.label.splitlines()[::2] for row in section.rows] == [
            ["t = 0", "3 x 3"],
            ["t = 1", "5 x 5"],
            ["t = 2", "7 x 7"],
        ]

    def test_the_receptive_field_is_as_labelled(self, model):
        x = np.zeros((1, 4, 16, 16), np.float32)
        other = x.copy()
        other[..., 8, 8] = 1e3
        layer, sizes = model.encoder[0].first, {}
        for t in (0, 1, 2):
            layer.steps = t
            with no_grad():
                changed = layer(Tensor(x)).numpy() != layer(Tensor(other)).numpy()
            sizes[t] = np.ptp(np.nonzero(changed.any(axis=(0, 1)))[0]) + 1
        assert sizes == {0: 3, 1: 5, 2: 7}

    def test_shows_both_inputs_and_the_output_of_every_level_of_the_decoder(self, model, image, explanation):
        decoder = explanation.sections[2]
        assert [row.label.splitlines()[0] for row in decoder.rows] == ["level 2", "level 1"]
        for row, size in zip(decoder.rows, (8, 16), strict=True):
            assert [title.rsplit(" ", 3)[0] for title in row.titles] == [
                *["skip"] * 2,
                *["upsampled"] * 2,
                *["output"] * 2,
            ]
            assert all(m.shape == (size, size) for m in row.maps)
        # The skip of level 1 is the encoder's output on level 1.
        shown = dict(
            zip(explanation.sections[0].rows[0].titles, explanation.sections[0].rows[0].maps, strict=True)
        )
        for title, skip in list(zip(decoder.rows[1].titles, decoder.rows[1].maps, strict=True))[:2]:
            np.testing.assert_array_equal(skip, shown[title.replace("skip", "channel")])

    def test_does_not_change_the_network(self, model, image):
        before = model.state_dict()
        explain(model, image, 16)
        assert all((before[name] == array).all() for name, array in model.state_dict().items())
        assert not any("forward" in vars(module) for _, module in model.named_modules())

    def test_a_network_may_lack_a_recurrence_and_a_decoder(self, image, rng):
        flat = R2UNet(widths=(3,), steps=0, rng=rng).eval()
        assert [len(section.rows) for section in explain(flat, image, 16).sections] == [1, 1]
        flat.encoder = [Conv2d(3, 3, 1, rng=rng)]
        assert [section.title[:8] for section in explain(flat, image, 16).sections] == ["Encoder:"]

    @pytest.mark.parametrize("options", [{"norm": "shared"}, {"norm": "group"}, {"share_weights": False}])
    def test_shows_every_step_whether_or_not_the_steps_share_layers(self, options, rng, image):
        model = R2UNet(widths=(4, 6), steps=2, rng=rng, **options).eval()
        section = explain(model, image, 16).sections[1]
        assert [row.label.splitlines()[0] for row in section.rows] == ["t = 0", "t = 1", "t = 2"]
        first, last = (np.stack(section.rows[i].maps) for i in (0, 2))
        assert not np.array_equal(first, last)

    def test_many_steps_are_shown_at_equal_distances(self, image, rng):
        model = R2UNet(widths=(2, 4), steps=21, rng=rng).eval()
        section = explain(model, image, 16).sections[1]
        assert [row.label.splitlines()[0] for row in section.rows] == [f"t = {t}" for t in range(0, 22, 3)]

    def test_large_maps_and_images_are_kept_as_they_are_drawn(self, image, rng):
        explained = explain(R2UNet(widths=(2, 4), rng=rng).eval(), image, 300)
        rows = [row for section in explained.sections for row in section.rows]
        assert {row.label.splitlines()[-1] for row in rows} >= {"300 x 300 pixels", "150 x 150 pixels"}
        assert {m.shape for row in rows for m in row.maps} == {(208, 208), (150, 150)}
        assert all(m.base is None for row in rows for m in row.maps)  # no part of a larger array
        assert explained.size == 300 and explained.image.shape == (208, 208, 3)
        assert explained.probability.shape == (208, 208)

    def test_an_answer_that_is_not_finite_is_refused(self, model, image):
        model.head.bias.data[:] = np.nan
        with pytest.raises(InputError, match="the network's answer contains NaN or infinity"):
            explain(model, image, 16)


class TestFigure:
    def test_has_a_bounded_number_of_pixels(self, image, rng, tmp_path):
        model = R2UNet(widths=(1,) * 10, steps=7, rng=rng).eval()
        plot_explanation(explain(model, image, 512), tmp_path / "f.png")
        height, width = read_pixels(tmp_path / "f.png").shape[:2]
        assert 5.1e6 < height * width < 5.3e6

    def test_is_drawn_in_any_format(self, explanation, tmp_path):
        plot_explanation(explanation, tmp_path / "new" / "f.png")
        with Image.open(tmp_path / "new" / "f.png") as figure:
            assert figure.height > figure.width > 1000
        with pytest.raises(InputError, match="cannot draw a figure in this format"):
            plot_explanation(explanation, tmp_path / "f.gif2")

    def test_is_drawn_for_a_network_with_constant_outputs(self, model, image, tmp_path):
        for p in model.parameters():
            p.data = np.zeros_like(p.data)
        plot_explanation(explain(model, image, 16), tmp_path / "f.png")
        assert (tmp_path / "f.png").exists()


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "the same weights, applied to"),
        ({"share_weights": False}, "different weights at every step, applied to"),
        ({"tie_weights": False}, "w_f applied to the block's input, plus w_r applied to the previous output"),
    ],
)
def test_the_title_of_the_recurrence_says_which_weights_are_applied(rng, image, options, words):
    network = R2UNet(widths=(4, 6), steps=1, rng=rng, **options).eval()
    titles = [section.title for section in explain(network, image, 16).sections]
    assert any(words in title for title in titles)


THREE, SEVEN = CLASSES["types-3"], CLASSES["types-7"]
CORRECTION = Correction(2.0, np.array([0.7, 0.0, -0.7]))


def new_network(rng, task="both", **options):
    network = R2UNet(widths=(4, 6, 8), steps=1, task=task, rng=rng, **options).eval()
    network.diagnosis.linear.bias.data[:] = rng.normal(size=network.diagnosis.linear.bias.shape)
    return network


class TestDiagnosis:
    @pytest.fixture(params=LEVELS)
    def joint(self, request, rng):
        return new_network(rng, pooled_levels=request.param)

    @pytest.fixture
    def explained(self, joint, image):
        return explain(joint, image, 16, "cpu", THREE, CORRECTION)

    def test_a_network_that_only_outlines_has_none(self, explanation):
        assert explanation.diagnosis is None

    def test_the_outline_is_explained_as_without_a_diagnosis(self, joint, image, explained):
        np.testing.assert_allclose(explained.probability, probabilities(joint, [image])[0], atol=1e-6)
        assert [section.title.split()[0] for section in explained.sections] == [
            "Encoder:",
            "Recurrence",
            "Decoder:",
        ]

    def test_the_most_probable_class_is_first_with_its_corrected_probability(self, joint, image, explained):
        expected = predict(joint, [image], correction=CORRECTION).diagnosis[0]
        order = np.argsort(-expected)
        assert [e.name for e in explained.diagnosis.classes] == [THREE[k] for k in order]
        np.testing.assert_allclose([e.probability for e in explained.diagnosis.classes], expected[order])

    def test_evidence_and_bias_sum_to_the_logit_minus_the_mean_logit(self, joint, image, explained):
        x = to_input([image])
        with no_grad():
            logits = joint.answer(Tensor(x)).diagnosis.numpy()[0]
        bias = joint.diagnosis.linear.bias.numpy()
        for e in explained.diagnosis.classes:
            k = THREE.index(e.name)
            np.testing.assert_allclose(e.map, evidence(joint, x, k), rtol=1e-5, atol=1e-7)
            assert e.map.sum() + e.bias == pytest.approx(logits[k] - logits.mean(), abs=1e-5)
            assert e.bias == pytest.approx(bias[k] - bias.mean(), abs=1e-5)

    def test_the_mask_is_the_mean_probability_of_each_cell(self, explained):
        cells = explained.probability.reshape(4, 4, 4, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(explained.diagnosis.mask, cells, rtol=1e-5)

    def test_a_head_that_pools_over_the_image_has_no_mask(self, rng, image):
        explained = explain(new_network(rng, pooling="image"), image, 16, classes=THREE)
        assert explained.diagnosis.mask is None and explained.probability.shape == (16, 16)

    def test_three_classes_at_most_are_explained(self, rng, image):
        for classes, count in ((SEVEN, 3), (CLASSES["malignant"], 2)):
            network = new_network(rng, classes=len(classes))
            assert len(explain(network, image, 16, classes=classes).diagnosis.classes) == count

    def test_the_network_runs_once(self, joint, image, monkeypatch):
        runs, encode = [], joint.encode
        monkeypatch.setattr(joint, "encode", lambda x: runs.append(x.shape) or encode(x))
        explain(joint, image, 16, classes=THREE)
        assert runs == [(1, 3, 16, 16)]

    def test_does_not_change_the_network(self, joint, image):
        before = {name: array.copy() for name, array in joint.state_dict().items()}
        explain(joint, image, 16, classes=THREE)
        assert all((before[name] == array).all() for name, array in joint.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in joint.parameters())

    def test_another_number_of_names_than_classes_is_refused(self, joint, image):
        with pytest.raises(ValueError, match="the network has 3 classes, but got 7 names"):
            explain(joint, image, 16, classes=SEVEN)

    def test_a_classifier_has_neither_decoder_nor_outline(self, rng, image):
        network = new_network(rng, "diagnosis")
        explained = explain(network, image, 16, "cpu", THREE, CORRECTION)
        assert explained.probability is None and explained.diagnosis.mask is None
        assert [section.title.split()[0] for section in explained.sections] == ["Encoder:", "Recurrence"]
        shown = [e.probability for e in explained.diagnosis.classes]
        expected = predict(network, [image], correction=CORRECTION).diagnosis[0]
        np.testing.assert_allclose(shown, sorted(expected, reverse=True))


class TestDiagnosisFigure:
    @pytest.fixture
    def axes(self):
        return new_figure(3, 3).add_subplot()

    @pytest.fixture
    def keratosis(self):
        return Evidence("seborrheic_keratosis", 0.414, np.array([[0.5, -1.25], [0.0, 0.25]]), -0.125)

    def test_positive_evidence_is_drawn_in_squares_over_the_grey_image(self, axes, keratosis):
        grey = np.full((8, 8, 3), 100, np.uint8)
        draw_evidence(axes, keratosis, grey, None, highest=2.0)
        drawn = np.asarray(axes.images[0].get_array())
        value = np.zeros((8, 8))
        value[:4, :4], value[4:, 4:] = 0.25, 0.125
        np.testing.assert_array_equal(drawn, heat_on_grey(grey, value))
        assert (drawn[:4, 4:] == 100).all()  # evidence against the class has no colour

    def test_the_class_its_probability_and_the_parts_of_its_logit_are_written(self, axes, keratosis):
        draw_evidence(axes, keratosis, np.zeros((8, 8, 3), np.uint8), None, highest=1.0)
        assert axes.get_title() == "seborrheic keratosis 0.414"
        assert axes.get_xlabel() == "for +0.75, against \N{MINUS SIGN}1.25, bias \N{MINUS SIGN}0.12"

    def test_a_part_of_zero_has_no_minus_sign(self, axes, keratosis):
        nothing = keratosis._replace(map=np.zeros((2, 2)), bias=-0.001)
        draw_evidence(axes, nothing, np.zeros((8, 8, 3), np.uint8), None, highest=1.0)
        assert axes.get_xlabel() == "for +0.00, against +0.00, bias +0.00"

    def test_the_outline_is_drawn_on_the_evidence_if_there_is_one(self, axes, keratosis):
        probability = np.zeros((8, 8))
        probability[2:5, 2:5] = 1
        for given, count in ((None, 0), (probability, 1)):
            draw_evidence(axes, keratosis, np.zeros((8, 8, 3), np.uint8), given, highest=1.0)
            assert len(axes.collections) == count

    def test_all_classes_have_the_same_colour_scale(self, keratosis):
        weaker = keratosis._replace(map=keratosis.map / 10)
        assert highest_evidence(ExplainedDiagnosis([weaker, keratosis], None)) == 0.5
        nothing = keratosis._replace(map=np.zeros((2, 2)))
        assert highest_evidence(ExplainedDiagnosis([nothing], None)) == 1.0

    def test_the_mask_is_drawn_from_black_to_white(self, axes):
        draw_mask(axes, np.array([[0.25, 0.5]]))
        np.testing.assert_array_equal(axes.images[0].get_array(), [[0.25, 0.5]])
        assert axes.images[0].get_clim() == (0, 1) and "1 x 2 cells" in axes.get_xlabel()

    def test_a_mask_of_very_many_cells_is_drawn_small(self, axes):
        draw_mask(axes, np.ones((700, 700), np.float32))  # a network of one level has a cell for each pixel
        assert axes.images[0].get_array().shape == (208, 208) and "700 x 700 cells" in axes.get_xlabel()

    def test_is_one_more_row_of_the_figure(self, rng, image, tmp_path):
        explained = explain(new_network(rng), image, 16, classes=THREE)._replace(sections=[])
        heights = []
        for diagnosis in (explained.diagnosis, None):
            plot_explanation(explained._replace(diagnosis=diagnosis), tmp_path / "f.png")
            heights.append(read_pixels(tmp_path / "f.png").shape[0])
        assert heights[0] - heights[1] == pytest.approx(150 * (2.25 + 2 * 0.55 + 0.3), abs=1)  # 150 dpi

    def test_its_texts_do_not_overlap(self, rng, image, monkeypatch):
        figures = []
        monkeypatch.setattr("r2unet.prediction.explain.save_figure", lambda f, path: figures.append(f))
        network = new_network(rng, classes=len(SEVEN))
        plot_explanation(explain(network, image, 16, classes=SEVEN)._replace(sections=[]), "f.png")
        texts = [*figures[0].texts, *(t for a in figures[0].axes for t in (a.title, a.xaxis.label))]
        figures[0].canvas.draw()
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert len(boxes) == 3 + 2 + 2 * 4 + 1  # the first row, title and note, the panels, the caption
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(box.x0 >= 0 and box.x1 <= figures[0].bbox.x1 for box in boxes)

    def test_a_classifier_has_its_image_in_the_same_row(self, rng, image, tmp_path):
        red = np.zeros_like(image) + np.array([204, 0, 0], np.uint8)
        explained = explain(new_network(rng, "diagnosis"), red, 16, classes=THREE)._replace(sections=[])
        plot_explanation(explained, tmp_path / "f.png")
        assert count_pixels(tmp_path / "f.png", "#cc0000") == pytest.approx((150 * 2.25) ** 2, rel=0.02)
        assert count_pixels(tmp_path / "f.png", PREDICTION) == 0


def test_the_command_corrects_the_probabilities_as_the_checkpoint_says(
    r2unet, rng, image, tmp_path, monkeypatch
):
    settings = Settings(size=16, widths=(2, 4), task="both", classes="types-3")
    network = new_model(settings, rng).eval()
    entry = {"temperature": {"one view": 2.0, "eight views": 9.0}, "log_weights": CORRECTION.log_weights}
    entry["shares"] = np.full(3, 1 / 3)
    state = {**checkpoint_header(settings), "model": network.state_dict(), "diagnosis": entry}
    write_state(tmp_path / "f.npz", state)
    Image.fromarray(image).save(tmp_path / "a.png")
    drawn = []
    monkeypatch.setattr("r2unet.prediction.explain.plot_explanation", lambda e, path: drawn.append(e))
    words = ("--checkpoint", tmp_path / "f.npz", "--out", tmp_path / "f.png", "--device", "cpu")
    code, _, stderr = r2unet("explain", tmp_path / "a.png", *words)
    assert (code, stderr) == (0, "")
    expected = predict(network, [image], correction=CORRECTION).diagnosis[0]
    shown = {e.name: e.probability for e in drawn[0].diagnosis.classes}
    assert shown == pytest.approx(dict(zip(THREE, expected, strict=True)))
