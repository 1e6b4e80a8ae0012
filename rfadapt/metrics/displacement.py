"""How a transport moves rows: its cost, how straight it goes, and how far it is from where it should be."""

from __future__ import annotations

import math

import numpy as np
import torch

from ._rows import paired_samples


def transport_cost(X, X_moved):
    r"""Mean squared displacement of a transport, :math:`E\|T(X) - X\|^2`.

    Parameters
    ----------
    X, X_moved : array-like, sparse matrix or Tensor of shape (n_samples, n_features)
        The rows before and after, in the same order.

    Returns
    -------
    cost : float
        In squared units of `X`.

    Examples
    --------
    >>> from rfadapt.metrics import transport_cost
    >>> transport_cost([[0.0, 0.0]], [[3.0, 4.0]])
    25.0
    """
    X, X_moved = paired_samples(X, X_moved, "X", "X_moved")
    return _mean_square(X_moved - X)


def straightness(trajectory, times=None):
    r"""How far trajectories are from straight lines walked at constant speed; 0 for those.

    .. math:: S = \int_0^1 E\left\|(Z_1 - Z_0) - \frac{dZ_t}{dt}\right\|^2 dt

    The velocity is taken constant between two times, so S is exact for piecewise linear trajectories and
    approaches the integral from below as times are added. One Euler step is exact where S = 0.

    Parameters
    ----------
    trajectory : array-like or Tensor of shape (n_times, n_samples, n_features)
        Where each row is at each time, as `RectifiedFlowTransport.trajectory` returns it.
    times : array-like or Tensor of shape (n_times,), optional
        Strictly increasing or strictly decreasing times; only their relative spacing matters. Evenly spaced
        by default.

    Returns
    -------
    S : float
        In squared units of the features, as the transport cost.

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite or the times are not strictly monotone.

    References
    ----------
    X. Liu, C. Gong and Q. Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified
    Flow", ICLR, 2023.

    Examples
    --------
    >>> from rfadapt.metrics import straightness
    >>> straightness([[[0.0]], [[1.0]], [[2.0]]]), straightness([[[0.0]], [[2.0]], [[2.0]]])
    (0.0, 4.0)
    """
    Z, times = _trajectory(trajectory, times)
    chord = np.subtract(Z[-1], Z[0], dtype=np.float64)
    S = 0.0
    for k, step in enumerate(np.diff(times) / (times[-1] - times[0])):
        S += step * _mean_square(np.subtract(Z[k + 1], Z[k], dtype=np.float64) / step - chord)
    return _finite(S)


def first_orderness(trajectory, path, times=None):
    r"""How much the end that trajectories head for changes on the way; 0 for a first-order flow.

    .. math:: F = \int_0^1 E\left\|\hat x_1(t) - Z_1\right\|^2 dt

    At each time a trajectory follows the path of one pair, and :math:`\hat x_1(t)` is where that pair ends. Where it is
    Z_1 all the way, a single step along the path is exact, whether or not the path is straight. The pair is that of
    the path through two consecutive positions, so that F is exact for trajectories that a first-order solver made.

    Parameters
    ----------
    trajectory : array-like or Tensor of shape (n_times, n_samples, n_features)
        Where each row is at each time, as `RectifiedFlowTransport.trajectory` returns it.
    path : Path
        The path of the flow, from `rfadapt.paths`.
    times : array-like or Tensor of shape (n_times,), optional
        Strictly increasing times from 0 to 1; evenly spaced by default.

    Returns
    -------
    F : float
        In squared units of the features, as the transport cost.

    Raises
    ------
    ValueError
        If the shapes do not fit, a value is not finite or the times do not increase from 0 to 1.

    References
    ----------
    Wang et al., "Rectified Diffusion: Straightness Is Not Your Need in Rectified Flow", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.metrics import first_orderness, straightness
    >>> from rfadapt.paths import LinearPath, TrigonometricPath
    >>> quarter = np.pi / 2 * np.linspace(0, 1, 9)
    >>> circle = np.stack([np.cos(quarter), np.sin(quarter)], axis=-1)[:, None]     # from (1, 0) to (0, 1)
    >>> [round(first_orderness(circle, path), 3) for path in (TrigonometricPath(), LinearPath())]
    [0.0, 0.269]
    >>> round(straightness(circle), 3)
    0.459
    """
    Z, times = _trajectory(trajectory, times)
    if abs(times[0]) > 1e-9 or abs(times[-1] - 1) > 1e-9:
        raise ValueError(f"times must increase from 0 to 1; got {times[0]:g} to {times[-1]:g}.")
    F = 0.0
    for k, step in enumerate(np.diff(times)):
        ends = (torch.from_numpy(Z[j].astype(np.float64)) for j in (k, k + 1))
        at = (torch.full((Z.shape[1],), times[j], dtype=torch.float64) for j in (k, k + 1))
        _, x1 = path.endpoints_between(*ends, *at)
        F += step * _mean_square(x1.numpy() - Z[-1])
    return _finite(F)


