"""Modules name their parts by attribute path and save and load their state; layers compute their formulas."""

import numpy as np
import pytest

from minidl import Parameter, Tensor, ops
from minidl.nn import (
    BatchNorm2d,
    Buffer,
    Conv2d,
    ConvTranspose2d,
    GroupNorm,
    Linear,
    Module,
    ReLU,
    Sequential,
)


class Net(Module):
    """A module with every kind of part: layer, list of layers, nested list, parameter and buffer."""

    def __init__(self, rng):
        self.scale = Parameter(np.full(2, 3.0, np.float32))
        self.first = Conv2d(3, 2, 3, padding=1, rng=rng)
        self.norms = [BatchNorm2d(2), BatchNorm2d(2)]
        self.tail = Sequential(ReLU(), Conv2d(2, 1, 1, rng=rng))
        self.calls = Buffer(np.zeros(1, np.float32))
        self.note = "not part of the state"

    def forward(self, x):
        x = self.first(x)  # (N, 3, H, W) -> (N, 2, H, W)
        for norm in self.norms:
            x = norm(x)
        return self.tail(x * self.scale.reshape(1, 2, 1, 1))  # -> (N, 1, H, W)


@pytest.fixture
def net(rng):
    return Net(rng)


class TestNames:
    def test_a_parameter_is_named_by_its_path_of_attributes(self, net):
        assert [name for name, _ in net.named_parameters()] == [
            "scale",
            "first.weight",
            "first.bias",
            "norms.0.weight",
            "norms.0.bias",
            "norms.1.weight",
            "norms.1.bias",
            "tail.layers.1.weight",
            "tail.layers.1.bias",
        ]

    def test_buffers_are_not_parameters(self, net):
        assert [name for name, _ in net.named_buffers()] == [
            "calls",
            "norms.0.running_mean",
            "norms.0.running_var",
            "norms.1.running_mean",
            "norms.1.running_var",
        ]

    def test_named_modules_yields_the_module_itself_first_then_all_others_in_order_of_definition(self, net):
        names = [name for name, _ in net.named_modules()]
        assert names == ["", "first", "norms.0", "norms.1", "tail", "tail.layers.0", "tail.layers.1"]

    def test_parameters_returns_the_tensors_themselves(self, net):
        assert net.parameters()[1] is net.first.weight
        assert sum(p.size for p in net.parameters()) == 2 + (2 * 3 * 9 + 2) + 4 + 4 + (2 + 1)

    def test_a_shared_parameter_is_listed_once_under_its_first_name(self, net):
        net.norms[1].weight = net.norms[0].weight
        names = [name for name, _ in net.named_parameters()]
        assert "norms.0.weight" in names and "norms.1.weight" not in names
        assert len(net.parameters()) == 8
        assert "norms.1.weight" not in net.state_dict()

    def test_a_module_used_twice_is_listed_once(self, rng):
        layer = Linear(4, 4, rng=rng)
        twice = Sequential(layer, ReLU(), layer)
        assert [name for name, _ in twice.named_parameters()] == ["layers.0.weight", "layers.0.bias"]
        assert [name for name, _ in twice.named_modules()] == ["", "layers.0", "layers.1"]

    def test_equal_but_separate_parameters_are_both_listed(self):
        norms = Sequential(BatchNorm2d(2), BatchNorm2d(2))
        assert len(norms.parameters()) == 4


