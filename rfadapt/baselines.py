"""Known transports with the contract of the flow: what any new method should be compared with.

Those that regularise a plan are in `rfadapt.entropic_baselines` and can be imported from here like the others.
"""

from __future__ import annotations

from numbers import Real

import numpy as np
from sklearn.utils._param_validation import Interval

from .base import InvertibleTransport
from .entropic_baselines import (
    ClassRegularizedSinkhornTransport,
    SinkhornTransport,
    UnbalancedSinkhornTransport,
)

__all__ = [
    "BASELINES",
    "AffineTransport",
    "ClassRegularizedSinkhornTransport",
    "CoralTransport",
    "EMDTransport",
    "IdentityTransport",
    "KernelMappingTransport",
    "SinkhornTransport",
    "UnbalancedSinkhornTransport",
]

# Rows of a batch when covariances are accumulated; sparse rows become dense.
_MOMENT_ROWS = 8192


class IdentityTransport(InvertibleTransport):
    """Leaves every row where it is: what doing nothing costs.

    Attributes
    ----------
    n_features_in_ : int
        Number of features seen in `fit`.

    Examples
    --------
    >>> from rfadapt.baselines import IdentityTransport
    >>> IdentityTransport().fit([[0.0], [1.0]], [[5.0]]).transform([[2.0]])
    array([[2.]])
    """

    _parameter_constraints = {}

    def _fit(self, X0, X1, y0, y1):
        pass

    def _transform(self, x):
        return x

    def _inverse_transform(self, x):
        return x


class _LinearTransport(InvertibleTransport):
    """x -> (x - mean0) A + mean1, for a matrix A that a subclass makes of the two covariances."""

    _parameter_constraints = {"reg": [Interval(Real, 0, None, closed="left")]}

    def __init__(self, reg=1e-6):
        self.reg = reg

    def _fit(self, X0, X1, y0, y1):
        (mean0, cov0), (mean1, cov1) = _moments(X0), _moments(X1)
        ridge = self.reg * _feature_variances(mean0, mean1, cov0, cov1)
        with np.errstate(all="ignore"):
            matrix = self._matrix(cov0 + np.diag(ridge), cov1 + np.diag(ridge))
        if not np.isfinite(matrix).all():
            raise ValueError(
                f"The covariance of X0 cannot be inverted with reg={self.reg:g}: it is singular, or the scales of "
                "the features differ too much. Raise reg (1e-3, say), or standardise the features."
            )
        self.mean0_, self.mean1_, self.matrix_ = mean0, mean1, matrix
        self.inverse_ = np.linalg.pinv(matrix)

    def _matrix(self, cov0: np.ndarray, cov1: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _transform(self, x):
        return _apply(x, self.mean0_, self.matrix_, self.mean1_)

    def _inverse_transform(self, x):
        return _apply(x, self.mean1_, self.inverse_, self.mean0_)
