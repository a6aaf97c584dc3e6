"""R2U-Net, a recurrent residual U-Net, for segmenting skin lesions in dermoscopy images.

The names below are the Python API. Each is imported from its module when it is first used (PEP 562), so that
`import r2unet` is quick.
"""

__version__ = "0.1.0"

_MODULES = {
    # networks
    "R2UNet": "r2unet.network.model",
    "UNet": "r2unet.network.model",
    "ResUNet": "r2unet.network.model",
    "RecurrentUNet": "r2unet.network.model",
    "AttentionUNet": "r2unet.network.model",
    "R2AttentionUNet": "r2unet.network.model",
    "NETWORKS": "r2unet.network.model",
    "LOSSES": "r2unet.network.losses",
    "read_pytorch": "r2unet.network.interop",
    # data
    "Sample": "r2unet.data.sample",
    "collate": "r2unet.data.sample",
    "SyntheticLesions": "r2unet.data.synthetic",
    "LesionImages": "r2unet.data.lesion_images",
    "find_pairs": "r2unet.data.folders",
    "read_image": "r2unet.data.images",
    "read_mask": "r2unet.data.images",
    "CLASSES": "r2unet.data.classes",
    # training and prediction
    "Settings": "r2unet.training.settings",
    "Trainer": "r2unet.training.trainer",
    "load_model": "r2unet.training.checkpoints",
    "predict_image": "r2unet.prediction.predict",
    "predict_lesion": "r2unet.prediction.predict",
    "correction": "r2unet.training.calibrate",
    # scores of one mask
    "confusion": "r2unet.scores.metrics",
    "jaccard": "r2unet.scores.metrics",
    "dice": "r2unet.scores.metrics",
    # errors
    "InputError": "r2unet.errors",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    """Import a name of the API when it is first used, and store it in the module."""
    if name not in _MODULES:
        raise AttributeError(f"module 'r2unet' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
