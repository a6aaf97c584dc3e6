"""A study starts and resumes only with a valid plan, and reports errors before it writes anything."""

import json
import shutil

import pytest

from r2unet.errors import InputError
from r2unet.study.plan import open_study, read_plan
from tests.r2unet.conftest import write_lesion
from tests.r2unet.refusal import refusal
from tests.r2unet.study.conftest import ROWS


@pytest.mark.parametrize(
    "words, message",
    [
        (["skips", "--out", "a", "--skips", "add"], "--skips: every row of skips sets this itself"),
        (["variants", "--out", "a", "--steps", "3"], "U-Net: --steps 3: unet has no recurrence"),
        (
            [
                "skips",
                "--out",
                "a",
                "--freeze-encoder",
                "--images=2",
                "--size=16",
                "--widths=1,1",
                "--epochs=1",
            ],
            "--freeze-encoder: a study trains new encoders, which have learned nothing; omit it",
        ),
        (["own", "--out", "a"], "own: has no rows yet; add each with --variant"),
        (["own", "--out", "a", ROWS[0]], "own: needs two rows"),
        (["own", "--out", "a", ROWS[0], "--variant=u net: steps=1"], "another row has the same name"),
        (["own", "--out", "a", ROWS[0], "--variant=?: steps=1"], "is not a valid folder name"),
        (["own", "--out", "a", ROWS[0], "--variant=table.md: steps=1"], "label that does not end with .md"),
        (["own", "--out", "a", ROWS[0], "--variant=Study.JSON: steps=1"], "does not end with .json"),
        (["own", "--out", "a", ROWS[0], "--variant=two\nlines: steps=1"], "'two\\nlines': has a line break"),
        (["own", "--out", "a", ROWS[0], f"--variant={'x' * 256}: steps=1"], "use at most 255 characters"),
        (["skips", "--out", "a", "--only-report"], "--only-report: a contains no study"),
        (["skips", "--out", "a", "--data", "nowhere"], "nowhere: there is no such folder"),
        (["skips", "--out", "a", "--originals", "--only-report"], "a contains no study"),
    ],
)
def test_an_invalid_new_study_writes_nothing(r2unet, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = r2unet("compare", *words)
    assert code == 2 and err.count("\n") == 1 and message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words, message",
    [
        (["wings", "--out", "a"], "invalid choice: 'wings'"),
        (["skips"], "--out"),
        (["skips", "--out", "a", "--seeds", "0,one"], "got 'one'; write them as 0,1,2"),
        (["skips", "--out", "a", "--seeds", "1,1"], "--seeds: must be different seeds, got '1,1'"),
        (["skips", "--out", "a", "--jobs", "0"], "--jobs: must be a whole number from 1 to 64"),
        (["own", "--out", "a", "--variant", "steps=1"], "must be LABEL: SETTING=VALUE"),
        (["own", "--out", "a", "--variant", "x: model=u-net"], "--model: must be one of unet"),
        (["own", "--out", "a", "--variant", "x: seed=1"], "--seed=1"),
    ],
)
def test_an_invalid_option_is_named(r2unet, words, message):
    code, _, err = r2unet("compare", *words)
    assert code == 2 and err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    "words, message",
    [
        (["skips"], "contains the study own, not skips"),
        (["own", "--epochs", 3], "--epochs 3: the study in"),
        (["own", "--seeds", "1,2"], "also has seed 0; seeds can be added, not removed"),
        (["own", "--variant", "x: steps=3"], "started with other rows"),
    ],
)
def test_an_existing_study_is_not_changed(r2unet, study, words, message):
    out, _ = study
    before = (out / "study.json").read_bytes()
    code, _, err = r2unet("compare", *words, "--out", out)
    assert code == 2 and err.count("\n") == 1 and message in err
    assert (out / "study.json").read_bytes() == before


PLAN = {
    "study": "own",
    "seeds": [0, 1],
    "settings": {"size": 16},
    "variants": [["a", {"steps": 1}], ["b", {"steps": 2}]],
}


