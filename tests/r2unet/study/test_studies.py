"""The predefined studies have valid rows, and --variant defines more."""

from pathlib import Path

import pytest

from r2unet.commands.main import build_parser
from r2unet.errors import InputError
from r2unet.study.studies import STUDIES, Variant, make_rows
from r2unet.training.settings import Settings


@pytest.mark.parametrize("name", ["variants", "skips", "norm", "tuning"])
def test_predefined_studies_have_valid_and_different_rows(name):
    rows = make_rows(STUDIES[name].variants, Settings(data="isic"))
    assert len(rows) == {"variants": 7, "skips": 3, "norm": 6, "tuning": 11}[name]
    assert len({row.folder for row in rows}) == len({row.settings for row in rows}) == len(rows)


def test_tuning_changes_one_setting_at_a_time_from_the_given_ones():
    labels = [row.label for row in make_rows(STUDIES["tuning"].variants, Settings(lr=2e-3))]
    assert {"lr 0.0003", "lr 0.001", "lr 0.003"} <= set(labels) and "steps 2" not in labels


def test_rows_share_their_images():
    with pytest.raises(InputError, match="other: --images must be the same in all rows"):
        make_rows([Variant("other", {"images": 5})], Settings())


def test_variant_has_a_label_and_options_of_train():
    line = ["compare", "own", "--out", "a", "--variant", "a b, t=3: model=r2unet widths=2,4 share_weights=no"]
    (variant,) = build_parser().parse_args(line).variant
    assert variant == ("a b, t=3", {"model": "r2unet", "widths": (2, 4), "share_weights": False})
    assert build_parser().parse_args(line).out == Path("a")
