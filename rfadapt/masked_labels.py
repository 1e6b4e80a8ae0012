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


def check_no_unseen(labels, classes, name, source) -> None:
    """Refuse known labels that are not among the classes of the source; `name` and `source` are what errors call them.

    Raises
    ------
    ValueError
    """
    if unseen := sorted({*labels.tolist()} - {*classes.tolist()}):
        raise ValueError(
            f"{name} has labels that {source} does not have: {unseen[:5]}; {source} has {classes.tolist()[:10]}. Mark "
            "unknown labels of the target with -1, NaN or None."
        )


def _is_pandas_na(value) -> bool:
    """Whether it is pandas' NA, of which no comparison is true or false."""
    return type(value).__name__ == "NAType"
