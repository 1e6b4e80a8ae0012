"""How tightly the target's rows gather in the space of predictions."""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy.special import entr, softmax
from sklearn.preprocessing import normalize

from ._scorer import DomainScorer

_BLOCK = 1024  # rows whose similarities to all others are held at a time


class SoftNeighbourhoodDensityScorer(DomainScorer):
    r"""Mean entropy of the similarities between the target's predictions [1]_, in nats.

    With unit vectors :math:`f_i` along the predicted probabilities, a row's neighbours are weighted
    :math:`P_{ij} \propto \exp(f_i^\top f_j / T)`, itself left out. Where predictions form dense groups, many neighbours
    share the weight, and the entropy is high. A classifier that predicts the same for all rows has the highest.

    Parameters
    ----------
    temperature : float, default=0.05
        T, as in the paper.

    Notes
    -----
    Time is quadratic in the number of rows, memory is not: similarities are computed in blocks.

    References
    ----------
    .. [1] Saito, Kim, Teterwak, Sclaroff, Darrell, Saenko, "Tune it the right way: unsupervised validation of domain
       adaptation via soft neighborhood density", ICCV 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from rfadapt.model_selection import SoftNeighbourhoodDensityScorer
    >>> X, y = np.zeros((4, 1)), [0, 1, 0, 1]
    >>> same = DummyClassifier(strategy="prior").fit(X, y)
    >>> round(SoftNeighbourhoodDensityScorer()(same, X), 3)       # log(3): three neighbours, equally near
    1.099
    """

    def __init__(self, temperature=0.05):
        self.temperature = temperature

    def _check_params(self):
        if not isinstance(self.temperature, Real) or not self.temperature > 0:
            raise ValueError(f"temperature must be a positive number; got {self.temperature!r}.")

    def _score(self, estimator, X, y, domain):
        is_source = domain >= 0
        predictions = normalize(self._target_probabilities(estimator, X, is_source))
        n_rows = len(predictions)
        if n_rows < 2:
            raise ValueError(f"SoftNeighbourhoodDensityScorer needs at least 2 rows of the target; got {n_rows}.")
        entropy = 0.0
        for start in range(0, n_rows, _BLOCK):
            similarity = predictions[start : start + _BLOCK] @ predictions.T / self.temperature
            rows = np.arange(len(similarity))
            similarity[rows, start + rows] = -np.inf
            entropy += entr(softmax(similarity, axis=1)).sum()
        return entropy / n_rows
