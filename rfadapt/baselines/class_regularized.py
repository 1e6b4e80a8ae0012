"""Entropic optimal transport that keeps the classes of the source together, solved by POT."""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from .plan import COUNT, POSITIVE, SUBSET, NearestRowTransport
from .sinkhorn import solve_sinkhorn, warn_iterations


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
            plan, scalings, error = solve_sinkhorn(penalised, self.reg, self.max_inner_iter, self.tol, scalings)
            # The slope of the square root at the mass that a target row has from each class. 1e-3 is POT's, and
            # keeps the slope finite where there is none.
            slope = 0.5 / (member @ plan + 1e-3).sqrt()
            penalised = cost + self.reg_cl * slope[label]
        if not error <= self.tol:
            warn_iterations(self, "max_inner_iter", error)
        return plan.cpu().numpy()


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
