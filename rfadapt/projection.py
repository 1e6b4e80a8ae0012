"""The few directions in which two samples vary most: where accounts are learned and compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Directions beyond these carry noise to a few thousand rows, and turning them costs the cube of their number.
_MAX_DIRECTIONS = 60


@dataclass(frozen=True)
class Projection:
    """Principal directions of the source and the target together.

    Attributes
    ----------
    center : ndarray of shape (n_features,)
    basis : ndarray of shape (n_features, n_directions)
        Orthonormal columns; all directions where there are at most `max_directions` features.
    """

    center: np.ndarray
    basis: np.ndarray

    @classmethod
    def fit(cls, X0, X1, max_directions=_MAX_DIRECTIONS) -> Projection:
        """The directions of largest variance of the rows of both samples; at most as many as there are rows."""
        n_features, n_rows = X0.shape[1], len(X0) + len(X1)
        center = (X0.sum(axis=0) + X1.sum(axis=0)) / n_rows
        if n_features <= max_directions:
            return cls(center, np.eye(n_features))
        if n_rows < n_features:  # far cheaper than a matrix of all features
            directions = np.linalg.svd(np.concatenate([X0 - center, X1 - center]), full_matrices=False)[2]
            return cls(center, directions[:max_directions].T)
        scatter = sum((X - center).T @ (X - center) for X in (X0, X1))
        return cls(center, np.linalg.eigh(scatter)[1][:, : -max_directions - 1 : -1])

    def enter(self, X) -> np.ndarray:
        """Coordinates of rows, of shape (n_samples, n_directions)."""
        return (X - self.center) @ self.basis

    def keep(self, X) -> np.ndarray:
        """Rows without what they have in other directions."""
        return X if self.basis.shape[1] == len(self.basis) else self.center + self.enter(X) @ self.basis.T

    def move(self, X, function) -> np.ndarray:
        """Rows whose coordinates are moved by `function`; what they have in other directions stays."""
        z = self.enter(X)
        return X + (function(z) - z) @ self.basis.T
