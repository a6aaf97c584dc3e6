"""What is drawn of a network: which channels, of which layers, on which scale."""

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
def picture(rng):
    return rng.integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def explanation(model, picture):
    return explain(model, picture, 16)


def standardized(features):
    return (features - features.mean()) / features.std()


def test_channels_are_chosen_by_how_much_they_vary(rng):
    features = np.zeros((4, 3, 3))
    features[1], features[2], features[3] = 1000.0, 2 * rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    assert most_varying(features, 1) == [2]
    assert most_varying(features, 2) == [2, 3]
    assert most_varying(features, 9) == [0, 1, 2, 3]


class TestExplanation:
    def test_begins_with_the_image_the_network_sees_and_its_answer(self, model, picture, explanation):
        np.testing.assert_array_equal(explanation.picture, picture)
        np.testing.assert_allclose(explanation.probability, probabilities(model, [picture])[0], atol=1e-6)
        assert explain(model, picture.repeat(3, axis=0), 16).picture.shape == (16, 16, 3)

    def test_shows_every_level_on_the_way_down_at_its_own_size(self, model, picture, explanation):
        down = explanation.sections[0]
        assert [row.maps[0].shape for row in down.rows] == [(16, 16), (8, 8), (4, 4)]
        assert [len(row.maps) for row in down.rows] == [4, 6, 6]  # all that there are, six at the most
        assert down.rows[2].label == "level 3\n8 channels\n4 x 4 pixels"
        with no_grad():
            first = model.encoder[0](Tensor(to_input([picture]))).numpy()[0]
        np.testing.assert_allclose(down.rows[0].maps[1], standardized(first[1]), atol=1e-4)
        assert down.rows[0].titles[1] == f"channel 1, sd {first[1].std():.1f}"

    def test_shows_the_recurrence_step_by_step_on_one_scale(self, model, picture, explanation):
        section = explanation.sections[1]
        layer = model.encoder[0].first
        with no_grad():
            x = model.encoder[0].project(Tensor(to_input([picture])))
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

    def test_tells_truly_how_far_a_pixel_sees(self, model):
        x = np.zeros((1, 4, 16, 16), np.float32)
        other = x.copy()
        other[..., 8, 8] = 1e3
        layer, seen = model.encoder[0].first, {}
        for t in (0, 1, 2):
            layer.steps = t
            with no_grad():
                changed = layer(Tensor(x)).numpy() != layer(Tensor(other)).numpy()
            seen[t] = np.ptp(np.nonzero(changed.any(axis=(0, 1)))[0]) + 1
        assert seen == {0: 3, 1: 5, 2: 7}

    def test_shows_both_halves_and_the_result_on_the_way_up(self, model, picture, explanation):
        up = explanation.sections[2]
        assert [row.label.splitlines()[0] for row in up.rows] == ["level 2", "level 1"]
        for row, size in zip(up.rows, (8, 16), strict=True):
            assert [title.rsplit(" ", 3)[0] for title in row.titles] == [
                *["skip"] * 2,
                *["from below"] * 2,
                *["result"] * 2,
            ]
            assert all(m.shape == (size, size) for m in row.maps)
        # The skip of level 1 is what the way down showed of it, the half from below is what the block got.
        shown = dict(
            zip(explanation.sections[0].rows[0].titles, explanation.sections[0].rows[0].maps, strict=True)
        )
        for title, skip in list(zip(up.rows[1].titles, up.rows[1].maps, strict=True))[:2]:
            np.testing.assert_array_equal(skip, shown[title.replace("skip", "channel")])

    def test_leaves_the_network_as_it_was(self, model, picture):
        before = model.state_dict()
        explain(model, picture, 16)
        assert all((before[name] == array).all() for name, array in model.state_dict().items())
        assert not any("forward" in vars(module) for _, module in model.named_modules())

    def test_goes_without_recurrence_and_without_levels(self, picture, rng):
        flat = R2UNet(widths=(3,), steps=0, rng=rng).eval()
        assert [len(section.rows) for section in explain(flat, picture, 16).sections] == [1, 1]
        flat.encoder = [Conv2d(3, 3, 1, rng=rng)]
        assert [section.title[:12] for section in explain(flat, picture, 16).sections] == ["The way down"]

    @pytest.mark.parametrize("options", [{"norm": "shared"}, {"norm": "group"}, {"share_weights": False}])
    def test_shows_every_step_whatever_the_steps_share(self, options, rng, picture):
        model = R2UNet(widths=(4, 6), steps=2, rng=rng, **options).eval()
        section = explain(model, picture, 16).sections[1]
        assert [row.label.splitlines()[0] for row in section.rows] == ["t = 0", "t = 1", "t = 2"]
        first, last = (np.stack(section.rows[i].maps) for i in (0, 2))
        assert not np.array_equal(first, last)


class TestFigure:
    def test_is_drawn_in_any_format(self, explanation, tmp_path):
        plot_explanation(explanation, tmp_path / "new" / "f.png")
        with Image.open(tmp_path / "new" / "f.png") as picture:
            assert picture.height > picture.width > 1000
        with pytest.raises(InputError, match="cannot draw a file of this kind"):
            plot_explanation(explanation, tmp_path / "f.gif2")

    def test_of_a_network_that_says_the_same_everywhere_is_drawn_too(self, model, picture, tmp_path):
        for p in model.parameters():
            p.data = np.zeros_like(p.data)
        plot_explanation(explain(model, picture, 16), tmp_path / "f.png")
        assert (tmp_path / "f.png").exists()
