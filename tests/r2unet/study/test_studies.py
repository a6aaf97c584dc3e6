"""The predefined studies have valid rows, and --variant defines more."""

from pathlib import Path

import pytest

from r2unet.commands.main import build_parser
from r2unet.errors import InputError
from r2unet.study.studies import STUDIES, Variant, make_rows
from r2unet.training.settings import Settings


@pytest.mark.parametrize("name", ["variants", "skips", "norm", "tuning", "diagnosis"])
def test_predefined_studies_have_valid_and_different_rows(name):
    rows = make_rows(STUDIES[name].variants, Settings(data="isic"))
    assert len(rows) == {"variants": 7, "skips": 3, "norm": 6, "tuning": 11, "diagnosis": 5}[name]
    assert len({row.folder for row in rows}) == len({row.settings for row in rows}) == len(rows)


def test_tuning_changes_one_setting_at_a_time_from_the_given_ones():
    labels = [row.label for row in make_rows(STUDIES["tuning"].variants, Settings(lr=2e-3))]
    assert {"lr 0.0003", "lr 0.001", "lr 0.003"} <= set(labels) and "steps 2" not in labels


@pytest.mark.parametrize("name, value", [("images", 5), ("classes", "types-7")])
def test_rows_share_their_images_and_their_classes(name, value):
    with pytest.raises(InputError, match=f"other: --{name} must be the same in all rows"):
        make_rows([Variant("other", {name: value})], Settings())


def test_the_study_of_the_diagnosis_has_both_tasks_together_and_each_alone():
    rows = make_rows(STUDIES["diagnosis"].variants, Settings())
    settings = [(row.settings.task, row.settings.pooling) for row in rows]
    assert settings[:3] == [("both", "both"), ("both", "lesion"), ("both", "image")]
    assert [task for task, _ in settings[3:]] == ["diagnosis", "outline"]


def test_variant_has_a_label_and_options_of_train():
    line = ["compare", "own", "--out", "a", "--variant", "a b, t=3: model=r2unet widths=2,4 share_weights=no"]
    (variant,) = build_parser().parse_args(line).variant
    assert variant == ("a b, t=3", {"model": "r2unet", "widths": (2, 4), "share_weights": False})
    assert build_parser().parse_args(line).out == Path("a")
