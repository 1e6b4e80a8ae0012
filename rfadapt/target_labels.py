"""Classes of unlabelled target rows, from the source's labels and the target's own shape, refined over rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from sklearn.utils.class_weight import compute_sample_weight

from ._samples import drawn
from .projection import Projection

_LANDMARKS = 600
# Neighbours in the graph and width of the kernels, relative to the root of their mean squared distance: a machine of
# each in every view. Their rounds end at different classes where details decide, and each is wrong on other rows.
_SCALES = ((5, 1.4), (10, 1.0), (20, 0.7))
# The same of the last rounds, first to last, which begin with what was voted: so narrow kernels and so few neighbours
# find the edges of the classes best, but from nothing they often end with two classes taken for each other.
_FINER_SCALES = ((3, 0.7), (3, 0.5))
_MAX_ROUNDS = 10
# Weights of the class-wise discrepancy, of the graph and of the norm, as in the papers.
_DISCREPANCY, _GRAPH, _NORM = 10.0, 1.0, 0.1
# Weight of a target row whose class is known: as good as a constraint, as all others are guesses.
_KNOWN = 100.0
# Directions of the second view of rows of many features, of which only the angle counts.
_ANGLE_DIRECTIONS = 20
# Rows of each domain in the graph, the search for whose neighbours grows with their square.
_GRAPH_ROWS = 10_000


@dataclass(frozen=True)
class TargetLabels:
    """What a committee of kernel machines makes of the target's rows.

    Attributes
    ----------
    classes1 : ndarray of int of shape (n_target,)
        Number of the class of each target row; of those that are known, theirs.
    scores1 : ndarray of shape (n_target, n_classes)
        Scores of the classes, near 1 for the one that a row has and near 0 for the others.
    """

    classes1: np.ndarray
    scores1: np.ndarray


@dataclass(frozen=True)
class _View:
    """Coordinates in which rows are compared."""

    projection: Projection
    by_angle: bool  # whether neighbours are those in angle
    on_sphere: bool  # whether nothing but the angle is seen

    def enter(self, X):
        z = self.projection.enter(X)
        return normalize(z) if self.on_sphere else z


def _views(X0, X1):
    if X0.shape[1] <= _ANGLE_DIRECTIONS:
        return [_View(Projection.fit(X0, X1), by_angle=False, on_sphere=False)]
    return [
        _View(Projection.fit(X0, X1, _ANGLE_DIRECTIONS), by_angle=True, on_sphere=True),
        _View(Projection.fit(X0, X1), by_angle=True, on_sphere=False),
    ]


class _Rows:
    """The rows of both domains in a view, and the nearest neighbours among them that the largest scale asks for."""

    def __init__(self, view, X0, X1):
        self.view, self.z = view, np.concatenate([view.enter(X0), view.enter(X1)])
        self._n_most = min(max(n for n, _ in _SCALES), len(self.z) - 1)
        search = NearestNeighbors(n_neighbors=self._n_most).fit(normalize(self.z) if view.by_angle else self.z)
        self._distances, self._neighbors = search.kneighbors()

    def laplacian(self, n_neighbors):
        """Normalised Laplacian with that many neighbours of each row, sparse; near ones weigh more."""
        n, k = len(self._distances), min(n_neighbors, self._n_most)
        distances, neighbors = self._distances[:, :k], self._neighbors[:, :k]
        width = np.median(distances[:, -1]) or 1.0
        closeness = np.exp(-np.square(distances / width) / 2)
        graph = sparse.csr_matrix((closeness.ravel(), (np.repeat(np.arange(n), k), neighbors.ravel())), (n, n))
        graph = graph.maximum(graph.T)
        root = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-9)))
        return sparse.eye(n) - root @ graph @ root


class Committee:
    """Kernel machines of several scales, each of which finds the target's classes for itself; then they vote.

    Where the rounds end depends on the scale for some rows. Where the scales contradict each other, what the source
    alone says has a vote too, which weighs the less the more of the known classes it misses. Machines of finer scales
    go on from there (`sharpened`).

    Parameters
    ----------
    X0 : ndarray of shape (n_source, n_features)
    classes0 : ndarray of int of shape (n_source,)
        Numbers of their classes, from 0.
    X1 : ndarray of shape (n_target, n_features)
    known1 : ndarray of int of shape (n_known,)
        Numbers of the target rows whose class is known.
    known_classes : ndarray of int of shape (n_known,)
    random_state : RandomState
        Draws the landmarks.
    weights : ndarray of shape (n_source,), optional
        By default every class weighs alike, as nothing is known of their proportions in the target. A rare class of
        the source would otherwise lose its part of the target to the others, round by round.

    Attributes
    ----------
    plain_scores1 : ndarray of shape (n_target, n_classes)
        Scores of the target from the source alone, without the target's rows.
    """

    def __init__(self, X0, classes0, X1, known1, known_classes, random_state, weights=None):
        source_shares = np.bincount(classes0, weights) / len(classes0)
        if weights is None:
            weights = compute_sample_weight("balanced", classes0)
        self._X1, self._known1, self._known_classes = X1, known1, known_classes
        used0, used1 = (drawn(np.arange(len(X)), random_state, _GRAPH_ROWS) for X in (X0, X1))
        self._used1 = np.concatenate([known1, used1[~np.isin(used1, known1)]])
        rows = [_Rows(view, X0[used0], X1[self._used1]) for view in _views(X0, X1)]
        labels = classes0[used0], weights[used0], known_classes, len(source_shares)
        self._panels, self._finer = (
            [
                _Panel([_KernelMachine(seen, scale, *labels, random_state) for seen in rows], known_classes)
                for scale in scales
            ]
            for scales in (_SCALES, () if len(known1) else _FINER_SCALES)
        )
        for panel in self._panels:
            panel.solve_plain()
        self.plain_scores1 = self.scores(X1)
        expected = np.mean([_probabilities(panel.target_scores()) for panel in self._panels], axis=0)
        expected[: len(known_classes)] = np.eye(len(source_shares))[known_classes]
        self._first_shares = (expected.mean(axis=0) + source_shares) / 2

    def label(self, shares=None):
        """Go through the rounds until the target's classes stay, and vote.

        Parameters
        ----------
        shares : ndarray of shape (n_classes,), optional
            Shares of the classes in the target. Without it those of the round before count, and in the first round the
            mean of the source's, as it weighs, and of what the source alone makes expect: either may be far off.

        Returns
        -------
        labels : TargetLabels
        """
        for panel in self._panels:
            panel.go_through_rounds(self._first_shares if shares is None else shares, shares is not None)
        scores = [panel.scores(self._X1) for panel in self._panels]
        votes = sum(_probabilities(given) for given in scores)
        found = np.array([given.argmax(axis=1) for given in scores])
        disputed = (found != found[0]).any(axis=0)
        votes[disputed] += self._source_trust() * _probabilities(self.plain_scores1[disputed])
        classes1 = votes.argmax(axis=1)
        classes1[self._known1] = self._known_classes
        return TargetLabels(classes1, sum(scores) / len(scores))

    def _source_trust(self):
        """Share of the known classes that the source alone finds, which they may contradict; 1 if none are known."""
        if not len(self._known1):
            return 1.0
        return (self.plain_scores1[self._known1].argmax(axis=1) == self._known_classes).mean()

    def sharpened(self, classes1):
        """Classes of the target rows after further rounds at the finer scales, which begin with `classes1`.

        Where classes are known, nothing changes: they may contradict the source, and what they say would not reach far
        by narrow kernels.

        Parameters
        ----------
        classes1 : ndarray of int of shape (n_target,)

        Returns
        -------
        classes1 : ndarray of int of shape (n_target,)
        """
        for panel in self._finer:
            began = classes1[self._used1]
            panel.go_through_rounds(_shares(began, len(self._first_shares)), False, began)
            classes1 = panel.scores(self._X1).argmax(axis=1)
        return classes1

    def scores(self, X):
        """Scores of the classes of any rows by what the scales have learned last, of shape (n_samples, n_classes)."""
        return sum(panel.scores(X) for panel in self._panels) / len(self._panels)


class _Panel:
    """Kernel machines of one scale in several views, which share the target's classes from round to round."""

    def __init__(self, machines, known_classes):
        self._machines, self._known_classes = machines, known_classes

    def solve_plain(self):
        """Fit to the source's labels alone."""
        for machine in self._machines:
            machine.solve_plain()

    def go_through_rounds(self, shares, are_kept, classes=None):
        """Until the classes of the target rows stay.

        `shares` are for the first round, or for all if they are kept; `classes` are those to begin with, if any.
        """
        for _ in range(_MAX_ROUNDS):
            for machine in self._machines:
                machine.solve(shares, classes)
            previous, classes = classes, self.target_scores().argmax(axis=1)
            classes[: len(self._known_classes)] = self._known_classes
            if not are_kept:
                shares = _shares(classes, len(shares))
            if previous is not None and (classes == previous).all():
                break

    def target_scores(self):
        """Scores of the target rows that the machines were made with."""
        return sum(machine.target_scores() for machine in self._machines) / len(self._machines)

    def scores(self, X):
        """Scores of the classes of any rows, of shape (n_samples, n_classes)."""
        return sum(machine.scores(X) for machine in self._machines) / len(self._machines)


