"""Softmax cross-entropy agrees with its definition and with PyTorch, for any target and any logits."""

import numpy as np
import pytest

from minidl import ops
from minidl.backend import to_numpy
from minidl.gradcheck import check_vjp
from minidl.ops.loss.softmax import log_softmax
from minidl.tensor import Tensor

GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0)
LOSS = ops.softmax_cross_entropy

# Logits of four images and three classes, their classes, and class weights, for the numbers below.
LOGITS = np.array([[1.5, -0.5, 0.25], [-2.0, 0.75, 3.0], [0.0, 1.0, -1.0], [4.0, -3.0, 0.5]])
LABELS = [0, 1, 2, 0]
WEIGHTS = np.array([0.5, 2.0, 3.0])
SOFT = np.array([[0.2, 0.5, 0.3], [0.0, 0.1, 0.9], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])
ONE_HOT = np.eye(3)[LABELS]

# torch.nn.functional.cross_entropy(LOGITS, LABELS, ...), computed by PyTorch 2.13 in float64: the target that
# means the same here, gamma, the loss, and its gradient. PyTorch has no focal loss for classes; the last
# three rows are its results for (-(1 - p)**gamma * log(p)).mean(), where p is the probability of the label.
# Class weights together with label smoothing are left out: PyTorch then divides by another sum.
PYTORCH = {
    "a class for each image": (
        ONE_HOT,
        0.0,
        1.2866191379037837,
        [
            [-0.07417150599455652, 0.023795799037293747, 0.050375706957262734],
            [0.0015146393743921812, -0.22630705382908603, 0.22479241445469386],
            [0.06118211776369941, 0.16631023894370545, -0.2274923567074049],
            [-0.007542669441577249, 0.00022109246715271564, 0.007321576974424513],
        ],
    ),
    "weight=WEIGHTS": (
        ONE_HOT * WEIGHTS,
        0.0,
        2.0211130838049978,
        [
            [-0.02472383533151884, 0.007931933012431249, 0.016791902319087577],
            [0.0020195191658562415, -0.30174273843878135, 0.2997232192729251],
            [0.12236423552739882, 0.3326204778874109, -0.4549847134148098],
            [-0.002514223147192416, 7.369748905090521e-05, 0.002440525658141504],
        ],
    ),
    "label_smoothing=0.3": (
        0.7 * ONE_HOT + 0.3 / 3,
        0.0,
        1.5678691379037835,
        [
            [-0.024171505994556523, -0.0012042009627062531, 0.02537570695726273],
            [-0.023485360625607816, -0.176307053829086, 0.19979241445469384],
            [0.03618211776369941, 0.14131023894370542, -0.17749235670740487],
            [0.04245733055842274, -0.024778907532847283, -0.017678423025575485],
        ],
    ),
    "weight=WEIGHTS, label -100 for the second image": (
        ONE_HOT * WEIGHTS * [[1.0], [0.0], [1.0], [1.0]],
        0.0,
        1.8535278537370075,
        [
            [-0.03708575299727826, 0.011897899518646874, 0.025187853478631367],
            [0.0, 0.0, 0.0],
            [0.18354635329109822, 0.49893071683111634, -0.6824770701222147],
            [-0.0037713347207886244, 0.00011054623357635782, 0.0036607884872122565],
        ],
    ),
    "probabilities as the target": (
        SOFT,
        0.0,
        1.7491191379037838,
        [
            [0.1258284940054435, -0.10120420096270626, -0.024624293042737264],
            [0.0015146393743921812, -0.0013070538290860419, -0.0002075855453061437],
            [-0.18881788223630058, 0.16631023894370545, 0.02250764329259511],
            [0.17995733055842275, -0.06227890753284728, -0.11767842302557549],
        ],
    ),
    "focal, gamma 1": (
        ONE_HOT,
        1.0,
        1.107291412497043,
        [
            [-0.04036551972960389, 0.012950118548112852, 0.027415401181491016],
            [0.0017093271996843381, -0.2553959768447977, 0.2536866496451134],
            [0.0689355789840659, 0.18738633168668956, -0.2563219106707555],
            [-0.00045166691128211106, 1.3239364726253588e-05, 0.00043842754655585626],
        ],
    ),
    "focal, gamma 1.5": (
        ONE_HOT,
        1.5,
        1.044080775163128,
        [
            [-0.026986860570630364, 0.008657959713441925, 0.018328900857188427],
            [0.0017872166952735793, -0.26703369244169245, 0.26524647574641885],
            [0.07208457864009471, 0.19594620022949646, -0.2680307788695912],
            [-9.791593823165133e-05, 2.8701345756817086e-06, 9.504580365596936e-05],
        ],
    ),
    "focal, gamma 2": (
        ONE_HOT,
        2.0,
        0.9888601748881856,
        [
            [-0.017423002540793254, 0.005589670339407722, 0.011833332201385523],
            [0.0018535091765603281, -0.276938661495494, 0.2750851523189337],
            [0.0747970311822746, 0.20331941068546158, -0.2781164418677362],
            [-2.0388329495487466e-05, 5.976274188064111e-07, 1.9790702076681e-05],
        ],
    ),
}


