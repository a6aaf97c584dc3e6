"""Both feeds give the same batches, up to a stated rounding, and each is chosen for a stated reason."""

import numpy as np
import pytest

from minidl.backend import device_of, to_numpy
from r2unet.data.changes import draw_changes
from r2unet.data.folders import find_pairs
from r2unet.data.lesion_images import read_pair
from r2unet.data.sample import SCALE, Sample
from r2unet.data.synthetic import SyntheticLesions
from r2unet.errors import InputError
from r2unet.training import feed as feeds
from r2unet.training.device_feed import DeviceFeed, gaussian_boxes
from r2unet.training.feed import CpuFeed, choose_feed, count_workers, describe_feed
from r2unet.training.interruption import Interrupted
from tests.r2unet.training.test_trainer_resume import InterruptedTrainer, files, resume

STRENGTHS = (0.5, 1.0, 2.0)


def random_samples(count, size):
    """Samples of noise, which has no two equal neighbours, and of masks of noise, which are all edge."""
    rng = np.random.default_rng(0)
    for i in range(count):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        yield Sample(image, rng.integers(0, 2, (size, size), dtype=np.uint8), f"noise {i}", "nevus")


def real_samples(root, size, count=12):
    return [read_pair(pair, size) for pair in find_pairs(str(root), "training")[:count]]


def new_feed(kind, samples, device, seed=5, strength=1.0, targets=None, batch_size=8, **options):
    options = {"shuffle": True, "rng": np.random.default_rng(seed), "threads": 0, **options}
    return kind(samples, batch_size, strength, device, targets, **options)


def drawn_changes(feed, strength):
    """Return the changes of every sample of the next epoch, in order."""
    rng = np.random.default_rng()
    rng.bit_generator.state = feed.loader.rng.bit_generator.state
    rng.permutation(len(feed.loader.dataset))
    seeds = rng.integers(2**63, size=len(feed.loader.dataset))
    return [draw_changes(np.random.default_rng(seed), strength) for seed in seeds]


def arrays(batches, name):
    return np.concatenate([to_numpy(getattr(batch, name)) for batch in batches])


def assert_same_batches(samples, device, strength):
    """Compare an epoch of both feeds; return the differences of the levels (N, 3, H, W)."""
    cpu, gpu = (new_feed(kind, samples, device, strength=strength) for kind in (CpuFeed, DeviceFeed))
    changes = drawn_changes(gpu, strength)
    expected, found = list(cpu.batches()), list(gpu.batches())
    assert [batch.names for batch in found] == [batch.names for batch in expected]
    assert {device_of(array) for batch in found for array in batch[:2]} == {device}
    assert {array.dtype for batch in found for array in batch[:2]} == {np.dtype("float32")}
    np.testing.assert_array_equal(arrays(found, "masks"), arrays(expected, "masks"))
    levels = np.rint(SCALE * np.abs(arrays(found, "images") - arrays(expected, "images"))).astype(int)
    for difference, each in zip(levels, changes, strict=True):
        assert difference.max() <= np.diff(each.tone.astype(int)).max()  # the steepest step of the tone curve
        assert each.quality is None or not difference.any()  # a compressed sample comes from the CPU
    return levels


@pytest.mark.parametrize("strength", STRENGTHS)
def test_both_feeds_give_the_same_batches_of_noise(device, strength):
    levels = assert_same_batches(list(random_samples(40, 33)), device, strength)
    assert (levels > 0).mean() < 1e-3


def test_both_feeds_give_the_same_batches_of_real_images(device, isic_root):
    levels = assert_same_batches(real_samples(isic_root, 64), device, 1.0)
    assert (levels > 0).mean() < 1e-3


