"""The diagnoses as a tree, and the questions that can be asked about a lesion.

    benign       nevus
                 benign keratosis         also solar lentigo and lichen-planus-like keratosis
                   seborrheic keratosis
                 dermatofibroma
                 vascular lesion
    malignant    melanoma
                 basal cell carcinoma
                 actinic keratosis        with Bowen's disease

Each question is a set of classes. A lesion belongs to the class that is its diagnosis, or else to the class
that is the nearest ancestor of its diagnosis. A seborrheic keratosis is thus a benign keratosis in types-7,
and benign in the question of malignancy. A lesion of which only "malignant" is known, as in ISIC 2016,
belongs to none of the types.

    malignant    benign or malignant: is it dangerous?
    types-3      the three diagnoses of ISIC 2017
    types-7      the seven diagnoses of HAM10000 and ISIC 2018

Melanoma and basal cell carcinoma are malignant. Actinic keratosis and Bowen's disease, which HAM10000 joins
in one class (akiec), are precursors of a carcinoma and pre-malignant; they are counted as malignant here,
because they too must be treated. This file is the only one that says which diagnosis is malignant.
"""

from __future__ import annotations

from collections.abc import Iterable

# Each diagnosis and its parent in the tree.
PARENTS = {
    "benign": None,
    "malignant": None,
    "nevus": "benign",
    "benign_keratosis": "benign",
    "seborrheic_keratosis": "benign_keratosis",
    "dermatofibroma": "benign",
    "vascular_lesion": "benign",
    "melanoma": "malignant",
    "basal_cell_carcinoma": "malignant",
    "actinic_keratosis": "malignant",
}

# The sets of classes by the name of the question. The order is that of the challenges' columns.
CLASSES = {
    "malignant": ("benign", "malignant"),
    "types-3": ("melanoma", "seborrheic_keratosis", "nevus"),
    "types-7": (
        "melanoma",
        "nevus",
        "basal_cell_carcinoma",
        "actinic_keratosis",
        "benign_keratosis",
        "dermatofibroma",
        "vascular_lesion",
    ),
}

# The columns of a challenge's table for each set of classes.
COLUMNS = {
    "malignant": CLASSES["malignant"],
    "types-3": CLASSES["types-3"],
    "types-7": ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
}


def class_index(diagnosis: str | None, classes: tuple[str, ...]) -> int | None:
    """Return the index of the class to which a diagnosis belongs, or None if it belongs to none of them."""
    while diagnosis is not None and diagnosis not in classes:
        diagnosis = PARENTS[diagnosis]
    return None if diagnosis is None else classes.index(diagnosis)


def malignant_classes(classes: tuple[str, ...]) -> list[int]:
    """Return the indices of the malignant classes: the sum of their probabilities is that of malignancy."""
    return [k for k, name in enumerate(classes) if class_index(name, CLASSES["malignant"]) == 1]


def scored_classes(diagnoses: Iterable[str | None], classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes to score on images with these diagnoses: benign or malignant if they say no more."""
    known, malignancy = set(diagnoses) - {None}, CLASSES["malignant"]
    return malignancy if known and known <= set(malignancy) else classes