def random_inputs(rng, shape=(7, 5)):
    """Logits, and a target whose rows are distributions times weights; the third image has no class."""
    t = rng.random(shape) * rng.uniform(0.5, 3.0, (shape[0], 1))
    t[2] = 0.0
    return 2.0 * rng.normal(size=shape), t


def naive_loss(x, t, gamma):
    loss = total = 0.0
    for logits, row in zip(x, t, strict=True):
        for k, weight in enumerate(row):
            p = np.exp(logits[k]) / sum(np.exp(logits))
            loss, total = loss - weight * (1.0 - p) ** gamma * np.log(p), total + weight
    return loss / total


def with_confidence(p, classes=3):
    """The logits of one image whose first class has probability p, and the others equal ones."""
    return np.log([[p, *[(1.0 - p) / (classes - 1)] * (classes - 1)]])


@pytest.mark.parametrize("gamma", GAMMAS)
def test_it_agrees_with_its_definition(gamma, rng, loss_and_gradient):
    x, t = random_inputs(rng)
    value, _ = loss_and_gradient(LOSS, x, t, gamma=gamma)
    assert value == pytest.approx(naive_loss(x, t, gamma), rel=1e-12)


@pytest.mark.parametrize("case", PYTORCH)
def test_it_agrees_with_pytorch(case, loss_and_gradient):
    t, gamma, expected, gradient = PYTORCH[case]
    value, dx = loss_and_gradient(LOSS, LOGITS, t, gamma=gamma)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(dx, gradient, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0, 3.5])
@pytest.mark.parametrize("shape", [(7, 5), (3, 2)], ids=str)
def test_it_agrees_with_a_central_difference(gamma, shape, rng):
    x, t = random_inputs(rng, shape)
    check_vjp(lambda a: LOSS(a, Tensor(t), gamma) * 3.0, x, rng=rng)