def test_the_gaussian_is_pillow_s_to_the_bit(rng):
    from PIL import Image, ImageFilter

    from minidl.images import gaussian_blur

    image = rng.integers(0, 256, (29, 31, 3), dtype=np.uint8)
    for sigma in (0.0, 0.01, 0.3, 0.7, 0.99, 1.0, 1.5, 2.2, 3.0, 6.1):
        expected = np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
        boxes = np.array([gaussian_boxes(sigma)], np.float64)
        blurred = gaussian_blur(image.transpose(2, 0, 1)[None], boxes)[0].transpose(1, 2, 0)
        np.testing.assert_array_equal(blurred, expected)


class TestDeviceFeed:
    @pytest.mark.parametrize("threads", [0, 3])
    @pytest.mark.parametrize("start", [0, 2])
    def test_batches_depend_on_the_seed_alone_and_an_epoch_can_be_resumed(self, device, threads, start):
        samples = list(random_samples(21, 8))
        whole, part = (new_feed(DeviceFeed, samples, device, threads=t) for t in (0, threads))
        expected, found = list(whole.batches())[start:], list(part.batches(start))
        for name in ("images", "masks"):
            np.testing.assert_array_equal(arrays(found, name), arrays(expected, name))
        assert (arrays(whole.batches(), "images") == arrays(part.batches(), "images")).all()  # the next epoch
        assert (arrays(whole.batches(), "images") != arrays(expected, "images")[:1]).any()

    def test_has_the_targets_of_each_batch(self, device):
        def targets(samples):
            return np.array([[float(sample.name.split()[1])] for sample in samples], np.float32)

        for batch in new_feed(DeviceFeed, list(random_samples(11, 8)), device, targets=targets).batches():
            assert [f"noise {int(n)}" for n in to_numpy(batch.targets)[:, 0]] == batch.names

    def test_takes_four_bytes_a_pixel(self, device):
        feed = new_feed(DeviceFeed, list(random_samples(5, 8)), device)
        assert feed.images.nbytes + feed.masks.nbytes == feeds.image_bytes(feed.samples) == 5 * 8 * 8 * 4


class TestChoice:
    SAMPLES = SyntheticLesions(10, 16, seed=0)  # 10,240 bytes with their masks

    @pytest.fixture(autouse=True)
    def memory(self, monkeypatch):
        """Let every device have 40,960 bytes of free memory, four times those of the images."""
        monkeypatch.setattr(feeds, "free_memory", lambda device: 40_960)

    @pytest.mark.parametrize(
        ("device", "name", "strength", "kind", "reason"),
        [
            ("cpu", "auto", 1.0, CpuFeed, "there is no GPU"),
            ("cuda", "auto", 1.0, DeviceFeed, "the images take 0 MB of its 0 MB of free memory"),
            ("cuda", "auto", 0.0, CpuFeed, "nothing is augmented"),
            ("cuda", "cpu", 1.0, CpuFeed, "as --feed says"),
            ("cuda", "device", 1.0, DeviceFeed, "as --feed says"),
        ],
    )
    def test_and_its_reason(self, device, name, strength, kind, reason):
        assert choose_feed(name, self.SAMPLES, strength, device) == (kind, reason)

    def test_auto_is_the_cpu_where_the_images_take_more_than_a_quarter_of_the_memory(self, monkeypatch):
        monkeypatch.setattr(feeds, "free_memory", lambda device: 40_959)
        kind, reason = choose_feed("auto", self.SAMPLES, 1.0, "cuda")
        assert kind is CpuFeed and reason.startswith(
            "the images take 0 MB, more than a quarter of the device's"
        )
        assert choose_feed("device", self.SAMPLES, 1.0, "cuda")[0] is DeviceFeed

    def test_auto_is_the_cpu_where_a_kernel_cannot_count_the_bytes(self, monkeypatch):
        monkeypatch.setattr(feeds, "LARGEST", 10 * 16 * 16 * 3 - 1)
        reason = "a kernel cannot count the 7,680 bytes of the images"
        assert choose_feed("auto", self.SAMPLES, 1.0, "cuda") == (CpuFeed, reason)
        with pytest.raises(InputError, match=f"--feed device: {reason}; use --feed cpu"):
            choose_feed("device", self.SAMPLES, 1.0, "cuda")

    @pytest.mark.parametrize(("device", "strength"), [("cpu", 1.0), ("cuda", 0.0)])
    def test_of_an_impossible_feed_is_refused(self, device, strength):
        with pytest.raises(InputError, match="--feed device: (there is no GPU|nothing is augmented); use"):
            choose_feed("device", self.SAMPLES, strength, device)
        with pytest.raises(InputError, match="--feed disk: must be one of auto, device, cpu"):
            choose_feed("disk", self.SAMPLES, strength, device)

    def test_is_described_in_one_line(self, device):
        cpu, gpu = (new_feed(kind, self.SAMPLES, device, threads=1) for kind in (CpuFeed, DeviceFeed))
        assert describe_feed(cpu, "R") == "batches are prepared by 1 thread of the CPU (R)"
        assert describe_feed(gpu, "R") == (
            "batches are augmented on the device (R); images to compress as JPEG by 4 threads of the CPU"
        )
        more = new_feed(DeviceFeed, self.SAMPLES, device, threads=6)
        assert describe_feed(more, "R").endswith("by 6 threads of the CPU")
        for count, text in ((1, "1 worker process"), (3, "3 worker processes")):
            cpu, gpu = (new_feed(kind, self.SAMPLES, device, workers=count) for kind in (CpuFeed, DeviceFeed))
            assert describe_feed(cpu, "R") == f"batches are prepared by {text} (R)"
            assert describe_feed(gpu, "R").endswith(f"(R); images to compress as JPEG by {text}")


