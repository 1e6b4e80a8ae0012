"""Distances between two samples, as distances between the two *empirical* distributions (V-statistics).

They are never negative, zero for equal samples, and above zero for two samples of one distribution. So they
are read beside a noise floor: the distance between two samples of the target, of the same sizes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.utils import check_random_state

from ._rows import two_samples

# Pairs of rows are looked at in squares of this side: 32 MB in float64, however long the samples are.
_BLOCK_ROWS = 2048

# Rows the median distance is taken over: its sampling error is then far below what a bandwidth can feel.
_MEDIAN_ROWS = 1000

# Numbers sorted together by `sliced_wasserstein`; more projections are taken in turn.
_SORTED_TOGETHER = 2**22


def energy_distance(X, Y, *, max_samples=None, random_state=None):
    r"""Energy distance between two samples.

    .. math:: D(X, Y) = 2\,E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    It is zero exactly when the distributions are equal. The expectations run over all pairs of rows, a row
    with itself included (the V-statistic); two samples of one distribution therefore have the expectation
    :math:`(1/n + 1/m)\,E\|X - X'\|`, not zero. `scipy.stats.energy_distance` is the root of this number, in
    one dimension.

    Parameters
    ----------
    X, Y : array-like, sparse matrix or Tensor of shape (n, n_features), (m, n_features)
        The two samples. Time grows with n m; memory does not.
    max_samples : int, optional
        Use at most so many rows of each sample, drawn at random without replacement.
    random_state : int, RandomState instance or None
        Draws the rows where `max_samples` is given.

    Returns
    -------
    distance : float
        In the units of `X`; at least 0.

    Raises
    ------
    ValueError
        If the samples are not 2-D and finite with the same number of features.

    References
    ----------
    G. J. Szekely and M. L. Rizzo, "Energy statistics: a class of statistics based on distances", Journal of
    Statistical Planning and Inference, 2013.

    Examples
    --------
    >>> from rfadapt.metrics import energy_distance
    >>> energy_distance([[0.0], [0.0]], [[3.0]])
    6.0
    """
    X, Y = _two_centred_tensors(X, Y, max_samples, check_random_state(random_state))
    between, within_x, within_y = (_mean_over_pairs(*pair, _itself) for pair in ((X, Y), (X, X), (Y, Y)))
    return max(2 * between - within_x - within_y, 0.0)


def maximum_mean_discrepancy(X, Y, *, bandwidth="median", max_samples=None, random_state=None):
    r"""Maximum mean discrepancy between two samples, with a Gaussian kernel.

    .. math:: \mathrm{MMD}^2 = E\,k(X, X') + E\,k(Y, Y') - 2\,E\,k(X, Y), \qquad
              k(x, y) = \exp\left(-\frac{\|x - y\|^2}{2 \sigma^2}\right)

    The root is returned, over all pairs of rows (the biased V-statistic of the paper).

    Parameters
    ----------
    X, Y : array-like, sparse matrix or Tensor of shape (n, n_features), (m, n_features)
        The two samples. Time grows with n m; memory does not.
    bandwidth : "median" or float
        The width :math:`\sigma` of the kernel, in the units of `X`. "median" is the median distance between
        two rows of both samples together, over at most 1000 rows of them. It depends on the data: give a
        number to compare several samples with one target.
    max_samples : int, optional
        Use at most so many rows of each sample, drawn at random without replacement.
    random_state : int, RandomState instance or None
        Draws the rows, where there are more than are used.

    Returns
    -------
    mmd : float
        Between 0 and the root of 2; without units.

    Raises
    ------
    ValueError
        If the samples are not 2-D and finite with the same number of features, or the bandwidth is not
        positive.

    References
    ----------
    A. Gretton et al., "A kernel two-sample test", JMLR, 2012.

    Examples
    --------
    >>> from rfadapt.metrics import maximum_mean_discrepancy
    >>> round(maximum_mean_discrepancy([[0.0]], [[1.0]], bandwidth=1.0), 4)
    0.8871
    """
    random_state = check_random_state(random_state)
    X, Y = _two_centred_tensors(X, Y, max_samples, random_state)
    if isinstance(bandwidth, str) and bandwidth == "median":
        bandwidth = _median_distance(torch.cat([X, Y]), random_state)
    elif isinstance(bandwidth, str) or not 0 < bandwidth < math.inf:
        raise ValueError(f'bandwidth must be "median" or a positive number; got {bandwidth!r}.')

    def kernel(distances):
        return torch.exp_(distances.square_().mul_(-0.5 / bandwidth**2))

    between, within_x, within_y = (_mean_over_pairs(*pair, kernel) for pair in ((X, Y), (X, X), (Y, Y)))
    return math.sqrt(max(within_x + within_y - 2 * between, 0.0))


def sliced_wasserstein(X, Y, *, n_projections=128, random_state=None):
    r"""Sliced Wasserstein-2 distance between two samples.

    .. math:: SW_2^2(X, Y) = E_{\theta} \int_0^1 \left(F^{-1}_{\theta \cdot X}(q) -
              F^{-1}_{\theta \cdot Y}(q)\right)^2 dq

    with :math:`\theta` uniform on the unit sphere. On each line the optimal coupling is found exactly, by
    sorting, also where the samples have different sizes. The same `random_state` gives the same directions as
    `ot.sliced_wasserstein_distance(..., seed=random_state)`.

    Parameters
    ----------
    X, Y : array-like, sparse matrix or Tensor of shape (n, n_features), (m, n_features)
        The two samples. Time grows with (n + m) log(n + m).
    n_projections : int
        Number of random directions; a mean is taken over them.
    random_state : int, RandomState instance or None
        Draws the directions. Two distances are comparable when their directions are the same.

    Returns
    -------
    distance : float
        In the units of `X`; at least 0.

    Raises
    ------
    ValueError
        If the samples are not 2-D and finite with the same number of features, or `n_projections` is below 1.

    References
    ----------
    N. Bonneel, J. Rabin, G. Peyre and H. Pfister, "Sliced and Radon Wasserstein barycenters of measures",
    Journal of Mathematical Imaging and Vision, 2015.

    Examples
    --------
    >>> from rfadapt.metrics import sliced_wasserstein
    >>> sliced_wasserstein([[0.0], [1.0]], [[2.0], [3.0]], random_state=0)
    2.0
    """
    X, Y = two_samples(X, Y)
    if n_projections < 1:
        raise ValueError(f"n_projections must be at least 1; got {n_projections}.")
    n, m, d = len(X), len(Y), X.shape[1]
    directions = check_random_state(random_state).standard_normal((d, n_projections))
    directions /= np.linalg.norm(directions, axis=0)

    # Both quantile functions are constant between neighbouring levels i/n and j/m; in units of 1/(n m) the
    # levels are whole numbers, so that none is missed or doubled by rounding.
    levels = np.union1d(np.arange(n + 1, dtype=np.int64) * m, np.arange(m + 1, dtype=np.int64) * n)
    weight, rank_x, rank_y = np.diff(levels) / (n * m), levels[:-1] // m, levels[:-1] // n

    total, step = 0.0, max(1, _SORTED_TOGETHER // (n + m))
    for start in range(0, n_projections, step):
        part = directions[:, start : start + step]
        x, y = np.sort(X @ part, axis=0), np.sort(Y @ part, axis=0)
        total += float(weight @ np.square(x[rank_x] - y[rank_y]).sum(axis=1))
    return math.sqrt(total / n_projections)


def _two_centred_tensors(X, Y, max_samples, random_state):
    X, Y = two_samples(X, Y, max_samples, random_state)
    # Distances come from |x|^2 + |y|^2 - 2 x.y, which loses all digits far away from the origin.
    centre = (X.sum(axis=0) + Y.sum(axis=0)) / (len(X) + len(Y))
    return torch.from_numpy(X - centre), torch.from_numpy(Y - centre)


def _itself(distances):
    return distances


def _mean_over_pairs(X, Y, function) -> float:
    """Mean of `function(distance)` over all pairs of a row of X and one of Y; it may work in place."""
    total = 0.0
    for i in range(0, len(X), _BLOCK_ROWS):
        x = X[i : i + _BLOCK_ROWS]
        # Pairs within one sample come twice: every block beside the diagonal stands for its mirror image too.
        for j in range(i if X is Y else 0, len(Y), _BLOCK_ROWS):
            distances = torch.cdist(x, Y[j : j + _BLOCK_ROWS])
            if X is Y and i == j:
                distances.fill_diagonal_(0.0)
            total += float(function(distances).sum()) * (2 if X is Y and i != j else 1)
    return total / (len(X) * len(Y))


def _median_distance(rows, random_state) -> float:
    if len(rows) > _MEDIAN_ROWS:
        rows = rows[torch.from_numpy(random_state.permutation(len(rows))[:_MEDIAN_ROWS])]
    distances = torch.nn.functional.pdist(rows)
    # Where more than half of the pairs are duplicates the median is 0, which is no bandwidth.
    positive = distances[distances > 0]
    median = float(distances.median()) if len(distances) else 0.0
    return median or (float(positive.median()) if len(positive) else 1.0)
