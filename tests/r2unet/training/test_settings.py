"""What a training may be asked to do, and what is refused, with the option's name and a remedy."""

import dataclasses

import pytest

from r2unet.errors import InputError
from r2unet.training.settings import CHOICES, LIMITS, Settings, as_text, flag


def refusal(call) -> str:
    """Return the one line that the call is refused with."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_allowed_and_every_number_has_limits():
    assert Settings().check() == Settings()
    assert {*LIMITS, *CHOICES, "data"} == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", LIMITS)
def test_what_lies_beyond_the_limits_is_refused_by_the_option(name):
    least, most = LIMITS[name]
    for value in (least - 1, most + 1, 2 * most, float("nan")):
        value = (8, value) if name == "widths" else value
        message = refusal(lambda v=value: Settings(**{name: v}).check())
        assert message.startswith(f"{flag(name)} {as_text(value)}: want {least:g} to {most:g}")


def test_no_widths_are_no_network():
    assert refusal(Settings(widths=()).check).startswith("--widths")


@pytest.mark.parametrize(
    "size, levels, remedy",
    [
        (100, 4, "must divide by 8; try --size 96, or at most 3 --widths"),
        (101, 4, "must divide by 8; try --size 104, or at most 1 --widths"),
        (2, 4, "must divide by 8; try --size 8, or at most 2 --widths"),
        (4096, 14, "must divide by 8192; try at most 13 --widths"),
    ],
)
def test_a_size_that_cannot_be_halved_hears_the_nearest_that_can(size, levels, remedy):
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
        (9, 8, 16, False),  # the ninth image alone, 1 x 1 at the deepest of 5 levels
        (1, 8, 16, False),
        (8, 1, 16, False),
        (9, 8, 32, True),  # 2 x 2
        (10, 8, 16, True),
        (8, 8, 16, True),
    ],
)
def test_one_value_a_channel_is_refused_before_training(images, batch, size, allowed):
    settings = Settings(size=size, widths=(2,) * 5, batch_size=batch).check()
    if allowed:
        settings.check_batches(images)
    else:
        message = refusal(lambda: settings.check_batches(images))
        assert f"{images} images in batches of {batch}" in message and "--size 32" in message


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_there_is_not_is_refused_with_those_there_are(name):
    choices = ", ".join(map(as_text, CHOICES[name]))
    for value in ("other", "", None, 7, ["concat"]):
        message = refusal(Settings(**{name: value}).check)
        assert message == f"{flag(name)} {as_text(value)}: want one of {choices}"


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_allowed(name):
    for choice in CHOICES[name]:
        assert getattr(Settings(**{name: choice}).check(), name) == choice


@pytest.mark.parametrize("model", ["unet", "resunet", "attention-unet"])
@pytest.mark.parametrize(("name", "value"), [("steps", 3), ("share_weights", False)])
def test_what_would_change_nothing_is_refused(model, name, value):
    message = refusal(Settings(model=model, **{name: value}).check)
    assert message.startswith(f"{flag(name)} {as_text(value)}: {model} has no recurrence")
    assert "--model one of recurrent-unet, r2unet, r2-attention-unet" in message


@pytest.mark.parametrize("model", ["attention-unet", "r2-attention-unet"])
def test_gates_without_skips_are_refused(model):
    assert refusal(Settings(model=model, skips="none").check).startswith("--skips none: the gates of")


def test_group_norm_takes_one_value_a_channel():
    Settings(size=16, widths=(2,) * 5, batch_size=8, norm="group").check().check_batches(9)


def test_settings_are_written_as_on_the_command_line():
    values = [(8, 16), True, False, "concat", 3, 1e-3]
    assert [as_text(v) for v in values] == ["8,16", "yes", "no", "concat", "3", "0.001"]
