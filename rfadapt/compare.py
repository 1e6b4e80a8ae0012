"""One call, many transports, one table."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, validate_params

from . import metrics
from ._random import seeded
from ._resources import PeakMemory, Stopwatch
from ._validation import check_labels, check_two_samples
from .base import BaseTransport
from .baselines import BASELINES
from .transport import RectifiedFlowTransport

SHORT_NAMES = {"flow": RectifiedFlowTransport, **BASELINES}

# The floor is a mean over so many samples of the target; one alone is as noisy as what it is a floor for.
_FLOOR_DRAWS = 5

# Trajectories hold every row at every time, so they are watched for fewer rows.
_TRAJECTORY_ROWS, _TRAJECTORY_TIMES = 500, 21


@validate_params(
    {
        "transports": [list, tuple, dict],
        "estimator": [HasMethods(["fit", "predict"]), None],
        "test_size": [Interval(Real, 0, 1, closed="neither")],
        "max_samples": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def compare_transports(
    transports,
    X0,
    X1,
    *,
    y0=None,
    y1=None,
    estimator=None,
    test_size=0.3,
    max_samples=2000,
    random_state=None,
):
    """Fit several transports on the same data and measure them on the same held-out rows.

    Both samples are split once. Every transport is cloned, fitted on the training rows and judged by where it
    takes the held-out rows of `X0`, against the held-out rows of `X1`, which no transport has seen.

    Parameters
    ----------
    transports : list, tuple or dict of {str: BaseTransport or str}
        Unfitted transports, or short names of transports with their default parameters: "flow" for
        `RectifiedFlowTransport` and "identity", "coral", "affine", "emd", "sinkhorn", "unbalanced",
        "class-sinkhorn", "kernel" for the baselines. The keys of a dict name the rows of the table. A
        `random_state` left at None is set from `random_state`.
    X0, X1 : array-like, sparse matrix or Tensor of shape (n0, n_features), (n1, n_features)
        Samples of the source and the target domain. Distances are in their units: where features have
        different units, standardise both samples first, with one scaler.
    y0 : array-like of shape (n0,), optional
        Labels of the source: given to every `fit` (class-aware transports use them), and to `estimator`.
    y1 : array-like of shape (n1,), optional
        Labels of the target. Only those of held-out rows are used, only to score; no `fit` ever sees them.
    estimator : classifier, optional
        Trained on the moved training rows of `X0` with `y0`. By default logistic regression on standardised
        features.
    test_size : float, default=0.3
        Share of each sample that is held out.
    max_samples : int, default=2000
        Hold out at most so many rows of each sample, as the distances take time quadratic in them; the others
        are trained on.
    random_state : int, RandomState instance or None, default=None
        Splits the data, and seeds transports and metrics. With an int the table is the same in every call but
        for times and memory.

    Returns
    -------
    table : DataFrame
        One row a transport; equal names are numbered. Over held-out rows, unless said otherwise:

        `energy_distance`, `sliced_wasserstein`
            From moved X0 to X1: `rfadapt.metrics.energy_distance` and `sliced_wasserstein`.
        `energy_distance_floor`, `sliced_wasserstein_floor`
            What a perfect transport would get: the same distance, to the same rows of X1, from as many
            training rows of X1 as there are moved rows; a mean over 5 draws. A difference below the floor is
            no difference.
        `domain_auc`
            Of a classifier that tells moved X0 from X1; 0.5 is perfect.
        `transport_cost`
            Mean squared displacement.
        `round_trip_error`
            Of `inverse_transform(transform(X0))`, relative to the spread of X0. NaN without an inverse.
        `straightness`, `first_orderness`, `one_step_error`
            Of a flow, else NaN: how far its trajectories are from straight lines, and how much the end that they
            head for along their path changes (both over at most 500 rows), and the mean squared distance from its
            map to that of a single step. All are relative to the variance of X1, as in
            `RectifiedFlowTransport.history_`, but there in scaled units.
        `accuracy`
            Of `estimator` on X1. The column is there when both `y0` and `y1` are given.
        `fit_seconds`, `transform_seconds`
            Wall-clock time of `fit`, and of moving the held-out rows.
        `peak_memory_mb`
            The most memory that this process occupied during `fit`, above what it occupied at its start, in
            MiB. Worker processes and GPU memory are not in it. NaN where the system does not tell (it is
            Linux that does).
        `error`
            What went wrong, else missing. What was not measured for it is NaN.

    Raises
    ------
    ValueError
        If the data or labels do not fit together, are too few to hold some out, or a short name is unknown.
    TypeError
        If something among `transports` is not a transport.

    Warns
    -----
    RuntimeWarning
        If a transport fails; the others are still compared.

    Notes
    -----
    To measure the memory, the peak that the system keeps for this process (`VmHWM`) is reset before each fit.

    The training rows are held in memory, also where the data are memory-mapped.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import compare_transports
    >>> rng = np.random.default_rng(0)
    >>> X0, X1 = rng.normal(size=(200, 2)), rng.normal(size=(150, 2)) + 3
    >>> table = compare_transports(["identity", "affine"], X0, X1, random_state=0)
    >>> table["domain_auc"].round(1).to_dict()["identity"]
    1.0
    >>> bool(table.loc["affine", "energy_distance"] < table.loc["identity", "energy_distance"])
    True
    """
    import pandas as pd

    named = _named_transports(transports)
    X0, X1, _ = check_two_samples(X0, X1)
    y0, y1 = check_labels(y0, len(X0), "y0"), check_labels(y1, len(X1), "y1")
    if y1 is not None and y0 is None:
        raise ValueError("y1 only scores a classifier that is trained with y0; give y0 as well, or no y1.")
    if estimator is not None and (y0 is None or y1 is None):
        raise ValueError("estimator is trained with y0 and scored with y1; give both, or no estimator.")
    if estimator is not None and not is_classifier(estimator):
        raise ValueError(f"estimator must be a classifier, as its accuracy is measured; got {estimator!r}.")
    if estimator is None:
        estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

    random_state = check_random_state(random_state)
    split = _Split.draw(X0, X1, y0, y1, test_size, max_samples, random_state)
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    estimator = seeded(clone(estimator), seed)
    _load_what_fits_load(named.values())
    with config_context(transform_output="default"):
        floor = _noise_floor(split, seed)
        rows = []
        for name, transport in named.items():
            rows.append(_measured_row(name, seeded(clone(transport), seed), split, estimator, floor, seed))
    table = pd.DataFrame(rows, index=pd.Index(list(named), name="transport"))
    return table if y1 is not None else table.drop(columns="accuracy")


@dataclass(frozen=True)
class _Split:
    """Training rows as the user gave them, for the transports; held-out X1 dense, as only metrics see it."""

    X0: np.ndarray | sparse.csr_matrix | torch.Tensor
    X1: np.ndarray | sparse.csr_matrix | torch.Tensor
    y0: np.ndarray | None
    X0_test: np.ndarray | sparse.csr_matrix | torch.Tensor
    X1_test: np.ndarray
    y1_test: np.ndarray | None

    @property
    def variance(self) -> float:
        """Total variance of the target; kept from 0, where every row of the target is the same."""
        return max(float(self.X1_test.var(axis=0, dtype=np.float64).sum()), 1e-30)

    @classmethod
    def draw(cls, X0, X1, y0, y1, test_size, max_samples, random_state):
        n1_test = min(math.ceil(test_size * len(X1)), max_samples)
        # No more than there are training rows of X1, so that the noise floor can be measured at equal sizes.
        n0_test = min(math.ceil(test_size * len(X0)), max_samples, len(X1) - n1_test)
        if min(n0_test, n1_test, len(X0) - n0_test, len(X1) - n1_test) < 2:
            raise ValueError(
                f"compare_transports needs at least 2 rows of each sample to fit and 2 to measure; got "
                f"{len(X0)} rows of X0 and {len(X1)} of X1 with test_size={test_size}. Give more rows."
            )
        # Sorted, because memory-mapped files are read in order.
        test0, train0 = (np.sort(part) for part in np.split(random_state.permutation(len(X0)), [n0_test]))
        test1, train1 = (np.sort(part) for part in np.split(random_state.permutation(len(X1)), [n1_test]))
        return cls(
            X0=_rows(X0, train0),
            X1=_rows(X1, train1),
            y0=None if y0 is None else y0[train0],
            X0_test=_rows(X0, test0),
            X1_test=X1.rows(test1).cpu().numpy(),
            y1_test=None if y1 is None else y1[test1],
        )


def _rows(samples, index):
    return samples.rows(index) if samples.is_tensor else samples.data[index]


def _named_transports(transports) -> dict:
    """Unfitted transports by names that differ."""
    if not transports:
        raise ValueError('transports is empty; name at least one, as in ["flow", "affine", "identity"].')
    given = transports.items() if isinstance(transports, dict) else ((None, item) for item in transports)
    named = {}
    for name, item in given:
        if isinstance(item, str):
            if item not in SHORT_NAMES:
                raise ValueError(f"There is no transport {item!r}; there are {sorted(SHORT_NAMES)}.")
            name, item = item if name is None else name, SHORT_NAMES[item]()
        if not isinstance(item, BaseTransport):
            raise TypeError(f"transports must hold transports or their short names; got {item!r}.")
        name = type(item).__name__ if name is None else name
        unique, copies = name, 1
        while unique in named:
            copies += 1
            unique = f"{name} ({copies})"
        named[unique] = item
    return named


def _load_what_fits_load(transports):
    """Load what the first fit in a process would be charged for: seconds and over 100 MB, once and for all."""
    import ot  # noqa: F401

    if any(isinstance(transport, RectifiedFlowTransport) for transport in transports):
        torch.optim.Adam([torch.zeros(1, requires_grad=True)])


def _distances(X0_moved, X1, seed) -> dict:
    return {
        "energy_distance": metrics.energy_distance(X0_moved, X1),
        "sliced_wasserstein": metrics.sliced_wasserstein(X0_moved, X1, random_state=seed),
    }


def _noise_floor(split, seed) -> dict:
    """The distances of a perfect transport, which draws new rows of the target."""
    random_state, n_rows = np.random.RandomState(seed), split.X0_test.shape[0]
    draws = [random_state.permutation(split.X1.shape[0])[:n_rows] for _ in range(_FLOOR_DRAWS)]
    draws = [_distances(split.X1[rows], split.X1_test, seed) for rows in draws]
    return {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}


def _measured_row(name, transport, split, estimator, floor, seed) -> dict:
    """One row of the table; the order of its keys is the order of the columns."""
    row = {
        "energy_distance": np.nan,
        "energy_distance_floor": floor["energy_distance"],
        "sliced_wasserstein": np.nan,
        "sliced_wasserstein_floor": floor["sliced_wasserstein"],
        "domain_auc": np.nan,
        "transport_cost": np.nan,
        "round_trip_error": np.nan,
        "straightness": np.nan,
        "first_orderness": np.nan,
        "one_step_error": np.nan,
        "accuracy": np.nan,
        "fit_seconds": np.nan,
        "transform_seconds": np.nan,
        "peak_memory_mb": np.nan,
        "error": None,
    }
    try:
        # Each number as soon as it is known, so that a later failure does not take it away.
        for numbers in _measurements(transport, split, estimator, seed):
            row.update(numbers)
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
        warnings.warn(f"{name} failed in compare_transports: {row['error']}", RuntimeWarning, stacklevel=4)
    return row


def _measurements(transport, split, estimator, seed):
    with PeakMemory() as memory, Stopwatch() as watch:
        transport.fit(split.X0, split.X1, y0=split.y0)
    yield {"fit_seconds": watch.seconds, "peak_memory_mb": memory.mebibytes}

    with Stopwatch() as watch:
        moved = transport.transform(split.X0_test)
    yield {"transform_seconds": watch.seconds}

    yield _distances(moved, split.X1_test, seed)
    yield {"domain_auc": metrics.domain_auc(moved, split.X1_test, random_state=seed)}
    yield {"transport_cost": metrics.transport_cost(split.X0_test, moved)}
    if transport.invertible:
        back = transport.inverse_transform(moved)
        yield {"round_trip_error": metrics.round_trip_error(split.X0_test, back)}
    if isinstance(transport, RectifiedFlowTransport):
        trajectory = transport.trajectory(split.X0_test[:_TRAJECTORY_ROWS], _TRAJECTORY_TIMES)
        yield {"straightness": metrics.straightness(trajectory) / split.variance}
        yield {"first_orderness": metrics.first_orderness(trajectory, transport.velocity_.path) / split.variance}
        one_step = copy.copy(transport)
        if transport.n_evaluations_ != 1:
            one_step.set_params(solver="ddim", n_steps=1, schedule="uniform", distill=False, straighten=False)
        uvp = metrics.l2_uvp(one_step.transform(split.X0_test), moved, split.variance)
        yield {"one_step_error": uvp / 100}
    if split.y1_test is not None:
        moved = transport.transform(split.X0)
        moved = moved.cpu().numpy() if isinstance(moved, torch.Tensor) else moved
        predicted = clone(estimator).fit(moved, split.y0).predict(split.X1_test)
        yield {"accuracy": float(accuracy_score(split.y1_test, predicted))}
