"""The blocks: weights shared by all steps, running statistics for every step, shortcuts, up-convolutions."""

import numpy as np
import pytest

from minidl import Parameter, Tensor, no_grad
from minidl.ops import batch_norm, conv2d, relu, upsample_nearest
from minidl.profiler import profiled
from r2unet.network.blocks import (
    NORMS,
    UPSAMPLING,
    ConvBlock,
    NearestUpConv,
    RecurrentBlock,
    RecurrentConv,
    RecurrentResidualBlock,
    ResidualBlock,
    UntiedRecurrentConv,
    UpConv,
    group_count,
    new_norm,
)


def relative_rms(a, b):
    return np.sqrt(np.square(a - b).mean() / np.square(b).mean())


@pytest.fixture
def image(rng):
    """A batch of 4 channels in float64: (2, 4, 6, 8)."""
    return rng.normal(size=(2, 4, 6, 8))


class TestRecurrentConv:
    def test_zero_steps_are_convolution_norm_relu(self, image, rng):
        block = RecurrentConv(4, steps=0, rng=rng).to(np.float64)
        normed, _ = batch_norm(
            conv2d(Tensor(image), block.conv.weight, block.conv.bias, padding=1),
            Tensor(np.ones(4)),
            Tensor(np.zeros(4)),
        )
        np.testing.assert_allclose(block(Tensor(image)).numpy(), np.maximum(normed.numpy(), 0.0), rtol=1e-12)

    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_every_later_step_convolves_the_input_plus_the_previous_output(self, steps, image, rng):
        block = RecurrentConv(4, steps, rng=rng).to(np.float64)
        shorter = RecurrentConv(4, steps - 1, rng=rng).to(np.float64)
        shorter.conv = block.conv
        last = RecurrentConv(4, 0, rng=rng).to(np.float64)
        last.conv = block.conv
        x = Tensor(image)
        np.testing.assert_allclose(block(x).numpy(), last(x + shorter(x)).numpy(), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("steps", [0, 1, 2, 5])
    def test_the_parameters_do_not_depend_on_the_steps(self, steps, rng):
        block = RecurrentConv(4, steps, rng=rng)
        names = [name for name, _ in block.named_parameters()]
        assert names == ["conv.weight", "conv.bias", "norm.0.weight", "norm.0.bias"]
        assert sum(p.size for p in block.parameters()) == 4 * 4 * 9 + 4 + 4 + 4
        assert len(list(block.named_buffers())) == 2 * (steps + 1)

    @pytest.mark.parametrize("steps", [0, 1, 2, 3])
    def test_the_gradient_of_the_shared_weights_is_the_sum_over_the_applications(self, steps, image, rng):
        block = RecurrentConv(4, steps, rng=rng).to(np.float64)
        scale, shift = Parameter(rng.normal(1.0, 0.2, 4)), Parameter(rng.normal(size=4))
        for norm in block.norm:
            norm.weight, norm.bias = scale, shift
        cotangent = rng.normal(size=image.shape)
        block(Tensor(image)).backward(cotangent)

        copies = [Parameter(block.conv.weight.data.copy()) for _ in range(steps + 1)]
        x, y = Tensor(image), None
        for w in copies:
            source = x if y is None else x + y
            normed, _ = batch_norm(
                conv2d(source, w, block.conv.bias, padding=1), scale.detach(), shift.detach()
            )
            y = relu(normed)
        y.backward(cotangent)

        expected = sum(w.grad for w in copies)
        np.testing.assert_allclose(block.conv.weight.grad, expected, rtol=1e-9, atol=1e-11)
        for w in copies:  # every application contributes, and none is the whole sum
            assert np.abs(w.grad).max() > 0.01 * np.abs(expected).max()
            assert steps == 0 or relative_rms(w.grad, expected) > 0.1

    @pytest.mark.parametrize(("steps", "radius"), [(0, 1), (1, 2), (2, 3)])
    def test_every_step_extends_the_receptive_field_by_one_pixel_on_each_side(self, steps, radius, rng):
        block = RecurrentConv(3, steps, rng=rng).to(np.float64).eval()
        for p in (block.conv.weight, block.norm[0].bias):
            p.data = np.abs(p.data) + 0.1  # no ReLU is off
        x = Tensor(np.abs(rng.normal(size=(1, 3, 11, 11))))
        x.requires_grad = True
        block(x)[0, 0, 5, 5].backward()
        touched = np.abs(x.grad[0]).max(axis=0) > 0  # (3, 11, 11) -> (11, 11)
        expected = np.zeros((11, 11), bool)
        expected[5 - radius : 6 + radius, 5 - radius : 6 + radius] = True
        np.testing.assert_array_equal(touched, expected)


class TestUnsharedWeights:
    """`share_weights=False`: every step has its own convolution."""

    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_every_step_has_a_convolution_and_the_norms_still_share_their_weights(self, steps, rng):
        block = RecurrentConv(4, steps, share_weights=False, rng=rng)
        assert sum(p.size for p in block.parameters()) == (steps + 1) * (4 * 4 * 9 + 4) + 4 + 4
        weights = [block.conv.weight, *(conv.weight for conv in block.further)]
        assert len({w.numpy().tobytes() for w in weights}) == steps + 1

    def test_each_convolution_is_used_at_its_step(self, image, rng):
        block = RecurrentConv(4, 2, share_weights=False, rng=rng).to(np.float64)
        x, y = Tensor(image), None
        for conv in (block.conv, *block.further):
            source = x if y is None else x + y
            y = relu(batch_norm(conv(source), Tensor(np.ones(4)), Tensor(np.zeros(4)))[0])
        np.testing.assert_allclose(block(x).numpy(), y.numpy(), rtol=1e-12)


class TestUntiedWeights:
    """`tie_weights=False`: w_f for the input and w_r for the previous output, as in the paper."""

    @pytest.fixture
    def untied(self, rng):
        return UntiedRecurrentConv(4, steps=2, rng=rng).to(np.float64)

    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_w_r_adds_9_c_squared_parameters_and_no_bias(self, steps, rng):
        tied, untied = RecurrentConv(4, steps, rng=rng), UntiedRecurrentConv(4, steps, rng=rng)
        extra = {name for name, _ in untied.named_parameters()} - {n for n, _ in tied.named_parameters()}
        assert extra == {"recurrent.weight"} and untied.recurrent.bias is None
        sizes = [sum(p.size for p in block.parameters()) for block in (untied, tied)]
        assert sizes[0] - sizes[1] == 9 * 4**2

    def test_the_output_is_the_formula_of_the_paper(self, untied, image):
        def norm_relu(a):
            return relu(batch_norm(a, Tensor(np.ones(4)), Tensor(np.zeros(4)))[0])

        x, w_f, w_r, b = Tensor(image), untied.conv.weight, untied.recurrent.weight, untied.conv.bias
        b.data = np.array([0.5, -1.0, 2.0, 0.0])
        y = norm_relu(conv2d(x, w_f, b, padding=1))
        for _ in range(2):
            y = norm_relu(conv2d(x, w_f, b, padding=1) + conv2d(y, w_r, padding=1))
        np.testing.assert_allclose(untied(x).numpy(), y.numpy(), rtol=1e-10, atol=1e-12)

    def test_with_w_r_equal_to_w_f_it_is_the_tied_block_whose_gradient_is_the_sum_of_both(
        self, untied, image, rng
    ):
        tied = RecurrentConv(4, steps=2, rng=rng).to(np.float64)
        w_f, w_r = untied.conv.weight, untied.recurrent.weight
        w_r.data = tied.conv.weight.data = w_f.data.copy()
        outputs = [block(Tensor(image)) for block in (untied, tied)]
        np.testing.assert_allclose(outputs[0].numpy(), outputs[1].numpy(), rtol=1e-10, atol=1e-12)

        cotangent = rng.normal(size=image.shape)
        for y in outputs:
            y.backward(cotangent)
        assert min(np.abs(w_f.grad).max(), np.abs(w_r.grad).max()) > 0.1
        np.testing.assert_allclose(w_f.grad + w_r.grad, tied.conv.weight.grad, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("training", [True, False])
    def test_the_gradient_of_w_r_agrees_with_a_central_difference(self, training, untied, image, rng):
        untied.train(training)
        cotangent, w_r, h = rng.normal(size=image.shape), untied.recurrent.weight, 1e-6
        untied(Tensor(image)).backward(cotangent)
        for _ in range(3):
            v, value, products = rng.normal(size=w_r.shape), w_r.data, []
            for sign in (1.0, -1.0):
                w_r.data = value + sign * h * v
                products.append(np.vdot(cotangent, untied(Tensor(image)).numpy()))
            w_r.data = value
            numeric = (products[0] - products[1]) / (2.0 * h)
            assert np.vdot(w_r.grad, v) == pytest.approx(numeric, rel=1e-5)

    @pytest.mark.parametrize("steps", [1, 3])
    def test_w_f_is_applied_once_and_w_r_at_every_later_step(self, steps, image, rng):
        block = UntiedRecurrentConv(4, steps, rng=rng).to(np.float64)
        with no_grad(), profiled() as profile:
            block(Tensor(image))
        assert profile.records["Conv2d", "rows"].calls == 1 + steps


class TestNorms:
    @pytest.mark.parametrize(("kind", "sets"), [("per-step", 3), ("shared", 1), ("group", 0)])
    def test_the_kinds_differ_only_in_their_running_statistics(self, kind, sets, rng):
        block = RecurrentConv(4, steps=2, norm=kind, rng=rng)
        assert len(list(block.named_buffers())) == 2 * sets
        assert [name for name, _ in block.named_parameters()] == [
            "conv.weight",
            "conv.bias",
            "norm.0.weight",
            "norm.0.bias",
        ]

    @pytest.mark.parametrize("kind", NORMS)
    def test_in_training_every_channel_or_group_gets_mean_0_and_deviation_1(self, kind, image):
        y = new_norm(kind, 4).to(np.float64)(Tensor(3.0 * image + 5.0)).numpy()
        axes = (2, 3, 4) if kind == "group" else (0, 2, 3)
        groups = y.reshape(2, 2, 2, 6, 8) if kind == "group" else y
        np.testing.assert_allclose(groups.mean(axes), 0.0, atol=1e-12)
        np.testing.assert_allclose(groups.std(axes), 1.0, rtol=1e-4)

    @pytest.mark.parametrize(
        ("channels", "groups"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (7, 1), (8, 4), (12, 4), (64, 4)]
    )
    def test_groups_divide_the_channels_and_have_at_least_two_each(self, channels, groups):
        assert group_count(channels) == groups


class TestTheOtherBlocks:
    def conv_norm_relu(self, layer, x):
        C = layer.conv.weight.shape[0]
        y = conv2d(x, layer.conv.weight, layer.conv.bias, padding=1)
        return relu(batch_norm(y, Tensor(np.ones(C)), Tensor(np.zeros(C)))[0])

    def test_u_net_has_two_convolutions(self, image, rng):
        block = ConvBlock(4, 6, rng=rng).to(np.float64)
        expected = self.conv_norm_relu(block.second, self.conv_norm_relu(block.first, Tensor(image)))
        np.testing.assert_allclose(block(Tensor(image)).numpy(), expected.numpy(), rtol=1e-12)
        assert sum(p.size for p in block.parameters()) == 6 * (4 * 9 + 3) + 6 * (6 * 9 + 3)

    def test_res_u_net_adds_a_shortcut(self, image, rng):
        block = ResidualBlock(4, 6, rng=rng).to(np.float64)
        x = block.project(Tensor(image))
        inner = self.conv_norm_relu(block.second, self.conv_norm_relu(block.first, x))
        np.testing.assert_allclose(block(Tensor(image)).numpy(), (x + inner).numpy(), rtol=1e-10)

    def test_ru_net_is_r2u_net_without_the_shortcut(self, image, rng):
        block, residual = (
            kind(4, 6, 2, rng=rng).to(np.float64) for kind in (RecurrentBlock, RecurrentResidualBlock)
        )
        residual.load_state_dict(block.state_dict())
        x = Tensor(image)
        expected = residual(x).numpy() - residual.project(x).numpy()
        np.testing.assert_allclose(block(x).numpy(), expected, rtol=1e-10, atol=1e-12)

    def test_without_a_shortcut_the_output_is_not_negative(self, image, rng):
        for block in (ConvBlock(4, 4, rng=rng), RecurrentBlock(4, 4, 1, rng=rng)):
            assert (block.to(np.float64)(Tensor(image)).numpy() >= 0).all()


class TestRunningStatistics:
    def settled(self, block, x):
        """Return the outputs in training and in evaluation, after the statistics have converged on x."""
        with no_grad():
            for _ in range(200):
                trained = block(Tensor(x)).numpy()
            return trained, block.eval()(Tensor(x)).numpy()

    def batch(self, rng):
        return rng.normal(size=(8, 4, 24, 24)).astype(np.float32)

    def test_every_step_has_its_own(self, rng):
        block = RecurrentConv(4, steps=2, rng=rng)
        self.settled(block, self.batch(rng))
        variances = [norm.running_var.data for norm in block.norm]
        assert (variances[1] > 1.2 * variances[0]).all()  # x + y varies more than x
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert relative_rms(variances[i], variances[j]) > 0.02

    def test_evaluation_then_equals_training_on_the_same_batch(self, rng):
        trained, evaluated = self.settled(RecurrentConv(4, steps=2, rng=rng), self.batch(rng))
        assert relative_rms(evaluated, trained) < 0.001

    def test_with_one_set_for_all_steps_it_would_not(self, rng):
        block = RecurrentConv(4, steps=2, norm="shared", rng=rng)
        trained, evaluated = self.settled(block, self.batch(rng))
        assert relative_rms(evaluated, trained) > 0.05


class TestRecurrentResidualBlock:
    def test_the_projected_input_is_added_to_what_the_recurrence_makes_of_it(self, image, rng):
        block = RecurrentResidualBlock(4, 6, steps=2, rng=rng).to(np.float64)
        block.project.bias.data = rng.normal(size=6)
        w, b = block.project.weight.numpy()[:, :, 0, 0], block.project.bias.numpy()
        projected = np.einsum("oc,nchw->nohw", w, image) + b[:, None, None]
        inner = block.second(block.first(Tensor(projected))).numpy()
        np.testing.assert_allclose(block(Tensor(image)).numpy(), projected + inner, rtol=1e-10)

    def test_there_is_no_relu_after_the_sum(self, image, rng):
        assert (RecurrentResidualBlock(4, 4, 1, rng=rng).to(np.float64)(Tensor(image)).numpy() < 0).any()

    def test_its_two_recurrences_share_nothing(self, rng):
        block = RecurrentResidualBlock(3, 4, steps=2, rng=rng)
        recurrence = 4 * 4 * 9 + 3 * 4
        assert sum(p.size for p in block.parameters()) == 3 * 4 + 4 + 2 * recurrence
        assert not np.array_equal(block.first.conv.weight.numpy(), block.second.conv.weight.numpy())

    def test_a_gradient_reaches_every_parameter(self, image, rng):
        block = RecurrentResidualBlock(4, 6, steps=2, rng=rng).to(np.float64)
        block(Tensor(image)).backward(rng.normal(size=(2, 6, 6, 8)))
        assert all(p.grad is not None for p in block.parameters())


class TestUpConv:
    @pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 5), (2, 7)])
    def test_doubles_the_image_and_changes_its_channels(self, size, rng):
        up = UpConv(6, 3, rng=rng)
        y = up(Tensor(rng.normal(size=(2, 6, *size)).astype(np.float32)))
        assert y.shape == (2, 3, 2 * size[0], 2 * size[1])

    def test_is_normalised_and_rectified(self, image, rng):
        up = UpConv(4, 3, rng=rng).to(np.float64)
        normed = up.norm(up.up(Tensor(image))).numpy()
        np.testing.assert_allclose(normed.mean((0, 2, 3)), 0.0, atol=1e-12)
        np.testing.assert_array_equal(up(Tensor(image)).numpy(), np.maximum(normed, 0.0))

    def test_every_input_pixel_reaches_its_own_four_and_their_neighbours(self, rng):
        up = UpConv(1, 1, rng=rng).to(np.float64)
        one = np.zeros((1, 1, 4, 4))
        one[0, 0, 1, 2] = 1.0
        touched = np.argwhere(up.up(Tensor(one)).numpy()[0, 0])
        assert touched.min(axis=0).tolist() == [1, 3] and touched.max(axis=0).tolist() == [3, 5]


class TestNearestUpConv:
    def test_repeats_every_pixel_then_convolves(self, image, rng):
        up = NearestUpConv(4, 3, rng=rng).to(np.float64)
        larger = upsample_nearest(Tensor(image))
        normed = up.norm(conv2d(larger, up.conv.weight, up.conv.bias, padding=1)).numpy()
        np.testing.assert_allclose(up(Tensor(image)).numpy(), np.maximum(normed, 0.0), rtol=1e-12)

    def test_has_as_many_parameters_as_the_transposed_convolution(self, rng):
        sizes = {kind: sum(p.size for p in up(6, 3, rng=rng).parameters()) for kind, up in UPSAMPLING.items()}
        assert sizes["nearest"] == sizes["transposed"] == 6 * 3 * 9 + 3 + 3 + 3
