"""Optimizers and schedules follow the formulas of their papers step by step, and resume exactly."""

import math

import numpy as np
import pytest

from minidl import Parameter, Tensor, checkpoint
from minidl.backend import device_of, to_numpy
from minidl.optim import SGD, Adam, AdamW, CosineLR, Optimizer, StepLR, WarmupLR, clip_grad_norm

# Gradients of a parameter (2,), one row per step: changing signs, a zero, very large and very small numbers.
GRADIENTS = np.array([[0.5, -2.0], [0.4, 3.0], [0.0, 1e3], [-1e-4, 1.0], [2.0, -1.0], [2.0, 0.0]])
INITIAL = np.array([1.0, -3.0])


def trajectory(optimizer_of, gradients=GRADIENTS, put=lambda array: array):
    """Return the parameter after each step, (steps, 2), in float64."""
    p = Parameter(put(INITIAL.copy()))
    optimizer = optimizer_of([p])
    values = []
    for g in gradients:
        p.grad = put(g.copy())
        optimizer.step()
        values.append(to_numpy(p.data).copy())
    return np.array(values)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_a_step_does_not_modify_the_old_array(kind):
    """A graph that was recorded before the step still differentiates at the old values."""
    mine = np.array([1.0, 2.0])
    p = Parameter(mine)
    before, after = (p * p).sum(), (p * p * p).sum()
    before.backward()
    kind([p], lr=0.1).step()
    p.grad = None
    after.backward()
    np.testing.assert_array_equal(mine, [1.0, 2.0])
    np.testing.assert_allclose(p.grad, 3.0 * mine**2)


class TestSGD:
    def test_follows_the_gradient_downhill(self, put):
        expected = INITIAL - 0.1 * np.cumsum(GRADIENTS, axis=0)
        np.testing.assert_allclose(trajectory(lambda p: SGD(p, 0.1), put=put), expected, rtol=1e-12)

    def test_momentum_follows_polyak_s_formula(self, put):
        p, v, expected = INITIAL.copy(), np.zeros(2), []
        for g in GRADIENTS:
            v = 0.9 * v + g
            p = p - 0.1 * v
            expected.append(p)
        values = trajectory(lambda p: SGD(p, 0.1, momentum=0.9), put=put)
        np.testing.assert_allclose(values, expected, rtol=1e-12)

    def test_two_steps_of_momentum(self):
        # v = 1, p = 2 - 0.5 = 1.5; then v = 0.5 + 1 = 1.5, p = 1.5 - 0.75 = 0.75
        p = Parameter(np.array([2.0]))
        optimizer = SGD([p], lr=0.5, momentum=0.5)
        for expected in (1.5, 0.75):
            p.grad = np.array([1.0])
            optimizer.step()
            assert p.item() == expected

    def test_weight_decay_is_added_to_the_gradient(self, put):
        p, v, expected = INITIAL.copy(), np.zeros(2), []
        for g in GRADIENTS:
            v = 0.9 * v + (g + 0.01 * p)
            p = p - 0.1 * v
            expected.append(p)
        values = trajectory(lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01), put=put)
        np.testing.assert_allclose(values, expected, rtol=1e-12)


def adam_by_the_paper(decay_in_gradient=0.0, decay_of_weight=0.0, lr=0.1, b1=0.8, b2=0.95, eps=1e-3):
    """Kingma & Ba 2015, algorithm 1, and Loshchilov & Hutter 2019, algorithm 2, one number at a time."""
    path = np.empty_like(GRADIENTS)
    for i in range(2):
        p, m, v = INITIAL[i], 0.0, 0.0
        for t, gradient in enumerate(GRADIENTS[:, i], start=1):
            g = gradient + decay_in_gradient * p
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
            p = p - lr * m_hat / (math.sqrt(v_hat) + eps) - lr * decay_of_weight * p
            path[t - 1, i] = p
    return path


