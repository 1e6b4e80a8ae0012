"""Whether one domain is turned against the other, and how far: optimal transport and Procrustes in turns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

# Rows of each domain that are paired at a time.
_PAIRED_ROWS = 512
_MAX_TURNS = 10
# Axes of which one, or one between two of them, may be the mirror's, and turns after which it is seen to be right.
_MIRROR_AXES = 4
_FIRST_TURNS = 2
# Weight of the Gaussian map's own rotation in directions in which the pairs agree on nothing, and which so stay.
_PRIOR = 0.3
# Share of the mean variance that is added to every variance, so that whitening invents nothing where nothing varies.
_FLOOR = 1e-4
# Standard errors by which a turn must bring held-out rows closer to the other domain. Two samples of one Gaussian,
# in which nothing turns, gave at most 2.6 in fifty trials.
_EVIDENCE = 4.0


@dataclass(frozen=True)
class LinearProblem:
    """Two centred samples and their (regularised) covariances, float64.

    Attributes
    ----------
    x0, x1 : ndarray of shape (n0, n_features), (n1, n_features)
    covariance0, covariance1 : ndarray of shape (n_features, n_features)
        Positive definite.
    """

    x0: np.ndarray
    x1: np.ndarray
    covariance0: np.ndarray
    covariance1: np.ndarray


def fit_rotation(problem: LinearProblem, random_state: np.random.RandomState, mirrored: bool = False) -> np.ndarray:
    r"""The rotation of domain 0 after which the Gaussian optimal map takes its shape to that of domain 1.

    The linear maps that give domain 0 the covariance of domain 1 are :math:`C_1^{1/2} R\, C_0^{-1/2}`, R any
    rotation. The optimal map between Gaussians is the one that moves rows least; where the samples are not
    Gaussian, their shape tells more. From that map on, exact transport pairs the moved rows with rows of domain 1,
    and R becomes the rotation that fits these pairs best (the orthogonal Procrustes problem), in turns.

    Parameters
    ----------
    problem : LinearProblem
    random_state : RandomState
        Draws the rows that are paired.
    mirrored : bool, default=False
        Whether domain 0 is seen in a mirror first. No turn leads from a rotation to a reflection, so that the axis is
        searched: of the 4 in which domain 0 varies most and those half-way between two of them, the one after which the
        domains come closest.

    Returns
    -------
    rotation : ndarray of shape (n_features, n_features)
        Q with determinant 1, or -1 if mirrored. The Gaussian optimal map from the rows x0 Q' to domain 1, after Q, is
        C1^(1/2) R C0^(-1/2).

    References
    ----------
    Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 1966.

    Grave, Joulin, Berthet, "Unsupervised alignment of embeddings with Wasserstein Procrustes", AISTATS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.rotation import LinearProblem, fit_rotation
    >>> rng = np.random.RandomState(0)
    >>> corners = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    >>> x = corners[rng.randint(3, size=300)] + 0.1 * rng.normal(size=(300, 2))
    >>> x -= x.mean(axis=0)
    >>> turn = np.array([[0.9, -0.436], [0.436, 0.9]])
    >>> covariances = np.cov(x.T), np.cov(turn @ x.T)
    >>> Q = fit_rotation(LinearProblem(x, x @ turn.T, *covariances), rng)
    >>> bool(np.allclose(Q, turn, atol=0.05))
    True
    """
    procrustes = _Procrustes(problem, random_state)
    if not mirrored:
        return procrustes.unwhitened(procrustes.turned(procrustes.gaussian, _MAX_TURNS))
    axes = np.linalg.eigh(problem.covariance0)[1][:, : -_MIRROR_AXES - 1 : -1].T
    between = [(one + sign * other) / np.sqrt(2) for one, other in combinations(axes, 2) for sign in (1, -1)]
    starts = [procrustes.gaussian @ (np.eye(len(axis)) - 2 * np.outer(axis, axis)) for axis in [*axes, *between]]
    rows = _drawn(problem.x0, random_state), _drawn(problem.x1, random_state)
    nearest = min(starts, key=lambda start: procrustes.distance(procrustes.turned(start, _FIRST_TURNS), *rows))
    return procrustes.unwhitened(procrustes.turned(nearest, _MAX_TURNS))


class _Procrustes:
    """Pairs by exact transport and the orthogonal matrix R that fits them best, in turns."""

    def __init__(self, problem, random_state):
        self._problem, self._random_state = problem, random_state
        self._root0, self._whiten0 = _roots(problem.covariance0)
        self._root1, self._whiten1 = _roots(problem.covariance1)
        #: R of the optimal map between the Gaussians.
        self.gaussian = _nearest_orthogonal(self._root1 @ self._root0)

    def turned(self, start, n_turns):
        """R from a start, which it keeps to in directions in which the pairs agree on nothing."""
        rotation, identity = start, np.eye(len(start))
        for _ in range(n_turns):
            x, y = (_drawn(rows, self._random_state) for rows in (self._problem.x0, self._problem.x1))
            partners = _partners(x @ self._map(rotation).T, y)
            correlations = self._whiten1 @ (partners.T @ x / len(x)) @ self._whiten0
            unexplained = identity - correlations @ correlations.T
            rotation = _nearest_orthogonal(correlations + _PRIOR * unexplained @ start, np.linalg.det(start))
        return rotation

    def distance(self, rotation, x, y):
        """Squared Wasserstein-2 distance of rows of domain 0, moved by the map of R, to rows of domain 1."""
        return sum(potential.mean() for potential in _dual(x @ self._map(rotation).T, y))

    def unwhitened(self, rotation):
        """The matrix Q of the map of R."""
        return _nearest_orthogonal(self._map(rotation), np.linalg.det(rotation))

    def _map(self, rotation):
        return self._root1 @ rotation @ self._whiten0


def evidence_for_rotation(problem: LinearProblem, random_state: np.random.RandomState) -> float:
    """Standard errors by which turning brings held-out rows closer to domain 1, in Wasserstein-2 distance.

    Each half of the rows is moved by what the other half has taught.
    """
    gaussian = linear_map(problem, np.eye(len(problem.covariance0)))
    halves0, halves1 = (halves(len(x), random_state) for x in (problem.x0, problem.x1))
    gain, variance = 0.0, 0.0
    for (learn0, test0), (learn1, test1) in zip(halves0, halves1):
        part = LinearProblem(problem.x0[learn0], problem.x1[learn1], problem.covariance0, problem.covariance1)
        turned = linear_map(problem, fit_rotation(part, random_state))
        x, y = problem.x0[test0][:_PAIRED_ROWS], problem.x1[test1][:_PAIRED_ROWS]
        before, after = _dual(x @ gaussian.T, y), _dual(x @ turned.T, y)
        # The dual potentials are the cost's derivative in the samples: their spread is its sampling error.
        differences = [b - a for b, a in zip(before, after)]
        gain += sum(difference.mean() for difference in differences)
        variance += sum(difference.var() / len(difference) for difference in differences)
    return gain / np.sqrt(variance) if variance > 0 else 0.0


def is_turned(problem: LinearProblem, random_state: np.random.RandomState) -> bool:
    """Whether held-out rows show that domain 0 is turned against domain 1."""
    return evidence_for_rotation(problem, random_state) >= _EVIDENCE


def power(rotation: np.ndarray, exponent: float) -> np.ndarray:
    """A rotation, done to the share `exponent`: 0 is none, 1 all of it."""
    from scipy.linalg import schur

    # The Schur form of an orthogonal matrix is diagonal, with the angles in it.
    diagonal, basis = schur(rotation, output="complex")
    angles = np.angle(np.diagonal(diagonal))
    # The angles come in pairs of both signs, so that nothing imaginary is left.
    return ((basis * np.exp(1j * exponent * angles)) @ basis.conj().T).real


def linear_map(problem: LinearProblem, rotation: np.ndarray) -> np.ndarray:
    """The matrix of the Gaussian optimal map from domain 0, turned by `rotation`, to domain 1."""
    root, whiten = _roots(rotation @ problem.covariance0 @ rotation.T)
    middle, _ = _roots(root @ problem.covariance1 @ root)
    return whiten @ middle @ whiten @ rotation


def _partners(moved, x1):
    """For every moved row, the mean of the rows of domain 1 that exact optimal transport gives it."""
    import ot

    plan = ot.emd(*_weights(moved, x1), ot.dist(moved, x1), numItermax=1_000_000)
    return len(moved) * plan @ x1


def _dual(moved, x1):
    import ot

    log = ot.emd(*_weights(moved, x1), ot.dist(moved, x1), numItermax=1_000_000, log=True)[1]
    return log["u"], log["v"]


def _weights(*samples):
    return [np.full(len(x), 1 / len(x)) for x in samples]


def _drawn(x, random_state):
    return x[random_state.permutation(len(x))[:_PAIRED_ROWS]]


def halves(n: int, random_state: np.random.RandomState) -> tuple:
    """Two halves of the numbers below `n` at random, in both orders: to learn from the first, judge by the second."""
    order = random_state.permutation(n)
    a, b = order[: n // 2], order[n // 2 :]
    return (a, b), (b, a)


def _roots(matrix):
    values, vectors = np.linalg.eigh(matrix)
    values = np.sqrt(values + _FLOOR * (values.mean() or 1.0))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _nearest_orthogonal(matrix, sign=1.0):
    """The nearest orthogonal matrix whose determinant has this sign: a turn, or a turn in a mirror."""
    left, _, right = np.linalg.svd(matrix)
    left[:, -1] *= np.sign(np.linalg.det(left @ right)) * np.sign(sign)
    return left @ right
