"""Pairs by features and numeric labels: the exact plan, labels that are found, errors, and regression."""

import numpy as np
import ot
import pytest
import torch
from sklearn.linear_model import LinearRegression

from rfadapt import (
    AdaptedRegressor,
    ClassAwareCoupling,
    ClassRegularizedSinkhornTransport,
    JointCoupling,
    OTCoupling,
    RectifiedFlowTransport,
)
from rfadapt.geometry import TensorRows

COUPLING = JointCoupling(OTCoupling(n_jobs=1))


def rows(X, y):
    found = TensorRows(torch.tensor(X, dtype=torch.float32))
    found.labels = y
    return found


def across(seed, n=200):
    """A source along one axis and a target along the other: only labels say which end goes where."""
    rng = np.random.default_rng(seed)
    y0, y1 = rng.choice([-1.0, 1.0], n), rng.choice([-1.0, 1.0], n)
    return rng.normal(size=(n, 2)) + np.outer(y0, [6, 0]), y0, rng.normal(size=(n, 2)) + np.outer(y1, [0, 6]), y1


def masked(y, n_known):
    return np.where(np.arange(len(y)) < n_known, y, np.nan)


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_pairs_are_those_of_the_exact_plan_under_the_joint_cost(weight):
    rng = np.random.default_rng(0)
    n = 60
    X0, X1 = rng.normal(size=(n, 3)), rng.normal(size=(n, 3)) + 1
    y0, y1 = 10 * rng.normal(size=n), 10 * rng.normal(size=n)
    spread = np.concatenate([y0, y1]).std()
    alpha = weight * (X0.var(0).sum() + X1.var(0).sum()) / 2
    cost = ot.dist(X0, X1) + alpha * (y0[:, None] - y1) ** 2 / spread**2
    partner = ot.emd([], [], cost).argmax(1)
    coupling = JointCoupling(OTCoupling(n_jobs=1), weight=weight)
    generator = torch.Generator().manual_seed(0)
    drawn = coupling.prepare(rows(X0, y0), rows(X1, y1), generator).sample(500, generator)
    index0, index1 = (np.abs(d.numpy()[:, None] - X).sum(2).argmin(1) for d, X in zip(drawn, (X0, X1)))
    assert drawn[0].shape == (500, 3)
    assert len(np.unique(index0)) == n
    np.testing.assert_array_equal(partner[index0], index1)


@pytest.mark.parametrize("n_known", [200, 10])
@pytest.mark.parametrize("backwards", [False, True])
def test_labels_decide_where_features_do_not(n_known, backwards):
    X0, y0, X1, y1 = across(0)
    ends = [rows(X0, y0), rows(X1, masked(y1, n_known))]
    generator = torch.Generator().manual_seed(0)
    drawn = COUPLING.prepare(*(ends[::-1] if backwards else ends), generator).sample(2000, generator)
    from0, to1 = drawn[::-1] if backwards else drawn
    assert (from0[:, 0].sign() == to1[:, 1].sign()).float().mean() > 0.95


def test_found_labels_leave_the_known_ones_as_they_are():
    X0, y0, X1, y1 = across(1)
    given = masked(y1, 20)
    _, found = COUPLING.complete_labels(rows(X0, y0), rows(X1, given), torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(found[:20], y1[:20])
    assert np.corrcoef(found[20:], y1[20:])[0, 1] > 0.9


def with_numbers(seed, n=400):
    rng = np.random.default_rng(seed)
    y0, y1 = rng.normal(size=n), rng.normal(size=n)
    return rng.normal(size=(n, 2)) + np.outer(y0, [6, 0]), y0, rng.normal(size=(n, 2)) + np.outer(y1, [0, 6]), y1


@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_a_regressor_hands_the_labels_on(direction):
    X0, y0, X1, y1 = with_numbers(0)
    flow = RectifiedFlowTransport(coupling=COUPLING, velocity="mlp", max_iter=200, random_state=0)
    model = AdaptedRegressor(LinearRegression(), flow, direction=direction)
    model.fit(X0, y0, X_target=X1, y_target=masked(y1, 40))
    moved, labels, axis = (model.move(X0, sample_domain=np.zeros(len(X0))), y0, 1)
    if direction == "target_to_source":
        moved, labels, axis = model.move(X1), y1, 0
    assert np.corrcoef(moved[:, axis], labels)[0, 1] > 0.7
    assert model.score(X1[40:], y1[40:]) > 0.5


@pytest.mark.parametrize(
    "y0, y1, message",
    [
        (None, None, "needs a number for every row of one domain"),
        ([1.0, np.nan], [np.nan, 2.0], "got 1 of 2"),
        (["a", "b"], None, "use ClassAwareCoupling"),
        ([0, 1], None, "use ClassAwareCoupling"),
        ([0.5, np.inf], None, "infinite"),
    ],
)
def test_labels_that_will_not_do_are_refused(y0, y1, message):
    X = np.eye(2)
    y0, y1 = (None if y is None else np.array(y) for y in (y0, y1))
    with pytest.raises(ValueError, match=message):
        COUPLING.prepare(rows(X, y0), rows(X, y1), torch.Generator())


@pytest.mark.parametrize("weight", [0.0, -1.0, np.inf, np.nan])
def test_a_weight_is_a_finite_number_above_zero(weight):
    with pytest.raises(ValueError, match="weight must be"):
        JointCoupling(weight=weight)


@pytest.mark.parametrize(
    "transport", [ClassRegularizedSinkhornTransport(), RectifiedFlowTransport(coupling=ClassAwareCoupling())]
)
def test_numbers_of_a_regressor_do_not_become_classes(transport):
    X0, y0, X1, _ = with_numbers(0, 50)
    with pytest.raises(ValueError, match="needs (the labels of the source|those of domain 0)"):
        AdaptedRegressor(LinearRegression(), transport).fit(X0, y0.round(), X_target=X1)


def test_numbers_are_no_classes():
    X0, y0, X1, _ = with_numbers(0, 50)
    with pytest.raises(ValueError, match="for numbers use JointCoupling"):
        RectifiedFlowTransport(coupling=ClassAwareCoupling()).fit(X0, X1, y0=y0)
