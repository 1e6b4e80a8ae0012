"""Tasks for w2.py in any number of features whose targets are clumps, farther apart the larger `--apart` is.

    python benchmarks/clumps.py DIR [--dims 8 32 128 256] [--apart 0.2]
    python benchmarks/w2.py --data DIR --dims 8 32 128 256 --budgets 60 --transports flow ott-enot

The source is a mixture of three Gaussians. The target is another sample of it, moved by the gradient of a convex
function, which is the optimal map: a soft maximum of ten linear functions, which parts the space into cells and takes
each to a clump of its own, and a convex network and a quadratic function, which bend and stretch the clumps. Both
domains are brought to a mean variance of one. With `--apart 0.2`, 10 to 26 % of the target's variance lie within its
clumps, with 2, 3 to 7 %. Files have the names that w2.py looks for.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import softplus

N_ROWS, N_TEST, WIDTH = 20_000, 5_000, 64


class ClumpedTask:
    """A mixture of three Gaussians, and the gradient of a convex function that moves its rows to ten clumps."""

    def __init__(self, n_features, apart):
        self._rng = rng = np.random.default_rng(n_features)
        directions = rng.normal(size=(3, n_features))
        self._centers = 1.25 * np.sqrt(n_features) * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._spreads = rng.uniform(0.5, 1.2, size=3)
        self._apart = apart * np.sqrt(n_features)

        def normal(*shape, scale):
            return torch.from_numpy(scale * rng.normal(size=shape))

        self._cells = normal(10, n_features, scale=3 / n_features**0.25), normal(10, scale=2.0)
        self._first = normal(WIDTH, n_features, scale=2 / np.sqrt(n_features)), normal(WIDTH, scale=2.0)
        self._second = normal(WIDTH, n_features, scale=1 / np.sqrt(n_features)), normal(WIDTH, scale=1.0)
        self._between = torch.from_numpy(rng.uniform(0, 2 / WIDTH, size=(WIDTH, WIDTH)))
        self._last = torch.from_numpy(rng.uniform(0, 0.15, size=WIDTH))
        root = normal(n_features, n_features, scale=1 / np.sqrt(n_features))
        self._quadratic = 0.4 * root @ root.T + 0.3 * torch.eye(n_features)

    def draw(self, n):
        """Rows of the source."""
        component = self._rng.integers(3, size=n)
        noise = self._rng.normal(size=(n, self._centers.shape[1]))
        return self._centers[component] + self._spreads[component, None] * noise

    def optimal_map(self, X):
        """Where rows of the source belong."""
        x = torch.from_numpy(X).requires_grad_()
        (moved,) = torch.autograd.grad(self._potential(x).sum(), x)
        return moved.numpy()

    def _potential(self, x):
        def linear(layer):
            weights, offsets = layer
            return x @ weights.T + offsets

        hidden = softplus(softplus(linear(self._first)) @ self._between.T + linear(self._second))
        cells = self._apart * torch.logsumexp(linear(self._cells), 1)
        return cells + hidden @ self._last + ((x @ self._quadratic) * x).sum(1) / 2


def rescaled(sample, others):
    """Both, as float32, in units in which the first has no mean and a mean variance of one."""
    mean, scale = sample.mean(0), np.sqrt(sample.var(0).mean())
    return tuple(((rows - mean) / scale).astype(np.float32) for rows in (sample, others))


def task(n_features, apart):
    """What a file for w2.py holds."""
    made = ClumpedTask(n_features, apart)
    X0, X1, X_test = made.draw(N_ROWS), made.optimal_map(made.draw(N_ROWS)), made.draw(N_TEST)
    T_test = made.optimal_map(X_test)
    X0, X_test = rescaled(X0, X_test)
    X1, T_test = rescaled(X1, T_test)
    return {"X0": X0, "X1": X1, "X_test": X_test, "T_test": T_test, "var1": T_test.var(0, dtype=np.float64).sum()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 32, 128, 256])
    parser.add_argument("--apart", type=float, default=0.2)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for n_features in arguments.dims:
        np.savez(arguments.directory / f"w2_mix3to10_{n_features}.npz", **task(n_features, arguments.apart))


if __name__ == "__main__":
    main()
