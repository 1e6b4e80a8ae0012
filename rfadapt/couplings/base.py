"""What a coupling is, and the two simplest: all with all, and pairs that are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


class Rows(Protocol):
    """A domain's rows as a coupling sees them: float32, scaled, on the training device.

    `labels` are those that `fit` was given for them, of shape (n_rows,), or None.
    """

    labels: np.ndarray | None

    def __len__(self) -> int: ...

    def rows(self, index: torch.Tensor) -> torch.Tensor: ...


class Pairs(ABC):
    """Pairs ready to be drawn."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw `n` pairs: two tensors of shape (n, n_features)."""


class Coupling(ABC):
    """Contract of a coupling."""

    #: Whether pairs are of all rows as often and by their features alone, so that the flow has to lead to the target as
    #: a whole at least as near as it begins.
    is_balanced = True
    #: What labels it pairs by: "classes", "numbers", or None. Those that are not known are found by `complete_labels`,
    #: before rows are held out.
    reads_labels: str | None = None

    def complete_labels(self, X0, X1, generator):
        """Labels of all rows of the two domains; as they are, unless a coupling finds those that are missing.

        Parameters
        ----------
        X0, X1 : Rows
        generator : torch.Generator

        Returns
        -------
        y0, y1 : ndarray of shape (n0,), (n1,)
        """
        return X0.labels, X1.labels

    @abstractmethod
    def prepare(self, X0: Rows, X1: Rows, generator: torch.Generator) -> Pairs:
        """Compute what can be computed before training, and return the pairs to draw from."""


@dataclass(frozen=True)
class IndependentCoupling(Coupling):
    """Every row with every row: x0 and x1 are drawn independently (Liu, Gong, Liu 2022).

    Examples
    --------
    >>> from rfadapt import RectifiedFlowTransport
    >>> flow = RectifiedFlowTransport(coupling="independent", n_reflow=1)
    """

    def prepare(self, X0, X1, generator):
        return _IndependentPairs(X0, X1)


class _IndependentPairs(Pairs):
    def __init__(self, X0, X1):
        self.X0, self.X1 = X0, X1

    def sample(self, n, generator):
        index0 = torch.randint(len(self.X0), (n,), generator=generator)
        index1 = torch.randint(len(self.X1), (n,), generator=generator)
        return self.X0.rows(index0), self.X1.rows(index1)


@dataclass(frozen=True)
class PairedCoupling(Coupling):
    """Row i of X0 with row i of X1: for pairs that are known, or that another flow has made (reflow).

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import PairedCoupling, RectifiedFlowTransport
    >>> X0 = np.random.default_rng(0).normal(size=(200, 2))
    >>> flow = RectifiedFlowTransport(coupling=PairedCoupling(), max_iter=50, random_state=0)
    >>> flow.fit(X0, 2 * X0 + 1).transform(X0[:1]).shape
    (1, 2)
    """

    def prepare(self, X0, X1, generator):
        if len(X0) != len(X1):
            raise ValueError(
                f"PairedCoupling pairs row i of X0 with row i of X1, so both need as many rows; got {len(X0)} and "
                f'{len(X1)}. For unpaired samples use coupling="ot".'
            )
        return IndexedPairs(X0, X1)


class PartOfRows:
    """Some rows of a domain, without labels."""

    labels = None

    def __init__(self, X, index):
        self._X, self._index = X, index

    def __len__(self):
        return len(self._index)

    def rows(self, index):
        return self._X.rows(self._index[index])


class IndexedPairs(Pairs):
    """Row i of the one with row i of the other."""

    def __init__(self, X0, X1):
        self.X0, self.X1 = X0, X1

    def sample(self, n, generator):
        index = torch.randint(len(self.X0), (n,), generator=generator)
        return self.X0.rows(index), self.X1.rows(index)
