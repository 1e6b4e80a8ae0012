"""What the scorers have in common: which rows are of the target, and how a model is asked about them."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from inspect import signature

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from ..adaptation.adapted import AdaptedEstimator
from ..adaptation.domains import domain_numbers
from ..masked_labels import is_masked


class DomainScorer(BaseEstimator, metaclass=ABCMeta):
    """A function `scorer(estimator, X, y, sample_domain=None)`, higher is better, for `scoring=`."""

    __metadata_request__score = {"sample_domain": True}

    def __call__(self, estimator, X, y=None, sample_domain=None):
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : classifier or regressor
            Fitted. What it predicts is taken for rows of the target.
        X : array-like of shape (n_samples, n_features)
            Rows of both domains, or of the target.
        y : array-like of shape (n_samples,), optional
            Labels, those of the target's rows masked: NaN or None, and -1 among classes. They are never used.
        sample_domain : array-like of shape (n_samples,), optional
            Domain of each row: 0 or positive for the source, negative for the target. By default the rows whose label
            is masked are of the target; without `y` all of them are.

        Returns
        -------
        score : float
            Higher is better.

        Raises
        ------
        ValueError
            If there are not the rows, labels or methods that the score needs.
        """
        self._check_params()
        n_samples = _num_samples(X)
        y = None if y is None else np.asarray(y)
        domain = domain_numbers(sample_domain, n_samples)
        if sample_domain is None and y is not None:
            domain = np.where(is_masked(y, "classes" if predicts_classes(estimator) else "numbers"), -1, 1)
        if (domain >= 0).all():
            raise ValueError(
                f"{type(self).__name__} scores rows of the target; got none among {n_samples} rows. Pass "
                "sample_domain, or mask the target's labels in y with -1 (classes) or NaN."
            )
        return float(self._score(estimator, X, y, domain))

    def _check_params(self):
        """Raise if a parameter is not valid."""

    @abstractmethod
    def _score(self, estimator, X, y, domain):
        """The score, of rows of both domains."""

    def _target_probabilities(self, estimator, X, is_source):
        self._need_probabilities(estimator)
        return np.asarray(estimator.predict_proba(rows_of(X, ~is_source)))

    def _need_probabilities(self, estimator):
        if not hasattr(estimator, "predict_proba"):
            name = type(estimator).__name__
            raise ValueError(f"{type(self).__name__} needs predict_proba, which {name} does not have.")

    def _need_source(self, y, is_source):
        if y is None or not is_source.any():
            raise ValueError(
                f"{type(self).__name__} needs labelled rows of the source beside those of the target; got "
                f"{'no y' if y is None else 'none'}."
            )


def rows_of(X, which):
    """Rows of an array or data frame, by a mask or their numbers."""
    return _safe_indexing(X, np.flatnonzero(which) if which.dtype == bool else which)


def predicts_classes(estimator) -> bool:
    """Whether it is a classifier, not a regressor; pipelines of other libraries may only show it by their methods."""
    if is_classifier(estimator) or hasattr(estimator, "predict_proba"):
        return True
    if is_regressor(estimator):
        return False
    raise ValueError(f"A classifier or regressor is scored; got {type(estimator).__name__}, which is neither.")


def takes_domain(method) -> bool:
    """Whether a method has the parameter `sample_domain`."""
    return "sample_domain" in signature(method).parameters


def where_domains_meet(estimator, X, domain):
    """Rows as the last estimator of a model sees them, after all that moves or transforms them; and that estimator.

    Parameters
    ----------
    estimator : estimator
        Fitted; a Pipeline is walked through, and of an adapted estimator the one inside is taken.
    X : array-like
        Rows.
    domain : ndarray of int
        The domain of each row.
    """
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            if step not in ("passthrough", None):
                X = step.transform(X, sample_domain=domain) if takes_domain(step.transform) else step.transform(X)
        estimator = estimator.steps[-1][1]
    if isinstance(estimator, AdaptedEstimator):
        return estimator.move(X, sample_domain=domain), estimator.estimator_
    return X, estimator
