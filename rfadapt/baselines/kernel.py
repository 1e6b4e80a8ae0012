"""The kernel map learned jointly with a plan, solved by POT."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from ..base import BaseTransport
from .plan import COUNT, POSITIVE, SUBSET, PlanProblem, as_float64, blocks, on_device_of, warn_convergence


class KernelMappingTransport(BaseTransport):
    r"""A smooth map learned together with the plan it should follow [1]_.

    .. math:: \min_{L, \gamma} \|L(X_0) - n_0 \gamma X_1\|^2 + \mu\, n_0 \langle \gamma, C \rangle
              + \eta \|L\|_{\mathcal{H}}^2

    over the maps L of a Gaussian kernel's space, the origin being the mean of `X1`; far from all rows of `X0` the
    map returns to it. As ``ot.da.MappingTransport(kernel="gaussian")`` on new rows. The map is used for the rows
    of `X0` too, where POT answers with the plan instead.

    Parameters
    ----------
    sigma : float, default=1.0
        Width of the kernel, in units of the root of the median squared distance between the two samples.
    mu : float, default=1.0
        Weight of the transport cost.
    eta : float, default=1e-3
        Weight of the map's norm.
    max_iter : int, default=20
        Rounds of alternation before it stops with a warning.
    tol : float, default=1e-3
        Stop when the objective changes by less than this, relatively.
    max_samples : int, default=1000
        Of a larger side, this many rows are drawn without replacement, and the problem is solved on them: every
        round solves several exact plans.
    random_state : int, RandomState instance or None, default=None
        Of that draw. Without effect on samples of at most `max_samples` rows.

    Attributes
    ----------
    support_, coefficients_ : ndarray of shape (n_points, n_features)
        The rows of `X0` used, and the weights of the kernels at them.
    center_, scale_ : ndarray of shape (n_features,), float
        Origin of the map, and unit of the kernel's distances.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Perrot, Courty, Flamary, Habrard, "Mapping estimation for discrete optimal transport", NeurIPS 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.baselines import KernelMappingTransport
    >>> X0 = np.linspace(0.0, 1.0, 20)[:, None]
    >>> KernelMappingTransport().fit(X0, X0 + 1.0).transform([[0.5]]).round(2)
    array([[1.5]])
    """

    _parameter_constraints = {
        "sigma": [POSITIVE], "mu": [POSITIVE], "eta": [POSITIVE], "max_iter": [COUNT], "tol": [POSITIVE], **SUBSET,
    }

    def __init__(self, sigma=1.0, *, mu=1.0, eta=1e-3, max_iter=20, tol=1e-3, max_samples=1000,
                 random_state=None):
        self.sigma = sigma
        self.mu = mu
        self.eta = eta
        self.max_iter = max_iter
        self.tol = tol
        self.max_samples = max_samples
        self.random_state = random_state

    def _fit(self, X0, X1, y0, y1):
        import ot

        problem = PlanProblem.of(X0, X1, self.max_samples, self.random_state)
        center = problem.x1.mean(axis=0)
        z0, z1 = ((x - center) / problem.scale for x in (problem.x0, problem.x1))
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            # The inner plans need not be optimal, and a map without any error has no relative change.
            warnings.simplefilter("ignore")
            _, coefficients, log = ot.mapping.joint_OT_mapping_kernel(
                z0, z1, mu=self.mu, eta=self.eta, sigma=self.sigma, numItermax=self.max_iter, stopThr=self.tol,
                log=True,
            )
        before, last = log["loss"][-2:]
        if abs(last - before) > self.tol * abs(before):
            warn_convergence(
                f"KernelMappingTransport stopped after max_iter={self.max_iter} rounds, before the objective settled "
                f"to tol={self.tol:g}. Raise max_iter, eta={self.eta:g} or tol."
            )
        self.support_, self.coefficients_ = problem.x0, coefficients * problem.scale
        self.center_, self.scale_ = center, problem.scale

    def _transform(self, x):
        points = as_float64(x)
        support, coefficients, center = (
            on_device_of(points, array) for array in (self.support_, self.coefficients_, self.center_)
        )
        width = self.sigma * self.scale_
        scaled = (support - center) / width
        moved = torch.empty_like(points)
        for part in blocks(len(points), len(support)):
            square = torch.cdist((points[part] - center) / width, scaled).square()
            moved[part] = center + torch.exp(-square / 2) @ coefficients
        return moved.to(x)
