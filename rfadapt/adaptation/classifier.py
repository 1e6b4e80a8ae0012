"""A classifier that is trained on one domain and works on another."""

from __future__ import annotations

from sklearn.base import ClassifierMixin, is_classifier
from sklearn.metrics import accuracy_score

from .adapted import AdaptedEstimator, inner_has


class AdaptedClassifier(ClassifierMixin, AdaptedEstimator):
    """A classifier that is trained on labelled rows of one domain and predicts rows of another.

    A transport is learned between the two domains. Either the source is moved to the target and the classifier is
    trained there, or the target's rows are moved to the source, to a classifier that may have been trained before [1]_.

    Parameters
    ----------
    estimator : classifier
        Trained on the moved source; wrapped in `sklearn.frozen.FrozenEstimator` it is left as it is, which needs
        `direction="target_to_source"`. Where rows are weighted and it has no `sample_weight`, rows are drawn as often
        as they weigh.
    transport : "auto", transport or account, default="auto"
        What moves the rows. "auto" weighs simple explanations of the shift, among them that there is none, and takes
        the simplest that fits; `chosen_`, `reason_` and `evidence_` say which, and why.
    direction : {"source_to_target", "target_to_source"}, default="source_to_target"
        Which rows are moved. A transport is fitted in that direction, and needs no inverse.
    random_state : int, RandomState instance or None, default=None
        For the choice, for drawing rows, and for a transport whose `random_state` is None.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes.
    estimator_ : classifier
        The trained (or frozen) classifier.
    transport_ : transport or account, or dict of them
        Fitted: from the source to the target; the other way for a transport that was given with
        `direction="target_to_source"`. With several sources, a dict by their numbers in `sample_domain`.
    chosen_ : str
        Name of what moves the rows.
    evidence_ : list of dict
        What was weighed for it, with "auto"; else empty.
    reason_ : str
        Why it was taken.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `X` has any.

    References
    ----------
    .. [1] Courty, Flamary, Tuia, Rakotomamonjy, "Optimal transport for domain adaptation", IEEE TPAMI 2017: the
       source is moved. Liu, Gong, Liu, "Flow Straight and Fast", ICLR 2023, section 5.4: the target is.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from rfadapt import AdaptedClassifier, AffineTransport
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 100)
    >>> X = rng.normal(size=(200, 2)) + 4 * y[:, None]
    >>> X_target = X + 10
    >>> LogisticRegression().fit(X, y).score(X_target, y)
    0.5
    >>> model = AdaptedClassifier(LogisticRegression(), AffineTransport()).fit(X, y, X_target=X_target)
    >>> model.score(X_target, y) > 0.99
    True
    """

    __metadata_request__predict_proba = {"sample_domain": True}
    __metadata_request__predict_log_proba = {"sample_domain": True}
    __metadata_request__decision_function = {"sample_domain": True}

    _labels = "classes"

    def _check_estimator(self):
        if not is_classifier(self.estimator):
            raise ValueError(f"AdaptedClassifier needs a classifier; got {self.estimator!r}.")

    @inner_has("predict_proba")
    def predict_proba(self, X, *, sample_domain=None):
        """Probabilities of the classes, of shape (n_samples, n_classes); arguments as in `predict`."""
        return self._ask("predict_proba", X, sample_domain)

    @inner_has("predict_log_proba")
    def predict_log_proba(self, X, *, sample_domain=None):
        """Their logarithms; arguments as in `predict`."""
        return self._ask("predict_log_proba", X, sample_domain)

    @inner_has("decision_function")
    def decision_function(self, X, *, sample_domain=None):
        """Decision values, of shape (n_samples,) or (n_samples, n_classes); arguments as in `predict`."""
        return self._ask("decision_function", X, sample_domain)

    def score(self, X, y, sample_weight=None, *, sample_domain=None):
        """Accuracy on rows of the target.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the target; with `sample_domain`, rows of both, of which only the target's are scored.
        y : array-like of shape (n_samples,)
            Their labels.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows.
        sample_domain : array-like of shape (n_samples,), optional
            Domains, as in `fit`.

        Returns
        -------
        accuracy : float

        Raises
        ------
        ValueError
            If labels of the target are masked, or there is no row of the target.
        """
        return self._scored(accuracy_score, X, y, sample_weight, sample_domain)