class TestState:
    def test_state_dict_returns_copies(self, net):
        state = net.state_dict()
        before = net.first.weight.numpy().copy()
        for array in state.values():
            array += 1.0
        np.testing.assert_array_equal(net.first.weight.numpy(), before)

    def test_load_state_dict_copies_its_arrays(self, net):
        state = net.state_dict()
        net.load_state_dict(state)
        state["scale"] += 1.0
        np.testing.assert_array_equal(net.scale.numpy(), [3.0, 3.0])

    def test_the_state_consists_of_parameters_and_buffers(self, net):
        names = [name for name, _ in (*net.named_parameters(), *net.named_buffers())]
        assert list(net.state_dict()) == names

    def test_a_loaded_network_computes_identical_outputs(self, net, rng):
        x = Tensor(rng.normal(size=(2, 3, 4, 4)).astype(np.float32))
        net(x)  # changes the running statistics
        other = Net(np.random.default_rng(1))
        other.load_state_dict(net.state_dict())
        np.testing.assert_array_equal(other.eval()(x).numpy(), net.eval()(x).numpy())
        assert other.norms[1].running_var.data.tolist() == net.norms[1].running_var.data.tolist() != [1, 1]

    def test_shared_parameters_are_still_shared_after_loading(self, net):
        net.norms[1].weight = net.norms[0].weight
        state = net.state_dict()
        state["norms.0.weight"] += 4.0
        net.load_state_dict(state)
        assert net.norms[1].weight.numpy().tolist() == [5.0, 5.0]

    def test_every_problem_is_listed_and_nothing_is_changed(self, net):
        state = {name: array + 1.0 for name, array in net.state_dict().items()}
        before = net.state_dict()
        del state["scale"], state["norms.1.running_var"]
        state["first.weight"] = np.zeros((2, 3, 5, 5), np.float32)
        state["extra"] = np.zeros(7, np.float32)
        with pytest.raises(ValueError) as fault:
            net.load_state_dict(state)
        message = str(fault.value)
        assert "does not fit this Net" in message
        assert "missing scale (2,)" in message and "missing norms.1.running_var (2,)" in message
        assert "unexpected extra (7,)" in message
        assert "first.weight is (2, 3, 5, 5), expected (2, 3, 3, 3)" in message
        assert message.count(";") == 3  # four problems
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, before[name])

    def test_a_shape_that_would_broadcast_is_rejected(self, net):
        with pytest.raises(ValueError, match=r"scale is \(1,\), expected \(2,\)"):
            net.load_state_dict({**net.state_dict(), "scale": np.zeros(1, np.float32)})

    @pytest.mark.parametrize("dtype", ["complex64", "U4", "M8[s]", "uint8", "int64", "bool", "object"])
    def test_numbers_that_are_not_floating_point_are_rejected_by_name(self, net, dtype):
        before = net.state_dict()
        with pytest.raises(ValueError, match=r"scale is .*, expected float32"):
            net.load_state_dict({**before, "scale": np.ones(2, np.uint8).astype(dtype)})
        np.testing.assert_array_equal(net.scale.numpy(), before["scale"])

    def test_a_list_instead_of_an_array_is_rejected(self, net):
        with pytest.raises(ValueError, match=r"scale is list, expected float32"):
            net.load_state_dict({**net.state_dict(), "scale": [1.0, 2.0]})

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_floating_point_numbers_of_any_precision_are_accepted(self, net, dtype):
        net.load_state_dict({name: array.astype(dtype) for name, array in net.state_dict().items()})
        assert net.scale.dtype == np.float32

    def test_shapes_are_those_of_the_state(self, net):
        assert net.state_shapes() == {name: array.shape for name, array in net.state_dict().items()}

    def test_to_converts_parameters_and_buffers_in_place(self, net, rng):
        assert net.to(np.float64) is net
        assert {a.dtype for a in net.state_dict().values()} == {np.dtype(np.float64)}
        assert net(Tensor(rng.normal(size=(1, 3, 4, 4)))).dtype == np.float64
        assert net.norms[0].running_mean.data.dtype == np.float64

    def test_loading_preserves_the_module_s_dtype(self, net):
        state = net.state_dict()
        net.to(np.float64).load_state_dict(state)
        assert net.first.weight.dtype == np.float64

    def test_to_moves_everything_to_a_device_and_back(self, net, device):
        before = net.state_dict()
        net.to(device)
        assert {p.device for p in net.parameters()} == {device}
        x = Tensor(np.ones((1, 3, 4, 4), np.float32)).to(device)
        assert net(x).device == device
        net.load_state_dict(before)
        assert net.scale.device == device
        for name, array in net.to("cpu").state_dict().items():
            np.testing.assert_array_equal(array, before[name])

    def test_zero_grad_clears_every_gradient(self, net, rng):
        net(Tensor(rng.normal(size=(1, 3, 4, 4)).astype(np.float32))).sum().backward()
        assert all(p.grad is not None for p in net.parameters())
        net.zero_grad()
        assert all(p.grad is None for p in net.parameters())


