"""All networks and options: parameter counts, gradients, effects, and logits equal to those of PyTorch."""

import json
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor, init, no_grad
from minidl.nn import BatchNorm2d
from minidl.ops import concat
from minidl.optim import AdamW
from r2unet.data.sample import to_input
from r2unet.data.synthetic import make_lesion
from r2unet.network.losses import bce_and_dice
from r2unet.network.model import (
    NETWORKS,
    AttentionUNet,
    OptionError,
    R2AttentionUNet,
    R2UNet,
    RecurrentUNet,
    ResUNet,
    UNet,
)
from r2unet.network.summary import image_of_zeros, summarize
from r2unet.scores.metrics import confusion, dice

ALL_NETWORKS = pytest.mark.parametrize("network", NETWORKS.values())
ALL_OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {"share_weights": False},
        {"tie_weights": False},
        {"skips": "add"},
        {"skips": "none"},
        {"up": "nearest"},
        {"norm": "shared"},
        {"norm": "group"},
    ],
    ids=str,
)
LEE = {"up": "nearest", "norm": "shared"}  # the options of LeeJunHyun's code
REFERENCE = Path(__file__).parents[2] / "family_reference.npz"
LABELS = [
    *("UNet", "ResUNet", "RecurrentUNet", "AttentionUNet", "R2AttentionUNet"),
    *("own weights", "skips added", "no skips", "nearest", "shared norm", "group norm", "untied weights"),
]


def parameter_count(model):
    return sum(p.size for p in model.parameters())


def images(rng, n=1, size=(16, 16)):
    return Tensor(rng.normal(size=(n, 3, *size)).astype(np.float32))


@pytest.fixture(scope="module")
def reference():
    """What tests/torch_family.py wrote."""
    with np.load(REFERENCE) as file:
        return dict(file)


class TestAgainstPyTorch:
    def test_every_stored_variant_is_compared(self, reference):
        assert list(json.loads(str(reference["options"]))) == LABELS

    @pytest.mark.parametrize("mode", ["train", "eval"])
    @pytest.mark.parametrize("label", LABELS)
    def test_every_variant_has_the_logits_of_pytorch(self, label, mode, reference, rng):
        options = {"model": "r2unet", **json.loads(str(reference["options"]))[label]}
        model = NETWORKS[options.pop("model")](widths=(3, 4, 8), rng=rng, **options)
        shapes = {name: a.shape for name, a in sorted(model.state_dict().items())}
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        row = reference[f"{label}/state"]
        assert len(row) == ends[-1]
        parts = zip(shapes.items(), np.split(row, ends[:-1]), strict=True)
        model.load_state_dict({name: part.reshape(shape) for (name, shape), part in parts})
        y = model.train(mode == "train")(Tensor(reference["x"])).numpy()
        expected = reference[f"{label}/{mode}"]
        np.testing.assert_allclose(y, expected, rtol=0.0, atol=1e-5 * np.abs(expected).max())


