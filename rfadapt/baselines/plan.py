"""Transports read off a discrete optimal transport plan: the problem, the map of a plan, and the exact plan."""

from __future__ import annotations

import sys
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval

from .._random import make_generator
from .._samples import Samples
from ..base import BaseTransport

POSITIVE = Interval(Real, 0, None, closed="neither")
COUNT = Interval(Integral, 1, None, closed="left")
#: The constraints of the two parameters that bound the size of a plan.
SUBSET = {"max_samples": [COUNT], "random_state": ["random_state"]}

# Entries of a block of distances that `transform` computes at once: 32 MB of float64.
_BLOCK_ENTRIES = 2**22


@dataclass(frozen=True)
class PlanProblem:
    """The rows a plan is solved on, and their cost in a unit that makes regularisation free of the data's units.

    Parameters
    ----------
    x0, x1 : ndarray of shape (n0, n_features), (n1, n_features)
        The rows used, float64, in the data's units.
    rows0 : ndarray of shape (n0,)
        Which rows of `X0` they are.
    center : ndarray of shape (n_features,)
        Subtracted before distances are computed: far from the origin, squared distances lose their digits. It
        is the median, because an outlier would carry the mean away.
    scale : float
        Square root of the median squared distance between `x0` and `x1`.
    cost : ndarray of shape (n0, n1)
        Squared distances divided by their median, as ``norm="median"`` does in POT.
    """

    x0: np.ndarray
    x1: np.ndarray
    rows0: np.ndarray
    center: np.ndarray
    scale: float
    cost: np.ndarray

    @classmethod
    def of(cls, X0: Samples, X1: Samples, max_samples: int, random_state) -> PlanProblem:
        """Draw at most `max_samples` rows of either side and compute their normalised cost."""
        import ot

        generator = make_generator(random_state)
        rows0, rows1 = (_subset(len(X), max_samples, generator) for X in (X0, X1))
        x0, x1 = (as_float64(X.rows(rows)).cpu().numpy() for X, rows in ((X0, rows0), (X1, rows1)))
        center = np.median(x0, axis=0)
        # Dividing first keeps the squares of very large and very small numbers in range.
        extent = max(np.abs(x0 - center).max(), np.abs(x1 - center).max()) or 1.0
        cost = ot.dist((x0 - center) / extent, (x1 - center) / extent)
        # The median is zero when most pairs coincide.
        unit = np.median(cost) or cost.mean() or 1.0
        cost /= unit
        return cls(x0, x1, rows0, center, float(extent * np.sqrt(unit)), cost)

    @property
    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """The uniform masses of the two sides."""
        return tuple(np.full(n, 1.0 / n) for n in self.cost.shape)


class NearestRowTransport(BaseTransport):
    """A plan's barycentric map on the training rows; elsewhere, the displacement of the nearest of them.

    A subclass solves for the plan and has the parameters `max_samples` and `random_state`. Only the map is kept,
    never the plan.
    """

    def _fit(self, X0, X1, y0, y1):
        problem = PlanProblem.of(X0, X1, self.max_samples, self.random_state)
        plan = self._plan(problem, solver_device(X0), None if y0 is None else y0[problem.rows0])
        # The image of a point is the mean of its partners under the plan. Rows that coincide are one point, so
        # they share one image, and the map does not depend on their order.
        support, point = np.unique(problem.x0, axis=0, return_inverse=True)
        point = point.reshape(-1)
        mass = np.bincount(point, plan.sum(axis=1), minlength=len(support))
        moment = np.zeros_like(support)
        np.add.at(moment, point, plan @ problem.x1)
        # Below this the quotient has no correct digits; such a row follows its nearest neighbour with mass.
        has_mass = mass > np.finfo(float).tiny / np.finfo(float).eps
        if not has_mass.any():
            raise ValueError(
                f"{type(self).__name__} found a plan without mass: every row of X0 is too far from X1 for the "
                f"parameters given ({self}). Raise reg_m or reg; they are in units of the median squared distance."
            )
        self.support_ = support[has_mass]
        self.image_ = moment[has_mass] / mass[has_mass, None]
        self.center_, self.scale_ = problem.center, problem.scale

    @abstractmethod
    def _plan(self, problem: PlanProblem, device: torch.device, y0) -> np.ndarray:
        """The plan of shape (n0, n1); `device` is where a solver for tensors should work."""

    def _transform(self, x):
        points = as_float64(x)
        support, image, center = (on_device_of(points, array) for array in (self.support_, self.image_, self.center_))
        scaled = (support - center) / self.scale_
        half_norm = scaled.square().sum(1) / 2
        moved = torch.empty_like(points)
        for part in blocks(len(points), len(support)):
            nearest = (half_norm - ((points[part] - center) / self.scale_) @ scaled.T).argmin(1)
            moved[part] = image[nearest] + (points[part] - support[nearest])
        return moved.to(x)


