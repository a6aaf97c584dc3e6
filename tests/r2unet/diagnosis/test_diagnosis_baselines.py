"""The trivial classifiers: equal to scikit-learn on stored cases, with derivatives that are right."""

import numpy as np
import pytest

from r2unet.diagnosis.baselines import ClassShares, LogisticRegression, objective

# scikit-learn 1.9.1, LogisticRegression(C=1 / (l2 * V), class_weight=..., solver="newton-cg", tol=1e-10) on
# the standardised features of `stored_case`; probabilities of the images 0, 10, 20, 30, 40 and 50.
UNWEIGHTED = [
    [0.180140867, 0.57296829, 0.246890843],
    [0.88621622, 0.104695724, 0.009088056],
    [0.628906675, 0.308795572, 0.062297753],
    [0.211057008, 0.50159585, 0.287347142],
    [0.816420199, 0.165478081, 0.018101721],
    [0.443923826, 0.464063224, 0.09201295],
]
UNWEIGHTED_COEFFICIENTS = [
    [-0.731905419, -0.140352013, -1.012515368],
    [0.148881409, 0.090775555, 0.169658282],
    [0.58302401, 0.049576458, 0.842857085],
]
WEIGHTED = [
    [0.078067176, 0.561142101, 0.360790724],
    [0.724683279, 0.245634043, 0.029682679],
    [0.43559889, 0.447639295, 0.116761814],
    [0.067752657, 0.476656897, 0.455590446],
    [0.636574035, 0.31721505, 0.046210915],
    [0.254112589, 0.585057993, 0.160829418],
]


def stored_case():
    """Features (60, 3) of different scales and labels (60,) of three classes: 28, 22 and 10 images."""
    i = np.arange(60)
    features = np.stack([np.sin(1 + i), 10 * np.cos(2 * i) + i / 6, np.sin(i * i)], axis=1)
    first = features[:, 0] + features[:, 2] + 0.7 * np.sin(5.0 * i) > 0.2
    return features, first.astype(int) + (np.cos(7.0 * i) > 0.6)


def random_objective(seed=0, images=40, columns=5, classes=4):
    rng = np.random.default_rng(seed)
    rows = np.append(rng.normal(size=(images, columns - 1)), np.ones((images, 1)), axis=1)
    image_weights = rng.uniform(0.2, 1, images)
    data = rows, rng.integers(0, classes, images), image_weights / image_weights.sum(), 0.05
    return rng.normal(size=(classes, columns)), data, rng


def gradient_at(model, features, labels, l2):
    """The largest derivative of the objective at a fitted model."""
    rows = np.append((features - model.mean) / model.scale, np.ones((len(labels), 1)), axis=1)
    weights = np.append(model.weights, model.biases[:, None], axis=1)
    return np.abs(objective(weights, rows, labels, np.full(len(labels), 1 / len(labels)), l2)[1]).max()


@pytest.mark.parametrize(
    ("l2", "class_weights", "expected"), [(0.01, None, UNWEIGHTED), (0.002, (1, 2.5, 4), WEIGHTED)]
)
def test_the_probabilities_equal_those_of_scikit_learn(l2, class_weights, expected):
    features, labels = stored_case()
    np.testing.assert_array_equal(np.bincount(labels), [28, 22, 10])
    model = LogisticRegression.fit(features, labels, 3, l2, class_weights)
    np.testing.assert_allclose(model.probabilities(features[::10]), expected, atol=1e-6)


def test_the_coefficients_equal_those_of_scikit_learn():
    features, labels = stored_case()
    model = LogisticRegression.fit(features, labels, 3, l2=0.01)
    np.testing.assert_allclose(model.weights, UNWEIGHTED_COEFFICIENTS, atol=1e-6)
    assert model.biases.sum() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_finite_differences(seed):
    weights, data, rng = random_objective(seed)
    direction = rng.normal(size=weights.shape)
    h = 1e-5
    difference = objective(weights + h * direction, *data)[0] - objective(weights - h * direction, *data)[0]
    gradient = objective(weights, *data)[1]
    assert np.sum(gradient * direction) == pytest.approx(difference / (2 * h), rel=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_the_hessian_is_the_derivative_of_the_gradient(seed):
    weights, data, rng = random_objective(seed)
    direction = rng.normal(size=weights.shape)
    h = 1e-5
    difference = objective(weights + h * direction, *data)[1] - objective(weights - h * direction, *data)[1]
    hessian = objective(weights, *data)[2]
    np.testing.assert_allclose(
        np.tensordot(hessian, direction, 2), difference / (2 * h), rtol=1e-6, atol=1e-9
    )


def test_the_hessian_is_symmetric_and_has_one_direction_without_curvature():
    weights, data, _ = random_objective()
    hessian = objective(weights, *data)[2].reshape(20, 20)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-15)
    curvatures = np.linalg.eigvalsh(hessian)
    assert curvatures[0] == pytest.approx(0.0, abs=1e-12) and curvatures[1] > 1e-3


def test_the_fit_is_a_minimum():
    features, labels = stored_case()
    assert gradient_at(LogisticRegression.fit(features, labels, 3, l2=0.01), features, labels, 0.01) < 1e-10


