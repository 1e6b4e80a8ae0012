import numpy as np
import pytest
from sklearn.decomposition import PCA

from rfadapt.projection import Projection


def two_samples(n_rows, n_features):
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 0.01, n_features)
    return [rng.normal(size=(n, n_features)) * scales + shift for n, shift in zip((n_rows // 3, n_rows), (1, 0))]


@pytest.mark.parametrize(("n_rows", "n_features"), [(300, 80), (90, 150)])
def test_directions_are_the_principal_ones_of_both_samples(n_rows, n_features):
    X0, X1 = two_samples(n_rows, n_features)
    both = np.concatenate([X0, X1])
    ours, theirs = Projection.fit(X0, X1, 10), PCA(10).fit(both)
    np.testing.assert_allclose(ours.center, theirs.mean_)
    np.testing.assert_allclose(np.abs(ours.basis.T @ theirs.components_.T), np.eye(10), atol=1e-6)
    np.testing.assert_allclose(ours.keep(both), theirs.inverse_transform(theirs.transform(both)), atol=1e-8)


def test_fewer_rows_than_directions_lose_nothing():
    X0, X1 = two_samples(20, 200)
    projection = Projection.fit(X0, X1)
    assert projection.basis.shape == (200, 26)
    np.testing.assert_allclose(projection.keep(X0), X0, atol=1e-12)
    moved = projection.move(X0, lambda z: 2 * z)
    np.testing.assert_allclose(moved, 2 * X0 - projection.center, atol=1e-12)


def test_few_features_are_all_directions():
    X0, X1 = two_samples(50, 7)
    projection = Projection.fit(X0, X1)
    np.testing.assert_array_equal(projection.basis, np.eye(7))
    np.testing.assert_array_equal(projection.keep(X0), X0)
