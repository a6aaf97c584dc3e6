"""Photographs of any format and size are predicted in the orientation in which a person sees them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from minidl import Tensor
from r2unet.errors import InputError
from r2unet.prediction.photographs import Result, find_photographs, predict_files, read_photograph
from r2unet.training.checkpoints import load_model
from tests.r2unet.prediction.dark_is_lesion import DARK, LIGHT, DarkIsLesion, dark_quarter


def predicted(files, out, size=16, **more):
    return dict(predict_files(DarkIsLesion(), size, files, out, **more))


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "L"
        mask = np.array(image)
    assert set(np.unique(mask)) <= {0, 255}
    return mask


class TestPredictFiles:
    @pytest.mark.parametrize(
        "mode, ending", [("RGB", "png"), ("L", "bmp"), ("RGBA", "png"), ("CMYK", "tif"), ("P", "png")]
    )
    def test_a_photograph_of_any_mode_gets_a_mask_of_its_size(self, tmp_path, mode, ending):
        file = tmp_path / f"skin.{ending}"
        Image.fromarray(dark_quarter(30, 50)).convert(mode).save(file)
        share = predicted([file], tmp_path / "out")[file].lesion
        mask = read(tmp_path / "out" / "skin_segmentation_prediction.png")
        assert mask.shape == (30, 50)
        assert share == pytest.approx((mask == 255).mean()) and share == pytest.approx(0.25, abs=0.05)
        assert mask[0, 0] == 255 and mask[-1, -1] == mask[0, -1] == mask[-1, 0] == 0

    # Where the stored upper left corner is displayed: 3 is a half turn, 6 and 8 are quarter turns.
    @pytest.mark.parametrize(
        "orientation, displayed", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0)), (2, (0, -1))]
    )
    def test_the_orientation_stored_by_a_phone_is_applied(self, tmp_path, orientation, displayed):
        file = tmp_path / "phone.jpg"
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(dark_quarter(30, 50)).save(file, exif=exif)
        predicted([file], tmp_path)
        mask = read(tmp_path / "phone_segmentation_prediction.png")
        assert mask.shape == ((50, 30) if orientation in (6, 8) else (30, 50))
        corners = {corner: mask[corner] for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
        assert [corner for corner, value in corners.items() if value == 255] == [displayed]

    def test_the_orientation_of_a_grey_image_of_16_bits_is_applied(self, tmp_path):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # a quarter turn
        grey = np.arange(30 * 50, dtype=np.uint16).reshape(30, 50) * 40
        Image.fromarray(grey).save(tmp_path / "skin.png", exif=exif)
        image = read_photograph(tmp_path / "skin.png")
        assert image.shape == (50, 30, 3)
        np.testing.assert_array_equal(image[:, :, 0], np.rot90(grey // 256, -1))

    def test_the_orientation_of_isic_images_is_ignored(self, tmp_path):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.fromarray(dark_quarter(30, 50)).save(tmp_path / "ISIC_0000001.jpg", exif=exif)
        predicted([tmp_path / "ISIC_0000001.jpg"], tmp_path)
        assert read(tmp_path / "ISIC_0000001_segmentation_prediction.png").shape == (30, 50)

    def test_the_outline_is_drawn_on_request(self, tmp_path):
        file = tmp_path / "skin.png"
        Image.fromarray(dark_quarter(30, 50)).save(file)
        predicted([file], tmp_path / "a")
        predicted([file], tmp_path / "b", overlay=True)
        names = [sorted(p.name for p in (tmp_path / folder).iterdir()) for folder in "ab"]
        assert names == [
            ["skin_segmentation_prediction.png"],
            ["skin_overlay.png", "skin_segmentation_prediction.png"],
        ]
        with Image.open(tmp_path / "b" / "skin_overlay.png") as drawn:
            assert drawn.size == (50, 30) and drawn.mode == "RGB"
            changed = (np.array(drawn) != dark_quarter(30, 50)).any(axis=2)
        assert 0 < changed.mean() < 0.25

    def test_the_picture_of_a_large_photograph_has_1024_pixels_and_its_mask_has_all(self, tmp_path):
        file = tmp_path / "large.png"
        Image.fromarray(dark_quarter(400, 2000)).save(file)
        predicted([file], tmp_path, overlay=True)
        with Image.open(tmp_path / "large_overlay.png") as drawn:
            assert drawn.size == (1024, 205)
        assert read(tmp_path / "large_segmentation_prediction.png").shape == (400, 2000)

    def test_a_mask_is_compressed_as_pillow_does_by_default(self, tmp_path):
        """So that masks have the same bytes as before pictures were compressed less."""
        Image.fromarray(dark_quarter(30, 50)).save(tmp_path / "skin.png")
        predicted([tmp_path / "skin.png"], tmp_path)
        file = tmp_path / "skin_segmentation_prediction.png"
        Image.fromarray(read(file)).save(tmp_path / "again.png")
        assert file.read_bytes() == (tmp_path / "again.png").read_bytes()

    def test_masks_are_cleaned_up_on_request(self, tmp_path):
        image = np.full((64, 64, 3), LIGHT, np.uint8)
        image[8:40, 8:40] = DARK  # a lesion with a hole in it and a speck next to it
        image[16:24, 16:24] = LIGHT
        image[48:56, 48:56] = DARK
        Image.fromarray(image).save(tmp_path / "a.png")
        for name, clean_up in (("a", False), ("b", True)):
            predicted([tmp_path / "a.png"], tmp_path / name, size=64, clean_up=clean_up)
        untouched, clean = (read(tmp_path / n / "a_segmentation_prediction.png") for n in "ab")
        assert (untouched == 255).sum() == 32 * 32 - 8 * 8 + 8 * 8
        assert (clean[8:40, 8:40] == 255).all() and (clean == 255).sum() == 32 * 32

    def test_an_unreadable_file_does_not_stop_the_others(self, tmp_path):
        files = [tmp_path / f"{name}.png" for name in "abc"]
        for file in files:
            Image.fromarray(dark_quarter(8, 8)).save(file)
        files[1].write_text("no image")
        results = predicted(files, tmp_path / "out")
        assert [type(results[file]) for file in files] == [Result, InputError, Result]
        assert str(results[files[1]]).startswith(f"{files[1]}: ")
        assert sorted(p.name[0] for p in (tmp_path / "out").iterdir()) == ["a", "c"]

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_prediction_that_is_not_finite_is_an_error_of_its_file_and_no_mask(self, tmp_path, value):
        class Broken(DarkIsLesion):
            """Fails for images that contain white."""

            def forward(self, x: Tensor) -> Tensor:
                y = super().forward(x)
                y.data[0, 0, 0, 0] = value if x.numpy().max() == 2.0 else 0.0
                return y

        files = [tmp_path / f"{name}.png" for name in "abc"]
        for file in files:
            Image.fromarray(dark_quarter(8, 8)).save(file)
        Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(files[1])
        results = dict(predict_files(Broken(), 8, files, tmp_path / "out"))
        assert [type(results[file]) for file in files] == [Result, InputError, Result]
        message = str(results[files[1]])
        assert message.startswith(f"{files[1]}: the network's answer contains NaN or infinity")
        assert "give another checkpoint" in message
        assert sorted(p.name[0] for p in (tmp_path / "out").iterdir()) == ["a", "c"]

    def test_without_a_readable_file_no_folder_is_created(self, tmp_path):
        file = tmp_path / "a.png"
        file.write_bytes(b"")
        predicted([file], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_cannot_be_written_is_an_error(self, tmp_path):
        files = [tmp_path / "a.png", tmp_path / "b.png"]
        for file in files:
            Image.fromarray(dark_quarter(8, 8)).save(file)
        with pytest.raises(InputError, match="a.png/a_segmentation_prediction.png: cannot be written"):
            predicted(files, files[0])

    def test_lesion_is_where_the_probability_is_above_one_half(self, tmp_path):
        image = np.full((16, 16, 3), 129, np.uint8)  # probability 0.48
        image[:8] = 126  # 0.52
        Image.fromarray(image).save(tmp_path / "a.png")
        predicted([tmp_path / "a.png"], tmp_path)
        assert (
            read(tmp_path / "a_segmentation_prediction.png") == np.where(image[..., 0] < 128, 255, 0)
        ).all()


class TestFindPhotographs:
    def test_finds_files_and_folders_in_order(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in (
            "c.jpg",
            "b.PNG",
            ".d.jpg",
            "notes.txt",
            "c_segmentation.png",
            "x_superpixels.png",
            "c_segmentation_prediction.png",
            "c_overlay.png",
            "c_diagnosis.png",
        ):
            (folder / name).touch()
        (tmp_path / "z.jpg").touch()
        found = find_photographs([tmp_path / "z.jpg", folder])
        assert [path.name for path in found] == ["z.jpg", "b.PNG", "c.jpg"]

    def test_finds_each_file_once(self, tmp_path):
        file = tmp_path / "a.jpg"
        file.touch()
        assert find_photographs([file, tmp_path, str(file)]) == [file]
        assert find_photographs([file, tmp_path / ".." / tmp_path.name / "a.jpg"]) == [file]

    @pytest.mark.parametrize("twin", ["a.png", "A.jpeg"])
    def test_two_files_of_one_stem_are_an_error(self, tmp_path, twin):
        (tmp_path / "a.jpg").touch()
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / twin).touch()
        with pytest.raises(InputError, match=f"{twin}: has the same name as .*a.jpg"):
            find_photographs([tmp_path / "a.jpg", tmp_path / "more"])

    def test_a_missing_file_and_an_empty_folder_are_errors(self, tmp_path):
        with pytest.raises(InputError, match="none.jpg: no such file"):
            find_photographs([tmp_path / "none.jpg"])
        with pytest.raises(InputError, match="contains no images; supported formats are .*.jpg"):
            find_photographs([tmp_path])


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
def test_real_originals_get_masks_of_their_size(trained, tmp_path):
    folder = Path(os.environ["ISIC_ROOT"]) / "originals" / "ISIC-2017_Validation_Data"
    if not folder.is_dir():
        pytest.skip("ISIC_ROOT has no folder originals/")
    model, settings, _ = load_model(trained / "best.npz")
    for file, _ in predict_files(model, settings.size, find_photographs([folder])[:2], tmp_path):
        with Image.open(file) as original:
            width, height = original.size
        assert width >= 600 and read(tmp_path / f"{file.stem}_segmentation_prediction.png").shape == (
            height,
            width,
        )