class TestParameters:
    @pytest.mark.parametrize(
        ("network", "count"),
        [
            (UNet, 34_527_041),
            (R2UNet, 39_091_393),
            (AttentionUNet, 34_878_573),
            (R2AttentionUNet, 39_442_925),
        ],
    )
    def test_at_full_width_their_number_is_that_of_lee_jun_hyun_s_code(
        self, network, count, rng, monkeypatch
    ):
        def zeros(shape, fan_in, rng):
            return np.broadcast_to(np.float32(0.0), shape)  # 150 MB of weights in 4 bytes

        monkeypatch.setattr(init, "kaiming_normal", zeros)
        model = network(widths=(64, 128, 256, 512, 1024), rng=rng, **LEE)
        assert parameter_count(model) == count

    @pytest.mark.parametrize(
        ("network", "count"),
        [
            (UNet, 135_081),
            (ResUNet, 153_113),  # the shortcut adds a 1x1 convolution, but the first 3x3 is narrower
            (RecurrentUNet, 153_113),  # neither the recurrence nor the shortcut adds any
            (R2UNet, 153_113),
            (AttentionUNet, 136_630),
            (R2AttentionUNet, 154_662),
        ],
    )
    def test_at_the_default_widths(self, network, count, rng):
        assert parameter_count(network(rng=rng)) == count

    @pytest.mark.parametrize("network", [RecurrentUNet, R2UNet, R2AttentionUNet])
    def test_do_not_depend_on_the_steps_unless_every_step_has_its_own_weights(self, network, rng):
        shared = {t: parameter_count(network(widths=(2, 4), steps=t, rng=rng)) for t in range(4)}
        assert len(set(shared.values())) == 1
        own = [
            parameter_count(network(widths=(2, 4), steps=t, share_weights=False, rng=rng)) for t in range(4)
        ]
        # Two in each block: two blocks of 2 * (9 * 2 + 1), one of 4 * (9 * 4 + 1).
        convolutions = 2 * (2 * 38 + 148)
        assert np.diff(own).tolist() == [convolutions] * 3 and own[0] == shared[0]

    @pytest.mark.parametrize("network", [RecurrentUNet, R2UNet, R2AttentionUNet])
    def test_separate_w_f_and_w_r_add_9_c_squared_weights_to_every_recurrent_convolution(self, network, rng):
        tied, untied = (parameter_count(network(tie_weights=tie, rng=rng)) for tie in (True, False))
        levels = (8, 16, 32, 64, 32, 16, 8)  # channels of the blocks, of two recurrent convolutions each
        assert untied - tied == sum(2 * 9 * C**2 for C in levels)

    @ALL_NETWORKS
    @pytest.mark.parametrize("norm", ["shared", "group"])
    def test_do_not_depend_on_the_norm_or_the_upsampling(self, network, norm, rng):
        expected = parameter_count(network(widths=(2, 4, 6), rng=rng))
        assert parameter_count(network(widths=(2, 4, 6), rng=rng, norm=norm)) == expected
        assert parameter_count(network(widths=(2, 4, 6), rng=rng, up="nearest")) == expected

    @pytest.mark.parametrize("skips", ["add", "none"])
    def test_concatenation_adds_c_squared_weights_at_every_level(self, skips, rng):
        whole, less = (parameter_count(R2UNet(skips=kind, rng=rng)) for kind in ("concat", skips))
        assert whole - less == 8**2 + 16**2 + 32**2

    @pytest.mark.parametrize("network", NETWORKS.values())
    @pytest.mark.parametrize("options", [{}, LEE, {"norm": "group", "skips": "add"}], ids=str)
    def test_are_counted_by_the_summary(self, network, options, rng):
        model = network(widths=(3, 4, 6), rng=rng, **options)
        lines = summarize(model, image_of_zeros(16))
        assert sum(line.parameters for line in lines) == parameter_count(model)
        assert len({line.name for line in lines}) == len(lines) and all(line.calls for line in lines)