class TestAdam:
    settings = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}

    def test_follows_the_paper(self, put):
        values = trajectory(lambda p: Adam(p, **self.settings), put=put)
        np.testing.assert_allclose(values, adam_by_the_paper(), rtol=1e-12)

    def test_weight_decay_is_added_to_the_gradient(self, put):
        values = trajectory(lambda p: Adam(p, **self.settings, weight_decay=0.2), put=put)
        np.testing.assert_allclose(values, adam_by_the_paper(decay_in_gradient=0.2), rtol=1e-12)

    def test_the_first_step_is_lr_for_any_size_of_the_gradient(self):
        values = trajectory(lambda p: Adam(p, lr=0.1), gradients=np.array([[1e-3, -1e6]]))
        np.testing.assert_allclose(values[0], [INITIAL[0] - 0.1, INITIAL[1] + 0.1], atol=1e-5)

    def test_the_defaults_are_the_paper_s(self):
        adam = Adam([Parameter(INITIAL)])
        assert (adam.lr, adam.betas, adam.eps, adam.weight_decay) == (1e-3, (0.9, 0.999), 1e-8, 0.0)


class TestAdamW:
    def test_follows_the_paper(self, put):
        values = trajectory(lambda p: AdamW(p, **TestAdam.settings, weight_decay=0.2), put=put)
        np.testing.assert_allclose(values, adam_by_the_paper(decay_of_weight=0.2), rtol=1e-12)

    def test_without_decay_is_adam(self):
        values = trajectory(lambda p: AdamW(p, **TestAdam.settings, weight_decay=0.0))
        np.testing.assert_array_equal(values, trajectory(lambda p: Adam(p, **TestAdam.settings)))

    def test_decay_does_not_depend_on_the_gradient_s_size(self):
        def effect_of_decay(optimizer_of, size):
            """Return by how much decay changes the weight, with gradients of this size."""
            gradients = np.full((1, 2), size)
            decayed = trajectory(lambda p: optimizer_of(p, 0.1, weight_decay=0.5), gradients)
            return trajectory(lambda p: optimizer_of(p, 0.1, weight_decay=0.0), gradients) - decayed

        for size in (1e-2, 1e4):
            np.testing.assert_allclose(effect_of_decay(AdamW, size)[0], 0.1 * 0.5 * INITIAL, rtol=1e-9)
        # Adam adds the decay to the gradient, where the division by the gradient's size removes it.
        assert np.abs(effect_of_decay(Adam, 1e4)).max() < 1e-8

    def test_decay_follows_the_schedule(self):
        p = Parameter(np.array([1.0]))
        optimizer = AdamW([p], lr=0.5, weight_decay=0.1)
        optimizer.lr = 0.25
        p.grad = np.array([0.0])
        optimizer.step()
        assert p.item() == 1.0 - 0.25 * 0.1


