"""Samples are read from pairs of files, each decoded once and cached on request."""

import os
from pathlib import Path

import numpy as np
import pytest

from r2unet.data import lesion_images
from r2unet.data.images import read_image, read_mask
from r2unet.data.isic import find_pairs
from r2unet.data.lesion_images import LesionImages, read_pair
from tests.r2unet.data.isic_folders import TABLE_2017, add_lesions, assert_refused, write_image, write_mask


class TestReadPair:
    def test_keeps_the_original_size_and_the_diagnosis(self, tmp_path):
        add_lesions(tmp_path, numbers=[1])
        (tmp_path / TABLE_2017).write_text("image_id,melanoma,seborrheic_keratosis\nISIC_0000001,1.0,0.0\n")
        (pair,) = find_pairs(tmp_path, "all")
        sample = read_pair(pair)
        assert sample.image.shape == (6, 8, 3) and sample.mask.shape == (6, 8)
        assert (sample.name, sample.diagnosis) == ("ISIC_0000001", "melanoma")
        assert sample.mask.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 6

    def test_a_mask_of_another_size_is_an_error(self, tmp_path):
        add_lesions(tmp_path, numbers=[1])
        (pair,) = find_pairs(tmp_path, "all")
        write_mask(pair.mask, height=8, width=6)
        assert_refused(lambda: read_pair(pair), pair.mask, pair.image, "6 x 8", "8 x 6")

    def test_the_mask_of_an_image_without_one_is_empty(self, tmp_path):
        write_image(tmp_path / "images" / "leg.png")
        (pair,) = find_pairs(tmp_path, "all", masks_needed=False)
        sample = read_pair(pair)
        assert sample.image.shape == (6, 8, 3)
        assert sample.mask.dtype == np.uint8 and sample.mask.tolist() == [[0] * 8] * 6

    def test_the_lesion_is_kept(self, tmp_path):
        write_image(tmp_path / "images" / "leg.png")
        (tmp_path / "labels.csv").write_text("image,lesion_id,dx\nleg,L7,nv\n")
        (pair,) = find_pairs(tmp_path, "all", masks_needed=False)
        assert (read_pair(pair).lesion, LesionImages([pair], 4)[0].lesion) == ("L7", "L7")


class TestLesionImages:
    @pytest.fixture
    def pairs(self, tmp_path):
        add_lesions(tmp_path / "isic", numbers=range(1, 9))
        return find_pairs(tmp_path / "isic", "all")

    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("cached", [False, True])
    def test_sample_i_is_pair_i_resized(self, pairs, tmp_path, threads, cached):
        data = LesionImages(pairs, 4, threads, cache=tmp_path / "cache" if cached else None)
        assert len(data) == 8 and data.names == [pair.name for pair in pairs] and data.pairs == pairs
        for pair, sample in zip(pairs, data, strict=True):
            assert np.array_equal(sample.image, read_image(pair.image, 4))
            assert np.array_equal(sample.mask, read_mask(pair.mask, 4))
            assert (sample.name, sample.diagnosis) == (pair.name, pair.diagnosis)
        assert data[0].image.shape == (4, 4, 3) and data[0].image.dtype == np.uint8
        assert data[0].mask.tolist() == [[1, 1, 0, 0]] * 4 and data[0].mask.dtype == np.uint8

    @pytest.mark.parametrize("cached", [False, True])
    def test_the_stored_bytes_are_read_only(self, pairs, tmp_path, cached):
        sample = LesionImages(pairs, 4, cache=tmp_path / "cache" if cached else None)[0]
        with pytest.raises(ValueError, match="read-only"):
            sample.image[0, 0, 0] = 1

    def test_every_file_is_decoded_once(self, pairs, tmp_path):
        data = LesionImages(pairs, 4)
        before = data[3].image.copy()
        for pair in pairs:
            pair.image.unlink()
        assert np.array_equal(data[3].image, before)

    def test_progress_is_drawn_on_stderr_on_request(self, pairs, capsys):
        LesionImages(pairs, 4)
        assert capsys.readouterr() == ("", "")
        LesionImages(pairs, 4, progress=True)
        out, err = capsys.readouterr()
        assert out == "" and "8/8" in err

    def test_a_mask_of_another_size_is_an_error(self, pairs):
        write_mask(pairs[2].mask, height=8, width=6)
        words = (pairs[2].mask, pairs[2].image, "6 x 8", "8 x 6")
        assert_refused(lambda: LesionImages(pairs, 4), *words)

    @pytest.mark.parametrize("size, threads", [(0, 1), (4, 0)])
    def test_numbers_below_one_are_errors(self, pairs, size, threads):
        assert_refused(lambda: LesionImages(pairs, size, threads), "at least 1")
        assert_refused(lambda: LesionImages([], 4), "0 pairs")


