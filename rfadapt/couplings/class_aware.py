"""Pairs within classes, those of the target being found where they are not known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets

from .._random import random_state_of
from ..masked_labels import check_no_unseen, is_masked, is_minus_one, is_missing
from ..target_labels import Committee
from .base import Coupling, Pairs, PartOfRows
from .blocks import OTCoupling


@dataclass(frozen=True)
class ClassAwareCoupling(Coupling):
    """Rows of a class with rows of the same class of the target, each class as often as the target has it.

    The target's classes are those in `y1`, as far as they are known there. The others are found from the source's, and
    from the target's own shape, by the kernel machines of `rfadapt.adaptation.class_aware.ClassAware`. Other class
    proportions in the target, or classes that it lacks, so move no row from class to class, as transport that balances
    the whole would. Rows of a class that the target lacks are paired with none.

    Parameters
    ----------
    within : Coupling, default=OTCoupling()
        Who is paired inside a class.

    Notes
    -----
    `RectifiedFlowTransport.fit(X0, X1, y0=..., y1=...)` takes the labels: those of the source are needed, those of the
    target may be left out, or masked by -1, NaN or None.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import ClassAwareCoupling, RectifiedFlowTransport
    >>> rng = np.random.default_rng(0)
    >>> y0, y1 = np.repeat([0, 1], [150, 150]), np.repeat([0, 1], [60, 240])  # other proportions in the target
    >>> X0, X1 = (rng.normal(size=(300, 2)) + np.outer(y, [8, 0]) for y in (y0, y1))
    >>> flow = RectifiedFlowTransport(coupling=ClassAwareCoupling(), max_iter=200, random_state=0)
    >>> moved = flow.fit(X0, X1 + [0, 3], y0=y0).transform(X0)
    >>> bool(np.abs(moved - X0 - [0, 3]).mean() < 0.5)
    True
    """

    within: Coupling = field(default_factory=OTCoupling)

    is_balanced = False
    reads_labels = "classes"

    def complete_labels(self, X0, X1, generator):
        """As `Coupling.complete_labels`; those of domain 1 are found where they are not known."""
        if X0.labels is None:
            raise ValueError(
                "ClassAwareCoupling pairs rows by their classes and needs those of domain 0: fit(X0, X1, y0=...); got "
                "none."
            )
        try:
            check_classification_targets(X0.labels)
        except ValueError as error:
            raise ValueError(f"ClassAwareCoupling pairs classes; for numbers use JointCoupling. {error}") from error
        classes, classes0 = np.unique(X0.labels, return_inverse=True)
        known, known_classes = _known(X1.labels, classes)
        if len(known) == len(X1):
            return X0.labels, classes[known_classes]
        x0, x1 = (X.rows(torch.arange(len(X))).cpu().numpy() for X in (X0, X1))
        random_state = random_state_of(generator)
        committee = Committee(x0, classes0, x1, known, known_classes, random_state)
        return X0.labels, classes[committee.sharpened(committee.label().classes1)]

    def prepare(self, X0, X1, generator):
        y0, y1 = self.complete_labels(X0, X1, generator)
        pairs, shares = [], []
        for label in np.unique(y0):
            inside0, inside1 = (torch.from_numpy(np.flatnonzero(y == label)) for y in (y0, y1))
            if len(inside0) and len(inside1):
                pairs.append(self.within.prepare(PartOfRows(X0, inside0), PartOfRows(X1, inside1), generator))
                shares.append(len(inside1) / len(X1))
        return _ClassPairs(pairs, torch.tensor(shares))


def _known(labels, classes):
    """Numbers of the rows whose class is known, and numbers of their classes."""
    if labels is None:
        return np.array([], dtype=int), np.array([], dtype=int)
    known = np.flatnonzero(~(is_missing(labels) if is_minus_one(classes).any() else is_masked(labels)))
    values = np.array(labels[known].tolist(), dtype=classes.dtype)
    check_no_unseen(values, classes, "y1", "y0")
    return known, np.searchsorted(classes, values)


class _ClassPairs(Pairs):
    """Pairs of each class as often as it is drawn."""

    def __init__(self, pairs, shares):
        self._pairs, self._shares = pairs, shares

    def sample(self, n, generator):
        drawn = torch.multinomial(self._shares, n, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(self._pairs)).tolist()
        parts = [pairs.sample(count, generator) for pairs, count in zip(self._pairs, counts) if count]
        return tuple(torch.cat(rows) for rows in zip(*parts))