@pytest.mark.parametrize(
    "data, words, message",
    [
        (False, ["--labels", "nope"], "--labels: needs a table, and with --data its images"),
        (True, ["--labels", "nope"], "nope"),
        (True, ["--data", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_a_refused_path_leaves_the_plan_as_it_is(r2unet, tmp_path, isic_root, data, words, message):
    settings = {"size": 16, "data": str(isic_root) if data else None}
    variants = [["a", {"task": "outline"}], ["b", {"task": "diagnosis" if data else "both"}]]
    path = tmp_path / "study.json"
    path.write_text(json.dumps({**PLAN, "settings": settings, "variants": variants}))
    before = path.read_bytes()
    code, _, err = r2unet("compare", "own", "--out", tmp_path, *words)
    assert code == 2 and err.count("\n") == 1 and message in err
    assert path.read_bytes() == before


def test_a_study_of_generated_lesions_keeps_them(r2unet, tmp_path, isic_root):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(PLAN))
    before = path.read_bytes()
    for more in ([], ["--only-report"]):
        code, _, err = r2unet("compare", "own", "--out", tmp_path, "--data", isic_root, *more)
        assert code == 2 and f"--data {isic_root}: the images are not those of the study" in err
        assert path.read_bytes() == before


def test_a_study_keeps_its_images_and_finds_them_in_another_folder(r2unet, study, isic_root, tmp_path):
    out = tmp_path / "study"
    shutil.copytree(study[0], out)
    shutil.copytree(isic_root, tmp_path / "moved")
    for number in range(1, 6):
        write_lesion(tmp_path / "others", "Training" if number < 4 else "Validation", number)
    before = (out / "study.json").read_bytes()
    code, _, err = r2unet("compare", "own", "--out", out, "--data", tmp_path / "others")
    assert code == 2 and f"--data {tmp_path}/others: the images are not those of the study" in err
    assert (out / "study.json").read_bytes() == before
    plan = open_study(out, "own", {"data": str(tmp_path / "moved")})
    assert plan == read_plan(out) and plan.shared.data == str(tmp_path / "moved")


def test_a_stored_plan_is_read(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps(PLAN))
    plan = read_plan(tmp_path)
    assert [row.label for row in plan.rows] == ["a", "b"] and plan.seeds == (0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": ["../../elsewhere"]},
        {"seeds": [-1]},
        {"seeds": [10**400]},
        {"seeds": [True]},
        {"seeds": []},
        {"settings": {"size": 10**400}},
        {"settings": {"widths": [10**9]}},
        {"settings": {"lr": "fast"}},
        {"settings": 3},
        {"settings": [3]},
        {"variants": [["a"]]},
        {"variants": [[3, {}]]},
        {"variants": [["a", {"model": {}}]]},
    ],
    ids=lambda change: str(change)[:50],
)
def test_a_plan_with_an_impossible_value_is_named(tmp_path, change):
    (tmp_path / "study.json").write_text(json.dumps({**PLAN, **change}))
    message = refusal(lambda: read_plan(tmp_path))
    assert "study.json: is not the plan of a study" in message and len(message) < 700


@pytest.mark.parametrize(
    "change", [{"settings": {"size": 16, "wings": 2}}, {"variants": [["a", {}], ["b", {"wings": 2}]]}]
)
def test_a_plan_of_another_version_is_named(tmp_path, change):
    (tmp_path / "study.json").write_text(json.dumps({**PLAN, "version": "9.9", **change}))
    message = "study.json: was written by another version of r2unet, 9.9, with the setting wings, which "
    with pytest.raises(InputError, match=message):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "[" * 100_000, "9" * 5000, '{"study": "own"}', '{"study": "x", "variants": []}'],
    ids=lambda content: content[:20],
)
def test_an_invalid_plan_is_named(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match="study.json: is not the plan of a study"):
        read_plan(tmp_path)
