"""The diagnosis head pools the features as written, and a network with both tasks answers both."""

from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor, no_grad
from minidl.backend import to_numpy
from minidl.gradcheck import GradientError, check_vjp
from r2unet.network import gradient_checks
from r2unet.network.diagnosis import LEVELS, POOLING, SMALLEST_AREA, DiagnosisHead, cell_means
from r2unet.network.model import NETWORKS, OptionError, R2UNet

WIDTHS = (3, 4, 5)
REFERENCE = Path(__file__).parents[2] / "r2unet_reference.npz"  # written before there was a diagnosis

# Two channels of 2 x 2 cells, and a mask of 4 x 4 pixels that covers the first cell, and half of the second.
FEATURES = np.array([[[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 7.0], [0.0, -6.0]]]])
MASK = np.array([[[[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]], float)
MEANS, MAXIMA = [2.5, 0.0], [4.0, 7.0]
LESION_AREA = 1.5 + SMALLEST_AREA  # weights 1, 1/2, 0, 0
LESION_MEANS = [(1.0 + 0.5 * 2.0) / LESION_AREA, (-1.0 + 0.5 * 7.0) / LESION_AREA]
LESION_MAXIMA = [1.0, 3.5]  # of 1, 2/2, 0, 0 and of -1, 7/2, 0, 0
POOLED = {
    "image": MEANS + MAXIMA,
    "lesion": LESION_MEANS + LESION_MAXIMA,
    "both": MEANS + MAXIMA + LESION_MEANS + LESION_MAXIMA,
}


def as_logits(mask):
    """Logits whose probabilities are the mask itself."""
    return 1000.0 * (2.0 * mask - 1.0)


def showing_the_pooled_values(pooling, device):
    """Return a head for two channels, whose logits are the values that it has pooled."""
    count = len(POOLED[pooling])
    head = DiagnosisHead([2], count, pooling, rng=np.random.default_rng(0)).to(np.float64)
    head.linear.weight.data, head.linear.bias.data = np.eye(count), np.zeros(count)
    return head.to(device)


def network(task="both", model=R2UNet, **options):
    settings = {"widths": WIDTHS, "classes": 3, **options}
    return model(task=task, rng=np.random.default_rng(0), **settings)


def images(rng, n=2):
    return Tensor(rng.normal(size=(n, 3, 16, 16)).astype(np.float32))


def parameter_count(model):
    return sum(p.size for p in model.parameters())


class TestTheHead:
    @pytest.mark.parametrize("pooling", POOLING)
    def test_pools_mean_and_maximum(self, pooling, device, put):
        head = showing_the_pooled_values(pooling, device)
        logits = head([Tensor(put(FEATURES))], Tensor(put(as_logits(MASK)))).numpy()
        np.testing.assert_allclose(logits, [POOLED[pooling]], rtol=1e-14)

    @pytest.mark.parametrize("pooling", POOLING)
    def test_pools_each_image_by_its_own_mask(self, pooling, device, put):
        head = showing_the_pooled_values(pooling, device)
        features = np.concatenate((FEATURES, FEATURES[..., ::-1, ::-1]))
        masks = np.concatenate((MASK, MASK[..., ::-1, ::-1]))
        logits = head([Tensor(put(features))], Tensor(put(as_logits(masks)))).numpy()
        np.testing.assert_allclose(logits, [POOLED[pooling]] * 2, rtol=1e-14)

    def test_over_the_image_needs_no_outline(self, device, put):
        head = showing_the_pooled_values("image", device)
        np.testing.assert_allclose(head([Tensor(put(FEATURES))]).numpy(), [POOLED["image"]], rtol=1e-14)

    def test_weights_positions_by_the_probability_not_by_a_threshold(self, device, put):
        head = showing_the_pooled_values("lesion", device)
        outline = np.full((1, 1, 4, 4), np.log(0.25 / 0.75))  # a probability of 1/4 everywhere
        means, maxima = np.split(head([Tensor(put(FEATURES))], Tensor(put(outline))).numpy()[0], 2)
        np.testing.assert_allclose(means, 0.25 * 4.0 * np.array(MEANS) / (1.0 + SMALLEST_AREA), atol=1e-15)
        np.testing.assert_allclose(maxima, 0.25 * np.array(MAXIMA), rtol=1e-14)

    @pytest.mark.parametrize("pooling", ["lesion", "both"])
    def test_of_an_image_without_a_lesion_is_finite(self, pooling, device, put):
        head = showing_the_pooled_values(pooling, device)
        features = Tensor(put(FEATURES), requires_grad=True)
        logits = head([features], Tensor(put(as_logits(0.0 * MASK))))
        assert logits.numpy()[0, -4:].tolist() == [0.0, 0.0, 0.0, 0.0]
        logits.sum().backward()
        assert np.isfinite(to_numpy(features.grad)).all()

    @pytest.mark.parametrize("pooling", POOLING)
    def test_has_the_right_gradient_for_the_features(self, pooling, rng):
        head = DiagnosisHead([4], 3, pooling, rng=rng).to(np.float64)
        outline = Tensor(rng.normal(size=(2, 1, 8, 12)))
        check_vjp(lambda features: head([features], outline), rng.normal(size=(2, 4, 2, 3)), rng=rng)

    @pytest.mark.parametrize("pooling", POOLING)
    def test_passes_no_gradient_to_the_outline(self, pooling, rng):
        head = DiagnosisHead([4], 3, pooling, rng=rng).to(np.float64)
        features = Tensor(rng.normal(size=(2, 4, 2, 3)), requires_grad=True)
        outline = Tensor(rng.normal(size=(2, 1, 8, 12)), requires_grad=True)
        head([features], outline).sum().backward()
        assert outline.grad is None and np.abs(features.grad).max() > 0.0

    @pytest.mark.parametrize("pooling", POOLING)
    def test_pools_every_level_as_if_it_were_the_only_one(self, pooling, rng, device, put):
        """The levels have cells of 1, 2 and 4 pixels."""
        levels = [rng.normal(size=(2, C, 8 // side, 12 // side)) for C, side in ((2, 1), (3, 2), (4, 4))]
        outline = Tensor(put(rng.normal(size=(2, 1, 8, 12))))
        head = DiagnosisHead([2, 3, 4], 5, pooling, rng=rng).to(np.float64).to(device)
        pooled = head.pool([Tensor(put(level)) for level in levels], outline).numpy()
        assert pooled.shape == (2, head.linear.weight.shape[1])
        alone = [
            DiagnosisHead([level.shape[1]], 5, pooling, rng=rng).pool([Tensor(put(level))], outline).numpy()
            for level in levels
        ]
        np.testing.assert_array_equal(pooled, np.concatenate(alone, axis=1))

    @pytest.mark.parametrize("pooling", POOLING)
    @pytest.mark.parametrize("level", [0, 1])
    def test_has_the_right_gradient_for_the_features_of_each_level(self, level, pooling, rng):
        head = DiagnosisHead([2, 3], 4, pooling, rng=rng).to(np.float64)
        levels = [rng.normal(size=(2, 2, 4, 6)), rng.normal(size=(2, 3, 2, 3))]
        outline = Tensor(rng.normal(size=(2, 1, 4, 6)))

        def logits(features):
            return head([features if i == level else Tensor(x) for i, x in enumerate(levels)], outline)

        check_vjp(logits, levels[level], rng=rng)

    def test_averages_the_mask_over_cells(self, rng):
        mask = rng.random((2, 1, 6, 8))
        found = cell_means(Tensor(mask), 3, 2).numpy()
        for n, i, j in np.ndindex(2, 3, 2):
            cell = mask[n, 0, 2 * i : 2 * i + 2, 4 * j : 4 * j + 4]
            assert found[n, 0, i, j] == pytest.approx(cell.mean(), rel=1e-14)


class TestTheAnswer:
    @pytest.mark.parametrize("model", NETWORKS.values())
    def test_has_what_the_task_says(self, model, rng):
        x = images(rng)
        outline, diagnosis = network("outline", model).answer(x)
        assert outline.shape == (2, 1, 16, 16) and diagnosis is None
        outline, diagnosis = network("diagnosis", model).answer(x)
        assert outline is None and diagnosis.shape == (2, 3)
        outline, diagnosis = network("both", model).answer(x)
        assert outline.shape == (2, 1, 16, 16) and diagnosis.shape == (2, 3)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(
        "options", [{}, {"checkpoint_blocks": True}, {"up": "nearest", "skips": "add"}], ids=str
    )
    def test_the_outline_is_that_of_forward_bit_for_bit(self, training, options, rng):
        x = images(rng)
        model = network("both", **options).train(training)
        expected = model(x).numpy()
        np.testing.assert_array_equal(model.answer(x).outline.numpy(), expected)
        np.testing.assert_array_equal(model.decode(model.encode(x)).numpy(), expected)
        np.testing.assert_array_equal(network("outline", **options).train(training)(x).numpy(), expected)

    @pytest.mark.parametrize("pooling", POOLING)
    def test_the_diagnosis_is_that_of_the_bottleneck_and_the_outline(self, pooling, rng):
        x = images(rng)
        model = network("both", pooling=pooling)
        outline, diagnosis = model.answer(x)
        bottleneck = model.encode(x)[-1:]
        assert [level.shape for level in bottleneck] == [(2, WIDTHS[-1], 4, 4)]
        np.testing.assert_array_equal(model.diagnosis(bottleneck, outline).numpy(), diagnosis.numpy())
        elsewhere = model.diagnosis(bottleneck, -outline).numpy()  # the skin, not the lesion
        assert np.array_equal(elsewhere, diagnosis.numpy()) == (pooling == "image")

    @pytest.mark.parametrize("task", ["both", "diagnosis"])
    def test_the_diagnosis_can_read_all_levels(self, task, rng):
        x = images(rng)
        model = network(task, pooled_levels="all")
        outline, diagnosis = model.answer(x)
        levels = model.encode(x)
        assert [level.shape for level in levels] == [(2, 3, 16, 16), (2, 4, 8, 8), (2, 5, 4, 4)]
        np.testing.assert_array_equal(model.diagnosis(levels, outline).numpy(), diagnosis.numpy())
        for i, level in enumerate(levels):  # it depends on each of them
            changed = [*levels[:i], level * 2.0, *levels[i + 1 :]]
            assert np.abs(model.diagnosis(changed, outline).numpy() - diagnosis.numpy()).max() > 1e-3

    def test_pooling_over_the_lesion_without_an_outline_is_refused(self):
        with pytest.raises(OptionError, match="without an outline"):
            network("diagnosis", pooling="lesion")

    def test_images_of_another_size_are_refused(self, rng):
        with pytest.raises(ValueError, match="must be multiples of 4; got 16 x 18"):
            network("diagnosis").answer(Tensor(np.zeros((1, 3, 16, 18), np.float32)))


class TestGradients:
    def gradients(self, model, loss):
        model.zero_grad()
        loss.backward()
        return {name: None if p.grad is None else p.grad.copy() for name, p in model.named_parameters()}

    @pytest.mark.parametrize("pooling", POOLING)
    def test_of_the_diagnosis_reach_the_encoder_but_not_the_decoder(self, pooling, rng):
        model = network("both", pooling=pooling)
        gradients = self.gradients(model, (model.answer(images(rng)).diagnosis ** 2.0).sum())
        reached = {name for name, g in gradients.items() if g is not None and np.abs(g).max() > 0.0}
        assert {name.partition(".")[0] for name in reached} == {"encoder", "diagnosis"}

    def test_encoder_parameters_are_those_that_both_answers_depend_on(self, rng):
        model = network("both")
        gradients = self.gradients(model, (model.answer(images(rng)).diagnosis ** 2.0).sum())
        names = dict(model.named_parameters())
        encoder = {id(p) for p in model.encoder_parameters()}
        assert {name for name in gradients if id(names[name]) in encoder} == {
            name for name, g in gradients.items() if g is not None and not name.startswith("diagnosis.")
        }

    def test_of_both_answers_are_the_sum_of_the_two(self, rng):
        model, x = network("both").eval(), images(rng)
        outline, diagnosis = model.answer(x)
        together = self.gradients(model, (outline**2.0).mean() + (diagnosis**2.0).mean())
        first = self.gradients(model, (model.answer(x).outline ** 2.0).mean())
        second = self.gradients(model, (model.answer(x).diagnosis ** 2.0).mean())
        for name, g in together.items():
            expected = sum(part[name] for part in (first, second) if part[name] is not None)
            np.testing.assert_allclose(g, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


class TestTheState:
    def test_of_the_outline_has_the_names_that_it_had_without_a_diagnosis(self):
        with np.load(REFERENCE) as file:
            names = [name.removeprefix("state/") for name in file.files if name.startswith("state/")]
        assert list(network("outline", widths=(3, 5, 6)).state_dict()) == names

    def test_of_both_tasks_is_that_of_the_outline_and_the_linear_layer_with_equal_initial_weights(self):
        outline, both = network("outline").state_dict(), network("both").state_dict()
        assert [name for name in both if name not in outline] == [
            "diagnosis.linear.weight",
            "diagnosis.linear.bias",
        ]
        for name, value in outline.items():
            np.testing.assert_array_equal(both[name], value)

    def test_of_the_diagnosis_alone_is_the_encoder_and_the_linear_layer(self):
        names = list(network("diagnosis").state_dict())
        encoder = [name for name in network("outline").state_dict() if name.startswith("encoder.")]
        assert sorted(names) == sorted([*encoder, "diagnosis.linear.weight", "diagnosis.linear.bias"])

    def test_parameter_counts(self, rng):
        def count(**options):
            return parameter_count(R2UNet(rng=rng, classes=7, **options))

        assert count() == 153_113
        # 64 channels, pooled to mean and maximum over the image and over the lesion
        assert count(task="both") == 153_113 + 4 * 64 * 7 + 7 == 154_912
        assert count(task="both", pooling="image") == count(task="both", pooling="lesion") == 154_016
        # all levels have 8 + 16 + 32 + 64 channels
        assert count(task="both", pooled_levels="all") == 153_113 + 4 * 120 * 7 + 7 == 156_480
        encoder = sum(p.size for p in R2UNet(rng=rng).encoder_parameters())
        assert count(task="diagnosis") == encoder + 2 * 64 * 7 + 7 == 102_375


class TestTheGradientCheck:
    def check(self, rng, pooling="both", levels="bottleneck"):
        model = network(pooling=pooling, pooled_levels=levels, widths=(2, 3), steps=1).to(np.float64)
        error = gradient_checks.check_network(model, False, rng)
        assert "forward" not in vars(model.diagnosis)  # the head computes as before
        return error

    @pytest.mark.parametrize("levels", LEVELS)
    @pytest.mark.parametrize("pooling", POOLING)
    def test_accepts_a_network_with_both_tasks(self, pooling, levels, rng):
        assert self.check(rng, pooling, levels) < gradient_checks.TOLERANCE

    def test_rejects_a_gradient_that_flows_through_the_outline(self, rng, monkeypatch):
        monkeypatch.setattr(Tensor, "detach", lambda self: self)
        with pytest.raises(GradientError, match="backward gives"):
            self.check(rng)

    def test_rejects_the_difference_of_a_network_whose_outline_moves(self, rng, monkeypatch):
        """The reason for `constant_outline`."""
        monkeypatch.setattr(gradient_checks, "constant_outline", lambda model, outline: no_grad())
        with pytest.raises(GradientError, match="backward gives"):
            self.check(rng)

    @pytest.mark.parametrize("pooling", POOLING)
    def test_rejects_a_diagnosis_of_features_that_pass_no_gradient(self, pooling, rng, monkeypatch):
        forward = DiagnosisHead.forward
        monkeypatch.setattr(
            DiagnosisHead, "forward", lambda self, levels, o: forward(self, [f.detach() for f in levels], o)
        )
        with pytest.raises(GradientError, match="encoder"):
            self.check(rng, pooling)
