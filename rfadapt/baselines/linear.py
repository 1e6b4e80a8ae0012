"""Baselines in closed form: the identity, correlation alignment, and the optimal map between Gaussians."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Real

import numpy as np
from sklearn.utils._param_validation import Interval

from .._samples import Samples
from ..base import InvertibleTransport
from .plan import as_float64, on_device_of


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
    """x -> (x - mean0) A + mean1, for the matrix A that a subclass makes of the two covariances."""

    _parameter_constraints = {"reg": [Interval(Real, 0, None, closed="left")]}

    def __init__(self, reg=1e-6):
        self.reg = reg

    def _fit(self, X0, X1, y0, y1):
        (mean0, cov0), (mean1, cov1) = _moments(X0), _moments(X1)
        ridge = np.diag(self.reg * _feature_variances(mean0, mean1, cov0, cov1))
        try:
            matrix = self._matrix(_roots(cov0 + ridge), _roots(cov1 + ridge))
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"{type(self).__name__} needs covariances that can be inverted; got singular ones with "
                f"reg={self.reg:g}. Raise reg (1e-3, say), drop constant features, or standardise the features if "
                "their scales differ by many orders of magnitude."
            ) from error
        self.mean0_, self.mean1_ = mean0, mean1
        self.matrix_, self.inverse_matrix_ = matrix, np.linalg.inv(matrix)

    @abstractmethod
    def _matrix(self, roots0: tuple, roots1: tuple) -> np.ndarray:
        """A, acting on rows from the right, from each covariance's square root and the inverse of that."""

    def _transform(self, x):
        return _affine(x, self.mean0_, self.matrix_, self.mean1_)

    def _inverse_transform(self, x):
        return _affine(x, self.mean1_, self.inverse_matrix_, self.mean0_)


class CoralTransport(_LinearTransport):
    r"""Correlation alignment: whiten the source, colour it as the target [1]_.

    .. math:: T(x) = \mu_1 + C_1^{1/2} C_0^{-1/2} (x - \mu_0)

    The image has the target's mean and covariance, as that of :class:`AffineTransport`, but is not the one that
    moves the source least.

    Parameters
    ----------
    reg : float, default=1e-6
        Ridge on the covariances: this share of each feature's variance, pooled over the two domains.
        `fit` raises ValueError where the covariances cannot be inverted even so.

    Attributes
    ----------
    mean0_, mean1_ : ndarray of shape (n_features,)
        Means of the two domains.
    matrix_, inverse_matrix_ : ndarray of shape (n_features, n_features)
        The linear part and its inverse, acting on rows from the right.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Sun, Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV workshops 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.baselines import CoralTransport
    >>> X0 = np.array([[0.0], [2.0]])
    >>> CoralTransport().fit(X0, 3 * X0 + 1).transform(X0).round(3).ravel()
    array([1., 7.])
    """

    def _matrix(self, roots0, roots1):
        return roots0[1] @ roots1[0]


class AffineTransport(_LinearTransport):
    r"""The optimal transport map between the two Gaussians with the samples' means and covariances [1]_.

    .. math:: T(x) = \mu_1 + A (x - \mu_0), \qquad
              A = C_0^{-1/2} \left( C_0^{1/2} C_1 C_0^{1/2} \right)^{1/2} C_0^{-1/2}

    As ``ot.da.LinearTransport``, which is exact for Gaussians, with a ridge in the data's own units.

    Parameters
    ----------
    reg : float, default=1e-6
        Ridge on the covariances: this share of each feature's variance, pooled over the two domains.
        `fit` raises ValueError where the covariances cannot be inverted even so.

    Attributes
    ----------
    mean0_, mean1_ : ndarray of shape (n_features,)
        Means of the two domains.
    matrix_, inverse_matrix_ : ndarray of shape (n_features, n_features)
        The linear part A and its inverse; both are symmetric.
    n_features_in_ : int
        Number of features seen in `fit`.

    References
    ----------
    .. [1] Knott, Smith, "On the optimal mapping of distributions", J. Optimization Theory and Applications 43,
       1984.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.baselines import AffineTransport
    >>> X0 = np.array([[0.0], [2.0]])
    >>> transport = AffineTransport().fit(X0, 3 * X0 + 1)
    >>> transport.transform([[10.0]]).round(3), transport.inverse_transform([[31.0]]).round(3)
    (array([[31.]]), array([[10.]]))
    """

    def _matrix(self, roots0, roots1):
        root0, inverse_root0 = roots0
        # (B^T B)^(1/2) for B = C1^(1/2) C0^(1/2), by the singular values of B. POT takes roots of the eigenvalues of
        # B^T B, which rounding makes negative once the covariances' condition passes 1e8, and its map is then NaN.
        _, values, vectors = np.linalg.svd(roots1[0] @ root0)
        matrix = inverse_root0 @ (vectors.T * values) @ vectors @ inverse_root0
        return (matrix + matrix.T) / 2


def _moments(X: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance (normalised by n, as in POT), float64, in one pass over blocks of rows."""
    mean = X.mean_and_variance[0].numpy()
    centred = (points - on_device_of(points, mean) for points in (as_float64(rows) for _, rows in X.batches()))
    covariance = sum(rows.T @ rows for rows in centred) / len(X)
    return mean, covariance.cpu().numpy()


def _feature_variances(mean0, mean1, cov0, cov1) -> np.ndarray:
    """Each feature's variance, pooled over the domains; the mean one for features that are constant in both."""
    variances = (np.diag(cov0) + np.diag(cov1)) / 2
    constant = variances <= (1e-12 * (np.abs(mean0) + np.abs(mean1))) ** 2
    return np.where(constant, variances.mean() or 1.0, variances)


def _roots(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square root of a covariance and the inverse of that; LinAlgError where rounding hides whether it has one."""
    values, vectors = np.linalg.eigh(covariance)
    if not values[0] > 10 * len(values) * np.finfo(float).eps * values[-1]:
        raise np.linalg.LinAlgError(f"eigenvalues from {values[0]:.1e} to {values[-1]:.1e}")
    values = np.sqrt(values)
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _affine(x, mean_from, matrix, mean_to):
    """(x - mean_from) matrix + mean_to, in float64."""
    points = as_float64(x)
    start, linear, end = (on_device_of(points, array) for array in (mean_from, matrix, mean_to))
    return ((points - start) @ linear + end).to(x)
