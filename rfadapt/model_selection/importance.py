"""The source's labels, weighted by how much a row looks like the target."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ._scorer import DomainScorer, predicts_classes, rows_of, where_domains_meet


class ImportanceWeightedScorer(DomainScorer):
    r"""Accuracy (or R²) on the source's rows, weighted by a ratio of densities [1]_.

    Weights :math:`w(x) = p_1(x) / p_0(x)` turn a mean over the source into one over the target, if the two differ in
    the distribution of their rows only, and the target lies where the source has rows. Densities are estimated where
    the two domains meet: after the steps of a pipeline, and after the rows of the source have been moved by
    `AdaptedClassifier`.

    Parameters
    ----------
    density : density estimator, optional
        Has `fit(X)` and `score_samples(X)`, which returns log densities. By default `KernelDensity` with Scott's
        bandwidth, the rows standardised. Few tens of features are too many for it.

    References
    ----------
    .. [1] Sugiyama, Krauledat, Müller, "Covariate shift adaptation by importance weighted cross validation", JMLR 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from rfadapt.model_selection import ImportanceWeightedScorer
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> y = np.where(X[:, 0] > 0.5, 2, X[:, 0] > 0)             # the model below does not know class 2
    >>> model = LogisticRegression().fit(X, X[:, 0] > 0)
    >>> X_both, y_both = np.concatenate([X, -abs(X)]), np.concatenate([y, np.full(40, -1)])
    >>> bool(ImportanceWeightedScorer()(model, X_both, y_both) > np.mean(model.predict(X) == y))
    True
    """

    def __init__(self, density=None):
        self.density = density

    def _score(self, estimator, X, y, domain):
        is_source = domain >= 0
        self._need_source(y, is_source)
        rows, predictor = where_domains_meet(estimator, X, domain)
        predicted = predictor.predict(rows_of(rows, is_source))
        rows, density = np.asarray(rows), self.density
        if density is None:
            rows, density = StandardScaler().fit_transform(rows), KernelDensity(bandwidth="scott")
        source, target = rows[is_source], rows[~is_source]
        log0, log1 = (clone(density).fit(part).score_samples(source) for part in (source, target))
        weights = softmax(log1 - log0)
        measure = accuracy_score if predicts_classes(estimator) else r2_score
        return measure(_plain(y[is_source]), predicted, sample_weight=weights)


class DeepEmbeddedValidationScorer(DomainScorer):
    r"""Minus the weighted log loss on the source's rows, with a control variate [1]_, in nats.

    A classifier tells the domains apart and gives weights :math:`w(x) = \frac{n_0}{n_1}\,\frac{P(1|x)}{P(0|x)}`; it is
    trained on two thirds of the source's rows, and the loss :math:`\ell` is measured on the others:

    .. math:: \hat R = \overline{w \ell} + \eta\,(\bar w - 1), \qquad \eta = -\mathrm{Cov}(w \ell, w) / \mathrm{Var}(w)

    The second term lowers the variance, as the mean of w is 1. Rows are seen where the two domains meet, as in
    :class:`ImportanceWeightedScorer`, of which this is the form for many features.

    Parameters
    ----------
    domain_classifier : classifier, optional
        Tells the domains apart, with `predict_proba`. By default logistic regression.
    random_state : int, RandomState instance or None, default=None
        Splits the source.

    References
    ----------
    .. [1] You, Wang, Long, Jordan, "Towards accurate model selection in deep unsupervised domain adaptation", ICML
       2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from rfadapt.model_selection import DeepEmbeddedValidationScorer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = np.where(np.arange(200) < 100, X[:, 0] > 0, -1)
    >>> scorer = DeepEmbeddedValidationScorer(random_state=0)
    >>> sure, unsure = (LogisticRegression(C=C).fit(X[:100], y[:100]) for C in (1, 1e-4))
    >>> scorer(sure, X, y) > scorer(unsure, X, y)
    True
    """

    def __init__(self, domain_classifier=None, random_state=None):
        self.domain_classifier = domain_classifier
        self.random_state = random_state

    def _score(self, estimator, X, y, domain):
        is_source = domain >= 0
        self._need_source(y, is_source)
        rows, predictor = where_domains_meet(estimator, X, domain)
        self._need_probabilities(predictor)
        if (n_rows := is_source.sum()) < 4:
            raise ValueError(f"DeepEmbeddedValidationScorer needs at least 4 rows of the source; got {n_rows}.")
        train, held_out = train_test_split(np.flatnonzero(is_source), test_size=0.33, random_state=self.random_state)
        weights = self._weights(np.asarray(rows), train, held_out, np.flatnonzero(~is_source))
        probabilities = predictor.predict_proba(rows_of(rows, held_out))
        loss = _log_loss(_plain(y[held_out]), probabilities, predictor.classes_)
        covariance = np.cov(weights * loss, weights)
        eta = -covariance[0, 1] / covariance[1, 1] if covariance[1, 1] > 0 else 0.0
        return -(np.mean(weights * loss) + eta * (np.mean(weights) - 1))

    def _weights(self, rows, train, held_out, target):
        classifier = self.domain_classifier
        if classifier is None:
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        domain = np.repeat([0, 1], [len(train), len(target)])
        probability = clone(classifier).fit(rows[np.concatenate([train, target])], domain).predict_proba(rows[held_out])
        return len(train) / len(target) * probability[:, 1] / np.maximum(probability[:, 0], 1e-15)


def _log_loss(y, probabilities, classes) -> np.ndarray:
    """Log loss of each row; a class that the model does not know has probability 0."""
    hit = y[:, None] == np.asarray(classes)
    return -np.log(np.clip((probabilities * hit).sum(axis=1), 1e-15, 1 - 1e-15))


def _plain(y):
    """Labels of one type, as they would be without masked ones beside them."""
    return np.array(y.tolist())
