"""Accounts that move rows: an affine map, or any transport."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..._samples import Samples
from ...geometry import fit_geometry
from ...projection import Projection
from ...rotation import LinearProblem, fit_rotation, linear_map
from ...velocity.affine import shrunk_covariances
from .base import Account
from .measured import measured


class AffineAccount(Account):
    """The account that the rows went through an affine map, as a drifting sensor's do.

    The optimal map between the Gaussians with the means and (shrunk) covariances of the samples, after a turn of the
    source if `turned`, in a mirror if `mirrored` (as by a sensor whose sign is reversed). In more than 60 features it
    moves rows in the 60 directions in which both samples together vary most. Categories and counts stay as they are:
    features of at most 25 values that are the same in both domains.

    Parameters
    ----------
    turned : bool, default=False
        Whether the source is turned first, as exact transport and Procrustes agree on (`rfadapt.rotation`).
    mirrored : bool, default=False
        Whether it is also seen in a mirror.
    random_state : int, RandomState instance or None, default=None
        Draws the rows that are paired for the turn.

    Attributes
    ----------
    matrix_ : ndarray of shape (n_directions, n_directions)
        The linear part.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.adaptation.accounts import AffineAccount
    >>> X0 = np.random.default_rng(0).normal(size=(500, 2))
    >>> AffineAccount().fit(X0, None, X0 + [3.0, 0.0]).transform(np.zeros((1, 2))).round(2)
    array([[3., 0.]])
    """

    def __init__(self, turned=False, mirrored=False, random_state=None):
        self.turned = turned
        self.mirrored = mirrored
        self.random_state = random_state

    @property
    def name(self):
        return "mirrored affine" if self.mirrored else "turned affine" if self.turned else "affine"

    @property
    def is_last_resort(self):
        return self.mirrored

    @property
    def is_flexible(self):
        return self.turned or self.mirrored

    def fit(self, X0, y0, X1):
        """As `Account.fit`."""
        self._projection = Projection.fit(X0, X1, features=measured(X0, X1))
        z0, z1 = (np.ascontiguousarray(self._projection.enter(X), dtype=np.float64) for X in (X0, X1))
        if not z0.shape[1]:  # nothing can have moved
            self._mean0 = self._mean1 = np.zeros(0)
            self.matrix_ = self._inverse = np.zeros((0, 0))
            return self
        geometry, *moments = fit_geometry(Samples(z0), Samples(z1), "common")
        self._mean0, self._mean1, scale = (v.numpy() for v in (geometry.mean0, geometry.mean1, geometry.scale))
        covariances = (covariance.numpy() for covariance in shrunk_covariances(*moments))
        problem = LinearProblem((z0 - self._mean0) / scale, (z1 - self._mean1) / scale, *covariances)
        turn = np.eye(z0.shape[1])
        if self.turned or self.mirrored:
            turn = fit_rotation(problem, check_random_state(self.random_state), self.mirrored)
        self.matrix_ = linear_map(problem, turn)
        self._inverse = np.linalg.inv(self.matrix_)
        return self

    def transform(self, X0):
        """Source rows, moved to the target."""
        return self._projection.move(X0, lambda z: (z - self._mean0) @ self.matrix_.T + self._mean1)

    def inverse_transform(self, X1):
        """Target rows, moved to the source."""
        return self._projection.move(X1, lambda z: (z - self._mean1) @ self._inverse.T + self._mean0)


class TransportAccount(Account):
    """Any transport as an account, the flow for one.

    It moves what `AffineAccount` moves: not categories and counts.

    Parameters
    ----------
    transport : transport
        Not fitted; it is cloned.
    name : str, optional
        What to call it; the name of its class by default.
    is_last_resort : bool, default=False
        Whether it is weighed only where no simpler account brings the domains together.

    Attributes
    ----------
    transport_ : transport
        Fitted from the source to the target.
    """

    def __init__(self, transport, name=None, is_last_resort=False):
        self.transport = transport
        self.name = name or type(transport).__name__
        self.is_last_resort = is_last_resort

    @property
    def is_flexible(self):
        return self.is_last_resort

    def fit(self, X0, y0, X1):
        """As `Account.fit`."""
        self._features = np.flatnonzero(measured(X0, X1))
        if len(self._features):
            self.transport_ = clone(self.transport).fit(X0[:, self._features], X1[:, self._features], y0=y0)
        return self

    def transform(self, X0):
        """Source rows, transported."""
        return self._moved(X0, "transform")

    def inverse_transform(self, X1):
        """Target rows, transported back."""
        return self._moved(X1, "inverse_transform")

    def _moved(self, X, method):
        if not len(self._features):
            return X
        moved = X.copy()
        moved[:, self._features] = getattr(self.transport_, method)(X[:, self._features])
        return moved
