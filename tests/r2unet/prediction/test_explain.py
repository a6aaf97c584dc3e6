"""The figure of a network shows the right channels of the right layers on the right scale."""

import numpy as np
import pytest
from PIL import Image

from minidl import Tensor, no_grad
from minidl.nn import Conv2d
from minidl.ops import relu
from r2unet.data.sample import to_input
from r2unet.errors import InputError
from r2unet.network.model import R2UNet
from r2unet.prediction.explain import explain, most_varying, plot_explanation
from r2unet.prediction.predict import probabilities


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


class TestFigure:
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
