"""Samples in, float64 arrays out: the checks that all metrics share."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse


def _rows(X, name, max_samples=None, random_state=None) -> np.ndarray:
    """The rows of `X`, or `max_samples` of them, as a dense float64 array."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    elif not sparse.issparse(X):
        X = np.asanyarray(X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            f"{name} must have shape (n_samples, n_features) with at least one of each; got {X.shape}. Use "
            f"{name}.reshape(-1, 1) for a single feature."
        )
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, or None for all rows; got {max_samples}.")
    if max_samples is not None and X.shape[0] > max_samples:
        X = (X.tocsr() if sparse.issparse(X) else X)[random_state.permutation(X.shape[0])[:max_samples]]
    X = np.asarray(X.toarray() if sparse.issparse(X) else X)
    if X.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers; got dtype {X.dtype}.")
    X = X.astype(np.float64, copy=False)
    if not np.isfinite(X).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(X))[0])
        raise ValueError(f"{name} contains NaN or infinity: {X[row, column]} in column {column}.")
    return X


def two_samples(X, Y, max_samples=None, random_state=None):
    """Two samples with the same features; `random_state` is a RandomState where rows are to be drawn."""
    X, Y = _rows(X, "X", max_samples, random_state), _rows(Y, "Y", max_samples, random_state)
    if X.shape[1] != Y.shape[1]:
        raise ValueError(f"X and Y must have the same features; got {X.shape[1]} and {Y.shape[1]} of them.")
    return X, Y


def paired_samples(X, Y, name, other):
    """The same rows twice, before and after."""
    X, Y = _rows(X, name), _rows(Y, other)
    if X.shape != Y.shape:
        raise ValueError(
            f"{name} and {other} must hold the same rows in the same order; got {X.shape} and {Y.shape}."
        )
    return X, Y
