import numpy as np
import pytest
from sklearn.svm import SVC

from rfadapt.datasets import load_drifted_digits, load_photograph_colours, make_gaussian_shift


def test_gaussian_shift_map_carries_one_gaussian_onto_the_other():
    data = make_gaussian_shift(10, 5, random_state=0)
    identity = np.eye(5)
    stretch = data.optimal_map(identity) - data.optimal_map(np.zeros((5, 5)))
    np.testing.assert_allclose(data.optimal_map(data.mean0[None]), data.mean1[None])
    np.testing.assert_allclose(stretch @ data.covariance0 @ stretch.T, data.covariance1, atol=1e-12)
    # A linear map between Gaussians is optimal exactly if it is symmetric and positive definite.
    np.testing.assert_allclose(stretch, stretch.T, atol=1e-12)
    assert np.linalg.eigvalsh(stretch).min() > 0
    commutator = data.covariance0 @ data.covariance1 - data.covariance1 @ data.covariance0
    np.testing.assert_allclose(commutator, 0, atol=1e-12)


def test_gaussian_shift_samples_and_cost_agree_with_the_map():
    data = make_gaussian_shift((40_000, 30_000), 3, shift=1.5, random_state=1)
    assert data.X0.shape == (40_000, 3) and data.X1.shape == (30_000, 3)
    moved = data.optimal_map(data.X0)
    np.testing.assert_allclose(data.inverse_map(moved), data.X0, atol=1e-10)
    cost = np.mean(np.sum((moved - data.X0) ** 2, axis=1))
    np.testing.assert_allclose(cost, data.transport_cost, rtol=0.03)
    np.testing.assert_allclose(np.cov(data.X0.T), data.covariance0, atol=0.1)
    np.testing.assert_allclose(np.cov(data.X1.T), data.covariance1, atol=0.1)
    np.testing.assert_allclose(data.X1.mean(axis=0), data.mean1, atol=0.06)
    assert np.linalg.norm(data.mean1 - data.mean0) == pytest.approx(1.5)


def test_gaussian_shift_is_reproducible():
    first, second, other = (make_gaussian_shift(20, 2, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.X1, second.X1)
    assert not np.array_equal(first.X1, other.X1)


def test_digits_are_disjoint_halves_and_the_clean_one_is_untouched():
    plain = load_drifted_digits(blur=0, gain=1, offset=0, rotation=0, random_state=5)
    assert len(plain.X0) == 898 and len(plain.X1) == 899
    rows = {row.tobytes() for row in np.ascontiguousarray(plain.X0)}
    assert not any(row.tobytes() in rows for row in np.ascontiguousarray(plain.X1))
    drifted = load_drifted_digits(random_state=5)
    np.testing.assert_array_equal(drifted.X0, plain.X0)
    np.testing.assert_array_equal(drifted.y1, plain.y1)
    np.testing.assert_array_equal(drifted.images1.reshape(899, 64), drifted.X1)


def test_digits_drift_is_what_its_parameters_say():
    plain = load_drifted_digits(blur=0, gain=1, offset=0, rotation=0)
    dull = load_drifted_digits(blur=0, gain=0.5, offset=3, rotation=0)
    np.testing.assert_allclose(dull.X1, 0.5 * plain.X1 + 3)
    bright = load_drifted_digits(blur=0, gain=3, offset=0, rotation=0)
    np.testing.assert_allclose(bright.X1, np.minimum(3 * plain.X1, 16))
    turned = load_drifted_digits(blur=0, gain=1, offset=0, rotation=90)
    np.testing.assert_allclose(turned.images1, np.rot90(plain.images1, axes=(1, 2)), atol=1e-9)
    blurred = load_drifted_digits(blur=1, gain=1, offset=0, rotation=0)
    roughness = [np.abs(np.diff(data.images1, axis=2)).mean() for data in (plain, blurred)]
    assert roughness[1] < 0.7 * roughness[0]


def test_digits_drift_hurts_a_classifier_that_is_good_on_clean_digits():
    plain, drifted = load_drifted_digits(blur=0, gain=1, offset=0, rotation=0), load_drifted_digits()
    classifier = SVC().fit(plain.X0, plain.y0)
    assert classifier.score(plain.X1, plain.y1) > 0.95
    assert classifier.score(drifted.X1, drifted.y1) < 0.7


def test_photographs_are_pixels_in_the_order_of_the_picture():
    data = load_photograph_colours()
    for X, image in ((data.X0, data.image0), (data.X1, data.image1)):
        assert X.dtype == np.float32 and image.shape == (427, 640, 3)
        assert 0 <= X.min() and X.max() <= 1 and X.max() > 0.9
        np.testing.assert_array_equal(X.reshape(image.shape), image)
    # The temple's sky is grey-blue, the flower is orange-red before dark green.
    assert data.X0[:, 2].mean() > data.X1[:, 2].mean() + 0.2
