"""The Python API: the names that `from r2unet import ...` offers, and that they are imported on first use."""

import importlib
import subprocess
import sys

import pytest

import r2unet

NAMES = {
    "r2unet.network.model": [
        *("R2UNet", "UNet", "ResUNet", "RecurrentUNet", "AttentionUNet", "R2AttentionUNet"),
        "NETWORKS",
    ],
    "r2unet.network.losses": ["LOSSES"],
    "r2unet.network.interop": ["read_pytorch"],
    "r2unet.data.sample": ["Sample", "collate"],
    "r2unet.data.synthetic": ["SyntheticLesions"],
    "r2unet.data.folders": ["find_pairs"],
    "r2unet.data.lesion_images": ["LesionImages"],
    "r2unet.data.images": ["read_image", "read_mask"],
    "r2unet.data.classes": ["CLASSES"],
    "r2unet.training.settings": ["Settings"],
    "r2unet.training.trainer": ["Trainer"],
    "r2unet.training.checkpoints": ["load_model"],
    "r2unet.training.calibrate": ["correction"],
    "r2unet.prediction.predict": ["predict_image", "predict_lesion"],
    "r2unet.scores.metrics": ["confusion", "jaccard", "dice"],
    "r2unet.errors": ["InputError"],
}
PLACES = [(name, module) for module, names in NAMES.items() for name in names]


@pytest.mark.parametrize(("name", "module"), PLACES)
def test_each_name_is_the_object_of_its_module(name, module):
    assert getattr(r2unet, name) is getattr(importlib.import_module(module), name)


def test_all_and_dir_list_exactly_these_names():
    names = {name for name, _ in PLACES}
    assert set(r2unet.__all__) == names | {"__version__"}
    assert len(r2unet.__all__) == len(set(r2unet.__all__))
    assert names <= set(dir(r2unet)) and dir(r2unet) == sorted(dir(r2unet))


def test_a_wrong_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'r2unet' has no attribute 'R3UNet'"):
        r2unet.R3UNet  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'R3UNet'"):
        from r2unet import R3UNet  # noqa: F401


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import r2unet; print(sorted(set(sys.modules) - before))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "['r2unet']\n"


def test_all_names_can_be_imported_with_a_star():
    namespace = {}
    exec("from r2unet import *", namespace)
    assert set(r2unet.__all__) <= set(namespace)
