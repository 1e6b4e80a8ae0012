"""Mixed rows as probes of a classifier's boundary."""

from __future__ import annotations

from numbers import Real

import numpy as np
from sklearn.utils import check_random_state

from ._scorer import DomainScorer, predicts_classes, rows_of

_PAIRS = ("both", "within", "between")


class MixValScorer(DomainScorer):
    r"""How often a mix of two of the target's rows is predicted as the row that it has most of [1]_.

    Each row is mixed with another one, drawn at random: :math:`\lambda x_i + (1 - \lambda) x_j`. Pairs *within* a
    predicted class probe whether classes are connected, pairs *between* two of them whether the boundary lies where
    rows are sparse.

    Parameters
    ----------
    mixing : float, default=0.55
        :math:`\lambda`, between 0.5 and 1.
    pairs : {"both", "within", "between"}, default="both"
        Which pairs count; the mean of the two rates with "both", or the one rate where there are no others.
    random_state : int, RandomState instance or None, default=None
        Draws the pairs.

    Notes
    -----
    The paper ranks models by the two rates apart and adds up the ranks, which takes all models at once; a scorer sees
    one at a time, so this is the mean of the rates.

    References
    ----------
    .. [1] Hu, Liang, Liew, Xue, Bai, Wang, "Mixed samples as probes for unsupervised model selection in domain
       adaptation", NeurIPS 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from rfadapt.model_selection import MixValScorer
    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> model = KNeighborsClassifier(1).fit(X, [0, 0, 1, 1])
    >>> MixValScorer(random_state=0)(model, X)
    1.0
    """

    def __init__(self, mixing=0.55, pairs="both", random_state=None):
        self.mixing = mixing
        self.pairs = pairs
        self.random_state = random_state

    def _check_params(self):
        if not isinstance(self.mixing, Real) or not 0.5 <= self.mixing <= 1:
            raise ValueError(f"mixing must be a number between 0.5 and 1; got {self.mixing!r}.")
        if self.pairs not in _PAIRS:
            raise ValueError(f"pairs must be one of {', '.join(_PAIRS)}; got {self.pairs!r}.")

    def _score(self, estimator, X, y, domain):
        is_source = domain >= 0
        if not predicts_classes(estimator):
            raise ValueError(f"MixValScorer compares classes; got {type(estimator).__name__}, which is no classifier.")
        rows = rows_of(X, ~is_source)
        predicted = np.asarray(estimator.predict(rows))
        partner = check_random_state(self.random_state).permutation(len(predicted))
        mixed = self.mixing * np.asarray(rows) + (1 - self.mixing) * np.asarray(rows)[partner]
        if hasattr(rows, "columns"):
            mixed = type(rows)(mixed, columns=rows.columns)
        kept = np.asarray(estimator.predict(mixed)) == predicted
        within = predicted == predicted[partner]
        counted = {"both": [within, ~within], "within": [within], "between": [~within]}[self.pairs]
        rates = [kept[part].mean() for part in counted if part.any()]
        return np.mean(rates) if rates else np.nan
