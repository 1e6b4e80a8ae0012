"""Unbalanced entropic optimal transport, solved by POT."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from .plan import COUNT, POSITIVE, SUBSET, NearestRowTransport
from .sinkhorn import warn_iterations


class UnbalancedSinkhornTransport(NearestRowTransport):
    r"""Entropic optimal transport that may leave outliers behind [1]_.

    .. math:: \min_{\gamma \ge 0} \langle \gamma, C \rangle + \mathrm{reg}\, KL(\gamma \,|\, a b^T)
              + \mathrm{reg_m} \left( KL(\gamma 1 \,|\, a) + KL(\gamma^T 1 \,|\, b) \right)

    A row of `X0` goes to the mean of its partners; any other row is displaced as the nearest row of `X0` is, and
    so are rows of `X0` left without any mass: they follow the nearest row that has some. As
    ``ot.da.UnbalancedSinkhornTransport(reg_e=reg, reg_m=reg_m, norm="median")`` wherever that converges.

    Parameters
    ----------
    reg : float, default=0.05
        Entropic regularisation, in units of the median squared distance between the two samples.
    reg_m : float, default=1.0
        Price of mass that is created or left behind, in the same unit. Large values force balance.
    max_iter : int, default=1000
        Iterations before it stops with a warning.
    tol : float, default=1e-6
        Stop when the scalings change by less than this, relatively.
    max_samples, random_state
        As in :class:`~rfadapt.baselines.SinkhornTransport`.

    Attributes
    ----------
    support_, image_ : ndarray of shape (n_points, n_features)
        The distinct training rows with mass, and where they go.
    center_, scale_ : ndarray of shape (n_features,), float
        Origin and unit in which distances are computed.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Chizat, Peyré, Schmitzer, Vialard, "Scaling algorithms for unbalanced transport problems",
       Mathematics of Computation 87, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.baselines import UnbalancedSinkhornTransport
    >>> X0, X1 = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [4.0], [5.0], [100.0]])
    >>> UnbalancedSinkhornTransport(reg=0.01).fit(X0, X1).transform(X0).round(1).ravel()
    array([3. , 3.2, 4.5])
    """

    _parameter_constraints = {
        "reg": [POSITIVE], "reg_m": [POSITIVE], "max_iter": [COUNT], "tol": [POSITIVE], **SUBSET,
    }

    def __init__(self, reg=0.05, reg_m=1.0, *, max_iter=1000, tol=1e-6, max_samples=5000, random_state=None):
        self.reg = reg
        self.reg_m = reg_m
        self.max_iter = max_iter
        self.tol = tol
        self.max_samples = max_samples
        self.random_state = random_state

    def _plan(self, problem, device, y0):
        import ot

        cost, *weights = (torch.from_numpy(array).to(device) for array in (problem.cost, *problem.weights))
        plan = np.zeros(problem.cost.shape)
        # POT has no log-domain solver for this problem, and an outlier's kernel exp(-cost / reg) is zero in floating
        # point. But subtracting f_i from row i of the cost and multiplying a_i by exp(-f_i / reg_m) leaves the
        # plan as it is, likewise for columns; so their minima are taken out. A row or column that keeps less than
        # exp(-500) of its weight then has no mass worth solving for.
        row = cost.amin(1)
        kept0 = row <= 500 * self.reg_m
        if not kept0.any():
            return plan
        cost = cost[kept0] - row[kept0, None]
        column = cost.amin(0)
        kept1 = column <= 500 * self.reg_m
        if not kept1.any():
            return plan
        cost = cost[:, kept1] - column[kept1]
        a = (weights[0] * torch.exp(-row / self.reg_m))[kept0]
        b = (weights[1] * torch.exp(-column / self.reg_m))[kept1]
        reference = (weights[0][0] * weights[1][0]).expand(cost.shape)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            part, log = ot.unbalanced.sinkhorn_unbalanced(
                a, b, cost, self.reg, self.reg_m, c=reference, numItermax=self.max_iter, stopThr=self.tol, log=True
            )
        stuck = any("Numerical errors" in str(warning.message) for warning in caught)
        error = np.inf if stuck or not log["err"] else float(log["err"][-1])
        if not error < self.tol:
            warn_iterations(self, "max_iter", error)
        plan[np.ix_(kept0.cpu().numpy(), kept1.cpu().numpy())] = part.cpu().numpy()
        return plan
