"""Entropic optimal transport, solved by POT where badly scaled data cannot stop it."""

from __future__ import annotations

import warnings

import torch

from ..base import BaseTransport
from .plan import (
    COUNT,
    POSITIVE,
    SUBSET,
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
        is several times ``max_samples ** 2`` numbers (5000: about 1.5 GB).
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
        _, (_, log_v), error = solve_sinkhorn(cost, self.reg, self.max_iter, self.tol)
        if not error <= self.tol:
            warn_iterations(self, "max_iter", error)
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


def solve_sinkhorn(cost: torch.Tensor, reg, max_iter, tol, start=None):
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


def warn_iterations(transport, limit: str, error: float) -> None:
    """Say that Sinkhorn's iterations stopped at the parameter named `limit`."""
    warn_convergence(
        f"{type(transport).__name__} stopped after {limit}={getattr(transport, limit)} iterations with error "
        f"{error:.1e}, not below tol={transport.tol:g}. Raise reg={transport.reg:g} or {limit}, or accept a larger tol."
    )