class TestCache:
    @pytest.fixture
    def pairs(self, tmp_path):
        add_lesions(tmp_path / "isic", numbers=range(1, 5))
        return find_pairs(tmp_path / "isic", "all")

    @pytest.fixture
    def cache(self, tmp_path):
        return tmp_path / "cache"

    @pytest.fixture
    def damaged(self, pairs, cache, capsys):
        """A function that changes the bytes of the cache file, and returns what stderr says about it."""

        def damage(change):
            LesionImages(pairs, 4, cache=cache)
            (file,) = cache.iterdir()
            whole = file.read_bytes()
            file.write_bytes(change(bytearray(whole)))
            capsys.readouterr()
            for pair, sample in zip(pairs, LesionImages(pairs, 4, cache=cache), strict=True):
                assert np.array_equal(sample.image, read_image(pair.image, 4))
            assert file.read_bytes() == whole and list(cache.iterdir()) == [file]
            out, err = capsys.readouterr()
            assert out == "" and err.count("\n") <= 1
            return err.removeprefix(f"{file}: ")

        return damage

    def test_is_a_file_that_is_not_rewritten(self, pairs, cache, monkeypatch):
        first = LesionImages(pairs, 4, cache=cache)
        (file,) = cache.iterdir()
        monkeypatch.setattr("r2unet.data.lesion_images._decode", None)
        assert np.array_equal(LesionImages(pairs, 4, cache=cache)[3].image, first[3].image)
        assert list(cache.iterdir()) == [file]

    def test_can_be_read_with_numpy(self, pairs, cache):
        data = LesionImages(pairs, 4, cache=cache)
        (file,) = cache.iterdir()
        pixels = np.load(file)
        assert (pixels.shape, pixels.dtype) == ((4, 4, 4, 4), np.uint8)
        assert np.array_equal(pixels[2, ..., :3], data[2].image)

    def test_with_any_changed_bit_is_made_again(self, damaged):
        rng = np.random.default_rng(0)

        def flip(content):
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            return content

        for _ in range(30):
            assert damaged(flip).endswith("; reading the images again\n")

    @pytest.mark.parametrize(
        "change, words",
        [
            (lambda content: content[:150], "another length"),
            (lambda content: content + b"0", "another length"),
            (lambda content: b"", "another length"),
            (lambda content: content.replace(b"|u1", b"|i1"), "header"),
            (lambda content: content.replace(b"(4, 4, 4, 4)", b"(2, 8, 4, 4)"), "header"),
            (lambda content: bytes(len(content)), "header"),
            (lambda content: content[:128] + bytes(len(content) - 128), "checksum"),
        ],
    )
    def test_that_is_damaged_is_made_again_with_one_line_of_explanation(self, damaged, change, words):
        assert words in damaged(change)

    def test_that_two_trainings_fill_at_the_same_time_is_whole(self, pairs, cache, monkeypatch):
        decode, others = lesion_images._decode, []

        def slow(pair, size):  # another training starts and ends while this one reads its last image
            if pair is pairs[3] and not others:
                others.append(None)
                others[0] = LesionImages(pairs, 4, cache=cache)
            return decode(pair, size)

        monkeypatch.setattr(lesion_images, "_decode", slow)
        for data in (LesionImages(pairs, 4, threads=1, cache=cache), *others):
            for pair, sample in zip(pairs, data, strict=True):
                assert np.array_equal(sample.image, read_image(pair.image, 4))
        assert len(others) == 1 and len(list(cache.iterdir())) == 1

    def test_of_a_name_that_is_not_utf_8(self, pairs, cache):
        name = os.fsdecode(b"ISIC_0000001\xff.png")
        pairs[0] = pairs[0]._replace(image=pairs[0].image.rename(pairs[0].image.with_name(name)))
        assert len(LesionImages(pairs, 4, cache=cache)) == 4

    def test_another_size_selection_or_order_makes_another_file(self, pairs, cache):
        for chosen, size in ((pairs, 4), (pairs, 5), (pairs[1:], 4), (pairs[::-1], 4)):
            data = LesionImages(chosen, size, cache=cache)
            assert np.array_equal(data[0].image, read_image(chosen[0].image, size))
        assert len(list(cache.iterdir())) == 4

    def test_images_without_masks_have_a_file_of_their_own(self, pairs, cache):
        without = [pair._replace(mask=None) for pair in pairs]
        assert LesionImages(pairs, 4, cache=cache)[0].mask.any()
        assert not LesionImages(without, 4, cache=cache)[0].mask.any()
        assert len(list(cache.iterdir())) == 2

    def test_a_changed_image_makes_another_file(self, pairs, cache):
        for second, colour in enumerate([(100, 100, 100), (3, 3, 3)]):
            write_image(pairs[0].image, colour)
            # With padding to the old length, only the modification time shows the change.
            pairs[0].image.write_bytes(pairs[0].image.read_bytes().ljust(1000, b"\0"))
            os.utime(pairs[0].image, (second, second))
            assert tuple(LesionImages(pairs, 4, cache=cache)[0].image[0, 0]) == colour

    def test_an_error_leaves_no_file(self, pairs, cache):
        pairs[3].image.write_bytes(pairs[3].image.read_bytes()[:300])
        assert_refused(lambda: LesionImages(pairs, 4, cache=cache), pairs[3].image, "download it again")
        assert list(cache.iterdir()) == []

    def test_in_the_place_of_a_file_is_an_error(self, pairs):
        assert_refused(lambda: LesionImages(pairs, 4, cache=pairs[0].image), pairs[0].image, "another folder")

    def test_is_no_pipe(self, pairs, cache):
        LesionImages(pairs, 4, cache=cache)
        (file,) = cache.iterdir()
        file.unlink()
        os.mkfifo(file)
        assert_refused(lambda: LesionImages(pairs, 4, cache=cache), file, "it is a pipe")


@pytest.mark.skipif("ISIC_ROOT" not in os.environ, reason="set ISIC_ROOT to a folder of ISIC 2017 images")
class TestRealImages:
    def test_a_real_lesion_fills_a_part_of_the_image(self):
        data = LesionImages(find_pairs(os.environ["ISIC_ROOT"], "validation")[:20], 64)
        filled = [sample.mask.mean() for sample in data]
        assert all(0.001 < part < 1 for part in filled)
        assert np.mean(filled) == pytest.approx(0.25, abs=0.2)

    def test_an_original_and_its_published_copy_are_equal_when_resized(self):
        root = Path(os.environ["ISIC_ROOT"])
        if not (root / "originals").is_dir():
            pytest.skip("ISIC_ROOT has no folder originals/")
        copies = {pair.name: pair for pair in find_pairs(root, "validation")}
        pairs = [pair for pair in find_pairs(root / "originals", "validation") if pair.name in copies][:4]
        for original, copy in zip(
            LesionImages(pairs, 64), [copies[pair.name] for pair in pairs], strict=True
        ):
            assert np.abs(original.image.astype(int) - read_image(copy.image, 64)).mean() < 3
            assert (original.mask != read_mask(copy.mask, 64)).mean() < 0.01