class EMDTransport(NearestRowTransport):
    r"""Exact optimal transport between the two samples, by the network simplex.

    .. math:: \min_{\gamma \ge 0} \sum_{ij} \gamma_{ij} \|x^0_i - x^1_j\|^2 \quad
              \text{with}\ \gamma 1 = 1/n_0,\ \gamma^T 1 = 1/n_1

    A row of `X0` goes to the mean of its partners; any other row is displaced as the nearest row of `X0` is [1]_.
    As ``ot.da.EMDTransport``, except that rows of `X0` that coincide share the mean of their images.

    Parameters
    ----------
    max_iter : int, default=10_000_000
        Pivots before it stops with a warning.
    max_samples : int, default=5000
        Of a larger side, this many rows are drawn without replacement, and the plan is solved on them; the other
        rows are moved like new ones. Memory is several times ``max_samples ** 2`` numbers.
    random_state : int, RandomState instance or None, default=None
        Of that draw. Without effect on samples of at most `max_samples` rows.

    Attributes
    ----------
    support_, image_ : ndarray of shape (n_points, n_features)
        The distinct training rows, and where they go.
    center_, scale_ : ndarray of shape (n_features,), float
        Origin and unit in which distances are computed.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Ferradans, Papadakis, Peyré, Aujol, "Regularized discrete optimal transport", SIAM J. Imaging
       Sciences 7, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.baselines import EMDTransport
    >>> X0 = np.array([[0.0], [1.0], [2.0]])
    >>> EMDTransport().fit(X0, X0[::-1] + 5.0).transform([[0.0], [2.5]])
    array([[5. ],
           [7.5]])
    """

    _parameter_constraints = {"max_iter": [COUNT], **SUBSET}

    def __init__(self, *, max_iter=10_000_000, max_samples=5000, random_state=None):
        self.max_iter = max_iter
        self.max_samples = max_samples
        self.random_state = random_state

    def _plan(self, problem, device, y0):
        import ot

        with warnings.catch_warnings():
            # POT's own warning names parameters that are not ours; its log says the same.
            warnings.simplefilter("ignore")
            plan, log = ot.emd(*problem.weights, problem.cost, numItermax=self.max_iter, log=True)
        if log["warning"] is not None:
            warn_convergence(
                f"EMDTransport stopped after max_iter={self.max_iter} pivots, before the plan was optimal. Raise "
                "max_iter, or lower max_samples."
            )
        return plan


def _subset(n: int, max_samples: int, generator: torch.Generator) -> np.ndarray:
    if n <= max_samples:
        return np.arange(n)
    return np.sort(torch.randperm(n, generator=generator)[:max_samples].numpy())


def solver_device(X: Samples) -> torch.device:
    """Where to iterate: on the data's own GPU if it is one that knows float64, else on the CPU."""
    return X.data.device if X.is_tensor and X.data.is_cuda else torch.device("cpu")


def as_float64(x: torch.Tensor) -> torch.Tensor:
    """`x` in float64, on its device unless that is one of Apple's, which have no float64."""
    return (x.cpu() if x.device.type == "mps" else x).to(torch.float64)


def on_device_of(x: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    """A fitted array as a tensor beside `x`."""
    return torch.from_numpy(array).to(x.device)


def blocks(n: int, width: int) -> list[slice]:
    """Slices of `n` rows such that a block of `width` columns stays small."""
    size = max(1, _BLOCK_ENTRIES // width)
    return [slice(start, start + size) for start in range(0, n, size)]


def warn_convergence(message: str) -> None:
    """Warn, at the caller's line, that a solver stopped early and what to do."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("rfadapt."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ConvergenceWarning, stacklevel=level)
