"""The heat map divides the logit of a class among the positions of the image, without a remainder."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.backend import to_numpy
from minidl.ops import max_pool2d
from r2unet.data.sample import to_input
from r2unet.network.diagnosis import LEVELS
from r2unet.network.model import R2UNet, UNet
from r2unet.prediction.heat_map import as_heat, evidence, head_evidence, head_inputs, heat_map
from r2unet.prediction.predict import predict

K = 3
TASKS = [("both", "both"), ("both", "lesion"), ("both", "image"), ("diagnosis", "image")]
HEADS = [(*choice, levels) for choice in TASKS for levels in LEVELS]


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (16, 16, 3), np.uint8)


def network(rng, task="both", pooling="both", kind=R2UNet, **options):
    model = kind(widths=(4, 6, 8), task=task, pooling=pooling, classes=K, rng=rng, **options).eval()
    if task != "outline":
        bias = model.diagnosis.linear.bias
        bias.data = rng.normal(size=bias.shape).astype(np.float32)
    return model


def logits(model, x):
    with no_grad():
        return model.answer(Tensor(x)).diagnosis.numpy()[0].astype(np.float64)


class TestEvidence:
    @pytest.mark.parametrize("task, pooling, levels", HEADS)
    def test_sums_with_the_bias_to_the_logit_minus_the_mean_logit(self, rng, image, task, pooling, levels):
        model, x = network(rng, task, pooling, pooled_levels=levels), to_input([image])
        bias, z = model.diagnosis.linear.bias.numpy(), logits(model, x)
        for k in range(K):
            e = evidence(model, x, k)
            assert e.shape == (4, 4) and e.dtype == np.float32
            assert np.abs(e).max() > 0.01
            assert e.sum() + bias[k] - bias.mean() == pytest.approx(z[k] - z.mean(), abs=1e-5)

    def test_of_a_linear_layer_on_the_mean_over_the_image_is_that_layer_at_every_position(self, rng, image):
        model, x = network(rng, "diagnosis", "image"), to_input([image])
        weight = model.diagnosis.linear.weight  # (K, 2 C), first of the means, then of the maxima
        weight.data[:, 8:] = 0
        with no_grad():
            features = model.encode(Tensor(x))[-1].numpy()[0]  # (8, 4, 4)
        w = weight.numpy()[:, :8] - weight.numpy()[:, :8].mean(axis=0)
        for k in range(K):
            np.testing.assert_allclose(
                evidence(model, x, k), np.einsum("c,chw->hw", w[k], features) / 16, atol=1e-6
            )

    def test_of_a_maximum_is_all_at_the_position_of_the_maximum(self, rng, image):
        model, x = network(rng, "diagnosis", "image"), to_input([image])
        model.diagnosis.linear.weight.data[:] = 0
        model.diagnosis.linear.weight.data[1, 8 + 5] = 3  # the maximum of channel 5
        with no_grad():
            channel = model.encode(Tensor(x))[-1].numpy()[0, 5]
        expected = np.where(channel == channel.max(), 2 * channel, 0)  # 3 - the mean over the classes, 1
        np.testing.assert_allclose(evidence(model, x, 1), expected, rtol=1e-5)

    def test_of_an_upper_level_is_added_to_the_cell_of_the_bottleneck(self, rng, image):
        model, x = network(rng, "diagnosis", "image", pooled_levels="all"), to_input([image])
        model.diagnosis.linear.weight.data[:] = 0
        model.diagnosis.linear.weight.data[1, 4 + 2] = 3  # the maximum of channel 2 of the first level
        with no_grad():
            channel = model.encode(Tensor(x))[0].numpy()[0, 2]  # (16, 16)
        y, x_ = np.unravel_index(channel.argmax(), channel.shape)
        expected = np.zeros((4, 4))
        expected[y // 4, x_ // 4] = 2 * channel.max()  # 3 - the mean over the classes, 1
        np.testing.assert_allclose(evidence(model, x, 1), expected, rtol=1e-5)

    def test_does_not_change_if_all_logits_change_by_the_same_amount(self, rng, image):
        model, x = network(rng), to_input([image])
        before = evidence(model, x, 0)
        model.diagnosis.linear.weight.data += rng.normal(size=(1, 32)).astype(np.float32)
        np.testing.assert_allclose(evidence(model, x, 0), before, atol=1e-5)

    def test_of_all_classes_sums_to_zero(self, rng, image):
        model, x = network(rng), to_input([image])
        np.testing.assert_allclose(sum(evidence(model, x, k) for k in range(K)), 0, atol=1e-5)

    def test_is_the_same_on_every_device(self, rng, image, device, put):
        model, x = network(rng).to(np.float64), to_input([image]).astype(np.float64)
        expected = evidence(model, x, 2)
        np.testing.assert_allclose(to_numpy(evidence(model.to(device), put(x), 2)), expected, atol=1e-10)

    def test_is_the_same_with_activation_checkpointing(self, image):
        x = to_input([image])
        a, b = (
            network(np.random.default_rng(1), checkpoint_blocks=checkpoint) for checkpoint in (False, True)
        )
        np.testing.assert_array_equal(evidence(a, x, 0), evidence(b, x, 0))

    def test_changes_neither_the_gradients_nor_the_state_nor_the_mode(self, rng, image):
        model = network(rng)
        first, last = model.parameters()[0], model.diagnosis.linear.weight
        first.grad, last.grad = np.full_like(first.data, 7), np.full_like(last.data, 8)
        model.diagnosis.linear.bias.requires_grad = False  # frozen before, and frozen afterwards
        state, x = model.state_dict(), to_input([image])
        before = x.copy()
        evidence(model, x, 1)
        assert (first.grad == 7).all() and (last.grad == 8).all()
        assert [n for n, p in model.named_parameters() if p.grad is not None] == [
            "encoder.0.project.weight",
            "diagnosis.linear.weight",
        ]
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        assert frozen == ["diagnosis.linear.bias"]
        assert not any(module.training for _, module in model.named_modules())
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, state[name])
        np.testing.assert_array_equal(x, before)

    def test_needs_a_diagnosis(self, rng, image):
        with pytest.raises(ValueError, match='the task of this network is "outline"'):
            evidence(network(rng, "outline"), to_input([image]), 0)

    @pytest.mark.parametrize("index", [-1, 3])
    def test_needs_a_class_of_the_network(self, rng, image, index):
        with pytest.raises(ValueError, match=f"class {index} does not exist; the network has classes 0 to 2"):
            evidence(network(rng), to_input([image]), index)


class BrightCells(UNet):
    """A network whose only feature is whether a cell of 4 x 4 pixels contains something bright."""

    def encode(self, x):
        # A white pixel is 2, a black pixel is -2.
        return [max_pool2d(x[:, :1].relu(), self.multiple)]  # (N, 3, H, W) -> (N, 1, H/4, W/4)


@pytest.fixture
def bright_cells(rng):
    model = BrightCells(widths=(1, 1, 1), task="diagnosis", pooling="image", classes=2, rng=rng).eval()
    model.diagnosis.linear.weight.data = np.array([[0, 0], [1, 0]], np.float32)  # class 1: the mean
    return model


class TestHeatMap:
    def test_is_highest_at_the_only_place_that_matters_and_zero_far_from_it(self, bright_cells):
        image = np.zeros((48, 96, 3), np.uint8)
        image[6:12, 60:72] = 255  # with size 32: the cell in row 1 and column 5 of 8 x 8
        heat = heat_map(bright_cells, image, 32, 1)
        assert heat.shape == (48, 96) and heat.dtype == np.float32
        assert heat.min() == 0 and heat.max() == 1
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        assert 6 <= y < 12 and 60 <= x < 72
        far = np.ones((48, 96), bool)
        far[: 12 + 12, 60 - 24 : 72 + 24] = False  # bicubic interpolation reaches two cells
        assert heat[far].max() == 0

    def test_leaves_out_the_padding_of_a_size_that_the_levels_cannot_halve(self, bright_cells):
        image = np.zeros((90, 90, 3), np.uint8)
        image[40:80, 40:80] = 255  # with size 9: rows 4 to 7, the second of 2 1/4 cells
        heat = heat_map(bright_cells, image, 9, 1)
        y, x = np.nonzero(heat == 1)
        assert np.mean(y) == pytest.approx(59.5, abs=6) and np.mean(x) == pytest.approx(59.5, abs=6)

    def test_is_zero_where_nothing_speaks_for_the_class(self, bright_cells):
        image = np.full((20, 30, 3), 255, np.uint8)
        np.testing.assert_array_equal(heat_map(bright_cells, image, 16, 0), np.zeros((20, 30)))

    @pytest.mark.parametrize("task, pooling, levels", HEADS)
    def test_of_a_real_network_has_the_size_of_the_image(self, rng, task, pooling, levels):
        image = rng.integers(0, 256, (23, 31, 3), np.uint8)
        before = image.copy()
        heat = heat_map(network(rng, task, pooling, pooled_levels=levels), image, 16, 1)
        assert heat.shape == (23, 31) and heat.dtype == np.float32
        assert heat.min() >= 0 and heat.max() == 1
        np.testing.assert_array_equal(image, before)

    def test_needs_a_diagnosis(self, rng, image):
        with pytest.raises(ValueError, match='the task of this network is "outline"'):
            heat_map(network(rng, "outline"), image, 16, 0)


@pytest.mark.parametrize("task, pooling, levels", HEADS)
def test_the_heat_map_of_the_first_of_eight_views_needs_no_second_forward_pass(
    rng, image, task, pooling, levels
):
    model = network(rng, task, pooling, pooled_levels=levels)
    with head_inputs(model) as inputs:
        predict(model, [image], tta=True)
    assert not [module for _, module in model.named_modules() if "forward" in vars(module)]  # no hook is left
    features = [level.data for level in inputs.features]
    for k in range(K):
        cells = head_evidence(model.diagnosis, features, inputs.outline, k)
        np.testing.assert_array_equal(as_heat(cells, 16 / 4, (16, 16)), heat_map(model, image, 16, k))