class TestByHand:
    def test_equal_logits_of_k_classes_give_log_k(self, loss_and_gradient):
        value, dx = loss_and_gradient(LOSS, [[7.0, 7.0, 7.0, 7.0]], [[0.0, 1.0, 0.0, 0.0]])
        assert value == pytest.approx(np.log(4.0), rel=1e-15)
        np.testing.assert_allclose(dx, [[0.25, -0.75, 0.25, 0.25]], rtol=1e-15)

    def test_the_gradient_is_prediction_minus_truth(self, loss_and_gradient):
        value, dx = loss_and_gradient(LOSS, np.log([[0.1, 0.2, 0.7]]), [[0.0, 1.0, 0.0]])
        assert value == pytest.approx(-np.log(0.2), rel=1e-14)
        np.testing.assert_allclose(dx, [[0.1, -0.8, 0.7]], rtol=1e-14)

    def test_an_image_of_weight_three_counts_as_three_images(self, loss_and_gradient):
        x, t = np.log([[0.5, 0.5], [0.9, 0.1]]), np.array([[1.0, 0.0], [0.0, 3.0]])
        value, dx = loss_and_gradient(LOSS, x, t)
        assert value == pytest.approx((np.log(2.0) + 3.0 * np.log(10.0)) / 4.0, rel=1e-14)
        np.testing.assert_allclose(dx, [[-0.125, 0.125], [0.675, -0.675]], rtol=1e-13)

    def test_the_target_as_the_prediction_gives_its_entropy_and_no_gradient(self, loss_and_gradient):
        p = np.array([[0.25, 0.25, 0.5]])
        value, dx = loss_and_gradient(LOSS, np.log(p), p)
        assert value == pytest.approx(1.5 * np.log(2.0), rel=1e-14)
        np.testing.assert_allclose(dx, 0.0, atol=1e-16)

    @pytest.mark.parametrize(("p", "share"), [(0.5, 0.25), (0.9, 0.01), (0.1, 0.81)])
    def test_with_gamma_two_an_image_is_weighted_by_the_square_of_its_error(
        self, p, share, loss_and_gradient
    ):
        value, _ = loss_and_gradient(LOSS, with_confidence(p), [[1.0, 0.0, 0.0]], gamma=2.0)
        assert value == pytest.approx(-share * np.log(p), rel=1e-12)

    def test_a_single_class_is_certain_whatever_its_logit(self, rng, loss_and_gradient):
        x, t = random_inputs(rng, (4, 1))
        for gamma in GAMMAS:
            value, dx = loss_and_gradient(LOSS, x, t, gamma=gamma)
            assert value == 0.0
            np.testing.assert_array_equal(dx, np.zeros((4, 1)))

    def test_for_two_classes_it_is_the_binary_loss_of_the_difference(self, rng, loss_and_gradient):
        x, t = 2.0 * rng.normal(size=(9, 2)), np.eye(2)[rng.integers(0, 2, 9)]
        for gamma, binary, settings in (
            (0.0, ops.binary_cross_entropy_with_logits, {}),
            (1.5, ops.focal_loss, {"gamma": 1.5}),
        ):
            value, dx = loss_and_gradient(LOSS, x, t, gamma=gamma)
            expected, slope = loss_and_gradient(binary, x[:, 1] - x[:, 0], t[:, 1], **settings)
            assert value == pytest.approx(expected, rel=1e-12)
            np.testing.assert_allclose(dx, np.stack([-slope, slope], axis=1), rtol=1e-10, atol=1e-16)


class TestTheTarget:
    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_of_zeros_gives_loss_zero_and_gradient_zero(self, gamma, rng, loss_and_gradient):
        value, dx = loss_and_gradient(LOSS, rng.normal(size=(3, 4)), np.zeros((3, 4)), gamma=gamma)
        assert value == 0.0
        np.testing.assert_array_equal(dx, np.zeros((3, 4)))

    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_a_row_of_zeros_leaves_its_image_out(self, gamma, rng, loss_and_gradient):
        x, t = random_inputs(rng)
        value, dx = loss_and_gradient(LOSS, x, t, gamma=gamma)
        known = t.any(axis=1)
        expected, dknown = loss_and_gradient(LOSS, x[known], t[known], gamma=gamma)
        assert not known[2] and value == pytest.approx(expected, rel=1e-14)
        np.testing.assert_array_equal(dx[2], np.zeros(5))
        np.testing.assert_allclose(dx[known], dknown, rtol=1e-12, atol=1e-16)

    def test_multiplied_by_a_number_means_the_same(self, rng, loss_and_gradient):
        x, t = random_inputs(rng)
        value, dx = loss_and_gradient(LOSS, x, t, gamma=1.5)
        for factor in (1e-6, 1e6):
            scaled, dscaled = loss_and_gradient(LOSS, x, factor * t, gamma=1.5)
            assert scaled == pytest.approx(value, rel=1e-12)
            np.testing.assert_allclose(dscaled, dx, rtol=1e-11, atol=1e-16)


