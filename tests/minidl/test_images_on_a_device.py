"""Changes of images stored as bytes: small images whose result is known."""

import numpy as np
import pytest

from minidl import images
from minidl.backend import to_numpy

LINE = np.array([10, 20, 40, 80], np.uint8).reshape(1, 1, 4, 1)  # one image of one row
TURN = [[0.0, -1.0, 2.0], [1.0, 0.0, 0.0]]  # of 3 x 3 pixels, anticlockwise


@pytest.fixture
def sample(put):
    """Return a function that samples images (M, H, W, C) through one map for each of `which`."""

    def run(x, maps, which=(0,)):
        y = images.affine_sample(put(x), put(np.array(which, np.int32)), put(np.array(maps, np.float64)))
        assert y.dtype == np.uint8
        return to_numpy(y)

    return run


def shifted(x, y=0.0):
    return [[1.0, 0.0, x], [0.0, 1.0, y]]


class TestAffineSample:
    def test_the_identity_changes_nothing_and_moves_the_channels_in_front(self, sample, rng):
        x = rng.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
        y = sample(x, [shifted(0), shifted(0), shifted(0)], which=(1, 0, 1))
        np.testing.assert_array_equal(y, x[[1, 0, 1]].transpose(0, 3, 1, 2))

    def test_between_pixels_it_interpolates_and_truncates(self, sample):
        assert sample(LINE, [shifted(0.5)])[0, 0, 0].tolist() == [15, 30, 60, 80]
        assert sample(LINE, [shifted(0.27)])[0, 0, 0].tolist() == [12, 25, 50, 80]  # 12.7, 25.4, 50.8

    def test_beyond_the_border_the_image_is_mirrored_with_its_border_pixel(self, sample):
        assert sample(LINE, [shifted(-3)])[0, 0, 0].tolist() == [40, 20, 10, 10]
        assert sample(LINE, [shifted(2)])[0, 0, 0].tolist() == [40, 80, 80, 40]
        assert sample(LINE, [shifted(8)])[0, 0, 0].tolist() == [10, 20, 40, 80]  # one period
        column = LINE.transpose(0, 2, 1, 3)
        assert sample(column, [shifted(0, -9)])[0, 0, :, 0].tolist() == [10, 10, 20, 40]

    def test_a_quarter_turn_is_exact(self, sample, rng):
        x = rng.integers(0, 256, (1, 3, 3, 2), dtype=np.uint8)
        np.testing.assert_array_equal(sample(x, [TURN])[0].transpose(1, 2, 0), np.rot90(x[0]))


class TestRecolour:
    def test_each_channel_is_a_product_with_the_pixel_plus_one_with_the_mean(self, put):
        x = np.array([[10, 30], [100, 100], [200, 100]], np.uint8).reshape(1, 3, 1, 2)  # means 20, 100, 150
        of_pixel = np.array([[[1.0, 0, 0], [0, 0, 0.5], [0.25, 0, 0]]])
        of_mean = np.array([[[0.0, 0, 0.1], [0, 1.0, 0], [0, 0, -0.01]]])
        tables = np.arange(256, dtype=np.uint8)[None]
        y = images.recolour(*(put(a) for a in (x, of_pixel, of_mean, tables)))
        # 10 + 15, 30 + 15; 100 + 100, 50 + 100; 2.5 - 1.5, 7.5 - 1.5
        assert to_numpy(y).reshape(3, 2).tolist() == [[25, 45], [200, 150], [1, 6]]

    def test_levels_are_rounded_clipped_and_looked_up_in_the_image_s_own_table(self, put):
        x = np.full((2, 3, 1, 1), 100, np.uint8)
        of_pixel = np.array([np.diag([0.104, 0.105, 3.0]), np.diag([-1.0, 0.0, 1.0])])
        tables = np.stack([np.arange(256), 255 - np.arange(256)]).astype(np.uint8)
        y = images.recolour(*(put(a) for a in (x, of_pixel, np.zeros((2, 3, 3)), tables)))
        assert to_numpy(y).reshape(2, 3).tolist() == [[10, 11, 255], [255, 255, 155]]


class TestGaussianBlur:
    def test_a_box_of_radius_one_spreads_a_point_to_the_weights_of_three_passes(self, put):
        """(1 1 1) / 3 three times is (1 3 6 7 6 3 1) / 27, here times 243 and along both axes."""
        x = np.zeros((1, 1, 9, 9), np.uint8)
        x[0, 0, 4, 4] = 243
        y = to_numpy(images.gaussian_blur(put(x), put(np.array([[1, (1 << 24) // 3, 0.0]]))))[0, 0]
        exact = np.outer([0, 1, 3, 6, 7, 6, 3, 1, 0], [0, 1, 3, 6, 7, 6, 3, 1, 0]) / 3
        np.testing.assert_allclose(y, exact, atol=1.5)  # six roundings to whole levels, then averaged
        assert abs(int(y.sum()) - 243) < 12

    def test_an_image_with_the_whole_weight_on_its_own_pixel_is_unchanged(self, put, rng):
        x = rng.integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
        boxes = np.array([[0, 1 << 24, 0], [1, 4_000_000, 2_000_000]], np.float64)
        y = to_numpy(images.gaussian_blur(put(x), put(boxes)))
        np.testing.assert_array_equal(y[0], x[0])
        assert y[1].std() < 0.5 * x[1].std()

    def test_the_border_pixel_continues_the_image(self, put):
        x = np.full((1, 1, 3, 4), 200, np.uint8)
        boxes = np.array([[5, (1 << 24) // 12, (1 << 24) // 24]], np.float64)
        np.testing.assert_array_equal(to_numpy(images.gaussian_blur(put(x), put(boxes))), x)


class TestRoundWindow:
    def test_outside_is_one_level_and_no_mask_inside_is_unchanged(self, put, rng):
        x = rng.integers(100, 200, (2, 3, 40, 60), dtype=np.uint8)
        masks = np.ones((2, 1, 40, 60), np.uint8)
        windows = np.array([[0.1, 0.0, 0.2, 0.3, 7.6], [0.0, 0.0, np.inf, np.inf, 0.0]])
        y, cut = (to_numpy(a) for a in images.round_window(put(x), put(masks), put(windows)))
        down, across = (np.mgrid[:40, :60] + 0.5) / np.array([40, 60]).reshape(2, 1, 1) - 0.5
        distance = np.hypot((down - 0.1) / 0.2, across / 0.3)
        assert (y[0][:, distance > 1.05] == 8).all()
        np.testing.assert_array_equal(y[0][:, distance < 0.95], x[0][:, distance < 0.95])
        np.testing.assert_array_equal(cut[0, 0], distance < 1)
        np.testing.assert_array_equal(y[1], x[1])
        assert cut[1].all()
