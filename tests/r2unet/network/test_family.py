"""The family on one U: what each network and each option changes, counted, and compared with PyTorch."""

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
        {"skips": "add"},
        {"skips": "none"},
        {"up": "nearest"},
        {"norm": "shared"},
        {"norm": "group"},
    ],
    ids=str,
)
LEE = {"up": "nearest", "norm": "shared"}  # as the best known PyTorch version has it
REFERENCE = Path(__file__).parents[2] / "family_reference.npz"
LABELS = [
    *("UNet", "ResUNet", "RecurrentUNet", "AttentionUNet", "R2AttentionUNet"),
    *("own weights", "skips added", "no skips", "nearest", "shared norm", "group norm"),
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
    def test_all_that_is_stored_is_compared(self, reference):
        assert list(json.loads(str(reference["options"]))) == LABELS

    @pytest.mark.parametrize("mode", ["train", "eval"])
    @pytest.mark.parametrize("label", LABELS)
    def test_every_variant_gives_its_logits(self, label, mode, reference, rng):
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
    def test_at_full_width_are_as_many_as_in_the_best_known_pytorch_version(
        self, network, count, rng, monkeypatch
    ):
        def unwritten(shape, fan_in, rng):
            return np.broadcast_to(np.float32(0.0), shape)  # 150 MB of weights in 4 bytes

        monkeypatch.setattr(init, "kaiming_normal", unwritten)
        model = network(widths=(64, 128, 256, 512, 1024), rng=rng, **LEE)
        assert parameter_count(model) == count

    @pytest.mark.parametrize(
        ("network", "count"),
        [
            (UNet, 135_081),
            (ResUNet, 153_113),  # the way around costs a 1x1 convolution, but the first 3x3 is narrower
            (RecurrentUNet, 153_113),  # the recurrence costs nothing, and neither does the way around
            (R2UNet, 153_113),
            (AttentionUNet, 136_630),
            (R2AttentionUNet, 154_662),
        ],
    )
    def test_at_the_default_widths(self, network, count, rng):
        assert parameter_count(network(rng=rng)) == count

    @pytest.mark.parametrize("network", [RecurrentUNet, R2UNet, R2AttentionUNet])
    def test_do_not_depend_on_the_steps_unless_each_has_its_own(self, network, rng):
        shared = {t: parameter_count(network(widths=(2, 4), steps=t, rng=rng)) for t in range(4)}
        assert len(set(shared.values())) == 1
        own = [
            parameter_count(network(widths=(2, 4), steps=t, share_weights=False, rng=rng)) for t in range(4)
        ]
        convolutions = 2 * (
            2 * 38 + 148
        )  # two a block: two blocks of 2 * (9 * 2 + 1), one of 4 * (9 * 4 + 1)
        assert np.diff(own).tolist() == [convolutions] * 3 and own[0] == shared[0]

    @ALL_NETWORKS
    @pytest.mark.parametrize("norm", ["shared", "group"])
    def test_do_not_depend_on_the_norm_or_the_up_sampling(self, network, norm, rng):
        expected = parameter_count(network(widths=(2, 4, 6), rng=rng))
        assert parameter_count(network(widths=(2, 4, 6), rng=rng, norm=norm)) == expected
        assert parameter_count(network(widths=(2, 4, 6), rng=rng, up="nearest")) == expected

    @pytest.mark.parametrize("skips", ["add", "none"])
    def test_a_concatenation_costs_c_squared_weights_a_level(self, skips, rng):
        whole, less = (parameter_count(R2UNet(skips=kind, rng=rng)) for kind in ("concat", skips))
        assert whole - less == 8**2 + 16**2 + 32**2

    @pytest.mark.parametrize("network", NETWORKS.values())
    @pytest.mark.parametrize("options", [{}, LEE, {"norm": "group", "skips": "add"}], ids=str)
    def test_are_those_that_the_summary_lists(self, network, options, rng):
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
    def test_of_shared_weights_are_the_sum_over_the_steps_own(self, network, rng):
        """The same weights once shared and once copied to every step: the copies' gradients add up."""
        shared = network(widths=(2, 3), rng=rng).to(np.float64)
        copies = network(widths=(2, 3), share_weights=False, rng=rng).to(np.float64)
        own = dict(copies.named_parameters())
        steps = {}  # of each shared convolution, the parameters that the copies have for it
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


class TestWhatEachChanges:
    """Two networks that should be one, made equal by hand."""

    @pytest.mark.parametrize(("plain", "recurrent"), [(ResUNet, R2UNet)])
    def test_without_steps_the_recurrent_network_is_the_plain_one(self, plain, recurrent, rng):
        ours, theirs = plain(widths=(2, 4), rng=rng), recurrent(widths=(2, 4), steps=0, rng=rng)
        state = {name.replace("norm.0", "norm"): a for name, a in theirs.state_dict().items()}
        ours.load_state_dict(state)
        x = images(rng)
        np.testing.assert_array_equal(ours(x).numpy(), theirs(x).numpy())

    def test_r2unet_is_the_recurrent_network_with_a_way_around_every_block(self, rng):
        ours, theirs = R2UNet(widths=(2, 4), rng=rng), RecurrentUNet(widths=(2, 4), rng=rng)
        theirs.load_state_dict(ours.state_dict())
        x = images(rng)
        block, other = ours.encoder[0], theirs.encoder[0]
        difference = block(x).numpy() - other(x).numpy()
        np.testing.assert_allclose(difference, block.project(x).numpy(), atol=1e-5)

    def test_a_gate_that_is_open_changes_nothing_and_one_that_is_shut_cuts_the_skip(self, rng):
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

    def test_adding_the_skips_is_concatenating_them_with_tied_weights(self, rng):
        added = R2UNet(widths=(2, 4), skips="add", rng=rng)
        beside = R2UNet(widths=(2, 4), rng=rng)
        state = added.state_dict()
        mix = "decoder.0.project.weight"
        beside.load_state_dict({**state, mix: np.concatenate((state[mix], state[mix]), axis=1)})
        x = images(rng)
        np.testing.assert_allclose(added(x).numpy(), beside(x).numpy(), rtol=1e-4, atol=1e-5)

    def test_without_skips_what_is_above_reaches_the_logits_only_from_below(self, rng):
        model = R2UNet(widths=(2, 4), skips="none", rng=rng)
        skip = model.encoder[0](images(rng))
        expected = model.head(model.decoder[0](model.up[0](model.encoder[1](skip_pooled(skip)))))
        rng = np.random.default_rng(0)  # the fixture's, from its beginning: the same network and image
        again = R2UNet(widths=(2, 4), skips="none", rng=rng)
        np.testing.assert_array_equal(again(images(rng)).numpy(), expected.numpy())

    def test_a_shared_norm_is_the_same_in_training_and_another_in_evaluation(self, rng):
        per_step, shared = (
            R2UNet(widths=(2, 4), norm=norm, rng=np.random.default_rng(1)) for norm in ("per-step", "shared")
        )
        x = images(rng, 4, (32, 32))
        with no_grad():
            for _ in range(100):
                trained = per_step(x).numpy()
                np.testing.assert_array_equal(shared(x).numpy(), trained)
            apart = {
                model.norm: np.sqrt(np.square(model.eval()(x).numpy() - trained).mean() / trained.var())
                for model in (per_step, shared)
            }
        assert apart["per-step"] < 0.003 < 0.05 < apart["shared"]

    @ALL_NETWORKS
    def test_with_group_norm_evaluation_is_training(self, network, rng):
        model, x = network(widths=(4, 8), norm="group", rng=rng), images(rng, 2)
        assert not any(isinstance(m, BatchNorm2d) for _, m in model.named_modules())
        assert list(model.named_buffers()) == []
        np.testing.assert_array_equal(model(x).numpy(), model.eval()(x).numpy())


def skip_pooled(skip):
    """The largest of every 2 x 2 pixels, written without max_pool2d."""
    N, C, H, W = skip.shape
    return Tensor(skip.numpy().reshape(N, C, H // 2, 2, W // 2, 2).max(axis=(3, 5)))


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"skips": "sum"}, "R2UNet: skips 'sum': want one of concat, add, none"),
            ({"up": "bilinear"}, "R2UNet: up 'bilinear': want one of transposed, nearest"),
            ({"norm": "layer"}, "R2UNet: norm 'layer': want one of per-step, shared, group"),
            ({"share_weights": "maybe"}, "R2UNet: share_weights 'maybe': want one of True, False"),
        ],
    )
    def test_a_choice_that_there_is_not_is_refused_in_one_line(self, options, words, rng):
        with pytest.raises(ValueError) as refusal:
            R2UNet(rng=rng, **options)
        assert str(refusal.value) == words

    @pytest.mark.parametrize("network", [UNet, ResUNet, AttentionUNet])
    @pytest.mark.parametrize("options", [{"steps": 3}, {"share_weights": False}])
    def test_options_of_the_recurrence_where_there_is_none(self, network, options, rng):
        with pytest.raises(ValueError, match=f"{network.__name__}: has no recurrence"):
            network(rng=rng, **options)

    @pytest.mark.parametrize("network", [AttentionUNet, R2AttentionUNet])
    def test_gates_on_skips_that_there_are_not(self, network, rng):
        with pytest.raises(ValueError, match=f"{network.__name__}: its gates are on the skips"):
            network(skips="none", rng=rng)


@ALL_NETWORKS
def test_each_learns_one_lesion_by_heart(network):
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
