"""Data: image files, ISIC folders, generated lesions, and augmentation."""
