"""The predicted probability matches the image pixel for pixel, for images and networks of any size."""

import numpy as np
import pytest

from minidl import Tensor
from r2unet.network.model import R2UNet
from r2unet.prediction.predict import pad_to_multiple, predict_image, probabilities
from tests.r2unet.prediction.dark_is_lesion import DARK, DarkIsLesion, dark_quarter


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
    def test_the_padding_is_removed_from_the_prediction(self, rng, height, width):
        images = list(rng.integers(0, 256, (2, height, width, 3), np.uint8))
        p = probabilities(DarkIsLesion(), images)
        x = (np.stack(images)[..., 0] - 127.5) / 63.75
        assert p.shape == (2, height, width) and p.dtype == np.float32
        assert np.allclose(p, 1 / (1 + np.exp(4 * x)), atol=1e-6)

    def test_a_real_network_accepts_sides_that_are_not_multiples(self, rng):
        model = R2UNet(widths=(2, 4, 8), rng=rng).eval()
        image = rng.integers(0, 256, (9, 14, 3), np.uint8)
        padded = np.pad(image, ((0, 3), (0, 2), (0, 0)), mode="edge")
        assert np.array_equal(probabilities(model, [image])[0], probabilities(model, [padded])[0][:9, :14])

    def test_a_network_in_training_mode_is_refused_and_left_as_it_is(self, rng):
        model = R2UNet(widths=(2, 4), rng=rng)
        before = model.state_dict()
        with pytest.raises(ValueError, match=r"training mode: call model.eval\(\)"):
            predict_image(model, rng.integers(0, 256, (8, 8, 3), np.uint8), size=8)
        assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


class TestTestTimeAugmentation:
    def test_is_the_mean_of_the_eight_predictions_turned_back(self, rng):
        class Slope(DarkIsLesion):
            """A network whose logits increase to the right and downwards, whatever the image is."""

            def forward(self, x: Tensor) -> Tensor:
                y, x = np.mgrid[: x.shape[2], : x.shape[3]]
                return Tensor((0.3 * x + 0.1 * y).astype(np.float32)[None, None])

        (plain,) = probabilities(Slope(), [np.zeros((8, 8, 3), np.uint8)])
        (mean,) = probabilities(Slope(), [np.zeros((8, 8, 3), np.uint8)], tta=True)
        across = (plain + plain.T + plain[::-1] + plain.T[::-1]) / 4
        assert mean.shape == (8, 8) and mean.dtype == np.float32
        np.testing.assert_allclose(mean, (across + across[:, ::-1]) / 2, rtol=1e-6)

    def test_is_equivariant_where_a_single_prediction_is_not(self, rng):
        model = R2UNet(widths=(2, 4), rng=rng).eval()
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        for change in (np.rot90, np.flipud, np.fliplr, lambda a: np.swapaxes(a, 0, 1)):
            for tta in (True, False):
                changed_after = change(probabilities(model, [image], tta=tta)[0])
                changed_before = probabilities(model, [change(image)], tta=tta)[0]
                assert np.allclose(changed_after, changed_before, atol=1e-6) == tta

    def test_turns_back_images_that_are_not_square(self, rng):
        images = list(rng.integers(0, 256, (2, 9, 14, 3), np.uint8))
        plain, mean = (probabilities(DarkIsLesion(), images, tta=tta) for tta in (False, True))
        np.testing.assert_allclose(mean, plain, atol=1e-6)


class TestImagesOfAnySize:
    @pytest.mark.parametrize("height, width", [(16, 16), (60, 100), (7, 5), (300, 40)])
    def test_the_mask_is_where_the_lesion_is(self, height, width):
        mask = predict_image(DarkIsLesion(), dark_quarter(height, width), size=16) > 0.5
        truth = dark_quarter(height, width)[..., 0] == DARK
        assert mask.shape == (height, width)
        assert (mask == truth).mean() > 0.85 and mask[0, 0] and not mask[-1, -1]

    @pytest.mark.parametrize("height, width", [(1, 1), (1, 3000), (3000, 1)])
    def test_an_image_may_be_one_pixel_high_or_wide(self, height, width):
        probability = predict_image(DarkIsLesion(), dark_quarter(height, width), size=16)
        assert probability.shape == (height, width) and probability[0, 0] > 0.5

    @pytest.mark.parametrize("size", [1, 13, 16, 40])
    def test_the_size_for_the_network_is_arbitrary(self, size):
        assert predict_image(DarkIsLesion(), dark_quarter(20, 30), size).shape == (20, 30)

    def test_the_outline_is_interpolated_between_the_network_s_pixels(self):
        # A ramp crosses the threshold at column 149.5 of 300, within one of the network's pixels of 37.5.
        ramp = np.linspace(0, 255, 300).astype(np.uint8)
        image = np.broadcast_to(ramp[None, :, None], (20, 300, 3))
        mask = predict_image(DarkIsLesion(), np.ascontiguousarray(image), size=8) > 0.5
        assert abs(int(mask[10].sum()) - 150) <= 3