class _KernelMachine:
    """The least squares problem of `ClassAware` in one view, in the coordinates of kernels at landmarks."""

    def __init__(self, rows, scale, y0, weights, known1, n_classes, random_state):
        """`known1` are the classes of the first target rows."""
        n_neighbors, width = scale
        self._view, self._n0, self._n_classes = rows.view, len(y0), n_classes
        self._landmarks = drawn(rows.z, random_state, _LANDMARKS)
        distances = cdist(self._landmarks, self._landmarks, "sqeuclidean")
        self._gamma = 0.5 / (width**2 * distances.mean() or 1.0)
        values, vectors = np.linalg.eigh(np.exp(-self._gamma * distances))
        kept = values > 1e-8 * values[-1]
        self._whiten = vectors[:, kept] / np.sqrt(values[kept])
        self._features = self._at(rows.z)
        labelled, labels = self._features[: self._n0 + len(known1)], np.eye(n_classes)[np.concatenate([y0, known1])]
        weighted = labelled.T * np.concatenate([weights, np.full(len(known1), _KNOWN)])
        ridge = _NORM * np.eye(self._features.shape[1])
        of_source = weighted[:, : self._n0]
        inside = (y0 == np.arange(n_classes)[:, None]).astype(float)
        self._class_means0 = inside / np.maximum(inside.sum(axis=1, keepdims=True), 1)
        self._plain = of_source @ labelled[: self._n0] + ridge, of_source @ labels[: self._n0]
        roughness = self._features.T @ (rows.laplacian(n_neighbors) @ self._features)
        self._fixed = cho_factor(weighted @ labelled + ridge + _GRAPH * roughness)
        self._without_contrasts = cho_solve(self._fixed, weighted @ labels)

    def solve_plain(self):
        """Fit to the source's labels alone."""
        self._coefficients = np.linalg.solve(*self._plain)

    def solve(self, shares, labels):
        """Fit with the shares of the classes in the target, and `labels` of its rows, None where they have none yet."""
        contrasts = self._contrasts(shares, labels)
        norm = np.linalg.norm(contrasts @ contrasts.T) or 1.0
        means = contrasts @ self._features
        # The contrasts are few: the Woodbury identity leaves a system of their number, and rounds cost little.
        solved = cho_solve(self._fixed, means.T)
        inner = norm / _DISCREPANCY * np.eye(len(means)) + means @ solved
        without = self._without_contrasts
        self._coefficients = without - solved @ np.linalg.solve(inner, means @ without)

    def target_scores(self):
        """Scores of the classes of the target rows that it was made with, of shape (n_target, n_classes)."""
        return self._features[self._n0 :] @ self._coefficients

    def scores(self, X):
        """Scores of the classes of any rows, of shape (n_samples, n_classes)."""
        return self._at(self._view.enter(X)) @ self._coefficients

    def _at(self, z):
        return np.exp(-self._gamma * cdist(z, self._landmarks, "sqeuclidean")) @ self._whiten

    def _contrasts(self, shares, labels):
        """Vectors whose product with any values is the source's mean less the target's, over all and by class.

        Over all, the source's classes have the shares that they have in the target: with its own, what the target has
        more of would be taken for another class.
        """
        n1 = len(self._features) - self._n0
        contrasts = [np.sqrt(self._n_classes) * np.concatenate([shares @ self._class_means0, np.full(n1, -1 / n1)])]
        for c in [] if labels is None else np.unique(labels):
            inside1 = (labels == c).astype(float)
            contrasts.append(np.concatenate([self._class_means0[c], -inside1 / inside1.sum()]))
        return np.array(contrasts)


def _shares(classes, n_classes):
    return np.bincount(classes, minlength=n_classes) / len(classes)


def _probabilities(scores):
    """Probabilities of the classes by their scores."""
    kept = scores.clip(1e-9, 1)
    return kept / kept.sum(axis=1, keepdims=True)
