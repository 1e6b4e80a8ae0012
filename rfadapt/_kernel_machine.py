"""A kernel machine of the source's labels and the shape of both domains, as it sees rows in one view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from ._samples import drawn
from .projection import Projection

_LANDMARKS = 600
# Weights of the class-wise discrepancy, of the graph and of the norm, as in the papers.
_DISCREPANCY, _GRAPH, _NORM = 10.0, 1.0, 0.1
# Weight of a target row whose class is known: as good as a constraint, as all others are guesses.
_KNOWN = 100.0
# Directions of the second view of rows of many features, of which only the angle counts.
_ANGLE_DIRECTIONS = 20


@dataclass(frozen=True)
class View:
    """Coordinates in which rows are compared."""

    projection: Projection
    by_angle: bool  # whether neighbours are those in angle
    on_sphere: bool  # whether nothing but the angle is seen

    def enter(self, X):
        z = self.projection.enter(X)
        return normalize(z) if self.on_sphere else z


def views(X0, X1):
    """One view of rows of few features, two of others."""
    if X0.shape[1] <= _ANGLE_DIRECTIONS:
        return [View(Projection.fit(X0, X1), by_angle=False, on_sphere=False)]
    return [
        View(Projection.fit(X0, X1, _ANGLE_DIRECTIONS), by_angle=True, on_sphere=True),
        View(Projection.fit(X0, X1), by_angle=True, on_sphere=False),
    ]


class Rows:
    """The rows of both domains in a view, and at most `n_neighbors` nearest neighbours of each."""

    def __init__(self, view, X0, X1, n_neighbors):
        self.view, self.z = view, np.concatenate([view.enter(X0), view.enter(X1)])
        self._n_most = min(n_neighbors, len(self.z) - 1)
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


class KernelMachine:
    """The least squares problem of `ClassAware` in one view, in the coordinates of kernels at landmarks."""

    def __init__(self, rows, scale, y0, weights, known1, n_classes, random_state):
        """`scale` is the number of neighbours and the width; `known1` are the classes of the first target rows."""
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
