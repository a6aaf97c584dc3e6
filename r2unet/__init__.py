"""R2U-Net, a recurrent residual U-Net, for outlining skin lesions in dermoscopy images."""

__version__ = "0.1.0"
