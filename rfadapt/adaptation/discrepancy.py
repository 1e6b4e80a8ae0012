"""What is left between two domains as accounts leave them: the maximum mean discrepancy of rows not learned from."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist
from sklearn.base import clone

from .._samples import drawn
from ..projection import Projection
from ..rotation import halves

# So many rows of the target or fewer show little of its shape: what moves them has to be confirmed otherwise.
FEW_ROWS = 300
# Rows that one scale of distances is taken over.
_SCALE_ROWS = 500
# Rows of each domain that discrepancies are taken over; one half of them teaches what the other half is judged by.
_JUDGED_ROWS = 1000
_PERMUTATIONS = 200
# Share of random exchanges of the domains whose discrepancy a shift must exceed.
_LEVEL = 0.99
# Squared maximum mean discrepancy from which on domains hardly overlap; without any overlap it is near 1.
_APART = 2 / 3


def apart(discrepancy) -> float:
    """How far apart two domains are, from 0 (alike) to 1, by their squared maximum mean discrepancy."""
    return min(max(discrepancy / _APART, 0.0), 1.0)


def left_between(moved, X1, random_state) -> float:
    """Squared maximum mean discrepancy between moved rows and the target, and at least that of sampling noise."""
    judge = Judge(moved, None, X1, random_state)
    return max(judge.shift, judge.noise)


class Judge:
    """Discrepancies of the two domains as accounts leave them, on halves of the rows that they have not seen."""

    def __init__(self, X0, y0, X1, random_state):
        rows0, rows1 = (drawn(np.arange(len(X)), random_state, _JUDGED_ROWS) for X in (X0, X1))
        self._x0, self._x1 = X0[rows0], X1[rows1]
        self._y0 = None if y0 is None else y0[rows0]
        self._projection = Projection.fit(self._x0, self._x1)
        self.n_rows, self.n_directions = min(len(rows0), len(rows1)), self._projection.basis.shape[1]
        self._gamma = 1 / typical_square_distance(self._projection.enter(self._x1), random_state)
        self._halves0, self._halves1 = (halves(len(x), random_state) for x in (self._x0, self._x1))
        grams = [self._gram(self._x0[test0], self._x1[test1]) for _, _, test0, test1 in self._parts()]
        self.shift = np.mean([_mmd(gram, np.ones(n0)) for gram, n0 in grams])
        # Half of the rows of both domains, exchanged at random.
        exchanged = [_exchanged(gram, n0, random_state) for gram, n0 in grams]
        # Two halves are averaged, whose errors are independent.
        self.noise = np.quantile(exchanged, _LEVEL) / np.sqrt(2)

    @property
    def tells_apart(self) -> bool:
        """Whether the domains differ by more than sampling noise (a permutation test)."""
        return self.shift > self.noise

    def discrepancy(self, account) -> float:
        """What an account leaves, the mean of two halves."""
        return np.mean([self._part(account, *part) for part in self._parts()])

    def _part(self, account, learn0, learn1, test0, test1):
        y0 = None if self._y0 is None else self._y0[learn0]
        fitted = clone(account).fit(self._x0[learn0], y0, self._x1[learn1])
        gram, n0 = self._gram(fitted.transform(self._x0[test0]), self._x1[test1])
        return _mmd(gram, fitted.weigh(self._x0[test0], None if y0 is None else self._y0[test0]))

    def _parts(self):
        for (learn0, test0), (learn1, test1) in zip(self._halves0, self._halves1):
            yield learn0, learn1, test0, test1

    def _gram(self, x0, x1):
        rows = np.concatenate([self._projection.enter(x0), self._projection.enter(x1)])
        return np.exp(-self._gamma * cdist(rows, rows, "sqeuclidean")), len(x0)


def typical_square_distance(rows, random_state) -> float:
    """Median squared distance between two rows, over at most 500 of them; 1 where it vanishes."""
    distances = pdist(drawn(rows, random_state, _SCALE_ROWS), "sqeuclidean")
    return float(np.median(distances)) or 1.0 if len(distances) else 1.0


def _mmd(gram, weights) -> float:
    """Squared maximum mean discrepancy without the pairs of a row and itself, which sampling does not bias."""
    n0, n1 = len(weights), len(gram) - len(weights)
    weights = weights / weights.sum()
    squares = np.square(weights).sum()
    within0 = (weights @ gram[:n0, :n0] @ weights - squares) / max(1 - squares, 1e-9)
    within1 = (gram[n0:, n0:].sum() - n1) / max(n1 * (n1 - 1), 1)
    return within0 + within1 - 2 * (weights @ gram[:n0, n0:]).mean()


def _exchanged(gram, n0, random_state) -> np.ndarray:
    """Discrepancies, as `_mmd` has them, after exchanges of rows between the domains at random."""
    n1 = len(gram) - n0
    inside = np.zeros((len(gram), _PERMUTATIONS // 2))
    for column in inside.T:
        column[random_state.permutation(len(gram))[:n0]] = 1
    to_inside = gram @ inside
    within0 = (inside * to_inside).sum(axis=0)
    between = to_inside.sum(axis=0) - within0
    within1 = gram.sum() - within0 - 2 * between
    return ((within0 - n0) / max(n0 * (n0 - 1), 1) + (within1 - n1) / max(n1 * (n1 - 1), 1) - 2 * between / (n0 * n1))
