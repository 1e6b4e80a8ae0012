"""Baselines from entropic optimal transport: Sinkhorn, unbalanced and class-regularised, solved by POT."""

from __future__ import annotations

import warnings
from numbers import Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from ..base import BaseTransport
from .plan import (
    COUNT,
    POSITIVE,
    SUBSET,
    NearestRowTransport,
    PlanProblem,
    as_float64,
    blocks,
    on_device_of,
    solver_device,
    warn_convergence,
)

# Iterations in the log domain before the kernel takes over; POT looks at the error after 1, 11, 21, ...
_LOG_ITERATIONS = 11


class SinkhornTransport(BaseTransport):
    r"""Entropic optimal transport, solved by Sinkhorn's iterations in the log domain [1]_.

    .. math:: T(x) = \frac{\sum_j w_j(x)\, x^1_j}{\sum_j w_j(x)}, \qquad
              w_j(x) = e^{\,v_j - \|x - x^1_j\|^2 / (\mathrm{reg}\, \sigma^2)}

    with the target potential v of the entropic problem and the median squared distance :math:`\sigma^2`. This is
    the barycentric map of the plan on the rows of `X0`, and its smooth continuation everywhere else [2]_, as in
    ``ot.da.SinkhornTransport(reg_e=reg, norm="median")``. It shrinks towards local means of `X1`, the more the
    larger `reg`.

    Parameters
    ----------
    reg : float, default=0.05
        Entropic regularisation, in units of the median squared distance between the two samples. Smaller is
        closer to exact transport, and slower.
    max_iter : int, default=1000
        Iterations before it stops with a warning.
    tol : float, default=1e-6
        Stop when the Euclidean norm of the violation of the target's masses is below this.
    max_samples : int, default=5000
        Of a larger side, this many rows are drawn without replacement, and the problem is solved on them. Memory
        is several times ``max_samples ** 2`` numbers (5000: about 1 GB).
    random_state : int, RandomState instance or None, default=None
        Of that draw. Without effect on samples of at most `max_samples` rows.

    Attributes
    ----------
    target_ : ndarray of shape (n_points, n_features)
        The rows of `X1` used.
    log_v_ : ndarray of shape (n_points,)
        Their potential v.
    center_, scale_ : ndarray of shape (n_features,), float
        Origin and unit in which distances are computed; `scale_` is :math:`\sigma`.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", NeurIPS 2013.
    .. [2] Pooladian, Niles-Weed, "Entropic estimation of optimal transport maps", arXiv:2109.12004, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.baselines import SinkhornTransport
    >>> X0 = np.array([[0.0], [1.0], [2.0]])
    >>> SinkhornTransport(reg=0.01).fit(X0, X0 + 5.0).transform(X0).round(1).ravel()
    array([5., 6., 7.])
    """

    _parameter_constraints = {"reg": [POSITIVE], "max_iter": [COUNT], "tol": [POSITIVE], **SUBSET}

    def __init__(self, reg=0.05, *, max_iter=1000, tol=1e-6, max_samples=5000, random_state=None):
        self.reg = reg
        self.max_iter = max_iter
        self.tol = tol
        self.max_samples = max_samples
        self.random_state = random_state

    def _fit(self, X0, X1, y0, y1):
        problem = PlanProblem.of(X0, X1, self.max_samples, self.random_state)
        cost = torch.from_numpy(problem.cost).to(solver_device(X0))
        _, (_, log_v), error = _sinkhorn(cost, self.reg, self.max_iter, self.tol)
        if not error <= self.tol:
            _warn(self, "max_iter", error)
        self.target_ = problem.x1
        self.log_v_ = log_v.cpu().numpy()
        self.center_, self.scale_ = problem.center, problem.scale

    def _transform(self, x):
        points = as_float64(x)
        target, log_v, center = (on_device_of(points, array) for array in (self.target_, self.log_v_, self.center_))
        scaled = (target - center) / self.scale_
        # |x|^2 is common to a row and cancels in the quotient.
        log_weight = log_v - scaled.square().sum(1) / self.reg
        moved = torch.empty_like(points)
        for part in blocks(len(points), len(target)):
            inner = ((points[part] - center) / self.scale_) @ scaled.T
            moved[part] = torch.softmax(log_weight + inner * (2 / self.reg), dim=1) @ target
        return moved.to(x)


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
        As in :class:`SinkhornTransport`.

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
    >>> UnbalancedSinkhornTransport(reg=0.01).fit(X0, X1).transform(X0).max() <= 5.0
    True
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
        error = float(log["err"][-1]) if log["err"] else np.inf
        if not error < self.tol or any("Numerical errors" in str(warning.message) for warning in caught):
            _warn(self, "max_iter", error)
        plan[np.ix_(kept0.cpu().numpy(), kept1.cpu().numpy())] = part.cpu().numpy()
        return plan


