"""Images of bytes are scaled to a network's input without loss, and samples are joined to batches."""

import numpy as np
import pytest

from r2unet.data.sample import Sample, collate, to_input


def sample(rng, name="ISIC_0000001", size=(6, 9)):
    image = rng.integers(256, size=(*size, 3), dtype=np.uint8)
    return Sample(image, rng.integers(2, size=size, dtype=np.uint8), name)


def test_bytes_are_scaled_to_float32_from_minus_two_to_two():
    black, grey, white = (np.full((1, 1, 3), level, np.uint8) for level in (0, 127, 255))
    x = to_input([black, grey, white])
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[:, 0, 0, 0], [-2.0, -0.5 / 63.75, 2.0], rtol=1e-6)


def test_every_byte_can_be_recovered():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    x = to_input([levels])[0, 0]
    np.testing.assert_array_equal(np.rint(x * 63.75 + 127.5), levels[..., 0])


def test_channels_come_before_rows_and_columns(rng):
    images = [rng.integers(256, size=(4, 7, 3), dtype=np.uint8) for _ in range(2)]
    x = to_input(images)
    assert x.shape == (2, 3, 4, 7) and x.flags.c_contiguous
    for n, c, i, j in ((0, 0, 0, 0), (1, 2, 3, 6), (1, 1, 0, 5)):
        assert x[n, c, i, j] == np.float32((images[n][i, j, c] - 127.5) / 63.75)


def test_a_batch_contains_images_masks_and_names_in_order(rng):
    samples = [sample(rng, f"ISIC_{i}") for i in range(3)]
    batch = collate(samples)
    np.testing.assert_array_equal(batch.images, to_input([s.image for s in samples]))
    assert batch.masks.shape == (3, 1, 6, 9) and batch.masks.dtype == np.float32
    for mask, s in zip(batch.masks, samples, strict=True):
        np.testing.assert_array_equal(mask[0], s.mask)
    assert batch.names == ["ISIC_0", "ISIC_1", "ISIC_2"]


def test_samples_are_not_changed(rng):
    kept = sample(rng)
    image, mask = kept.image.copy(), kept.mask.copy()
    batch = collate([kept])
    for array in (batch.images, batch.masks):
        array += 1.0
    np.testing.assert_array_equal(kept.image, image)
    np.testing.assert_array_equal(kept.mask, mask)


def test_images_of_different_sizes_cannot_be_joined(rng):
    with pytest.raises(ValueError, match="same shape"):
        collate([sample(rng), sample(rng, size=(9, 6))])


def test_the_diagnosis_is_none_by_default(rng):
    assert sample(rng).diagnosis is None