class TestGradients:
    @ALL_NETWORKS
    def test_reach_every_parameter(self, network, rng):
        model = network(widths=(3, 4, 5), rng=rng)
        model(images(rng)).backward(rng.normal(size=(1, 1, 16, 16)).astype(np.float32))
        assert [name for name, p in model.named_parameters() if p.grad is None] == []

    @ALL_OPTIONS
    def test_reach_every_parameter_with_every_option(self, options, rng):
        model = R2UNet(widths=(3, 4, 6), rng=rng, **options)
        model(images(rng)).backward(rng.normal(size=(1, 1, 16, 16)).astype(np.float32))
        assert [name for name, p in model.named_parameters() if p.grad is None] == []

    @pytest.mark.parametrize("network", [RecurrentUNet, R2UNet])
    def test_of_shared_weights_are_the_sum_over_unshared_copies(self, network, rng):
        """The same weights, once shared and once copied to every step: the gradients of the copies add up."""
        shared = network(widths=(2, 3), rng=rng).to(np.float64)
        copies = network(widths=(2, 3), share_weights=False, rng=rng).to(np.float64)
        own = dict(copies.named_parameters())
        steps = {}  # parameter of the shared network -> its copies
        for name, p in shared.named_parameters():
            layer, _, leaf = name.rpartition(".conv.")
            further = [f"{layer}.further.{t}.{leaf}" for t in range(2)]
            steps[name] = [name, *(n for n in further if layer and n in own)]
            for n in steps[name]:
                own[n].data = p.data.copy()
        x, cotangent = Tensor(rng.normal(size=(2, 3, 8, 8))), rng.normal(size=(2, 1, 8, 8))
        y = shared(x)
        y.backward(cotangent)
        again = copies(x)
        again.backward(cotangent)
        np.testing.assert_allclose(again.numpy(), y.numpy(), rtol=1e-12)
        assert sorted(n for names in steps.values() for n in names) == sorted(own)
        for name, p in shared.named_parameters():
            total = sum(own[n].grad for n in steps[name])
            np.testing.assert_allclose(p.grad, total, rtol=1e-9, atol=1e-9, err_msg=name)


