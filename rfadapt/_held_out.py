"""What a comparison measures of a transport, on rows that it has not seen."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import accuracy_score

from . import metrics
from ._resources import PeakMemory, Stopwatch
from .transport import RectifiedFlowTransport

# The floor is a mean over so many samples of the target; one alone is as noisy as what it is a floor for.
_FLOOR_DRAWS = 5

# Trajectories hold every row at every time, so they are watched for fewer rows.
_TRAJECTORY_ROWS, _TRAJECTORY_TIMES = 500, 21


@dataclass(frozen=True)
class Split:
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
        """Hold out a share of the rows of both samples, as `check_two_samples` gives them."""
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


def _distances(X0_moved, X1, seed) -> dict:
    return {
        "energy_distance": metrics.energy_distance(X0_moved, X1),
        "sliced_wasserstein": metrics.sliced_wasserstein(X0_moved, X1, random_state=seed),
    }


def noise_floor(split, seed) -> dict:
    """The distances of a perfect transport, which draws new rows of the target."""
    random_state, n_rows = np.random.RandomState(seed), split.X0_test.shape[0]
    draws = [random_state.permutation(split.X1.shape[0])[:n_rows] for _ in range(_FLOOR_DRAWS)]
    draws = [_distances(split.X1[rows], split.X1_test, seed) for rows in draws]
    return {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}


def measured_row(name, transport, split, estimator, floor, seed) -> dict:
    """One row of the table of `compare_transports`; the order of its keys is the order of the columns."""
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
