"""R2U-Net as a whole: parameter counts, shapes, skip connections, training and evaluation."""

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.ops import binary_cross_entropy_with_logits, soft_dice_loss
from minidl.optim import AdamW
from r2unet.data.sample import to_input
from r2unet.data.synthetic import make_lesion
from r2unet.network.model import R2UNet
from r2unet.scores.metrics import confusion, dice


def parameter_count(model):
    return sum(p.size for p in model.parameters())


def images(rng, n=1, size=(16, 16), channels=3):
    return Tensor(rng.normal(size=(n, channels, *size)).astype(np.float32))


def count_by_the_figure(widths, in_channels=3, out_channels=1):
    """Count weights, biases and norms of every box of the figure in r2unet/network/model.py."""

    def convolution(before, after, kernel):
        return before * after * kernel**2 + after

    def block(before, after):
        return convolution(before, after, 1) + 2 * (convolution(after, after, 3) + 2 * after)

    down = sum(block(a, b) for a, b in zip((in_channels, *widths), widths, strict=False))
    up = sum(convolution(b, a, 3) + 2 * a + block(2 * a, a) for a, b in zip(widths, widths[1:], strict=False))
    return down + up + convolution(widths[0], out_channels, 1)


class TestParameters:
    def test_the_default_network_has_153113(self, rng):
        model = R2UNet(rng=rng)
        assert model.widths == (8, 16, 32, 64) and model.steps == 2
        assert parameter_count(model) == count_by_the_figure((8, 16, 32, 64)) == 153_113

    @pytest.mark.parametrize("widths", [(5,), (3, 7), (2, 3, 4, 5, 6)])
    def test_other_widths_have_the_parameters_of_the_figure(self, widths, rng):
        assert parameter_count(R2UNet(2, 3, widths, rng=rng)) == count_by_the_figure(widths, 2, 3)

    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_the_count_does_not_depend_on_the_steps(self, steps, rng):
        assert parameter_count(R2UNet(steps=steps, rng=rng)) == 153_113

    def test_equal_seeds_give_equal_weights_and_different_seeds_different_weights(self):
        first, again, other = (R2UNet(rng=np.random.default_rng(s)).state_dict() for s in (1, 1, 2))
        assert first.keys() == again.keys() == other.keys()
        for name, array in first.items():
            np.testing.assert_array_equal(array, again[name])
            if name.endswith(("conv.weight", "project.weight", "up.weight", "head.weight")):
                assert not np.array_equal(array, other[name])

    def test_all_layers_are_initialised_differently(self, rng):
        weights = [p.numpy().ravel()[:4].tobytes() for p in R2UNet(rng=rng).parameters() if p.ndim == 4]
        assert len(set(weights)) == len(weights)

    def test_a_gradient_reaches_every_parameter(self, rng):
        model = R2UNet(widths=(3, 4, 5), steps=1, rng=rng)
        model(images(rng)).sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


class TestShapes:
    @pytest.mark.parametrize(
        ("widths", "size"),
        [
            ((4,), (5, 7)),
            ((4, 8), (6, 10)),
            ((8, 16, 32, 64), (16, 24)),
            ((2, 3, 4, 5, 6), (32, 16)),
            ((6, 4, 2), (8, 4)),
        ],
    )
    def test_the_output_has_the_size_of_the_image(self, widths, size, rng):
        model = R2UNet(widths=widths, rng=rng)
        assert model(images(rng, 2, size)).shape == (2, 1, *size)

    def test_any_number_of_input_and_output_channels_is_possible(self, rng):
        model = R2UNet(1, 5, (4, 6), rng=rng)
        assert model(images(rng, 3, (4, 6), channels=1)).shape == (3, 5, 4, 6)

    @pytest.mark.parametrize(("widths", "multiple"), [((4,), 1), ((4, 4), 2), ((4, 4, 4, 4), 8)])
    def test_height_and_width_must_be_multiples_of_two_to_the_levels_minus_one(self, widths, multiple, rng):
        assert R2UNet(widths=widths, rng=rng).multiple == multiple

    @pytest.mark.parametrize("size", [(12, 16), (16, 12), (15, 16), (4, 4)])
    def test_other_sizes_are_refused_with_the_multiple(self, size, rng):
        model = R2UNet(widths=(2, 2, 2, 2), rng=rng)
        message = f"so its height and width must be multiples of 8; got {size[0]} x {size[1]}"
        with pytest.raises(ValueError, match=message):
            model(images(rng, size=size))

    def test_a_single_image_without_a_batch_is_refused(self, rng):
        with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\), got \(3, 16, 16\)"):
            R2UNet(widths=(2, 2), rng=rng)(Tensor(np.zeros((3, 16, 16), np.float32)))

    @pytest.mark.parametrize(
        "settings",
        [{"widths": ()}, {"widths": (8, 0)}, {"steps": -1}, {"in_channels": 0}, {"out_channels": 0}],
    )
    def test_sizes_that_are_not_positive_are_refused(self, settings, rng):
        with pytest.raises(ValueError, match="R2UNet: expected positive"):
            R2UNet(**settings, rng=rng)


