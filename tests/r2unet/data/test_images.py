"""Reading, writing and resizing images and masks, and the errors for unusable files."""

import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from r2unet.data.images import (
    image_size,
    read_image,
    read_mask,
    resize_image,
    resize_mask,
    resize_probability,
    write_mask,
)
from r2unet.errors import InputError

ORIENTATION = 0x0112


@pytest.fixture
def photograph(tmp_path):
    """A JPEG of odd sides whose red grows to the right and whose green grows downwards."""
    down, right = np.mgrid[0:767, 0:1023]
    pixels = np.stack([right * 255 // 1022, down * 255 // 766, np.full_like(down, 90)], axis=-1)
    path = tmp_path / "photograph.jpg"
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    return path


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def assert_refused(call, path, *words):
    """Assert that the call raises an InputError of one line with the file and these words."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for word in words:
        assert word in message


class TestReadImage:
    def test_a_png_is_read_byte_for_byte(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        assert np.array_equal(read_image(save(pixels, tmp_path / "a.png")), pixels)

    def test_the_whole_frame_is_resized_to_a_square(self, photograph):
        image = read_image(photograph, 16)
        assert image.shape == (16, 16, 3) and image.dtype == np.uint8
        # Sixteen columns over 0..255: the first is centred at 8 and the last at 247.
        assert np.abs(image[:, 0, 0] - 8.0).max() <= 2 and np.abs(image[:, -1, 0] - 247.0).max() <= 2
        assert np.abs(image[0, :, 1] - 8.0).max() <= 2 and np.abs(image[-1, :, 1] - 247.0).max() <= 2

    @pytest.mark.parametrize("size", [16, 50, 100, 256, 1000])
    def test_a_jpeg_decoded_at_a_fraction_of_its_size_gives_the_same_image(self, photograph, size):
        whole = resize_image(read_image(photograph), (size, size))
        assert np.abs(read_image(photograph, size).astype(int) - whole).max() <= 3

    def test_a_jpeg_decoded_at_a_fraction_of_its_size_keeps_its_exact_frame(self, tmp_path):
        ramp = np.tile((np.arange(73) * 255 // 72).astype(np.uint8), (73, 1))
        path = save(ramp, tmp_path / "ramp.jpg", quality=95)
        # At an eighth, 73 pixels are 9.125 wide and stored in 10; the 9.125 are resized to 4.
        assert read_image(path, 4)[0, :, 0].tolist() == pytest.approx([32, 96, 159, 223], abs=6)

    def test_downsampling_averages_pixels(self, tmp_path):
        board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
        image = read_image(save(board, tmp_path / "board.png"), 8)
        assert np.abs(image.astype(int) - 127).max() <= 2

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
    def test_every_colour_mode_is_converted_to_rgb(self, tmp_path, mode):
        path = tmp_path / "mode.tiff"
        Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
        assert np.array_equal(read_image(path), np.full((4, 6, 3), 255, dtype=np.uint8))

    def test_of_sixteen_bits_the_upper_byte_is_read(self, tmp_path):
        path = save(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16), tmp_path / "deep.png")
        assert read_image(path)[0, :, 0].tolist() == [0, 128, 255]

    @pytest.mark.parametrize("tag, value", [("MaxSampleValue", 4095), ("BitsPerSample", None)])
    def test_of_twelve_bits_the_upper_byte_is_read_if_the_file_says_so(self, tmp_path, tag, value):
        path = tmp_path / "twelve.tif"
        if tag == "MaxSampleValue":
            pixels = np.array([[0, 0x800, 0xFFF]], dtype=np.uint16)
            Image.fromarray(pixels).save(path, tiffinfo={281: value})
        else:
            path.write_bytes(tiff_of_twelve_bits([0x000, 0x800, 0xFFF, 0x7FF]))
        assert read_image(path)[0, :3, 0].tolist() == [0, 128, 255]

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_twelve_bits_in_sixteen_without_a_word_are_an_error(self, tmp_path, suffix):
        path = save(np.array([[0, 0x800, 0xFFF]], dtype=np.uint16), tmp_path / f"twelve.{suffix}")
        assert_refused(lambda: read_image(path), path, "almost black (at most 15 of 255", "convert it to 8")

    def test_twelve_bits_in_sixteen_are_an_error_in_colour_too(self, tmp_path):
        path = tmp_path / "colour.png"
        path.write_bytes(png_of_sixteen_bits(np.full((2, 2, 3), 0xFFF)))
        assert_refused(lambda: read_image(path), path, "almost black", "convert it to 8 bits")
        path.write_bytes(png_of_sixteen_bits(np.full((2, 2, 3), 0x8000)))
        assert read_image(path)[0, 0].tolist() == [128, 128, 128]

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_numbers_without_a_known_white_are_an_error(self, tmp_path, dtype):
        path = save(np.array([[0, 1]], dtype=dtype), tmp_path / "numbers.tif")
        assert_refused(lambda: read_image(path), path, "do not say which one is white", "convert it to 8")

    def test_a_black_image_of_eight_bits_is_read(self, tmp_path):
        assert read_image(save(np.zeros((4, 4), np.uint8), tmp_path / "black.png")).max() == 0

    def test_transparency_in_a_palette_does_not_change_the_colours(self, tmp_path, recwarn):
        path = tmp_path / "palette.png"
        Image.new("RGB", (4, 4), (200, 10, 30)).quantize(4).save(path, transparency=b"\x80" * 4)
        assert read_image(path)[0, 0].tolist() == [200, 10, 30]
        assert not recwarn


class TestExif:
    @pytest.fixture
    def turned(self, tmp_path):
        """A white left half on black, to be turned by a quarter clockwise: then the top is white."""
        pixels = np.zeros((40, 80), dtype=np.uint8)
        pixels[:, :40] = 255
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        return save(pixels, tmp_path / "turned.jpg", exif=exif)

    def test_orientation_is_ignored_by_default(self, turned):
        image = read_image(turned)
        assert image.shape == (40, 80, 3) and image_size(turned) == (40, 80)
        assert image[:, :32].min() > 200 and image[:, 48:].max() < 50

    def test_orientation_is_applied_on_request(self, turned):
        image = read_image(turned, exif=True)
        assert image.shape == (80, 40, 3)
        assert image[:32].min() > 200 and image[48:].max() < 50

    def test_orientation_is_applied_to_a_resized_image(self, turned):
        image = read_image(turned, 8, exif=True)
        assert image[:3].min() > 200 and image[5:].max() < 50


class TestReadMask:
    def test_lesion_is_above_128(self, tmp_path):
        path = save(np.array([[0, 1, 128, 129, 255]], dtype=np.uint8), tmp_path / "m.png")
        mask = read_mask(path)
        assert mask.tolist() == [[0, 0, 0, 1, 1]] and mask.dtype == np.uint8

    @pytest.mark.parametrize("size", [None, 4])
    def test_an_empty_mask_stays_empty(self, tmp_path, size):
        assert read_mask(save(np.zeros((8, 8), dtype=np.uint8), tmp_path / "m.png"), size).sum() == 0

    def test_a_downsampled_pixel_is_lesion_where_most_of_its_area_is(self, tmp_path):
        pixels = np.zeros((64, 64), dtype=np.uint8)
        pixels[:, :27] = 255  # 3.4 columns of 8: the fourth new column is covered by less than half
        mask = read_mask(save(pixels, tmp_path / "m.png"), 8)
        assert mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]] * 8

    def test_grey_values_are_thresholded_before_they_are_averaged(self, tmp_path):
        pixels = np.full((8, 8), 130, dtype=np.uint8)
        pixels[:, ::4] = 0  # a mean of 97 would be skin, though three quarters of the area are lesion
        assert read_mask(save(pixels, tmp_path / "m.png"), 2).all()

    def test_one_bit_and_grey_palettes_are_masks(self, tmp_path):
        pixels = np.array([[0, 255], [255, 0]], dtype=np.uint8)
        Image.fromarray(pixels).convert("1").save(tmp_path / "bit.png")
        Image.fromarray(pixels).convert("P").save(tmp_path / "palette.png")
        for name in ("bit.png", "palette.png"):
            assert read_mask(tmp_path / name).tolist() == [[0, 1], [1, 0]]

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16", "coloured palette"])
    def test_other_modes_are_errors(self, tmp_path, mode):
        path = tmp_path / "m.png"
        picture = (
            Image.new("RGB", (4, 4), (200, 10, 30)).quantize(4)
            if "palette" in mode
            else Image.new(mode, (4, 4))
        )
        picture.save(path)
        assert_refused(lambda: read_mask(path), path, "convert it to 8-bit grey")

    def test_a_mask_of_0_and_1_is_an_error(self, tmp_path):
        path = save(np.eye(4, dtype=np.uint8), tmp_path / "m.png")
        assert_refused(lambda: read_mask(path), path, "multiply it by 255")


class TestWriteMask:
    def test_writes_a_grey_png_of_0_and_255(self, tmp_path):
        mask = np.eye(5, 9, dtype=np.uint8)
        write_mask(tmp_path / "new" / "m.png", mask)
        with Image.open(tmp_path / "new" / "m.png") as picture:
            assert (picture.format, picture.mode) == ("PNG", "L")
            assert sorted(set(picture.tobytes())) == [0, 255]
        assert np.array_equal(read_mask(tmp_path / "new" / "m.png"), mask)

    def test_writes_a_boolean_mask(self, tmp_path):
        write_mask(tmp_path / "m.png", np.eye(3, dtype=bool))
        assert np.array_equal(read_mask(tmp_path / "m.png"), np.eye(3))

    def test_a_name_that_does_not_end_in_png_is_an_error(self, tmp_path):
        path = tmp_path / "m.jpg"
        assert_refused(lambda: write_mask(path, np.eye(3)), path, ".png")

    def test_a_path_that_cannot_be_written_is_an_error(self, tmp_path):
        (tmp_path / "file").write_text("not a folder")
        path = tmp_path / "file" / "m.png"
        assert_refused(lambda: write_mask(path, np.eye(3)), path, "choose another folder")


class TestResize:
    def test_sizes_are_height_then_width(self):
        assert resize_image(np.zeros((4, 6, 3), np.uint8), (3, 5)).shape == (3, 5, 3)
        assert resize_mask(np.zeros((4, 6), np.uint8), (3, 5)).shape == (3, 5)
        assert resize_probability(np.zeros((4, 6), np.float32), (3, 5)).shape == (3, 5)

    def test_a_mask_enlarged_and_shrunk_is_unchanged(self):
        mask = np.zeros((16, 16), dtype=np.uint8)
        mask[4:12, 3:9] = 1
        assert np.array_equal(resize_mask(resize_mask(mask, (160, 80)), (16, 16)), mask)

    def test_probabilities_are_interpolated(self):
        resized = resize_probability(np.array([[0.0, 1.0]]), (1, 4))
        assert resized.dtype == np.float32
        assert np.allclose(resized, [[0, 0.25, 0.75, 1]])


def chunk(name, content):
    """A chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(width, height, pixels=b"", bits=8, colour=0):
    """A PNG whose header declares a size; by default without the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png_of_sixteen_bits(pixels):
    """A PNG of RGB values (H, W, 3), which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)  # 0 is "no filter"
    height, width, _ = pixels.shape
    return png(width, height, zlib.compress(rows), bits=16, colour=2)


def tiff_of_twelve_bits(row):
    """A TIFF of a single row of an even number of grey values from 0 to 4095, which Pillow cannot write."""
    bits = "".join(f"{value:012b}" for value in row)
    content = int(bits, 2).to_bytes(len(bits) // 8, "big")
    # width, height, bits per sample, compression, photometric, offset, samples, rows per strip, bytes
    numbers = {256: len(row), 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in numbers.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    return start + content + struct.pack("<H", len(numbers)) + entries + bytes(4)


@pytest.mark.parametrize("read", [read_image, read_mask, lambda path: read_image(path, 8)])
class TestUnusableFiles:
    @pytest.mark.parametrize(
        "content, words",
        [
            (b"", "empty (0 bytes)"),
            (b"Not Found", "not an image that Pillow can read"),
            (png(10_000, 10_000), "more than 89 million pixels"),
            (png(20_000, 20_000), "more than 89 million pixels"),
            (png(0, 10), "not an image that Pillow can read"),
            (png(70_000, 1), "a side of more than 65,535"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
            (b"P5 2 2 255\n\0\0\0\0", "not an image that Pillow can read as JPEG, PNG, BMP, TIFF, WEBP"),
        ],
        ids=[
            "empty",
            "a web page",
            "100 million pixels",
            "400 million pixels",
            "no pixels",
            "a line",
            "a program for Ghostscript",
            "another format",
        ],
    )
    def test_the_error_says_what_is_wrong(self, tmp_path, read, content, words):
        path = tmp_path / "bad.jpg"
        path.write_bytes(content)
        assert_refused(lambda: read(path), path, words)

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_a_size_at_which_pillow_only_warns_is_an_error(self, tmp_path, read):
        path = tmp_path / "large.png"
        path.write_bytes(png(10_000, 10_000))
        assert_refused(lambda: read(path), path, "more than 89 million pixels")

    def test_a_missing_file_and_a_folder_are_errors(self, tmp_path, read):
        assert_refused(lambda: read(tmp_path / "none.jpg"), tmp_path / "none.jpg", "No such file")
        assert_refused(lambda: read(tmp_path), tmp_path, "s a directory" if os.name == "posix" else "cannot")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_and_an_endless_device_are_errors_at_once(self, tmp_path, read):
        path = tmp_path / "pipe.png"
        os.mkfifo(path)
        assert_refused(lambda: read(path), path, "not a regular file")
        assert_refused(lambda: read("/dev/zero"), "/dev/zero", "not a regular file")

    def test_a_flipped_bit_in_a_png_is_an_error_and_never_another_image(self, tmp_path, read):
        noise = np.random.default_rng(0).integers(0, 2, (24, 24), dtype=np.uint8) * np.uint8(255)
        path = save(noise, tmp_path / "noise.png")
        whole, image = path.read_bytes(), read(path)
        pixels = range(whole.index(b"IDAT") + 4, len(whole) - 16)
        for place in pixels[::7]:
            damaged = bytearray(whole)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            assert_refused(lambda: read(path), path, "damaged")
        path.write_bytes(whole)
        assert np.array_equal(read(path), image)

    @pytest.mark.parametrize(
        "error", [IndexError, KeyError, TypeError, RuntimeError, struct.error, OverflowError, MemoryError]
    )
    def test_whatever_a_decoder_raises_is_an_input_error(self, tmp_path, read, error, monkeypatch):
        path = save(np.zeros((4, 4), np.uint8), tmp_path / "a.bmp")

        def fail(image):
            raise error("a\nb")

        monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", fail)
        assert_refused(lambda: read(path), path, "memory" if error is MemoryError else "damaged")

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # by Pillow; the program does not print it
    @pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
    def test_a_truncated_file_is_an_error(self, tmp_path, read, suffix):
        noise = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
        whole = save(noise, tmp_path / f"whole.{suffix}").read_bytes()
        path = tmp_path / f"cut.{suffix}"
        for length in range(1, len(whole) - 20, len(whole) // 40):  # a PNG's last bytes hold no pixels
            path.write_bytes(whole[:length])
            assert_refused(lambda: read(path), path, "")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_every_file_is_closed(photograph, tmp_path):
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photograph.read_bytes()[:9000])
    before = len(os.listdir("/proc/self/fd"))
    read_image(photograph, 8)
    image_size(photograph)
    with pytest.raises(InputError) as error:  # the traceback keeps the frames and their variables alive
        read_image(cut)
    assert len(os.listdir("/proc/self/fd")) == before and error


@pytest.mark.parametrize("use", [write_mask, lambda path, mask: resize_mask(mask, (50, 50))])
def test_writing_and_resizing_a_mask_takes_little_memory(tmp_path, use):
    mask = np.ones((1000, 1000), np.uint8)
    use(tmp_path / "a.png", mask)  # imports Pillow
    tracemalloc.start()
    use(tmp_path / "a.png", mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * mask.nbytes