class ClassRegularizedSinkhornTransport(NearestRowTransport):
    r"""Entropic optimal transport in which a target row prefers partners of one class of the source [1]_.

    .. math:: \min_{\gamma} \langle \gamma, C \rangle + \mathrm{reg} \sum_{ij} \gamma_{ij} \log \gamma_{ij}
              + \mathrm{reg_{cl}} \sum_j \sum_c \Big( \sum_{i:\, y_i = c} \gamma_{ij} \Big)^{1/2}

    by majorisation: rounds of Sinkhorn's iterations in the log domain, on a cost that rises for the classes a target
    row receives little from. A row of `X0` goes to the mean of its partners; any other row is displaced as the
    nearest row of `X0` is. As ``ot.da.SinkhornLpl1Transport(reg_e=reg, reg_cl=reg_cl, norm="median")``, in the memory
    of the plan alone.

    Parameters
    ----------
    reg : float, default=0.05
        Entropic regularisation, in units of the median squared distance between the two samples.
    reg_cl : float, default=0.1
        Class regularisation, in the same unit.
    max_iter : int, default=10
        Rounds of majorisation; all are done.
    max_inner_iter : int, default=1000
        Iterations within a round. A warning says if they did not suffice for the last round.
    tol : float, default=1e-5
        Ends a round, as in :class:`SinkhornTransport`.
    max_samples, random_state
        As in :class:`SinkhornTransport`.

    Attributes
    ----------
    support_, image_ : ndarray of shape (n_points, n_features)
        The distinct training rows, and where they go.
    center_, scale_ : ndarray of shape (n_features,), float
        Origin and unit in which distances are computed.
    n_features_in_ : int
        Number of features seen in `fit`.

    Notes
    -----
    `fit` raises ValueError without `y0`, or where it holds -1, NaN or None; `y1` is not used.

    References
    ----------
    .. [1] Courty, Flamary, Tuia, Rakotomamonjy, "Optimal transport for domain adaptation", IEEE TPAMI 39, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.baselines import ClassRegularizedSinkhornTransport
    >>> X0 = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> transport = ClassRegularizedSinkhornTransport(reg=0.01)
    >>> transport.fit(X0, X0 + 5.0, y0=["a", "a", "b", "b"]).transform(X0).round(1).ravel()
    array([ 5.,  6.,  9., 10.])
    """

    _parameter_constraints = {
        "reg": [POSITIVE], "reg_cl": [Interval(Real, 0, None, closed="left")], "max_iter": [COUNT],
        "max_inner_iter": [COUNT], "tol": [POSITIVE], **SUBSET,
    }

    def __init__(self, reg=0.05, reg_cl=0.1, *, max_iter=10, max_inner_iter=1000, tol=1e-5, max_samples=5000,
                 random_state=None):
        self.reg = reg
        self.reg_cl = reg_cl
        self.max_iter = max_iter
        self.max_inner_iter = max_inner_iter
        self.tol = tol
        self.max_samples = max_samples
        self.random_state = random_state

    def _fit(self, X0, X1, y0, y1):
        super()._fit(X0, X1, _class_indices(y0), y1)

    def _plan(self, problem, device, y0):
        cost, label = (torch.from_numpy(array).to(device) for array in (problem.cost, y0))
        member = torch.nn.functional.one_hot(label).T.to(cost)
        penalised, scalings = cost, None
        for _ in range(self.max_iter):
            plan, scalings, error = _sinkhorn(penalised, self.reg, self.max_inner_iter, self.tol, scalings)
            # The slope of the square root at the mass that a target row has from each class. 1e-3 is POT's, and
            # keeps the slope finite where there is none.
            slope = 0.5 / (member @ plan + 1e-3).sqrt()
            penalised = cost + self.reg_cl * slope[label]
        if not error <= self.tol:
            _warn(self, "max_inner_iter", error)
        return plan.cpu().numpy()


