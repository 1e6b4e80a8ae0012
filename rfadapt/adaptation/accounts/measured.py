"""Which features a map can have moved: not those whose few values are the same in both domains."""

from __future__ import annotations

import numpy as np

# Values that a feature has at most if they name categories, or count: years of schooling, hours of a day.
_MOST_VALUES = 25
# Share of the target's rows whose value the source has, or may have, from which on the values are the same.
_SAME = 0.95
# Share of a step between values that is rounding.
_ROUNDING = 1e-3


def measured(X0, X1) -> np.ndarray:
    """Features that a map can have moved, of shape (n_features,).

    A category, a count or an answer on a scale has few values, and a target whose values are among them was not brought
    there by an offset or a scale of this feature: such a map would not meet them. Only how often they occur differs.
    Where the source's values are steps of the same size, as counts are, others at such steps are the same, too.

    Parameters
    ----------
    X0 : ndarray of shape (n_source, n_features)
    X1 : ndarray of shape (n_target, n_features)

    Returns
    -------
    is_measured : ndarray of bool of shape (n_features,)

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.adaptation.accounts.measured import measured
    >>> ward, pressure = np.arange(60) % 3, np.linspace(90, 150, 60)
    >>> rows = np.column_stack([ward, pressure])
    >>> measured(rows, rows + [0, 7.5]), measured(rows, rows + [0.5, 7.5])
    (array([False,  True]), array([ True,  True]))
    """
    first = np.sort(X0[: 4 * _MOST_VALUES], axis=0)
    is_measured = (np.diff(first, axis=0) != 0).sum(axis=0) >= _MOST_VALUES  # those of many features, at once
    for j in np.flatnonzero(~is_measured):
        is_measured[j] = not _are_same(X0[:, j], X1[:, j])
    return is_measured


def _are_same(x0, x1):
    values = np.unique(x0)
    if len(values) > _MOST_VALUES:
        return False
    is_same = np.isin(x1, values)
    if len(values) > 2:
        step = np.diff(values).min()
        if (_off_steps(values, values[0], step) < _ROUNDING).all():
            is_near = np.abs(x1 - values.mean()) < _MOST_VALUES * step
            is_same |= is_near & (_off_steps(x1, values[0], step) < _ROUNDING)
    return is_same.mean() >= _SAME


def _off_steps(x, start, step):
    steps = (x - start) / step
    return np.abs(steps - steps.round())