SHAPES = [(3,), (7, 5), (1,), (), (256,), (2, 3, 4), (300,)]  # in total not a multiple of a block


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [Adam, AdamW])
class TestAdamOfManyParameters:
    """One launch updates all parameters, each according to the paper, with its own gradient and state."""

    def test_each_follows_the_paper_and_stays_unchanged_without_a_gradient(self, kind, dtype, rng, put):
        lr, b1, b2, eps, decay = 0.1, 0.8, 0.95, 1e-3, 0.2
        expected = [rng.normal(size=shape) for shape in SHAPES]
        means, squares = ([np.zeros(shape) for shape in SHAPES] for _ in range(2))
        parameters = [Parameter(put(p.astype(dtype))) for p in expected]
        optimizer = kind(parameters, lr, (b1, b2), eps, decay)
        for t in range(1, 5):
            for i, p in enumerate(expected):
                parameters[i].grad = None
                if (i + t) % 3 == 0:
                    continue
                g = rng.normal(size=p.shape)
                parameters[i].grad = put(g.astype(dtype))
                g = g + decay * p if kind is Adam else g
                means[i] = b1 * means[i] + (1 - b1) * g
                squares[i] = b2 * squares[i] + (1 - b2) * g**2
                step = means[i] / (1 - b1**t) / (np.sqrt(squares[i] / (1 - b2**t)) + eps)
                expected[i] = p - lr * step - (lr * decay * p if kind is AdamW else 0.0)
            optimizer.step()
        tolerance = {"rtol": 100 * np.finfo(dtype).eps, "atol": 10 * np.finfo(dtype).eps}
        for found, p in zip(parameters, expected, strict=True):
            assert (found.shape, found.dtype) == (p.shape, dtype)
            np.testing.assert_allclose(to_numpy(found.data), p, **tolerance)
        for slot, kept in (("mean", means), ("square", squares)):
            for found, a in zip(optimizer.state_dict()[slot], kept, strict=True):
                np.testing.assert_allclose(found, a, **tolerance)

    def test_resumes_from_its_state_bit_for_bit(self, kind, dtype, rng, put):
        start = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
        gradients = [[put(rng.normal(size=shape).astype(dtype)) for shape in SHAPES] for _ in range(4)]
        uninterrupted, resumed = ([Parameter(put(a.copy())) for a in start] for _ in range(2))

        def train(optimizer, steps):
            for step in steps:
                for p, g in zip(optimizer.parameters, gradients[step], strict=True):
                    p.grad = g
                optimizer.step()

        train(kind(uninterrupted), range(4))
        first, second = kind(resumed), kind(resumed)
        train(first, range(2))
        second.load_state_dict(first.state_dict())
        train(second, range(2, 4))
        for p, q in zip(uninterrupted, resumed, strict=True):
            np.testing.assert_array_equal(to_numpy(p.data), to_numpy(q.data))

    def test_transposed_arrays_are_supported_and_old_arrays_are_unchanged(self, kind, dtype, rng, put):
        a, g = rng.normal(size=(2, 4, 5)).astype(dtype)
        plain, transposed = Parameter(put(a)), Parameter(put(a).T)
        old = transposed.data
        plain.grad, transposed.grad = put(g), put(g).T
        optimizer = kind([plain, transposed], 0.1)
        optimizer.step()
        np.testing.assert_array_equal(to_numpy(transposed.data), to_numpy(plain.data).T)
        np.testing.assert_array_equal(to_numpy(old), a.T)
        assert (to_numpy(plain.data) != a).all()

    def test_kernels_reject_a_model_converted_after_its_optimizer_was_created(self, kind, dtype, device, put):
        if device == "cpu":
            pytest.skip("NumPy converts instead of reading wrong memory")
        p = Parameter(put(np.ones(3, dtype)))
        optimizer = kind([p])
        p.grad = put(np.ones(4, dtype))
        with pytest.raises(ValueError, match="each gradient of its parameter's shape, got"):
            optimizer.step()
        other = {np.float32: np.float64, np.float64: np.float32}[dtype]
        p.data, p.grad = p.data.astype(other), put(np.ones(3, other))
        with pytest.raises(ValueError, match=f"expected {np.dtype(dtype)} on {device}.*before its optimizer"):
            optimizer.step()


