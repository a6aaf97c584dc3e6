"""Photographs of any kind and size to masks of the same size, as a person sees them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from minidl import Tensor
from minidl.nn import Conv2d, Module
from r2unet.errors import InputError
from r2unet.network.model import R2UNet
from r2unet.prediction.predict import (
    find_images,
    pad_to_multiple,
    predict_files,
    predict_image,
    probabilities,
)
from r2unet.training.run_folder import load_model

DARK, LIGHT = 40, 215


class DarkIsLesion(Module):
    """A network whose answer is known: a pixel is lesion where red is below the middle of its range."""

    multiple = 8

    def __init__(self) -> None:
        self.head = Conv2d(3, 1, 1, rng=np.random.default_rng(0))
        self.head.weight.data[...] = 0.0
        self.head.weight.data[0, 0] = -4.0

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] % self.multiple == x.shape[3] % self.multiple == 0
        return self.head(x)


def picture(height: int, width: int) -> np.ndarray:
    """An image whose upper left quarter, and nothing else, is dark: (height, width, 3)."""
    image = np.full((height, width, 3), LIGHT, np.uint8)
    image[: (height + 1) // 2, : (width + 1) // 2] = DARK
    return image


def predicted(files, out, size=16, **more):
    return dict(predict_files(DarkIsLesion(), size, files, out, **more))


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "L"
        mask = np.array(image)
    assert set(np.unique(mask)) <= {0, 255}
    return mask


class TestPadding:
    def test_the_last_row_and_column_are_repeated(self):
        x = np.arange(6.0).reshape(1, 1, 2, 3)
        assert pad_to_multiple(x, 4)[0, 0].tolist() == [
            [0, 1, 2, 2],
            [3, 4, 5, 5],
            [3, 4, 5, 5],
            [3, 4, 5, 5],
        ]
        assert pad_to_multiple(x, 1) is x

    @pytest.mark.parametrize("height, width", [(8, 16), (1, 1), (9, 7), (20, 33)])
    def test_and_cut_off_again(self, rng, height, width):
        images = list(rng.integers(0, 256, (2, height, width, 3), np.uint8))
        p = probabilities(DarkIsLesion(), images)
        x = (np.stack(images)[..., 0] - 127.5) / 63.75
        assert p.shape == (2, height, width) and p.dtype == np.float32
        assert np.allclose(p, 1 / (1 + np.exp(4 * x)), atol=1e-6)

    def test_a_real_network_takes_sides_that_do_not_divide(self, rng):
        model = R2UNet(widths=(2, 4, 8), rng=rng).eval()
        image = rng.integers(0, 256, (9, 14, 3), np.uint8)
        padded = np.pad(image, ((0, 3), (0, 2), (0, 0)), mode="edge")
        assert np.array_equal(probabilities(model, [image])[0], probabilities(model, [padded])[0][:9, :14])


class TestTestTimeAugmentation:
    def test_is_the_mean_of_the_eight_answers_laid_back(self, rng):
        class Slope(DarkIsLesion):
            """A network whose answer is where a pixel lies: likelier lesion to the right and below."""

            def forward(self, x: Tensor) -> Tensor:
                y, x = np.mgrid[: x.shape[2], : x.shape[3]]
                return Tensor((0.3 * x + 0.1 * y).astype(np.float32)[None, None])

        (plain,) = probabilities(Slope(), [np.zeros((8, 8, 3), np.uint8)])
        (mean,) = probabilities(Slope(), [np.zeros((8, 8, 3), np.uint8)], tta=True)
        across = (plain + plain.T + plain[::-1] + plain.T[::-1]) / 4
        assert mean.shape == (8, 8) and mean.dtype == np.float32
        np.testing.assert_allclose(mean, (across + across[:, ::-1]) / 2, rtol=1e-6)

    def test_turns_and_flips_with_the_image_where_a_single_answer_does_not(self, rng):
        model = R2UNet(widths=(2, 4), rng=rng).eval()
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        for change in (np.rot90, np.flipud, np.fliplr, lambda a: np.swapaxes(a, 0, 1)):
            for tta in (True, False):
                changed_after = change(probabilities(model, [image], tta=tta)[0])
                changed_before = probabilities(model, [change(image)], tta=tta)[0]
                assert np.allclose(changed_after, changed_before, atol=1e-6) == tta

    def test_of_images_that_are_not_square_lays_every_pixel_back(self, rng):
        images = list(rng.integers(0, 256, (2, 9, 14, 3), np.uint8))
        plain, mean = (probabilities(DarkIsLesion(), images, tta=tta) for tta in (False, True))
        np.testing.assert_allclose(mean, plain, atol=1e-6)


class TestAnyImage:
    @pytest.mark.parametrize("height, width", [(16, 16), (60, 100), (7, 5), (300, 40)])
    def test_the_mask_lies_where_the_lesion_is(self, height, width):
        mask = predict_image(DarkIsLesion(), picture(height, width), size=16) > 0.5
        truth = picture(height, width)[..., 0] == DARK
        assert mask.shape == (height, width)
        assert (mask == truth).mean() > 0.85 and mask[0, 0] and not mask[-1, -1]

    def test_lesion_is_what_is_likelier_than_not(self, tmp_path):
        image = np.full((16, 16, 3), 129, np.uint8)  # probability 0.48
        image[:8] = 126  # 0.52
        Image.fromarray(image).save(tmp_path / "a.png")
        predicted([tmp_path / "a.png"], tmp_path)
        assert (
            read(tmp_path / "a_segmentation_prediction.png") == np.where(image[..., 0] < 128, 255, 0)
        ).all()

    @pytest.mark.parametrize("height, width", [(1, 1), (1, 3000), (3000, 1)])
    def test_one_pixel_is_enough(self, height, width):
        probability = predict_image(DarkIsLesion(), picture(height, width), size=16)
        assert probability.shape == (height, width) and probability[0, 0] > 0.5

    @pytest.mark.parametrize("size", [1, 13, 16, 40])
    def test_any_size_of_the_network_will_do(self, size):
        assert predict_image(DarkIsLesion(), picture(20, 30), size).shape == (20, 30)

    def test_the_outline_runs_between_the_networks_pixels(self):
        # A ramp crosses the threshold at column 149.5 of 300, within one of the network's pixels of 37.5.
        ramp = np.linspace(0, 255, 300).astype(np.uint8)
        image = np.broadcast_to(ramp[None, :, None], (20, 300, 3))
        mask = predict_image(DarkIsLesion(), np.ascontiguousarray(image), size=8) > 0.5
        assert abs(int(mask[10].sum()) - 150) <= 3


class TestFiles:
    @pytest.mark.parametrize(
        "mode, ending", [("RGB", "png"), ("L", "bmp"), ("RGBA", "png"), ("CMYK", "tif"), ("P", "png")]
    )
    def test_of_any_mode_give_a_mask_of_their_size(self, tmp_path, mode, ending):
        file = tmp_path / f"skin.{ending}"
        Image.fromarray(picture(30, 50)).convert(mode).save(file)
        share = predicted([file], tmp_path / "out")[file]
        mask = read(tmp_path / "out" / "skin_segmentation_prediction.png")
        assert mask.shape == (30, 50)
        assert share == pytest.approx((mask == 255).mean()) and share == pytest.approx(0.25, abs=0.05)
        assert mask[0, 0] == 255 and mask[-1, -1] == mask[0, -1] == mask[-1, 0] == 0

    # Where the upper left corner of the stored pixels is seen: 3 is a half turn, 6 and 8 are quarter turns.
    @pytest.mark.parametrize(
        "orientation, seen", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0)), (2, (0, -1))]
    )
    def test_of_a_phone_are_turned_as_a_person_sees_them(self, tmp_path, orientation, seen):
        file = tmp_path / "phone.jpg"
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(picture(30, 50)).save(file, exif=exif)
        predicted([file], tmp_path)
        mask = read(tmp_path / "phone_segmentation_prediction.png")
        assert mask.shape == ((50, 30) if orientation in (6, 8) else (30, 50))
        corners = {corner: mask[corner] for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
        assert [corner for corner, value in corners.items() if value == 255] == [seen]

    def test_of_the_archive_are_not_turned_as_their_masks_were_not(self, tmp_path):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.fromarray(picture(30, 50)).save(tmp_path / "ISIC_0000001.jpg", exif=exif)
        predicted([tmp_path / "ISIC_0000001.jpg"], tmp_path)
        assert read(tmp_path / "ISIC_0000001_segmentation_prediction.png").shape == (30, 50)

    def test_the_outline_is_drawn_on_request(self, tmp_path):
        file = tmp_path / "skin.png"
        Image.fromarray(picture(30, 50)).save(file)
        predicted([file], tmp_path / "a")
        predicted([file], tmp_path / "b", overlay=True)
        names = [sorted(p.name for p in (tmp_path / folder).iterdir()) for folder in "ab"]
        assert names == [
            ["skin_segmentation_prediction.png"],
            ["skin_overlay.png", "skin_segmentation_prediction.png"],
        ]
        with Image.open(tmp_path / "b" / "skin_overlay.png") as drawn:
            assert drawn.size == (50, 30) and drawn.mode == "RGB"
            changed = (np.array(drawn) != picture(30, 50)).any(axis=2)
        assert 0 < changed.mean() < 0.25

    def test_are_cleaned_up_on_request(self, tmp_path):
        image = np.full((64, 64, 3), LIGHT, np.uint8)
        image[8:40, 8:40] = DARK  # a lesion, with a hole in it and a speck beside it
        image[16:24, 16:24] = LIGHT
        image[48:56, 48:56] = DARK
        Image.fromarray(image).save(tmp_path / "a.png")
        for name, clean_up in (("a", False), ("b", True)):
            predicted([tmp_path / "a.png"], tmp_path / name, size=64, clean_up=clean_up)
        untouched, clean = (read(tmp_path / n / "a_segmentation_prediction.png") for n in "ab")
        assert (untouched == 255).sum() == 32 * 32 - 8 * 8 + 8 * 8
        assert (clean[8:40, 8:40] == 255).all() and (clean == 255).sum() == 32 * 32

    def test_one_that_is_bad_does_not_stop_the_others(self, tmp_path):
        files = [tmp_path / f"{name}.png" for name in "abc"]
        for file in files:
            Image.fromarray(picture(8, 8)).save(file)
        files[1].write_text("no image")
        results = predicted(files, tmp_path / "out")
        assert [type(results[file]) for file in files] == [float, InputError, float]
        assert str(results[files[1]]).startswith(f"{files[1]}: ")
        assert sorted(p.name[0] for p in (tmp_path / "out").iterdir()) == ["a", "c"]

    def test_all_bad_leave_no_folder(self, tmp_path):
        file = tmp_path / "a.png"
        file.write_bytes(b"")
        predicted([file], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_place_that_cannot_be_written_stops_at_once(self, tmp_path):
        files = [tmp_path / "a.png", tmp_path / "b.png"]
        for file in files:
            Image.fromarray(picture(8, 8)).save(file)
        with pytest.raises(InputError, match="a.png/a_segmentation_prediction.png: cannot be written"):
            predicted(files, files[0])


class TestFindImages:
    def test_takes_files_and_folders_in_order(self, tmp_path):
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
        ):
            (folder / name).touch()
        (tmp_path / "z.jpg").touch()
        found = find_images([tmp_path / "z.jpg", folder])
        assert [path.name for path in found] == ["z.jpg", "b.PNG", "c.jpg"]

    def test_takes_each_file_once(self, tmp_path):
        (tmp_path / "a.jpg").touch()
        assert find_images([tmp_path / "a.jpg", tmp_path, str(tmp_path / "a.jpg")]) == [tmp_path / "a.jpg"]

    @pytest.mark.parametrize("twin", ["a.png", "A.jpeg"])
    def test_refuses_two_whose_masks_would_be_one(self, tmp_path, twin):
        (tmp_path / "a.jpg").touch()
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / twin).touch()
        with pytest.raises(InputError, match=f"{twin}: has the same name as .*a.jpg"):
            find_images([tmp_path / "a.jpg", tmp_path / "more"])

    def test_refuses_what_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match="none.jpg: no such file"):
            find_images([tmp_path / "none.jpg"])
        with pytest.raises(InputError, match="holds no images; known are .*.jpg"):
            find_images([tmp_path])


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
def test_real_originals_get_masks_of_their_own_size(trained, tmp_path):
    folder = Path(os.environ["ISIC_ROOT"]) / "originals" / "ISIC-2017_Validation_Data"
    if not folder.is_dir():
        pytest.skip("ISIC_ROOT has no folder originals/")
    model, settings, _ = load_model(trained / "best.npz")
    for file, _ in predict_files(model, settings.size, find_images([folder])[:2], tmp_path):
        with Image.open(file) as original:
            width, height = original.size
        assert width >= 600 and read(tmp_path / f"{file.stem}_segmentation_prediction.png").shape == (
            height,
            width,
        )
