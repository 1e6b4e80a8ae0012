import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from rfadapt.projection import Projection, are_commensurable


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


@pytest.mark.parametrize("n_features", [5, 80])
def test_features_of_other_units_are_brought_to_one(n_features):
    """What is seen is what there would be if the samples had been standardised together."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(n_features, n_features)) / np.sqrt(n_features)
    X0, X1 = rng.normal(size=(200, n_features)) @ mixing, rng.normal(size=(300, n_features)) @ mixing + 0.5
    spread = np.sqrt((X0.var(axis=0) + X1.var(axis=0)) / 2)
    X0, X1 = X0 / spread, X1 / spread
    units = 10.0 ** rng.integers(-3, 5, n_features)
    alike, mixed = Projection.fit(X0, X1), Projection.fit(X0 * units, X1 * units)
    np.testing.assert_array_equal(alike.unit, 1)
    np.testing.assert_allclose(mixed.unit, units)
    signs = np.sign((alike.basis * mixed.basis).sum(axis=0))
    np.testing.assert_allclose(mixed.enter(X0 * units) * signs, alike.enter(X0), atol=1e-6)
    np.testing.assert_allclose(mixed.keep(X0 * units), alike.keep(X0) * units, rtol=1e-6, atol=1e-6)
    moved = alike.move(X0, lambda z: 2 * z + 1 * signs)
    np.testing.assert_allclose(mixed.move(X0 * units, lambda z: 2 * z + 1), moved * units, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("spreads0", "spreads1", "expected"),
    [
        ([1.0, 2.0, 0.5], [1.0, 2.0, 0.5], True),
        ([300.0, 1.0, 0.5], [300.0, 1.0, 0.5], False),
        ([300.0, 200.0, 1.0, 0.5], [300.0, 200.0, 1.0, 0.5], False),
        ([1.0, 1.0, 1.0], [300.0, 1.0, 1.0], True),  # a sensor that has failed in one domain
        ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], True),  # pixels at the border, always black
        ([300.0], [300.0], True),
        ([0.0, 0.0], [0.0, 0.0], True),
    ],
)  # fmt: skip
def test_features_are_commensurable_unless_a_few_have_all_the_variance(spreads0, spreads1, expected):
    rng = np.random.default_rng(0)
    X0, X1 = (rng.normal(size=(200, len(spreads))) * spreads + 1e4 for spreads in (spreads0, spreads1))
    assert are_commensurable(X0, X1) is expected


@pytest.mark.parametrize("view", [None, PCA(10), PCA(60)], ids=str)
def test_pixels_and_their_principal_components_are_commensurable(view):
    X = load_digits().data
    X = X if view is None else view.fit_transform(X)
    assert are_commensurable(X[::2], X[1::2])
