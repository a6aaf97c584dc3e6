"""A study copies the trainings that another study has finished, if data and settings are the same."""

import shutil

import pytest

from r2unet.errors import InputError
from r2unet.files import copy_folder
from tests.r2unet.study.conftest import ROWS, SMALL


def test_trainings_with_the_same_data_and_settings_are_copied(study, isic_root, r2unet, tmp_path):
    out, _ = study
    rows = ["--variant=plain: model=unet", "--variant=R2U-Net: steps=2"]  # the first is the U-Net of `study`
    data = isic_root.parent / "isic" / ".." / "isic"  # the same folder with another path
    words = "compare", "own", *rows, *SMALL, "--data", data, "--reuse", out, "--out", tmp_path / "b"
    code, stdout, _ = r2unet(*words)
    assert code == 0 and "2 rows x 2 seeds: 2 of 4 training runs are finished" in stdout
    for seed in (0, 1):
        assert f"plain, seed {seed}: copied from {out}/u-net/seed-{seed}\n" in stdout
        for name in ("best.npz", "report.json", "seconds.csv"):
            copy, original = (d / f"seed-{seed}" / name for d in (tmp_path / "b/plain", out / "u-net"))
            assert copy.read_bytes() == original.read_bytes()
    assert "copied from" not in r2unet(*words)[1]  # all are there already


def test_trainings_with_other_data_are_not_copied(study, isic_root, r2unet, tmp_path):
    out, _ = study
    shutil.copytree(isic_root, tmp_path / "isic")
    words = "compare", "own", *ROWS, *SMALL, "--data", tmp_path / "isic", "--out", tmp_path / "b"
    code, stdout, _ = r2unet(*words, "--reuse", out)
    assert code == 0 and "0 of 4 training runs are finished" in stdout
    assert "--reuse: nothing copied; no run there has the data and settings" in stdout


def test_a_folder_without_a_study_is_rejected(r2unet, tmp_path):
    words = "compare", "own", *ROWS, *SMALL, "--out", tmp_path / "c"
    code, _, err = r2unet(*words, "--reuse", tmp_path)
    assert code == 2 and f"--reuse {tmp_path}: contains no study" in err
    assert not (tmp_path / "c").exists()


def test_only_report_is_rejected(study, r2unet, tmp_path):
    out, _ = study
    words = "compare", "own", *ROWS, *SMALL, "--out", tmp_path / "b"
    code, _, err = r2unet(*words, "--reuse", out, "--only-report")
    assert code == 2 and "--reuse: has no effect with --only-report" in err


class TestCopyFolder:
    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "source").mkdir()
        (tmp_path / "source/a").write_text("1")
        return tmp_path / "source"

    def test_creates_the_destination_after_the_last_file(self, source, tmp_path, monkeypatch):
        copy = shutil.copytree

        def interrupted(*paths, **options):
            copy(*paths, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "copytree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy_folder(source, tmp_path / "b/copy")
        assert not (tmp_path / "b/copy").exists()

    def test_starts_again_after_an_interrupted_copy(self, source, tmp_path):
        (tmp_path / ".copy.part").mkdir()
        (tmp_path / ".copy.part/old").write_text("2")
        copy_folder(source, tmp_path / "copy")
        assert [path.name for path in (tmp_path / "copy").iterdir()] == ["a"]
        assert not (tmp_path / ".copy.part").exists()

    def test_reports_a_folder_that_cannot_be_copied(self, tmp_path):
        with pytest.raises(InputError, match="copy: cannot be written"):
            copy_folder(tmp_path / "nowhere", tmp_path / "copy")
