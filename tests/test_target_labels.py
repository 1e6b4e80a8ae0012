"""A committee of kernel machines that finds the target's classes: scales, vote, landmarks and last rounds."""

import numpy as np
import pytest
from sklearn.utils import check_random_state

from rfadapt import target_labels
from rfadapt.target_labels import Committee

NONE = np.array([], dtype=int)


def drifted(n, n_features, rng, offset=1.0):
    """Three classes that overlap a little, and the same of a target that has moved between two of them."""
    centers = 3.0 * np.eye(3, n_features)
    y0, y1 = rng.integers(3, size=n), rng.integers(3, size=n)
    X0, X1 = (centers[y] + rng.normal(size=(n, n_features)) for y in (y0, y1))
    return X0, y0, X1 + offset * (centers[1] - centers[0]) / 3, y1


def moons(n, degrees, rng):
    """Two half circles that reach into each other, turned about their centre."""
    y, t, a = rng.integers(2, size=n), rng.uniform(0, np.pi, size=n), np.deg2rad(degrees)
    X = np.where(y == 0, [np.cos(t), np.sin(t)], [1 - np.cos(t), 0.5 - np.sin(t)]).T - [0.5, 0.25]
    return (X + 0.1 * rng.normal(size=X.shape)) @ [[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]], y


@pytest.mark.parametrize("n_features", [4, 30], ids=["one view", "two views"])
def test_labels_hardly_depend_on_the_landmarks(n_features):
    X0, y0, X1, y1 = drifted(600, n_features, np.random.default_rng(0))
    found = [Committee(X0, y0, X1, NONE, NONE, check_random_state(seed)).label().classes1 for seed in range(3)]
    assert min((found[0] == other).mean() for other in found[1:]) > 0.98
    assert (found[0] == y1).mean() > 0.9


def test_where_scales_agree_they_have_their_way(monkeypatch):
    X0, y0, X1, _ = drifted(200, 4, np.random.default_rng(0))
    committee = Committee(X0, y0, X1, NONE, NONE, check_random_state(0))
    one, other = np.eye(3)[[0, 0, 0]], np.eye(3)[[0, 1, 2]]
    committee.plain_scores1 = np.eye(3)[[2, 1, 2]]
    for panel, scores in zip(committee._panels, (one, 0.9 * one + 0.1, other)):
        monkeypatch.setattr(panel, "scores", lambda X, scores=scores: scores)
    # Two of three scales against one that the source alone sides with: the surer ones.
    np.testing.assert_array_equal(committee.label().classes1, [0, 1, 2])


@pytest.mark.parametrize("found_by_source", [True, False])
def test_the_source_alone_has_a_vote_if_it_finds_the_known_classes(monkeypatch, found_by_source):
    X0, y0, X1, _ = drifted(200, 4, np.random.default_rng(0))
    committee = Committee(X0, y0, X1, np.array([1]), np.array([0]), check_random_state(0))
    committee.plain_scores1 = np.eye(3)[[1, 0 if found_by_source else 2]]
    # Of the first row the scales say class 0, class 1, and either, the second one's class is known.
    for panel, first in zip(committee._panels, ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0])):
        monkeypatch.setattr(panel, "scores", lambda X, first=first: np.array([first, [0.0, 0.0, 1.0]]))
    assert committee.label().classes1.tolist() == [1 if found_by_source else 0, 0]


def test_a_scale_has_no_more_neighbours_than_there_are_rows():
    X0, y0, X1, y1 = drifted(6, 4, np.random.default_rng(0))
    assert 2 * len(X0) < max(n for n, _ in target_labels._SCALES)
    labels = Committee(X0, y0, X1, NONE, NONE, check_random_state(0)).label()
    assert labels.scores1.shape == (len(X1), y0.max() + 1)


@pytest.mark.parametrize("seed", range(3))
def test_finer_scales_find_the_edges_of_what_was_voted(seed):
    rng = np.random.default_rng(seed)
    X0, y0 = moons(300, 0, rng)
    X1, y1 = moons(300, 17, rng)
    committee = Committee(X0, y0, X1, NONE, NONE, check_random_state(seed))
    voted = committee.label().classes1
    assert 0.95 < (voted == y1).mean() < 1.0
    assert (committee.sharpened(voted) == y1).mean() > 0.997


def test_finer_scales_leave_alone_what_known_classes_say():
    X0, y0, X1, y1 = drifted(100, 4, np.random.default_rng(0))
    known = np.arange(10)
    committee = Committee(X0, y0, X1, known, y1[known], check_random_state(0))
    voted = committee.label().classes1
    np.testing.assert_array_equal(committee.sharpened(voted), voted)