class TestModes:
    def test_train_and_eval_apply_to_every_module_below(self, net):
        assert all(module.training for _, module in net.named_modules())
        assert net.eval() is net
        assert not any(module.training for _, module in net.named_modules())
        assert net.train() is net
        assert all(module.training for _, module in net.named_modules())
        assert not net.train(False).tail.layers[1].training

    def test_the_mode_is_set_on_the_module_not_on_its_class(self, net):
        net.eval()
        assert BatchNorm2d(2).training

    def test_the_error_for_a_missing_forward_names_the_class(self):
        with pytest.raises(NotImplementedError, match="Module does not define forward"):
            Module()(Tensor([1.0]))


class TestBatchNorm2d:
    def batches(self, rng, count=5):
        for i in range(count):
            x = rng.normal(i, 1.0 + i, (3, 2, 4, 5))
            x[:, 1] *= 3.0
            yield x.astype(np.float32)

    def test_running_statistics_agree_with_naive_loops(self, rng):
        norm = BatchNorm2d(2, momentum=0.3)
        mean, var = [0.0, 0.0], [1.0, 1.0]
        for x in self.batches(rng):
            norm(Tensor(x))
            for c in range(2):
                values = [float(v) for v in x[:, c].ravel()]
                m = sum(values) / len(values)
                unbiased = sum((v - m) ** 2 for v in values) / (len(values) - 1)
                mean[c] = 0.7 * mean[c] + 0.3 * m
                var[c] = 0.7 * var[c] + 0.3 * unbiased
            np.testing.assert_allclose(norm.running_mean.data, mean, rtol=1e-5)
            np.testing.assert_allclose(norm.running_var.data, var, rtol=1e-5)

    def test_the_default_momentum_and_epsilon_are_pytorch_s(self):
        assert (BatchNorm2d(1).momentum, BatchNorm2d(1).eps) == (0.1, 1e-5)

    def test_training_normalises_with_the_statistics_of_the_batch(self, rng):
        norm = BatchNorm2d(2)
        norm.weight.data, norm.bias.data = np.float32([2.0, 0.5]), np.float32([1.0, -1.0])
        for x in self.batches(rng):
            y = norm(Tensor(x)).numpy()
            np.testing.assert_allclose(y.mean((0, 2, 3)), [1.0, -1.0], atol=1e-5)
            np.testing.assert_allclose(y.std((0, 2, 3)), [2.0, 0.5], rtol=1e-4)

    def test_evaluation_uses_the_running_statistics_and_does_not_change_them(self, rng):
        norm = BatchNorm2d(2, eps=0.01)
        for x in self.batches(rng):
            norm(Tensor(x))
        mean, var = (a.copy() for a in norm.statistics())
        y = norm.eval()(Tensor(x)).numpy()
        expected = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 0.01)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(norm.running_mean.data, mean)
        np.testing.assert_array_equal(norm.running_var.data, var)

    def test_in_evaluation_each_image_is_independent_of_the_others(self, rng):
        norm = BatchNorm2d(2).eval()
        x = rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
        np.testing.assert_array_equal(norm(Tensor(x[:1])).numpy(), norm(Tensor(x)).numpy()[:1])

    def test_running_statistics_stay_float32_and_are_not_modified_in_place(self, rng):
        norm = BatchNorm2d(2)
        before = norm.running_mean.data
        norm(Tensor(rng.normal(2.0, size=(3, 2, 4, 4)).astype(np.float32)))
        assert before.tolist() == [0.0, 0.0]
        assert norm.running_mean.data.dtype == norm.running_var.data.dtype == np.float32

    def test_a_single_value_per_channel_is_rejected(self):
        with pytest.raises(ValueError, match="one value per channel"):
            BatchNorm2d(2)(Tensor(np.zeros((1, 2, 1, 1), np.float32)))


class TestGroupNorm:
    def test_a_new_layer_normalises_each_group_and_has_no_buffers(self, rng):
        norm = GroupNorm(2, 6)
        assert [name for name, _ in norm.named_parameters()] == ["weight", "bias"]
        assert list(norm.named_buffers()) == []
        y = norm(Tensor(rng.normal(3.0, 2.0, (2, 6, 8, 8)).astype(np.float32))).numpy()
        groups = y.reshape(2, 2, -1)
        np.testing.assert_allclose(groups.mean(2), 0.0, atol=1e-6)
        np.testing.assert_allclose(groups.std(2), 1.0, rtol=1e-4)

    def test_evaluation_equals_training(self, rng):
        norm, x = GroupNorm(3, 6), Tensor(rng.normal(size=(2, 6, 4, 4)).astype(np.float32))
        np.testing.assert_array_equal(norm(x).numpy(), norm.eval()(x).numpy())

    def test_relu_is_part_of_the_same_operation(self, rng):
        norm, x = GroupNorm(3, 6), Tensor(rng.normal(size=(2, 6, 4, 4)).astype(np.float32))
        y = norm(x, relu=True)
        assert y.creator.operation() == "GroupNorm"
        np.testing.assert_array_equal(y.numpy(), np.maximum(norm(x).numpy(), 0.0))


