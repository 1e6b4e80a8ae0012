"""Classes of the target from the source's labels and the target's own shape, refined over rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight

from .accounts import Account, drawn
from .projection import Projection

_LANDMARKS = 1000
_NEIGHBORS = 10
_MAX_ROUNDS = 10
# Weights of the class-wise discrepancy, of the graph and of the norm, as in the papers.
_DISCREPANCY, _GRAPH, _NORM = 10.0, 1.0, 0.1
# Weight of a target row whose class is known: as good as a constraint, as all others are guesses.
_KNOWN = 100.0
# Directions of the second view of rows of many features, of which only the angle counts.
_ANGLE_DIRECTIONS = 20
# Rows of each domain in the graph, the search for whose neighbours grows with their square.
_GRAPH_ROWS = 10_000


class ClassAware(Account):
    r"""An account, refined by the target's own classes: the target rows are labelled, to be trained on as well.

    A kernel classifier f of all rows, by least squares on the labelled source, is held to three things [1]_ [2]_:
    the mean of f's features is the same in both domains, over all rows and over those of each class (maximum mean
    discrepancy; the target's classes are those that f gave in the round before); f changes little between
    neighbours in the graph of both domains; and its norm is small:

    .. math:: \min_f \sum_{i \in \text{source}} w_i \|y_i - f(x_i)\|^2 + 10\, \operatorname{tr} f' M f
              + \operatorname{tr} f' L f + 0.1\, \|f\|_K^2

    where w are the account's weights, or such that every class weighs alike if it has none,
    with kernels at 1000 landmark rows, so that time grows with the number of rows and no matrix has more than
    1000 columns [3]_; the graph has 10 neighbours and at most 10 000 rows of each domain.

    Rows of at most 20 features are taken as they are. Of more, f is the mean of two such classifiers, which share the
    target's classes from round to round: one sees the 60 directions of largest variance, the other the angles in the
    first 20, and neighbours are near in angle. Where one of them mistakes a class for another, the other seldom does.

    Parameters
    ----------
    start : Account, default=Account()
        Moves and weighs the source first. Fitted here (a clone is not made).
    random_state : int, RandomState instance or None, default=None
        Draws the landmarks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    labelled_target_ : tuple (rows, labels)
    margin_ : float
        Mean distance between the two largest of a target row's scores, which are folded back where they are beyond 0
        or 1: how well the classes separate there.
    plain_margin_ : float
        The same of a classifier of the moved source alone, without the target's rows: how sure it is already.
    source_accuracy_ : float
        Share of the source rows whose class f finds.
    has_collapsed_ : bool
        Whether classes of the target have vanished over the rounds: the entropy of their proportions is less than half
        of that before.
    n_rounds_ : int

    References
    ----------
    .. [1] Long, Wang, Ding, Pan, Yu, "Adaptation regularization: a general framework for transfer learning", IEEE
       TKDE 2014.
    .. [2] Wang, Feng, Chen, Yu, Huang, Yu, "Visual domain adaptation with manifold embedded distribution
       alignment", ACM Multimedia 2018.
    .. [3] Williams, Seeger, "Using the Nyström method to speed up kernel machines", NIPS 2000.
    """

    name = "class-aware"
    needs_classes = True

    def __init__(self, start=None, random_state=None):
        self.start = start
        self.random_state = random_state

    def fit(self, X0, y0, X1):
        """As `Account.fit`; `y0` is needed."""
        self.start_ = (self.start or Account()).fit(X0, y0, X1)
        self._refine(X0, y0, X1)
        return self

    @classmethod
    def refining(cls, fitted, X0, y0, X1, random_state, y1=None, known1=None):
        """A refinement of an account that is already fitted to these rows.

        Parameters
        ----------
        fitted : Account
        X0, y0, X1 : ndarray
            As in `fit`.
        random_state : int, RandomState instance or None
        y1 : ndarray of shape (n_target,), optional
            Classes of the target rows, of which only those that `known1` marks are looked at: f is fitted to them too,
            and they keep their class in every round.
        known1 : ndarray of bool of shape (n_target,), optional

        Returns
        -------
        self : ClassAware
        """
        self = cls(fitted, random_state)
        self.start_ = fitted
        self._refine(X0, y0, X1, y1, known1)
        return self

    def _refine(self, X0, y0, X1, y1=None, known1=None):
        random_state = check_random_state(self.random_state)
        self.weights_ = self.start_.weights_
        self.classes_, index = np.unique(y0, return_inverse=True)
        weights = self.weights_
        if weights is None:
            # Every class counts alike, as nothing is known of their proportions in the target. A rare class of the
            # source would otherwise lose its part of the target to the others, round by round.
            weights = compute_sample_weight("balanced", index)
        moved = self.start_.transform(X0)
        used0, used1 = (drawn(np.arange(len(X)), random_state, _GRAPH_ROWS) for X in (X0, X1))
        known = np.array([], dtype=int) if y1 is None else np.flatnonzero(known1)
        used1 = np.concatenate([known, used1[~np.isin(used1, known)]])
        known_classes = known
        if y1 is not None:
            known_classes = np.searchsorted(self.classes_, y1[known].astype(self.classes_.dtype))
        n_classes, source = len(self.classes_), (moved[used0], index[used0], weights[used0])
        committee = _Committee(
            _KernelMachine(view, *source, X1[used1], known_classes, n_classes, random_state)
            for view in _views(moved, X1)
        )
        committee.solve_plain()
        plain_scores = committee.scores(X1)
        self.n_rounds_ = committee.solve(known_classes)
        scores0, scores1 = committee.scores(moved), committee.scores(X1)
        found = scores1.argmax(axis=1)
        found[known] = known_classes
        self.plain_margin_ = _margin(plain_scores)
        self.has_collapsed_ = _entropy(found) < _entropy(plain_scores.argmax(axis=1)) / 2
        self.labelled_target_ = X1, self.classes_[found]
        self.margin_ = _margin(scores1)
        self.source_accuracy_ = float((scores0.argmax(axis=1) == index).mean())

    def transform(self, X0):
        """Source rows as the first account moves them."""
        return self.start_.transform(X0)

    def inverse_transform(self, X1):
        """Target rows as the first account brings them back."""
        return self.start_.inverse_transform(X1)


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


class _Committee:
    """Kernel machines in several views, which share the target's classes from round to round."""

    def __init__(self, machines):
        self._machines = list(machines)

    def solve_plain(self):
        """Fit to the source's labels alone."""
        for machine in self._machines:
            machine.solve_plain()

    def solve(self, known_classes) -> int:
        """Go through the rounds until the target's classes stay; the first rows of it have known ones."""
        labels = None
        for n_rounds in range(1, _MAX_ROUNDS + 1):
            for machine in self._machines:
                machine.solve(labels)
            previous, labels = labels, sum(machine.target_scores() for machine in self._machines).argmax(axis=1)
            labels[: len(known_classes)] = known_classes
            if previous is not None and (labels == previous).all():
                return n_rounds
        return _MAX_ROUNDS

    def scores(self, X):
        """Mean scores of the classes of any rows, of shape (n_samples, n_classes)."""
        return sum(machine.scores(X) for machine in self._machines) / len(self._machines)


