"""How sure a classifier is of the target's rows."""

from __future__ import annotations

from scipy.special import entr

from ._scorer import DomainScorer


class PredictionEntropyScorer(DomainScorer):
    r"""Minus the mean entropy of the predicted probabilities on the target [1]_, in nats.

    .. math:: \frac{1}{n} \sum_i \sum_k p_{ik} \log p_{ik}

    Cheap, and easily misled: a classifier that is sure and wrong scores 0, the best value.

    References
    ----------
    .. [1] Morerio, Cavazza, Murino, "Minimal-entropy correlation alignment for unsupervised deep domain adaptation",
       ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from rfadapt.model_selection import PredictionEntropyScorer
    >>> X, y = np.zeros((4, 1)), [0, 1, 0, 1]
    >>> undecided = DummyClassifier(strategy="prior").fit(X, y)
    >>> round(PredictionEntropyScorer()(undecided, X), 3)
    -0.693
    """

    def _score(self, estimator, X, y, domain):
        is_source = domain >= 0
        return -entr(self._target_probabilities(estimator, X, is_source)).sum(axis=1).mean()