class TestLayers:
    def test_linear_computes_x_times_w_transposed_plus_b(self, rng):
        layer = Linear(5, 3, rng=rng)
        layer.bias.data = np.float32([1.0, 2.0, 3.0])
        x = rng.normal(size=(4, 5)).astype(np.float32)
        assert layer.weight.shape == (3, 5)
        np.testing.assert_allclose(
            layer(Tensor(x)).numpy(), x @ layer.weight.numpy().T + [1, 2, 3], rtol=1e-5, atol=1e-6
        )

    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "size"),
        [
            (3, 1, 1, (9, 12)),
            (3, 1, 0, (7, 10)),
            (1, 1, 0, (9, 12)),
            (3, 2, 1, (5, 6)),
            ((3, 1), (2, 3), (1, 0), (5, 4)),
        ],
    )
    def test_the_output_size_of_conv2d(self, kernel, stride, padding, size, rng):
        layer = Conv2d(2, 5, kernel, stride, padding, rng=rng)
        assert layer(Tensor(np.zeros((3, 2, 9, 12), np.float32))).shape == (3, 5, *size)

    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "output_padding", "size"),
        [
            (2, 2, 0, 0, (10, 14)),
            (3, 2, 1, 1, (10, 14)),
            (3, 2, 1, 0, (9, 13)),
            ((3, 2), (1, 2), 0, 0, (7, 14)),
        ],
    )
    def test_the_output_size_of_conv_transpose2d(self, kernel, stride, padding, output_padding, size, rng):
        layer = ConvTranspose2d(2, 3, kernel, stride, padding, output_padding, rng=rng)
        assert layer.weight.shape[:2] == (2, 3)
        assert layer(Tensor(np.zeros((4, 2, 5, 7), np.float32))).shape == (4, 3, *size)

    def test_the_bias_of_conv2d_is_added_to_its_channel(self, rng):
        layer = Conv2d(2, 2, 3, padding=1, rng=rng)
        layer.bias.data = np.float32([4.0, -1.0])
        y = layer(Tensor(np.zeros((1, 2, 3, 3), np.float32))).numpy()
        assert (y[0, 0] == 4.0).all() and (y[0, 1] == -1.0).all()

    def test_sequential_applies_its_layers_in_order(self, rng):
        first, second = Linear(3, 4, rng=rng), Linear(4, 2, rng=rng)
        x = Tensor(rng.normal(size=(5, 3)).astype(np.float32))
        y = Sequential(first, ReLU(), second)(x).numpy()
        np.testing.assert_array_equal(y, second(ops.relu(first(x))).numpy())

    @pytest.mark.parametrize("layer", ["linear", "conv", "transposed"])
    def test_initialisation_gives_outputs_twice_the_variance_of_the_inputs(self, layer, rng):
        image = rng.normal(size=(8, 32, 16, 16)).astype(np.float32)
        if layer == "linear":
            y = Linear(512, 512, rng=rng)(Tensor(image.reshape(-1, 512)))  # (N, C, H, W) -> (128, 512)
        elif layer == "conv":
            y = Conv2d(32, 64, 3, rng=rng)(Tensor(image))
        else:
            y = ConvTranspose2d(32, 64, 3, stride=2, padding=1, output_padding=1, rng=rng)(Tensor(image))
            y = y[:, :, 1:-1, 1:-1]  # pixels at the border have fewer neighbours
        assert y.numpy().var() == pytest.approx(2.0, rel=0.05)

    def test_the_generator_determines_a_layer_s_weights(self):
        first, again = (Conv2d(2, 3, 3, rng=np.random.default_rng(7)) for _ in range(2))
        other = Conv2d(2, 3, 3, rng=np.random.default_rng(8))
        np.testing.assert_array_equal(first.weight.numpy(), again.weight.numpy())
        assert not np.array_equal(first.weight.numpy(), other.weight.numpy())
        assert not first.bias.numpy().any()
