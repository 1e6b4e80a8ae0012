"""Samples that are small or strange: one row, one feature, constants, copies, more features than rows."""

import numpy as np
import pytest
from conftest import quick_flow, relative_error

from rfadapt.metrics import energy_distance


@pytest.mark.parametrize("sizes", [(1, 1), (1, 40), (40, 1), (2, 3), (19, 200), (25, 30)])
@pytest.mark.parametrize(
    "params",
    [{}, {"early_stopping": False}, {"velocity": "gradient", "early_stopping": False},
     {"velocity": "gradient", "base": None}],
    ids=str,
)
def test_tiny_samples(sizes, params):
    rng = np.random.default_rng(0)
    X0, X1 = (rng.normal(size=(n, 3)) + 5 * k for k, n in enumerate(sizes))
    flow = quick_flow(max_iter=20, **params).fit(X0, X1)
    near = rng.normal(size=(200, 3))
    moved = flow.transform(near)
    assert np.isfinite(moved).all() and np.isfinite(flow.inverse_transform(moved)).all()
    # The gap between the means is bridged, and rows nearby do not fly away.
    assert np.abs(moved - 5).max() < 20
    assert len(flow.history_) == 1


def test_one_row_goes_to_the_only_row_there_is():
    moved = quick_flow(max_iter=20).fit([[1.0, 2.0]], [[5.0, -2.0]]).transform([[1.0, 2.0]])
    np.testing.assert_allclose(moved, [[5.0, -2.0]], atol=1e-4)


def test_one_feature(clouds):
    X0, X1 = (X[:, :1] for X in clouds)
    grid = np.linspace(-1, 3, 50)[:, None]
    moved = quick_flow().fit(X0, X1).transform(grid)
    # On a line a flow keeps the order.
    assert moved.shape == (50, 1) and (np.diff(moved[:, 0]) > 0).all()


@pytest.mark.parametrize("values", [(5.0, 5.0), (5.0, 7.0), (1e6, 1e6 + 3), (0.0, 0.0)])
def test_a_feature_that_is_constant_in_both_domains(values, clouds):
    X0, X1 = (np.column_stack([X, np.full(len(X), value)]) for X, value in zip(clouds, values))
    moved = quick_flow(max_iter=50).fit(X0, X1).transform(X0)
    np.testing.assert_allclose(moved[:, 2], values[1], rtol=1e-5, atol=0.05)
    assert energy_distance(moved, X1) < energy_distance(X0, X1)


@pytest.mark.parametrize("where", [0, 1])
def test_a_feature_that_is_constant_in_one_domain(where, clouds):
    extra = [np.random.default_rng(0).normal(size=len(X)) for X in clouds]
    extra[where] = np.full(len(clouds[where]), 4.0)
    X0, X1 = (np.column_stack([X, column]) for X, column in zip(clouds, extra))
    flow = quick_flow(max_iter=50).fit(X0, X1)
    moved = flow.transform(X0)
    assert np.isfinite(moved).all()
    assert abs(moved[:, 2].mean() - extra[1].mean()) < 0.2
    if where == 1:
        assert moved[:, 2].std() < 0.2


def test_domains_that_are_points():
    X0, X1 = np.ones((30, 2)), np.full((40, 2), 3.0)
    moved = quick_flow(max_iter=20).fit(X0, X1).transform(X0)
    np.testing.assert_allclose(moved, 3.0, atol=0.05)


def test_duplicated_rows(clouds):
    X0, X1 = (np.repeat(X[:10], 30, axis=0) for X in clouds)
    moved = quick_flow().fit(X0, X1).transform(X0)
    assert energy_distance(moved, X1) < 0.5 * energy_distance(X0, X1)
    # Up to the last bits of float32: products round by where a row stands in its batch.
    copies = moved.reshape(10, 30, 2)
    np.testing.assert_allclose(copies, np.repeat(copies[:, :1], 30, axis=1), rtol=1e-6, atol=1e-5)


def test_features_that_are_copies_of_each_other(clouds):
    X0, X1 = (np.column_stack([X, X]) for X in clouds)
    moved = quick_flow(max_iter=50).fit(X0, X1).transform(X0)
    assert relative_error(moved[:, :2], moved[:, 2:]) < 0.05
    assert energy_distance(moved, X1) < energy_distance(X0, X1)


def test_more_features_than_rows():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(25, 60)), rng.normal(size=(30, 60)) + 1
    fresh = rng.normal(size=(400, 60))
    moved = quick_flow(max_iter=30).fit(X0, X1).transform(fresh)
    # One distribution, shifted: the map is near the shift though the covariances cannot be inverted.
    assert relative_error(moved, fresh + 1) < 0.7