OPTIMIZERS = {
    "sgd": lambda p: SGD(p, 0.05),
    "momentum": lambda p: SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: Adam(p, 0.05, weight_decay=1e-3),
    "adamw": lambda p: AdamW(p, 0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
class TestEveryOptimizer:
    def test_minimises_a_quadratic(self, name):
        curvature, minimum = np.array([1.0, 5.0]), np.array([2.0, -1.0])
        p = Parameter(np.array([10.0, 10.0]))
        optimizer = OPTIMIZERS[name]([p])
        for _ in range(1500):
            optimizer.zero_grad()
            (((p - minimum) ** 2 * curvature).sum()).backward()
            optimizer.step()
        np.testing.assert_allclose(p.data, minimum, atol=0.05)  # weight decay shifts the minimum slightly

    def test_a_parameter_without_a_gradient_is_unchanged(self, name):
        used, unused = Parameter(INITIAL.copy()), Parameter(INITIAL.copy())
        optimizer = OPTIMIZERS[name]([unused, used])
        for _ in range(3):
            used.grad = np.ones(2)
            optimizer.step()
        np.testing.assert_array_equal(unused.data, INITIAL)
        assert (used.data < INITIAL).all()

    def test_each_parameter_has_its_own_state(self, name):
        alone = trajectory(OPTIMIZERS[name])
        first, second = Parameter(INITIAL.copy()), Parameter(np.zeros((3, 4)))
        optimizer = OPTIMIZERS[name]([second, first])
        for i, g in enumerate(GRADIENTS):
            first.grad, second.grad = g.copy(), np.full((3, 4), 7.0)
            optimizer.step()
            np.testing.assert_array_equal(first.data, alone[i])

    def test_float32_stays_float32_and_gradients_are_not_changed(self, name):
        p = Parameter(np.float32([1.0, 2.0]))
        optimizer = OPTIMIZERS[name]([p])
        for _ in range(3):
            p.grad = np.float32([0.5, -0.5])
            optimizer.step()
            assert p.grad.tolist() == [0.5, -0.5]
        assert p.dtype == np.float32
        assert {a.dtype for kept in optimizer.memory.values() for a in kept} == {np.dtype(np.float32)}

    def test_resumes_from_its_state_bit_for_bit(self, name, tmp_path):
        uninterrupted = trajectory(OPTIMIZERS[name])
        p = Parameter(INITIAL.copy())
        optimizer = OPTIMIZERS[name]([p])
        for g in GRADIENTS[:3]:
            p.grad = g.copy()
            optimizer.step()
        checkpoint.save(tmp_path / "state.npz", optimizer.state_dict())

        resumed = Parameter(p.data.copy())
        optimizer = OPTIMIZERS[name]([resumed])
        optimizer.load_state_dict(checkpoint.load(tmp_path / "state.npz"))
        for g, expected in zip(GRADIENTS[3:], uninterrupted[3:], strict=True):
            resumed.grad = g.copy()
            optimizer.step()
            np.testing.assert_array_equal(resumed.data, expected)

    def test_saving_and_loading_copy_the_state(self, name):
        p = Parameter(INITIAL.copy())
        optimizer = OPTIMIZERS[name]([p])
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
        p.grad = np.ones(2)
        optimizer.step()
        assert state["steps"] == 0
        assert not any(state[slot][0].any() for slot in optimizer.slots)

    @pytest.mark.parametrize("damage", ["empty", "another shape", "too few", "no lr", "no steps"])
    def test_a_mismatched_state_is_rejected_and_changes_nothing(self, name, damage):
        p = Parameter(INITIAL.copy())
        optimizer = OPTIMIZERS[name]([p])
        p.grad = np.ones(2)
        optimizer.step()
        before = optimizer.state_dict()
        state = {**optimizer.state_dict(), "lr": 9.0, "steps": 99}
        last = optimizer.slots[-1]  # the first slot fits, so a careless load would change it
        state[optimizer.slots[0]] = [np.full(2, 5.0)]
        state |= {"another shape": {last: [np.zeros(3)]}, "too few": {last: []}}.get(damage, {})
        for key in {"no lr": ["lr"], "no steps": ["steps"], "empty": list(state)}.get(damage, []):
            del state[key]
        with pytest.raises(ValueError, match=f"does not fit this {type(optimizer).__name__}"):
            optimizer.load_state_dict(state)
        after = optimizer.state_dict()
        assert (after["lr"], after["steps"]) == (before["lr"], before["steps"]) == (0.05, 1)
        for slot in optimizer.slots:
            np.testing.assert_array_equal(after[slot], before[slot])

    def test_parameters_of_different_dtypes_are_rejected(self, name):
        with pytest.raises(ValueError, match="one dtype on one device, got .*float32.*float64"):
            OPTIMIZERS[name]([Parameter(INITIAL), Parameter(INITIAL.astype(np.float32))])

    @pytest.mark.parametrize(("lr", "decay"), [(-1e-3, 0.0), (1e-3, -1e-3)])
    def test_negative_settings_are_rejected(self, name, lr, decay):
        kind = type(OPTIMIZERS[name]([Parameter(INITIAL)]))
        with pytest.raises(ValueError, match="expected lr and weight_decay >= 0"):
            kind([Parameter(INITIAL)], lr, weight_decay=decay)


class TestParametersThatCannotBeTrained:
    @pytest.fixture(params=[lambda p: SGD(p, 0.1), Adam, AdamW, lambda p: clip_grad_norm(p, 1.0)])
    def take(self, request):
        return request.param

    def test_one_tensor_instead_of_a_list(self, take):
        with pytest.raises(TypeError, match=r"expected a list of parameters, got one; write \[parameter\]"):
            take(Parameter(np.ones((3, 2))))

    def test_what_is_no_leaf_that_requires_a_gradient(self, take):
        p = Parameter(np.ones(2))
        for other in (Tensor(np.ones(2)), p * 2.0, np.ones(2)):
            with pytest.raises(TypeError, match="expected leaves that require a gradient"):
                take([p, other])

    def test_a_parameter_that_occurs_twice(self, take):
        p = Parameter(np.ones(2))
        with pytest.raises(ValueError, match="a parameter occurs twice"):
            take([p, p])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: SGD(p, float("nan")), "expected lr and weight_decay >= 0, got nan"),
        (lambda p: SGD(p, 0.1, momentum=-1.0), "expected momentum >= 0, got -1.0"),
        (lambda p: Adam(p, betas=(0.9, 1.0)), "expected 0 <= betas < 1, eps >= 0"),
        (lambda p: AdamW(p, betas=(-0.1, 0.9)), "expected 0 <= betas < 1, eps >= 0"),
        (lambda p: AdamW(p, eps=-1.0), "expected 0 <= betas < 1, eps >= 0"),
        (lambda p: clip_grad_norm(p, -1.0), "max_norm must be at least 0, got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make([Parameter(np.ones(2))])


def test_a_state_loads_into_the_dtype_of_the_parameters():
    state = Adam([Parameter(INITIAL)]).state_dict()
    optimizer = Adam([Parameter(INITIAL.astype(np.float32))])
    optimizer.load_state_dict(state)
    assert optimizer.memory["mean"][0].dtype == np.float32


def test_the_state_of_another_optimizer_is_rejected():
    with pytest.raises(ValueError, match="does not fit this Adam: missing mean, square"):
        Adam([Parameter(INITIAL)]).load_state_dict(SGD([Parameter(INITIAL)], 0.1).state_dict())


def test_zero_grad_clears_the_gradients():
    p = Parameter(INITIAL)
    p.grad = np.ones(2)
    SGD([p], 0.1).zero_grad()
    assert p.grad is None


def test_an_optimizer_without_parameters_is_rejected():
    with pytest.raises(ValueError, match="SGD: there are no parameters"):
        SGD([], 0.1)


def test_the_error_for_a_missing_update_names_the_optimizer():
    p = Parameter(INITIAL)
    p.grad = np.ones(2)
    with pytest.raises(NotImplementedError, match="Optimizer does not define update"):
        Optimizer([p], 0.1).step()


class TestClipGradNorm:
    def parameters(self, put, *gradients):
        parameters = [Parameter(put(np.zeros_like(g))) for g in gradients]
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = put(g)
        return parameters

    def test_gradients_above_the_limit_are_scaled_together_to_max_norm(self, put):
        parameters = self.parameters(put, np.array([3.0, 0.0]), np.array([[4.0], [12.0]]))
        assert clip_grad_norm(parameters, 6.5) == 13.0  # sqrt(3^2 + 4^2 + 12^2)
        np.testing.assert_allclose(to_numpy(parameters[0].grad), [1.5, 0.0], rtol=1e-12)
        np.testing.assert_allclose(to_numpy(parameters[1].grad), [[2.0], [6.0]], rtol=1e-12)
        assert float(clip_grad_norm(parameters, 100.0)) == pytest.approx(6.5, rel=1e-12)

    @pytest.mark.parametrize("max_norm", [5.0, 20.0])
    def test_gradients_within_the_limit_are_unchanged(self, max_norm, put):
        parameters = self.parameters(put, np.array([3.0]), np.array([4.0]))
        assert clip_grad_norm(parameters, max_norm) == 5.0
        assert [p.grad.item() for p in parameters] == [3.0, 4.0]

    def test_the_original_arrays_are_not_modified(self, put):
        g = put(np.array([30.0, 40.0]))
        p = Parameter(put(INITIAL))
        p.grad = g
        clip_grad_norm([p], 1.0)
        assert g.tolist() == [30.0, 40.0]
        assert p.grad.dtype == np.float64

    def test_gradients_that_share_memory_are_scaled_once(self, put):
        g = put(np.array([3.0, 4.0]))
        parameters = [Parameter(put(INITIAL)) for _ in range(3)]
        for p, shared in zip(parameters, (g, g, g[::-1]), strict=True):
            p.grad = shared
        assert float(clip_grad_norm(parameters, 1.0)) == pytest.approx(5.0 * math.sqrt(3.0))
        for p, direction in zip(parameters, ([3.0, 4.0], [3.0, 4.0], [4.0, 3.0]), strict=True):
            np.testing.assert_allclose(to_numpy(p.grad), np.array(direction) / (5.0 * math.sqrt(3.0)))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_norm_that_is_not_finite_is_returned(self, value, put):
        parameters = self.parameters(put, np.array([value, 1.0]), np.array([1.0]))
        with np.errstate(invalid="ignore"):
            assert not math.isfinite(clip_grad_norm(parameters, 1.0))
        assert not np.isfinite(to_numpy(parameters[0].grad)[0])
        # A NaN norm scales nothing, so the NaN stays in its place. An infinite norm gives zeros.
        assert parameters[1].grad.tolist() == [1.0 if math.isnan(value) else 0.0]

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("shapes", [SHAPES, [(1,)], [(140_001,), (3,)]], ids=["many", "one", "large"])
    def test_every_element_of_every_gradient_counts_once(self, shapes, dtype, rng, put):
        g = [rng.normal(size=shape).astype(dtype) for shape in shapes]
        parameters = self.parameters(put, *g)
        norm = math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in g))
        tolerance = 100.0 * float(np.finfo(dtype).eps)
        assert float(clip_grad_norm(parameters, 0.1)) == pytest.approx(norm, rel=tolerance)
        for p, a in zip(parameters, g, strict=True):
            assert p.grad.dtype == dtype
            expected = a.astype(np.float64) * (0.1 / norm)
            np.testing.assert_allclose(to_numpy(p.grad), expected, rtol=tolerance)

    def test_the_norm_stays_on_the_device(self, device, put):
        """Copying it to the CPU would wait for the whole backward pass to finish."""
        norm = clip_grad_norm(self.parameters(put, np.array([3.0, 4.0])), 10.0)
        if device == "cpu":
            assert type(norm) is float
        else:
            assert (device_of(norm), norm.shape, norm.dtype) == (device, (), np.float64)

    def test_parameters_without_a_gradient_do_not_count(self):
        (p,) = self.parameters(np.asarray, np.array([2.0]))
        assert clip_grad_norm([Parameter(INITIAL), p], 1.0) == 2.0
        assert p.grad.item() == 1.0
        assert clip_grad_norm([Parameter(INITIAL)], 1.0) == 0.0

    def test_parameters_may_be_an_iterator(self):
        parameters = self.parameters(np.asarray, np.array([2.0]))
        assert clip_grad_norm(iter(parameters), 1.0) == 2.0
        assert parameters[0].grad.item() == 1.0


