"""Labels of which some are not known."""

from __future__ import annotations

import numpy as np


def is_masked(y, labels="classes") -> np.ndarray:
    """Which labels are unknown: NaN or None; among classes also -1, and "-1", which numpy makes of it among strings."""
    y = np.asarray(y)
    return is_missing(y) | is_minus_one(y) if labels == "classes" else is_missing(y)


def is_missing(y):
    if y.dtype.kind == "O":
        return np.array([value is None or _is_pandas_na(value) or value != value for value in y], dtype=bool)
    return np.isnan(y) if y.dtype.kind == "f" else np.zeros(len(y), dtype=bool)


def is_minus_one(y):
    return np.array([not _is_pandas_na(value) and value in (-1, "-1") for value in y.tolist()], dtype=bool)


def _is_pandas_na(value) -> bool:
    """Whether it is pandas' NA, of which no comparison is true or false."""
    return type(value).__name__ == "NAType"