class _KernelMachine:
    """The least squares problem of `ClassAware` in one view, in the coordinates of kernels at landmarks."""

    def __init__(self, view, X0, y0, weights, X1, known1, n_classes, random_state):
        """`known1` are the classes of the first target rows."""
        rows = np.concatenate([view.enter(X0), view.enter(X1)])
        self._view, self._n0, self._y0, self._n_classes = view, len(X0), y0, n_classes
        self._landmarks = drawn(rows, random_state, _LANDMARKS)
        distances = cdist(self._landmarks, self._landmarks, "sqeuclidean")
        self._gamma = 0.5 / (distances.mean() or 1.0)
        values, vectors = np.linalg.eigh(np.exp(-self._gamma * distances))
        kept = values > 1e-8 * values[-1]
        self._whiten = vectors[:, kept] / np.sqrt(values[kept])
        self._features = self._at(rows)
        labelled, labels = self._features[: self._n0 + len(known1)], np.eye(n_classes)[np.concatenate([y0, known1])]
        weighted = labelled.T * np.concatenate([weights, np.full(len(known1), _KNOWN)])
        ridge = _NORM * np.eye(self._features.shape[1])
        of_source = weighted[:, : self._n0]
        self._plain = of_source @ labelled[: self._n0] + ridge, of_source @ labels[: self._n0]
        laplacian = _laplacian(normalize(rows) if view.by_angle else rows)
        self._fixed = weighted @ labelled + ridge + _GRAPH * self._features.T @ (laplacian @ self._features)
        self._target = weighted @ labels

    def solve_plain(self):
        """Fit to the source's labels alone."""
        self._coefficients = np.linalg.solve(*self._plain)

    def solve(self, labels):
        """Fit with `labels` for the classes of the target rows, or None where they have none yet."""
        contrasts = self._contrasts(labels)
        norm = np.linalg.norm(contrasts @ contrasts.T) or 1.0
        means = contrasts @ self._features
        self._coefficients = np.linalg.solve(self._fixed + _DISCREPANCY / norm * means.T @ means, self._target)

    def target_scores(self):
        """Scores of the classes of the target rows that it was made with, of shape (n_target, n_classes)."""
        return self._features[self._n0 :] @ self._coefficients

    def scores(self, X):
        """Scores of the classes of any rows, of shape (n_samples, n_classes)."""
        return self._at(self._view.enter(X)) @ self._coefficients

    def _at(self, z):
        return np.exp(-self._gamma * cdist(z, self._landmarks, "sqeuclidean")) @ self._whiten

    def _contrasts(self, labels):
        """Vectors whose product with any values is the source's mean less the target's, by class and over all."""
        n0, n1 = self._n0, len(self._features) - self._n0
        every = np.concatenate([np.full(n0, 1 / n0), np.full(n1, -1 / n1)])
        contrasts = [np.sqrt(self._n_classes) * every]
        for c in range(self._n_classes if labels is not None else 0):
            inside0, inside1 = self._y0 == c, labels == c
            contrasts.append(np.concatenate([inside0 / max(inside0.sum(), 1), -(inside1 / max(inside1.sum(), 1))]))
        return np.array(contrasts)


def _margin(scores) -> float:
    """Mean distance between the two largest scores of a row.

    Scores are learned to be 0 or 1. Far from the source they shoot over, which is no sign of being sure: what is
    beyond 0 or 1 is folded back.
    """
    ordered = np.sort(1 - np.abs(1 - np.abs(scores)), axis=1)
    return float((ordered[:, -1] - ordered[:, -2]).mean()) if scores.shape[1] > 1 else 1.0


def _entropy(labels) -> float:
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def _laplacian(rows):
    """Normalised Laplacian of the graph of nearest neighbours, sparse; near ones weigh more."""
    n = len(rows)
    k = min(_NEIGHBORS, n - 1)
    distances, neighbors = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()
    width = np.median(distances[:, -1]) or 1.0
    closeness = np.exp(-np.square(distances / width) / 2)
    graph = sparse.csr_matrix((closeness.ravel(), (np.repeat(np.arange(n), k), neighbors.ravel())), (n, n))
    graph = graph.maximum(graph.T)
    root = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-9)))
    return sparse.eye(n) - root @ graph @ root