def test_steps_that_are_too_long_are_shortened():
    """These features have outliers. With full steps, Newton's method diverges to a singular Hessian."""
    i = np.arange(60)
    features = np.stack([np.sin(1.0 + i) ** 9, np.cos(2.0 * i) ** 9, np.tan(1.3 * i)], axis=1)
    labels = (i % 17 == 0).astype(int) + (i % 13 == 0)
    assert gradient_at(LogisticRegression.fit(features, labels, 3, l2=1e-8), features, labels, 1e-8) < 1e-10


def test_without_useful_features_the_probabilities_are_the_class_shares():
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    model = LogisticRegression.fit(np.full((10, 2), 0.1), labels, 3)
    np.testing.assert_allclose(
        model.probabilities(np.array([[0.1, 0.1], [7.0, -3.0]])), [[0.5, 0.3, 0.2]] * 2
    )


def test_weights_inverse_to_the_class_shares_divide_the_shares_out():
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    model = LogisticRegression.fit(np.zeros((10, 1)), labels, 3, class_weights=[1 / 5, 1 / 3, 1 / 2])
    np.testing.assert_allclose(model.probabilities(np.zeros((1, 1))), [[1 / 3] * 3])


def test_units_of_the_features_do_not_matter():
    features, labels = stored_case()
    scales, offsets = np.array([1e6, 1e-4, 30]), np.array([5e5, 2e-3, -400])
    expected = LogisticRegression.fit(features, labels, 3).probabilities(features)
    rescaled = features * scales + offsets
    found = LogisticRegression.fit(rescaled, labels, 3).probabilities(rescaled)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_separable_classes_and_far_away_features_give_finite_probabilities():
    features = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    model = LogisticRegression.fit(features, np.array([0, 0, 1, 1]), 2, l2=1e-8)
    probabilities = model.probabilities(np.array([[-1e6], [-1.0], [1e6]]))
    np.testing.assert_allclose(probabilities, [[1, 0], [1, 0], [0, 1]], atol=1e-4)


def test_a_class_without_training_images_has_the_probability_0():
    features, labels = stored_case()
    expected = LogisticRegression.fit(features, labels, 3).probabilities(features)
    found = LogisticRegression.fit(features, np.array([0, 2, 4])[labels], 5).probabilities(features)
    np.testing.assert_allclose(found[:, [0, 2, 4]], expected)
    assert not found[:, [1, 3]].any()


def test_a_single_class_has_the_probability_1():
    model = LogisticRegression.fit(np.arange(6.0).reshape(3, 2), np.array([1, 1, 1]), 2)
    np.testing.assert_array_equal(model.probabilities(np.zeros((2, 2))), [[0, 1], [0, 1]])


def test_two_fits_are_equal_bit_for_bit_and_leave_their_input_as_it_is():
    features, labels = stored_case()
    before = features.copy(), labels.copy()
    first, second = (LogisticRegression.fit(features, labels, 3) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    first.probabilities(features)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_class_shares_predict_the_shares_of_the_training_set_for_every_image():
    shares = ClassShares.fit(np.array([2, 2, 0, 2]), 4)
    np.testing.assert_array_equal(shares.probabilities(np.zeros((3, 12))), [[0.25, 0, 0.75, 0]] * 3)


def test_always_the_largest_class_has_a_high_accuracy_and_the_balanced_accuracy_of_chance():
    labels = np.repeat([0, 1, 2], [67, 22, 11])
    chosen = ClassShares.fit(labels, 3).probabilities(np.zeros((100, 1))).argmax(axis=1)
    assert np.mean(chosen == labels) == 0.67
    assert np.mean([np.mean(chosen[labels == k] == k) for k in range(3)]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((3, 2))}, r"features \(3, 2\).*4 labels"),
        ({"features": np.array([[0.0], [1], [np.nan], [2]])}, r"features\[2, 0\] is nan"),
        ({"labels": np.array([0, 1, 2, 0])}, r"labels from 0 to 2 must be within 0\.\.1"),
        ({"labels": np.array([0, 1, -1, 0])}, "labels from -1"),
        ({"labels": np.array([0.0, 1, 1, 0])}, "integers"),
        ({"labels": np.array([], int), "features": np.zeros((0, 1))}, "at least 1"),
        ({"l2": 0.0}, "l2 = 0.0 must be positive"),
        ({"l2": np.nan}, "l2 = nan"),
        ({"class_weights": [1.0]}, "2 positive numbers"),
        ({"class_weights": [1.0, 0.0]}, "2 positive numbers"),
    ],
)
def test_invalid_training_data_are_rejected(changes, message):
    valid = {"features": np.arange(4.0)[:, None], "labels": np.array([0, 1, 1, 0]), "classes": 2}
    with pytest.raises(ValueError, match=message):
        LogisticRegression.fit(**{**valid, **changes})


def test_other_columns_than_in_training_are_rejected():
    model = LogisticRegression.fit(np.arange(4.0)[:, None], np.array([0, 1, 1, 0]), 2)
    with pytest.raises(ValueError, match=r"features \(4, 2\) must be \(N, 1\)"):
        model.probabilities(np.zeros((4, 2)))
