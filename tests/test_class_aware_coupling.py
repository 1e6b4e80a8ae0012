"""Pairs within classes: known, found, in other proportions, and missing."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rfadapt import AdaptedClassifier, ClassAwareCoupling, OTCoupling, RectifiedFlowTransport
from rfadapt.geometry import TensorRows

COUPLING = ClassAwareCoupling(OTCoupling(n_jobs=1))


def clumps(seed, counts):
    """Classes 0, 1, 2 along a line, 8 apart, as often as `counts` says."""
    y = np.repeat([0, 1, 2], counts)
    return np.random.default_rng(seed).normal(size=(len(y), 2)) + np.outer(y, [8, 0]), y


def rows(X, y):
    found = TensorRows(torch.tensor(X, dtype=torch.float32))
    found.labels = y
    return found


def pairs(X0, y0, X1, y1, n=4000):
    """Classes of rows that are paired, by where they are."""
    generator = torch.Generator().manual_seed(0)
    drawn = COUPLING.prepare(rows(X0, y0), rows(X1, y1), generator).sample(n, generator)
    return tuple((x[:, 0] / 8).round().clip(0, 2).int().numpy() for x in drawn)


@pytest.mark.parametrize("known", ["all", "some", "none"])
def test_classes_go_to_themselves_in_the_target_s_proportions(known):
    X0, y0 = clumps(0, [60, 60, 60])
    X1, y1 = clumps(1, [30, 120, 50])
    given = {"all": y1, "some": np.where(np.arange(len(y1)) % 10, -1, y1), "none": None}[known]
    from0, to1 = pairs(X0, y0, X1, given)
    assert (from0 == to1).mean() > 0.99
    assert np.allclose(np.bincount(to1) / len(to1), [0.15, 0.6, 0.25], atol=0.03)


def test_a_class_that_the_target_lacks_is_paired_with_none():
    X0, y0 = clumps(0, [60, 60, 60])
    X1, y1 = clumps(1, [60, 0, 60])
    from0, to1 = pairs(X0, y0, X1, y1)
    assert not (from0 == 1).any() and (from0 == to1).all()


def test_labels_may_be_strings():
    X0, y0 = clumps(0, [40, 40, 40])
    X1, y1 = clumps(1, [40, 40, 40])
    names = np.array(["a", "b", "c"])
    masked = np.array([None] * 100 + names[y1[100:]].tolist(), dtype=object)
    from0, to1 = pairs(X0, names[y0], X1, masked)
    assert (from0 == to1).mean() > 0.99


def test_minus_one_may_be_a_class():
    X0, y0 = clumps(0, [60, 60, 0])
    X1, y1 = clumps(1, [30, 90, 0])
    masked = np.where(np.arange(len(y1)) % 10, np.nan, np.where(y1 == 0, -1.0, 1.0))
    from0, to1 = pairs(X0, np.where(y0 == 0, -1, 1), X1, masked)
    assert (from0 == to1).mean() > 0.99
    assert np.allclose(np.bincount(to1) / len(to1), [0.25, 0.75], atol=0.03)


def test_the_flow_moves_every_class_to_itself():
    X0, y0 = clumps(0, [150, 150, 0])
    X1, y1 = clumps(1, [60, 240, 0])
    X1 = X1 + [0, 3]
    flow = RectifiedFlowTransport(coupling=COUPLING, velocity="mlp", max_iter=300, random_state=0)
    moved = flow.fit(X0, X1, y0=y0).transform(X0)
    for label in (0, 1):
        assert np.allclose(moved[y0 == label].mean(axis=0), X1[y1 == label].mean(axis=0), atol=0.8)


def test_a_classifier_hands_its_labels_on():
    X0, y0 = clumps(0, [60, 60, 0])
    X1, y1 = clumps(1, [30, 90, 0])
    flow = RectifiedFlowTransport(coupling=COUPLING, velocity="mlp", max_iter=50, random_state=0)
    assert AdaptedClassifier(LogisticRegression(), flow).fit(X0, y0, X_target=X1 + [0, 3]).score(X1 + [0, 3], y1) > 0.95


@pytest.mark.parametrize(
    "y0, y1, message",
    [
        (None, None, r"needs those of domain 0: fit\(X0, X1, y0=...\)"),
        ([0, 1] * 20, [5] + [-1] * 39, r"y1 has labels that y0 does not have: \[5\]"),
        (np.linspace(0, 1, 40), None, "Unknown label type: continuous"),
    ],
    ids=["no labels", "unseen", "continuous"],
)
def test_bad_labels(y0, y1, message):
    X = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(ValueError, match=message):
        RectifiedFlowTransport(coupling="class_aware").fit(X, X, y0=y0, y1=y1)