def _sinkhorn(cost: torch.Tensor, reg, max_iter, tol, start=None):
    """Sinkhorn's iterations with uniform masses by POT: the plan, both log-scalings, and the last violation of b.

    An iteration in the log domain needs n0 x n1 exponentials, one on the kernel only products with it; but the
    kernel exp(-cost / reg) of badly scaled data is zero in floating point. So the first few are done in the log
    domain, and their scalings are put into the kernel, which is then nearly the plan itself.
    """
    import ot

    a, b = (cost.new_full((n,), 1.0 / n) for n in cost.shape)
    settings = {"stopThr": tol, "log": True, "warn": False}
    with warnings.catch_warnings():
        # Numerical errors show in the violation.
        warnings.simplefilter("ignore")
        plan, log = ot.bregman.sinkhorn_log(
            a, b, cost, reg, numItermax=min(max_iter, _LOG_ITERATIONS), warmstart=start, **settings
        )
        scalings = log["log_u"], log["log_v"]
        if not log["err"][-1] < tol and max_iter > _LOG_ITERATIONS:
            # tau: scalings go back into the kernel before they overflow, but not sooner, as that costs an iteration
            # in the log domain.
            plan, log = ot.bregman.sinkhorn_stabilized(
                a, b, cost, reg, numItermax=max_iter - _LOG_ITERATIONS, tau=1e100, print_period=20,
                warmstart=tuple(reg * scaling for scaling in scalings), **settings,
            )
            scalings = log["logu"], log["logv"]
    return plan, scalings, float(torch.linalg.vector_norm(plan.sum(0) - b))


def _class_indices(y0) -> np.ndarray:
    if y0 is None:
        raise ValueError(
            "ClassRegularizedSinkhornTransport needs the labels of the source; got y0=None. Call "
            "fit(X0, X1, y0=labels), or use SinkhornTransport, which needs none."
        )
    missing = np.zeros(len(y0), bool)
    if y0.dtype.kind == "O":
        import pandas

        missing = pandas.isna(y0)
        # Objects of several kinds cannot be sorted; their texts can.
        y0 = y0.astype(str)
        missing |= y0 == "-1"
    elif y0.dtype.kind in "fi":
        missing = np.isnan(y0) | (y0 == -1)
    if missing.any():
        raise ValueError(
            f"y0 has {int(missing.sum())} missing label(s) (-1, NaN or None), the first at row "
            f"{int(missing.argmax())}; ClassRegularizedSinkhornTransport needs a class for every row of X0. Drop "
            "those rows; if -1 is one of your classes, give it another number."
        )
    return np.unique(y0, return_inverse=True)[1].reshape(-1)


def _warn(transport, limit: str, error: float) -> None:
    warn_convergence(
        f"{type(transport).__name__} stopped after {limit}={getattr(transport, limit)} iterations with error "
        f"{error:.1e}, not below tol={transport.tol:g}. Raise reg={transport.reg:g} or {limit}, or accept a larger tol."
    )
