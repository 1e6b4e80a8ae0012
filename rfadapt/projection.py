"""The few directions in which two samples vary most: where accounts are learned and compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ._samples import Samples, is_varying

# Directions beyond these carry noise to a few thousand rows, and turning them costs the cube of their number.
_MAX_DIRECTIONS = 60
# Share of the variance that half of the features have at least where all are measured in one unit.
_LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class Projection:
    """Principal directions of the source and the target together.

    Attributes
    ----------
    center : ndarray of shape (n_features,)
    unit : ndarray of shape (n_features,)
        What a feature is divided by; see `units`.
    basis : ndarray of shape (n_features, n_directions)
        Orthonormal columns; all directions where there are at most `max_directions` features to look at.
    """

    center: np.ndarray
    unit: np.ndarray
    basis: np.ndarray

    @classmethod
    def fit(cls, X0, X1, max_directions=_MAX_DIRECTIONS, features=slice(None)) -> Projection:
        """The directions of largest variance of the rows of both samples; at most as many as there are rows.

        `features` are those that directions are made of, by numbers or a mask.
        """
        n_rows = len(X0) + len(X1)
        center, unit = (X0.sum(axis=0) + X1.sum(axis=0)) / n_rows, units(X0, X1)
        n_features = len(center[features])
        directions = np.eye(n_features)
        if n_features > max_directions:
            z0, z1 = (((X - center) / unit)[:, features] for X in (X0, X1))
            directions = _largest_directions(z0, z1)[:, :max_directions]
        basis = np.zeros((X0.shape[1], directions.shape[1]))
        basis[features] = directions
        return cls(center, unit, basis)

    def enter(self, X) -> np.ndarray:
        """Coordinates of rows, of shape (n_samples, n_directions)."""
        return (X - self.center) / self.unit @ self.basis

    def keep(self, X) -> np.ndarray:
        """Rows without what they have in other directions."""
        return X if self.basis.shape[1] == len(self.basis) else self.center + self.enter(X) @ self.basis.T * self.unit

    def move(self, X, function) -> np.ndarray:
        """Rows whose coordinates are moved by `function`; what they have in other directions stays."""
        z = self.enter(X)
        return X + (function(z) - z) @ self.basis.T * self.unit


def are_commensurable(X0, X1) -> bool:
    """Whether the features of two samples can be compared as they are, as those of pixels, as far as spreads tell.

    They cannot where in both samples half of them have less than a thousandth of the variance, as where some are
    measured in millimetres and some in years: a few features of large numbers are then all that a distance sees. Of
    pixels, word counts and embeddings this half has 5 % or more, of the principal components of images 0.7 %.
    """
    return _are_commensurable(Samples(X0), Samples(X1))


def _are_commensurable(X0, X1):
    (mean0, variance0), (mean1, variance1) = X0.mean_and_variance, X1.mean_and_variance
    variance = torch.minimum(variance0, variance1)
    variance = variance[is_varying(variance, mean0, mean1)].sort().values
    return bool(variance[: len(variance) // 2].sum() >= _LEAST_SHARE * variance.sum()) or len(variance) < 2


def units(X0, X1) -> np.ndarray:
    """What the features of two samples are to be divided by before rows are compared, of shape (n_features,).

    1 where they are commensurable; else the standard deviation within the samples, or 1 if there is none.
    """
    samples = Samples(X0), Samples(X1)  # which keep what they have found
    if _are_commensurable(*samples):
        return np.ones(X0.shape[1], dtype=np.result_type(X0.dtype, np.float32))
    (mean0, variance0), (mean1, variance1) = (rows.mean_and_variance for rows in samples)
    pooled = (variance0 + variance1) / 2
    deviations = torch.where(is_varying(pooled, mean0, mean1), pooled, 1.0).sqrt().numpy()
    return deviations.astype(np.result_type(X0.dtype, np.float32))


def _largest_directions(z0, z1):
    """Orthonormal columns along which the rows of both samples vary, the one along which they vary most first."""
    if len(z0) + len(z1) < z0.shape[1]:  # far cheaper than a matrix of all features
        return np.linalg.svd(np.concatenate([z0, z1]), full_matrices=False)[2].T
    return np.linalg.eigh(z0.T @ z0 + z1.T @ z1)[1][:, ::-1]