def rates(schedule_of, steps, lr=2.0):
    """Return the learning rate before each of `steps` optimizer steps."""
    optimizer = SGD([Parameter(INITIAL)], lr)
    schedule = schedule_of(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.lr)
        schedule.step()
    return found


SCHEDULES = {
    "step": lambda o: StepLR(o, step_size=3, gamma=0.5),
    "cosine": lambda o: CosineLR(o, total_steps=10, warmup_steps=3),
    "warmup": lambda o: WarmupLR(o, warmup_steps=4),
}


class TestSchedules:
    def test_step_lr_decreases_every_step_size_steps(self):
        expected = [2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5]
        np.testing.assert_allclose(rates(SCHEDULES["step"], 8), expected, rtol=1e-12)

    def test_warmup_lr_rises_linearly_then_stays_constant(self):
        expected = [0.4, 0.8, 1.2, 1.6, 2.0, 2.0, 2.0]
        np.testing.assert_allclose(rates(SCHEDULES["warmup"], 7), expected, rtol=1e-12)

    def test_cosine_lr_falls_along_half_a_cosine(self):
        found = rates(lambda o: CosineLR(o, total_steps=4), 7)
        root = math.sqrt(0.5)
        expected = [2.0, 1.0 + root, 1.0, 1.0 - root, 0.0, 0.0, 0.0]  # and remains zero
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)

    def test_cosine_lr_warms_up_first(self):
        found = rates(lambda o: CosineLR(o, total_steps=7, warmup_steps=3), 9)
        root = math.sqrt(0.5)
        expected = [0.5, 1.0, 1.5, 2.0, 1.0 + root, 1.0, 1.0 - root, 0.0, 0.0]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)

    def test_cosine_lr_with_warmup_steps_only_does_not_divide_by_zero(self):
        np.testing.assert_allclose(rates(lambda o: CosineLR(o, 2, 2), 4), [2 / 3, 4 / 3, 2.0, 0.0])

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_resumes_from_its_state_bit_for_bit(self, name, tmp_path):
        uninterrupted = rates(SCHEDULES[name], 9)
        optimizer = SGD([Parameter(INITIAL)], 2.0)
        schedule = SCHEDULES[name](optimizer)
        for _ in range(4):
            schedule.step()
        checkpoint.save(tmp_path / "s.npz", {"o": optimizer.state_dict(), "s": schedule.state_dict()})

        state = checkpoint.load(tmp_path / "s.npz")
        optimizer = SGD([Parameter(INITIAL)], 2.0)
        schedule = SCHEDULES[name](optimizer)
        optimizer.load_state_dict(state["o"])
        schedule.load_state_dict(state["s"])
        for expected in uninterrupted[4:]:
            assert optimizer.lr == expected
            schedule.step()

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_loading_restores_the_learning_rate(self, name):
        state = SCHEDULES[name](SGD([Parameter(INITIAL)], 2.0)).state_dict()
        optimizer = SGD([Parameter(INITIAL)], 7.0)
        SCHEDULES[name](optimizer).load_state_dict(state)
        assert optimizer.lr == rates(SCHEDULES[name], 1)[0]

    @pytest.mark.parametrize("missing", ["base_lr", "steps"])
    def test_a_mismatched_state_is_rejected_and_changes_nothing(self, missing):
        optimizer = SGD([Parameter(INITIAL)], 2.0)
        schedule = StepLR(optimizer, 3)
        state = {"base_lr": 5.0, "steps": 6}
        del state[missing]
        with pytest.raises(ValueError, match=f"does not fit this StepLR: missing {missing}"):
            schedule.load_state_dict(state)
        assert schedule.state_dict() == {"base_lr": 2.0, "steps": 0}
        assert optimizer.lr == 2.0