class TestTheLogits:
    def test_with_a_number_added_to_all_classes_mean_the_same(self, rng, loss_and_gradient):
        x, t = random_inputs(rng)
        value, dx = loss_and_gradient(LOSS, x, t, gamma=2.0)
        shifted, dshifted = loss_and_gradient(LOSS, x + 100.0 * rng.normal(size=(7, 1)), t, gamma=2.0)
        assert shifted == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(dshifted, dx, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(dx.sum(axis=1), 0.0, atol=1e-15)  # that direction has no slope

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("gamma", GAMMAS)
    def test_of_a_thousand_do_not_overflow(self, gamma, dtype, loss_and_gradient):
        """A confident mistake costs the difference, 2000, and keeps its gradient; a correct image costs 0."""
        x = np.array([[1000.0, -1000.0, 0.0], [1000.0, -1000.0, 0.0]], dtype)
        t = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype)
        value, dx = loss_and_gradient(LOSS, x, t, gamma=gamma)
        assert value == 1000.0  # (2000 + 0) / 2
        np.testing.assert_array_equal(dx, [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]])

    @pytest.mark.parametrize("miss", [1e-3, 1e-6, 1e-9, 1e-12])
    @pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5, 2.0])
    def test_the_focal_loss_of_a_nearly_certain_image_vanishes_like_a_power(
        self, gamma, miss, loss_and_gradient
    ):
        """With q = 1 - p, the loss tends to q^(gamma + 1) and its slope to -(gamma + 1) q^(gamma + 1)."""
        x = np.array([[-np.log(miss), 0.0]])  # p = 1 / (1 + miss), and q is nearly `miss`
        value, dx = loss_and_gradient(LOSS, x, [[1.0, 0.0]], gamma=gamma)
        # log p, near 0, is the logarithm of a number that was rounded near 1
        precision = 10.0 * miss + 1e-15 / miss
        assert value == pytest.approx(miss ** (gamma + 1.0), rel=precision)
        slope = (gamma + 1.0) * miss ** (gamma + 1.0)
        np.testing.assert_allclose(dx, [[-slope, slope]], rtol=precision)

    @pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5, 2.0])
    def test_a_certain_image_has_focal_loss_zero_and_gradient_zero(self, gamma, loss_and_gradient):
        """At p = 1, the power gamma - 1 of 0 would be infinite for gamma below 1."""
        value, dx = loss_and_gradient(LOSS, [[100.0, 0.0]], [[1.0, 0.0]], gamma=gamma)
        assert value == 0.0
        np.testing.assert_array_equal(dx, [[0.0, 0.0]])

    def test_a_nan_is_not_hidden(self, loss_and_gradient):
        value, dx = loss_and_gradient(LOSS, [[0.0, np.nan], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]])
        assert np.isnan(value) and np.isnan(dx[0]).all() and np.isfinite(dx[1]).all()


def test_the_gradient_is_multiplied_by_that_of_the_loss(rng, put):
    x, t = random_inputs(rng)
    gradients = []
    for factor in (1.0, -3.0):
        logits = Tensor(put(x), requires_grad=True)
        (LOSS(logits, Tensor(put(t)), 1.5) * factor).backward()
        gradients.append(to_numpy(logits.grad))
    np.testing.assert_allclose(gradients[1], -3.0 * gradients[0], rtol=1e-13)


def test_gamma_is_zero_by_default(rng, loss_and_gradient):
    x, t = random_inputs(rng)
    assert loss_and_gradient(LOSS, x, t)[0] == loss_and_gradient(LOSS, x, t, gamma=0.0)[0]


def test_log_softmax_is_over_the_last_axis(rng):
    x = rng.normal(size=(2, 3, 4))
    expected = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    found = log_softmax(x)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1.0, rtol=1e-14)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)], ids=str)
def test_logits_other_than_images_by_classes_are_rejected(shape):
    x = Tensor(np.ones(shape))
    with pytest.raises(ValueError, match=r"softmax_cross_entropy: expected logits \(N, K\), got \("):
        LOSS(x, x)


@pytest.mark.parametrize("gamma", [-1.0, -1e-9, float("nan")])
def test_a_negative_gamma_is_rejected(gamma):
    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match=f"softmax_cross_entropy: gamma must be at least 0, got {gamma}"):
        LOSS(x, x, gamma=gamma)


def test_a_target_unlike_the_logits_is_rejected():
    with pytest.raises(ValueError, match="softmax_cross_entropy: logits are"):
        LOSS(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 2))))


def test_an_empty_batch_and_no_classes_are_rejected(put):
    for shape in ((0, 3), (2, 0)):
        empty = Tensor(put(np.ones(shape)))
        with pytest.raises(ValueError, match=r"softmax_cross_entropy: the logits \(.*\) are empty"):
            LOSS(empty, empty)


def test_a_target_that_requires_a_gradient_is_rejected():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(ValueError, match="softmax_cross_entropy: the target requires a gradient"):
        LOSS(x, x)
