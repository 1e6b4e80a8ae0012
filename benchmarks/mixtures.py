"""A made-up task whose optimal map is known, in any number of features."""

import numpy as np


class Mixture:
    """A mixture of ten Gaussians, and the gradient of a convex function that moves its rows.

    Parameters
    ----------
    n_features : int
    rng : numpy.random.Generator
        Draws the mixture and the map, and then the rows.
    """

    def __init__(self, n_features, rng):
        self._rng, self._centers = rng, rng.normal(size=(10, n_features))
        self._weight = rng.normal(size=(4, n_features)) / np.sqrt(n_features)

    def draw(self, n):
        """Rows of domain 0, of shape (n, n_features)."""
        noise_free = self._centers[self._rng.integers(10, size=n)]
        return noise_free + 0.5 * self._rng.normal(size=noise_free.shape)

    def optimal_map(self, X):
        """Where the optimal map takes rows."""
        return 0.8 * X + 2.0 * np.tanh(2.0 * X @ self._weight.T) @ self._weight + 1.0
