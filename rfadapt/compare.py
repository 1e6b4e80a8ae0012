"""One call, many transports, one table."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import torch
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, validate_params

from ._held_out import Split, measured_row, noise_floor
from ._random import seeded
from ._validation import check_labels, check_two_samples
from .base import BaseTransport
from .baselines import BASELINES
from .transport import RectifiedFlowTransport

SHORT_NAMES = {"flow": RectifiedFlowTransport, **BASELINES}


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
    split = Split.draw(X0, X1, y0, y1, test_size, max_samples, random_state)
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    estimator = seeded(clone(estimator), seed)
    _load_what_fits_load(named.values())
    with config_context(transform_output="default"):
        floor = noise_floor(split, seed)
        rows = []
        for name, transport in named.items():
            rows.append(measured_row(name, seeded(clone(transport), seed), split, estimator, floor, seed))
    table = pd.DataFrame(rows, index=pd.Index(list(named), name="transport"))
    return table if y1 is not None else table.drop(columns="accuracy")


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