class TestSkips:
    """The first input channels of a decoder block are the skip, the others are the upsampled features."""

    def changed(self, model, x, change):
        """Return whether `change(model)` changes the logits."""
        with no_grad():
            before = model(x).numpy()
            change(model)
            return not np.allclose(before, model(x).numpy(), atol=1e-4)

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_every_skip_affects_the_logits(self, level, rng):
        def cut(model):
            model.decoder[level].project.weight.data[:, : model.widths[-2 - level]] = 0.0

        assert self.changed(R2UNet(widths=(4, 5, 6, 7), rng=rng), images(rng), cut)

    def test_the_upsampled_features_affect_the_logits(self, rng):
        def cut(model):
            model.decoder[-1].project.weight.data[:, 4:] = 0.0

        assert self.changed(R2UNet(widths=(4, 5, 6), rng=rng), images(rng), cut)

    def test_without_the_upsampled_features_only_the_skip_affects_the_logits(self, rng):
        model = R2UNet(widths=(4, 5, 6), rng=rng)
        model.decoder[-1].project.weight.data[:, 4:] = 0.0

        def negate(layer):
            layer.weight.data *= -1.0

        x = images(rng)
        assert not self.changed(model, x, lambda m: negate(m.encoder[1].project))
        assert not self.changed(model, x, lambda m: negate(m.up[-1].up))
        assert self.changed(model, x, lambda m: negate(m.encoder[0].project))

    def test_gradients_flow_back_through_the_skip(self, rng):
        model = R2UNet(widths=(4, 5), rng=rng)
        model.decoder[0].project.weight.data[:, 4:] = 0.0  # only the skip remains
        model(images(rng)).backward(rng.normal(size=(1, 1, 16, 16)))
        assert not model.encoder[1].project.weight.grad.any()
        assert np.abs(model.encoder[0].project.weight.grad).min() > 0.0


class TestModes:
    def test_evaluation_equals_training_after_the_statistics_converge(self, rng):
        model = R2UNet(widths=(4, 8), rng=rng)
        x = images(rng, 4, (48, 48))
        with no_grad():
            for _ in range(100):
                trained = model(x).numpy()
            evaluated = model.eval()(x).numpy()
        assert np.sqrt(np.square(evaluated - trained).mean() / np.square(trained).mean()) < 0.001

    def test_in_evaluation_an_image_does_not_depend_on_the_others(self, rng):
        model = R2UNet(widths=(4, 6), rng=rng).eval()
        x = images(rng, 3)
        alone = model(Tensor(x.data[1:2])).numpy()
        np.testing.assert_allclose(model(x).numpy()[1:2], alone, rtol=1e-4, atol=1e-5)

    def test_evaluation_leaves_the_state_unchanged(self, rng):
        model = R2UNet(widths=(4, 6), rng=rng).eval()
        before = model.state_dict()
        model(images(rng))
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, before[name])

    def test_the_input_is_not_modified(self, rng):
        x = images(rng)
        before = x.numpy().copy()
        R2UNet(widths=(4, 6), rng=rng)(x).sum().backward()
        np.testing.assert_array_equal(x.numpy(), before)


def test_it_overfits_one_lesion(put, rng):
    image, mask = make_lesion(16, rng)
    x, truth = Tensor(put(to_input([image]))), Tensor(put(mask[None, None].astype(np.float32)))
    model = R2UNet(widths=(2, 4), rng=rng).to(x.device)
    optimizer = AdamW(model.parameters(), lr=0.03)
    first = None
    for _ in range(30):
        logits = model(x)
        loss = binary_cross_entropy_with_logits(logits, truth) + soft_dice_loss(logits, truth)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with no_grad():
        predicted = model(x).numpy()[0, 0] > 0.0
    assert dice(confusion(predicted, mask)) > 0.95
    assert loss.item() < 0.2 * first
