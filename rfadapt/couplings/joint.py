"""Pairs that are near in their features and in their labels, which are numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from .._random import random_state_of
from ..masked_labels import is_missing
from .base import Coupling, Pairs, PartOfRows
from .blocks import OTCoupling

# Rows of each domain that labels are found from: one block of exact transport.
_ROWS = 2048
_MAX_ROUNDS = 10
# Labels that change by less than this share of their spread from round to round have settled.
_SETTLED = 0.01
_LANDMARKS = 200
_NORM = 0.1
# Weight of a row whose label is known: as good as a constraint, as all others are guesses.
_KNOWN = 100.0


@dataclass(frozen=True)
class JointCoupling(Coupling):
    """Rows with rows that are near in features and in a numeric label: optimal transport of the joint distributions.

    The cost of a pair is ``||x0 - x1||^2 + alpha * (y0 - y1)^2``, with the labels divided by the standard deviation of
    all that are known, and ``alpha = weight * v``, where v is the variance of the rows summed over features (mean of
    the two domains). At weight 1, labels so count as much as all features together, whatever the units of either.

    Labels that are not known are found in rounds: the rows are paired, without labels first; a smooth regression on the
    pairs, and on the known labels, says those that are missing; with them the rows are paired anew.

    Parameters
    ----------
    within : Coupling, default=OTCoupling()
        Who is paired with whom, seeing the weighted label as one more feature. It has to look at distances, as optimal
        transport does.
    weight : float, default=1.0
        How much labels count, against 1 for all features together; above 0.

    Notes
    -----
    `RectifiedFlowTransport.fit(X0, X1, y0=..., y1=...)` takes the labels, as floats: all of one domain are needed,
    usually `y0`. Those of the other may be left out, or masked by NaN or None. For classes there is
    `ClassAwareCoupling`. Where features alone do not show which row goes where, a few known labels of the target do;
    none at all leave it open.

    All rows of both domains are paired as often: where the labels are distributed otherwise in the target, some are
    paired with others that differ.

    References
    ----------
    Courty, Flamary, Habrard, Rakotomamonjy, "Joint distribution optimal transportation for domain adaptation", NeurIPS
    2017.

    Examples
    --------
    The target lies across the source, and nothing but the labels, of which a tenth is known there, says which end goes
    where:

    >>> import numpy as np
    >>> from rfadapt import JointCoupling, RectifiedFlowTransport
    >>> rng = np.random.default_rng(0)
    >>> y0, y1 = rng.normal(size=(2, 400))
    >>> X0, X1 = (rng.normal(size=(400, 2)) + np.outer(*pair) for pair in ((y0, [6, 0]), (y1, [0, 6])))
    >>> y1[40:] = np.nan
    >>> flow = RectifiedFlowTransport(coupling=JointCoupling(), velocity="mlp", max_iter=200, random_state=0)
    >>> moved = flow.fit(X0, X1, y0=y0, y1=y1).transform(X0)
    >>> bool(np.corrcoef(moved[:, 1], y0)[0, 1] > 0.7)
    True
    """

    within: Coupling = field(default_factory=OTCoupling)
    weight: float = 1.0

    # Labels may ask for another map than the one that the features alone suggest, which training starts from.
    is_balanced = False
    reads_labels = "numbers"

    def __post_init__(self):
        if not 0 < self.weight < np.inf:
            raise ValueError(
                f"JointCoupling: weight must be a finite number above 0; got {self.weight}. To pair without labels use "
                "OTCoupling."
            )

    def complete_labels(self, X0, X1, generator):
        """As `Coupling.complete_labels`, in float64; those of one domain are found where they are not known.

        Raises
        ------
        ValueError
            If neither domain has all its labels, or labels are not finite floats.
        """
        y0, y1 = _numbers(X0, "y0"), _numbers(X1, "y1")
        missing0, missing1 = (int(np.isnan(y).sum()) for y in (y0, y1))
        if missing0 and missing1:
            raise ValueError(
                "JointCoupling needs a number for every row of one domain, usually of domain 0: fit(X0, X1, y0=...); "
                f"got {len(y0) - missing0} of {len(y0)} for domain 0, {len(y1) - missing1} of {len(y1)} for domain 1."
            )
        if missing0:
            return self._found(X1, y1, X0, y0, generator), y1
        if missing1:
            return y0, self._found(X0, y0, X1, y1, generator)
        return y0, y1

    def prepare(self, X0, X1, generator):
        y0, y1 = self.complete_labels(X0, X1, generator)
        return _Unlabelled(self._paired(X0, y0, X1, y1, self._factor(X0, y0, X1, y1, generator), generator))

    def _paired(self, X0, y0, X1, y1, factor, generator):
        return self.within.prepare(_Labelled(X0, factor * y0), _Labelled(X1, factor * y1), generator)

    def _factor(self, X0, y0, X1, y1, generator):
        """What labels are multiplied by as one more feature."""
        variance = np.mean([X.rows(_some(len(X), generator)).var(0, correction=0).sum().item() for X in (X0, X1)])
        return np.sqrt(self.weight * variance) / (np.nanstd(np.concatenate([y0, y1])) or 1.0)

    def _found(self, X0, y0, X1, y1, generator):
        """The labels of domain 1, all known, from all those of domain 0."""
        factor = self._factor(X0, y0, X1, y1, generator)
        used0, used1 = _some(len(X0), generator), _some(len(X1), generator)
        part0, part1, labels0 = PartOfRows(X0, used0), PartOfRows(X1, used1), y0[used0.numpy()]
        known = np.flatnonzero(~np.isnan(y1))
        known_rows, known_labels = _array(X1.rows(torch.from_numpy(known))), y1[known]
        random_state = random_state_of(generator)
        model = _smooth_regressor(_array(part1.rows(torch.arange(len(part1)))), random_state)
        kept = y1[used1.numpy()]
        # A constant guess adds the same to every plan: the first round pairs by features and known labels.
        guess = np.full(len(part1), labels0.mean())
        for _ in range(_MAX_ROUNDS):
            filled = np.where(np.isnan(kept), guess, kept)
            pairs = self._paired(part0, labels0, part1, filled, factor, generator)
            ends0, ends1 = (_array(z) for z in pairs.sample(2 * len(part1), generator))
            rows = np.concatenate([ends1[:, :-1], known_rows])
            labels = np.concatenate([ends0[:, -1] / (factor or 1.0), known_labels])
            model.fit(rows, labels, ridge__sample_weight=np.repeat([1.0, _KNOWN], [len(ends1), len(known)]))
            previous, guess = guess, model.predict(_array(part1.rows(torch.arange(len(part1)))))
            if np.abs(guess - previous).mean() <= _SETTLED * labels0.std():
                break
        parts = torch.arange(len(X1)).split(65536)
        every = np.concatenate([model.predict(_array(X1.rows(part))) for part in parts])
        return np.where(np.isnan(y1), every, y1)


def _numbers(X, name):
    """Labels as float64, NaN where they are not known."""
    if X.labels is None:
        return np.full(len(X), np.nan)
    given = np.asarray(X.labels)
    values = np.array(given[~is_missing(given)].tolist())
    if len(values) and values.dtype.kind != "f":
        raise ValueError(
            f"JointCoupling pairs by numbers, given as floats; {name} holds {values.dtype}, such as {values[0]!r}. For "
            "classes use ClassAwareCoupling."
        )
    y = given.astype(np.float64)
    if np.isinf(y).any():
        raise ValueError(f"JointCoupling: {name} has infinite labels. Mark unknown ones with NaN.")
    return y


def _some(n, generator):
    return torch.arange(n) if n <= _ROWS else torch.randperm(n, generator=generator)[:_ROWS]


def _array(rows):
    return rows.double().cpu().numpy()


def _smooth_regressor(rows, random_state):
    """Ridge regression on Gaussian kernels as wide as the rows are spread."""
    spread = 2 * rows.var(axis=0).sum() or 1.0  # mean squared distance of two rows
    kernels = Nystroem(gamma=0.5 / spread, n_components=min(_LANDMARKS, len(rows)), random_state=random_state)
    return make_pipeline(kernels, Ridge(_NORM))


class _Labelled(PartOfRows):
    """Rows with one more feature."""

    def __init__(self, X, values):
        super().__init__(X, torch.arange(len(X)))
        self._values = torch.from_numpy(np.asarray(values)).float()

    def rows(self, index):
        rows = self._X.rows(index)
        return torch.cat([rows, self._values[index].to(rows.device)[:, None]], dim=1)


class _Unlabelled(Pairs):
    """Pairs without their last feature."""

    def __init__(self, pairs):
        self._pairs = pairs

    def sample(self, n, generator):
        return tuple(rows[:, :-1] for rows in self._pairs.sample(n, generator))