class TestEffectOfEachOption:
    """Pairs of networks that must agree once their weights are matched."""

    @pytest.mark.parametrize(("plain", "recurrent"), [(ResUNet, R2UNet)])
    def test_without_steps_the_recurrent_network_is_the_plain_one(self, plain, recurrent, rng):
        ours, theirs = plain(widths=(2, 4), rng=rng), recurrent(widths=(2, 4), steps=0, rng=rng)
        state = {name.replace("norm.0", "norm"): a for name, a in theirs.state_dict().items()}
        ours.load_state_dict(state)
        x = images(rng)
        np.testing.assert_array_equal(ours(x).numpy(), theirs(x).numpy())

    def test_r2unet_is_the_recurrent_network_with_a_shortcut_in_every_block(self, rng):
        ours, theirs = R2UNet(widths=(2, 4), rng=rng), RecurrentUNet(widths=(2, 4), rng=rng)
        theirs.load_state_dict(ours.state_dict())
        x = images(rng)
        block, other = ours.encoder[0], theirs.encoder[0]
        difference = block(x).numpy() - other(x).numpy()
        np.testing.assert_allclose(difference, block.project(x).numpy(), atol=1e-5)

    def test_an_open_gate_changes_nothing_and_a_closed_gate_removes_the_skip(self, rng):
        gated, plain = R2AttentionUNet(widths=(2, 4), rng=rng).eval(), R2UNet(widths=(2, 4), rng=rng).eval()
        plain.load_state_dict({n: a for n, a in gated.state_dict().items() if not n.startswith("gates")})
        x = images(rng)
        for logit, scale in ((50.0, 1.0), (-50.0, 0.0)):
            gated.gates[0].psi_norm.weight.data = np.zeros(1, np.float32)
            gated.gates[0].psi_norm.bias.data = np.float32([logit])
            skip = plain.encoder[0](x)
            below = plain.up[0](plain.encoder[1](skip_pooled(skip)))
            expected = plain.head(plain.decoder[0](concat((skip * scale, below)))).numpy()
            np.testing.assert_allclose(gated(x).numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_adding_the_skips_equals_concatenating_them_with_equal_weights(self, rng):
        added = R2UNet(widths=(2, 4), skips="add", rng=rng)
        concatenated = R2UNet(widths=(2, 4), rng=rng)
        state = added.state_dict()
        mix = "decoder.0.project.weight"
        concatenated.load_state_dict({**state, mix: np.concatenate((state[mix], state[mix]), axis=1)})
        x = images(rng)
        np.testing.assert_allclose(added(x).numpy(), concatenated(x).numpy(), rtol=1e-4, atol=1e-5)

    def test_without_skips_the_encoder_reaches_the_logits_only_through_the_bottleneck(self, rng):
        model = R2UNet(widths=(2, 4), skips="none", rng=rng)
        skip = model.encoder[0](images(rng))
        expected = model.head(model.decoder[0](model.up[0](model.encoder[1](skip_pooled(skip)))))
        rng = np.random.default_rng(0)  # restart the generator: the same network and image
        again = R2UNet(widths=(2, 4), skips="none", rng=rng)
        np.testing.assert_array_equal(again(images(rng)).numpy(), expected.numpy())

    def test_a_shared_norm_equals_per_step_norms_in_training_but_not_in_evaluation(self, rng):
        per_step, shared = (
            R2UNet(widths=(2, 4), norm=norm, rng=np.random.default_rng(1)) for norm in ("per-step", "shared")
        )
        x = images(rng, 4, (32, 32))
        with no_grad():
            for _ in range(100):
                trained = per_step(x).numpy()
                np.testing.assert_array_equal(shared(x).numpy(), trained)
            distance = {
                model.norm: np.sqrt(np.square(model.eval()(x).numpy() - trained).mean() / trained.var())
                for model in (per_step, shared)
            }
        assert distance["per-step"] < 0.003 < 0.05 < distance["shared"]

    @ALL_NETWORKS
    def test_with_group_norm_evaluation_equals_training(self, network, rng):
        model, x = network(widths=(4, 8), norm="group", rng=rng), images(rng, 2)
        assert not any(isinstance(m, BatchNorm2d) for _, m in model.named_modules())
        assert list(model.named_buffers()) == []
        np.testing.assert_array_equal(model(x).numpy(), model.eval()(x).numpy())


def skip_pooled(skip):
    """Return the maximum of every 2 x 2 pixels, without max_pool2d."""
    N, C, H, W = skip.shape
    return Tensor(skip.numpy().reshape(N, C, H // 2, 2, W // 2, 2).max(axis=(3, 5)))


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"skips": "sum"}, "skips 'sum': must be one of concat, add, none"),
            ({"up": "bilinear"}, "up 'bilinear': must be one of transposed, nearest"),
            ({"norm": "layer"}, "norm 'layer': must be one of per-step, shared, group"),
            ({"share_weights": "maybe"}, "share_weights 'maybe': must be one of True, False"),
            ({"tie_weights": "maybe"}, "tie_weights 'maybe': must be one of True, False"),
        ],
    )
    def test_an_invalid_choice_in_one_line(self, options, words, rng):
        with pytest.raises(OptionError) as refusal:
            R2UNet(rng=rng, **options)
        assert str(refusal.value) == words

    @pytest.mark.parametrize("network", [UNet, ResUNet, AttentionUNet])
    @pytest.mark.parametrize("options", [{"steps": 3}, {"share_weights": False}, {"tie_weights": False}])
    def test_options_of_the_recurrence_in_a_network_without_one(self, network, options, rng):
        with pytest.raises(OptionError, match="unet has no recurrence; omit the option, or change the model"):
            network(rng=rng, **options)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"share_weights": False}, "all steps share w_f and w_r"),
            ({"steps": 0}, "without steps there is no w_r"),
        ],
    )
    def test_untied_weights_together_with_options_that_contradict_them(self, options, reason, rng):
        with pytest.raises(OptionError, match=f"tie_weights False: {reason}"):
            R2UNet(tie_weights=False, rng=rng, **options)

    @pytest.mark.parametrize("network", [AttentionUNet, R2AttentionUNet])
    def test_gates_without_skip_connections(self, network, rng):
        with pytest.raises(OptionError, match="skips 'none': the gates of .*attention-unet are on the skips"):
            network(skips="none", rng=rng)


@ALL_NETWORKS
def test_each_overfits_one_lesion(network):
    image, mask = make_lesion(32, np.random.default_rng(0))
    x, truth = Tensor(to_input([image])), Tensor(mask[None, None].astype(np.float32))
    model = network(widths=(4, 8), rng=np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        loss = bce_and_dice(model(x), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with no_grad():
        assert dice(confusion(model(x).numpy()[0, 0] > 0.0, mask)) > 0.95
