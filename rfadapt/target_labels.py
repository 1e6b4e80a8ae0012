"""Classes of unlabelled target rows, from the source's labels and the target's own shape, refined over rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from ._kernel_machine import KernelMachine, Rows, views
from ._samples import drawn

# Neighbours in the graph and width of the kernels, relative to the root of their mean squared distance: a machine of
# each in every view. Their rounds end at different classes where details decide, and each is wrong on other rows.
_SCALES = ((5, 1.4), (10, 1.0), (20, 0.7))
# The same of the last rounds, first to last, which begin with what was voted: so narrow kernels and so few neighbours
# find the edges of the classes best, but from nothing they often end with two classes taken for each other.
_FINER_SCALES = ((3, 0.7), (3, 0.5))
_MAX_ROUNDS = 10
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
        most = max(n_neighbors for n_neighbors, _ in _SCALES)
        rows = [Rows(view, X0[used0], X1[self._used1], most) for view in views(X0, X1)]
        labels = classes0[used0], weights[used0], known_classes, len(source_shares)
        self._panels, self._finer = (
            [
                _Panel([KernelMachine(seen, scale, *labels, random_state) for seen in rows], known_classes)
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


def _shares(classes, n_classes):
    return np.bincount(classes, minlength=n_classes) / len(classes)


def _probabilities(scores):
    """Probabilities of the classes by their scores."""
    kept = scores.clip(1e-9, 1)
    return kept / kept.sum(axis=1, keepdims=True)
