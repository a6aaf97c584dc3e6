"""The data: image files, the ISIC folders, generated lesions, and augmentation."""