@pytest.mark.parametrize(
    ("workers", "device", "cores", "sharing", "count"),
    [
        ("auto", "cuda", 16, 1, 8),
        ("auto", "cuda", 6, 1, 6),
        ("auto", "cuda", 6, 2, 3),
        ("auto", "cuda", 6, 4, 0),  # one core for each, which the training itself needs
        ("auto", "cuda", 1, 1, 0),
        ("auto", "cuda-on-cpu", 16, 1, 0),
        ("auto", "cpu", 16, 1, 0),
        (0, "cuda", 16, 1, 0),
        (12, "cpu", 2, 3, 12),
    ],
)
def test_auto_is_a_worker_for_each_core_where_a_gpu_trains(
    monkeypatch, workers, device, cores, sharing, count
):
    monkeypatch.setattr(feeds, "available_cores", lambda: cores)
    assert count_workers(workers, device, sharing) == count


class TestTraining:
    SMALL = {"widths": (2,), "feed": "device"}

    def test_resumes_bit_for_bit(self, new_trainer, tmp_path, device):
        if device == "cpu":
            pytest.skip("the CPU has no other device")
        options = {"device": device, "threads": 2, **self.SMALL}
        new_trainer(tmp_path / "whole", **options).run()
        run = new_trainer(tmp_path / "parts", InterruptedTrainer, **options)
        with pytest.raises(Interrupted):
            run.run()
        resume(new_trainer(tmp_path / "parts", **options))
        assert files(tmp_path / "parts") == files(tmp_path / "whole")

    def test_prints_the_feed_and_names_it_in_the_command_that_resumes(
        self, r2unet, tiny, tmp_path, device, monkeypatch
    ):
        monkeypatch.setattr("r2unet.training.trainer.Trainer", InterruptedTrainer)
        words = "train", *tiny, "--widths=2", "--device", device
        code, out, err = r2unet(*words, "--out", tmp_path / "a")
        assert code == 130
        if device == "cpu":
            assert "batches" not in out and "--feed" not in err
            code, _, err = r2unet(*words, "--out", tmp_path / "b", "--feed", "device")
            assert code == 2 and "--feed device: there is no GPU; use --feed cpu" in err
        else:
            assert "batches are augmented on the device (the images take 0 MB of its " in out
            assert f"--device {device} --feed device" in err
