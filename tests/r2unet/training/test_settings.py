"""Valid settings are accepted; invalid ones are refused with the name of the option and a remedy."""

import dataclasses
import inspect

import pytest

from r2unet.commands.main import build_parser
from r2unet.commands.options import settings_given
from r2unet.network import model
from r2unet.network.model import RECURRENCE, UShape
from r2unet.training.settings import CHOICES, LIMITS, Settings, as_options, as_text, flag
from tests.r2unet.refusal import refusal


def test_the_defaults_are_valid_and_every_number_has_limits():
    assert Settings().check() == Settings()
    assert {*LIMITS, *CHOICES, "data", "labels"} == {field.name for field in dataclasses.fields(Settings)}


def test_a_network_s_options_have_the_same_defaults_in_its_constructor_and_in_the_settings():
    arguments = inspect.signature(UShape.__init__).parameters
    defaults = {"widths": Settings().widths, **Settings().network_options()}
    assert {name: arguments[name].default for name in defaults} == defaults
    assert {name: RECURRENCE[name] for name in RECURRENCE} == {name: defaults[name] for name in RECURRENCE}
    assert {name: choices[0] for name, choices in model.CHOICES.items()} == {
        name: defaults[name] for name in model.CHOICES
    }


@pytest.mark.parametrize("name", LIMITS)
def test_values_outside_the_limits_are_refused(name):
    minimum, maximum = LIMITS[name]
    for value in (minimum - 1, maximum + 1, 2 * maximum, float("nan")):
        value = (8, value) if name == "widths" else value
        message = refusal(lambda v=value: Settings(**{name: v}).check())
        assert message.startswith(f"{flag(name)} {as_text(value)}: must be from {minimum:g} to {maximum:g}")


def test_empty_widths_are_refused():
    assert refusal(Settings(widths=()).check).startswith("--widths")


@pytest.mark.parametrize(
    "size, levels, remedy",
    [
        (100, 4, "must be divisible by 8; try --size 96, or at most 3 --widths"),
        (101, 4, "must be divisible by 8; try --size 104, or at most 1 --widths"),
        (2, 4, "must be divisible by 8; try --size 8, or at most 2 --widths"),
        (4096, 14, "must be divisible by 8192; try at most 13 --widths"),
    ],
)
def test_an_indivisible_size_is_refused_with_the_nearest_valid_size(size, levels, remedy):
    message = refusal(Settings(size=size, widths=(2,) * levels).check)
    assert message.startswith(f"--size {size}: {levels} levels halve the image {levels - 1} times")
    assert message.endswith(remedy)
    nearest = remedy.partition("--size ")[2].partition(",")[0]
    if nearest:
        Settings(size=int(nearest), widths=(2,) * levels).check()
    Settings(size=size, widths=(2,) * int(remedy.split()[-2])).check()


@pytest.mark.parametrize(
    "images, batch, size, allowed",
    [
        (9, 8, 16, False),  # the ninth image is alone, and 1 x 1 on the deepest of 5 levels
        (1, 8, 16, False),
        (8, 1, 16, False),
        (9, 8, 32, True),  # 2 x 2
        (10, 8, 16, True),
        (8, 8, 16, True),
    ],
)
def test_a_batch_with_one_value_per_channel_is_refused_before_training(images, batch, size, allowed):
    settings = Settings(size=size, widths=(2,) * 5, batch_size=batch).check()
    if allowed:
        settings.check_batches(images)
    else:
        message = refusal(lambda: settings.check_batches(images))
        assert f"{images} images in batches of {batch}" in message and "--size 32" in message


@pytest.mark.parametrize("name", CHOICES)
def test_an_invalid_choice_is_refused_with_the_list_of_choices(name):
    choices = ", ".join(map(str, CHOICES[name]))
    for value in ("other", "", None, 7, ["concat"]):
        message = refusal(Settings(**{name: value}).check)
        assert message == f"{flag(name)} {as_text(value)}: must be one of {choices}"


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_accepted(name):
    for choice in CHOICES[name]:
        assert getattr(Settings(**{name: choice}).check(), name) == choice


@pytest.mark.parametrize("model", ["unet", "resunet", "attention-unet"])
@pytest.mark.parametrize(("name", "value"), [("steps", 3), ("share_weights", False), ("tie_weights", False)])
def test_recurrence_settings_of_a_network_without_recurrence_are_refused(model, name, value):
    message = refusal(Settings(model=model, **{name: value}).check)
    assert message.startswith(f"{flag(name)} {as_text(value)}: {model} has no recurrence")
    assert "change the model to one of recurrent-unet, r2unet, r2-attention-unet" in message


@pytest.mark.parametrize("model", ["attention-unet", "r2-attention-unet"])
def test_attention_gates_without_skip_connections_are_refused(model):
    assert refusal(Settings(model=model, skips="none").check).startswith("--skips none: the gates of")


def test_group_norm_accepts_one_value_per_channel():
    Settings(size=16, widths=(2,) * 5, batch_size=8, norm="group").check().check_batches(9)


def test_values_are_written_as_on_the_command_line():
    values = [(8, 16), True, False, "concat", 3, 1e-3]
    assert [as_text(v) for v in values] == ["8,16", "yes", "no", "concat", "3", "0.001"]


def test_as_options_are_the_options_of_train_without_the_defaults():
    assert as_options(Settings()) == []
    settings = Settings(data="-odd", widths=(2, 4), share_weights=False, lr=1e-4)
    words = as_options(settings)
    assert words == ["--data=-odd", "--widths", "2,4", "--share-weights", "no", "--lr", "0.0001"]
    options = build_parser().parse_args(["train", *words])
    assert Settings(**settings_given(options)) == settings