def round_trip_error(X, X_back):
    r"""Error of `inverse_transform(transform(X))`, relative to the spread of `X`.

    .. math:: \sqrt{E\|T^{-1}(T(X)) - X\|^2 \,/\, \mathrm{tr}\,\mathrm{Cov}\,X}

    Parameters
    ----------
    X, X_back : array-like or Tensor of shape (n_samples, n_features)
        The rows, and what came back.

    Returns
    -------
    error : float
        Without units, and not changed by shifting or rescaling all data. Infinite if all rows of `X` are
        equal and do not come back.

    Examples
    --------
    >>> from rfadapt.metrics import round_trip_error
    >>> round_trip_error([[0.0], [4.0]], [[1.0], [4.0]])
    0.3535533905932738
    """
    X, X_back = paired_samples(X, X_back, "X", "X_back")
    return math.sqrt(_relative_square(X_back - X, _total_variance(X)))


def l2_uvp(T_hat, T_true, variance=None):
    r"""Unexplained variance of an estimated transport map, in percent.

    .. math:: L^2\text{-UVP} = 100\,\frac{E\|\hat T(X) - T(X)\|^2}{\mathrm{tr}\,\mathrm{Cov}\,T(X)}

    Parameters
    ----------
    T_hat, T_true : array-like or Tensor of shape (n_samples, n_features)
        The same rows moved by the estimated and by the true map.
    variance : float, optional
        Total variance of the target (the sum over features), where it is known. By default that of `T_true`,
        which is a sample of the target.

    Returns
    -------
    uvp : float
        0 for the true map, about 100 for the constant map to the target's mean. Infinite if the variance of
        `T_true` is 0 and `T_hat` is not the same.

    References
    ----------
    A. Korotin et al., "Do Neural Optimal Transport Solvers Work? A Continuous Wasserstein-2 Benchmark",
    NeurIPS, 2021.

    Examples
    --------
    >>> from rfadapt.metrics import l2_uvp
    >>> l2_uvp([[2.0], [2.0]], [[0.0], [4.0]])
    100.0
    """
    T_hat, T_true = paired_samples(T_hat, T_true, "T_hat", "T_true")
    if variance is None:
        variance = _total_variance(T_true)
    elif not 0 < variance < math.inf:
        raise ValueError(f"variance must be positive, the target's total variance; got {variance!r}.")
    return 100 * _relative_square(T_hat - T_true, variance)


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _trajectory(trajectory, times):
    """The positions, and strictly monotone times for them."""
    Z = _array(trajectory)
    if Z.ndim != 3 or len(Z) < 2 or Z.size == 0:
        raise ValueError(
            f"trajectory must have shape (n_times, n_samples, n_features), n_times at least 2; got {Z.shape}."
        )
    times = np.linspace(0, 1, len(Z)) if times is None else _array(times).astype(np.float64)
    if times.shape != (len(Z),):
        raise ValueError(f"times must have shape ({len(Z)},), like trajectory; got {times.shape}.")
    steps = np.diff(times)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError("times must be strictly increasing or strictly decreasing, without repeats or NaN.")
    return Z, times


def _finite(value) -> float:
    if not np.isfinite(value):
        raise ValueError("trajectory contains NaN or infinity: the solver diverged; use more steps.")
    return float(value)


def _mean_square(displacement) -> float:
    return float(np.square(displacement).sum(axis=1).mean())


def _total_variance(X) -> float:
    return _mean_square(X - X.mean(axis=0))


def _relative_square(error, variance) -> float:
    square = _mean_square(error)
    if square == 0:
        return 0.0
    return square / variance if variance > 0 else math.inf
