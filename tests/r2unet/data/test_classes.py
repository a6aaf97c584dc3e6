"""The tree of diagnoses answers three questions: benign or malignant, three types, seven types."""

import pytest

from r2unet.data.classes import CLASSES, PARENTS, class_index, malignant_classes, scored_classes

MALIGNANT = {"malignant", "melanoma", "basal_cell_carcinoma", "actinic_keratosis"}


def class_of(diagnosis, question):
    index = class_index(diagnosis, CLASSES[question])
    return None if index is None else CLASSES[question][index]


@pytest.mark.parametrize("diagnosis", PARENTS)
def test_every_diagnosis_is_either_benign_or_malignant(diagnosis):
    assert class_of(diagnosis, "malignant") == ("malignant" if diagnosis in MALIGNANT else "benign")


@pytest.mark.parametrize("question", CLASSES)
def test_every_class_is_a_diagnosis_and_its_own_class(question):
    assert [class_of(name, question) for name in CLASSES[question]] == list(CLASSES[question])


@pytest.mark.parametrize(
    "diagnosis, question, expected",
    [
        ("seborrheic_keratosis", "types-3", "seborrheic_keratosis"),
        ("seborrheic_keratosis", "types-7", "benign_keratosis"),  # its kind
        ("seborrheic_keratosis", "malignant", "benign"),  # two steps up the tree
        ("benign_keratosis", "types-3", None),  # it can be another kind
        ("dermatofibroma", "types-3", None),
        ("malignant", "types-7", None),
        ("benign", "types-3", None),
        (None, "malignant", None),
    ],
)
def test_the_class_is_the_diagnosis_or_its_nearest_ancestor(diagnosis, question, expected):
    assert class_of(diagnosis, question) == expected


@pytest.mark.parametrize(
    "question, expected",
    [
        ("malignant", ["malignant"]),
        ("types-3", ["melanoma"]),
        ("types-7", ["melanoma", "basal_cell_carcinoma", "actinic_keratosis"]),
    ],
)
def test_malignant_classes(question, expected):
    assert [CLASSES[question][k] for k in malignant_classes(CLASSES[question])] == expected


@pytest.mark.parametrize(
    "diagnoses, expected",
    [
        (["benign", "malignant", None], "malignant"),
        (["benign"], "malignant"),
        (["benign", "malignant", "nevus"], "types-7"),  # some types are known
        (["nevus", "melanoma"], "types-7"),
        ([None], "types-7"),
        ([], "types-7"),
    ],
)
def test_where_the_labels_say_only_benign_or_malignant_these_two_are_scored(diagnoses, expected):
    assert scored_classes(diagnoses, CLASSES["types-7"]) == CLASSES[expected]


def test_an_unknown_diagnosis_is_a_mistake_of_the_programmer():
    with pytest.raises(KeyError):
        class_index("mole", CLASSES["types-7"])
