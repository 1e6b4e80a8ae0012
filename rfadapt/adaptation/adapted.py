"""What `AdaptedClassifier` and `AdaptedRegressor` have in common."""

from __future__ import annotations

import warnings
from abc import ABCMeta, abstractmethod

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from ..masked_labels import is_masked
from .domains import FLOATS, domain_numbers, labels_of, split_domains
from .known_labels import weight_of_known
from .movement import check_transport
from .several_sources import fit_movement
from .trials import Trials

# Rows of a class that are drawn at least, as far as it has so many: an estimator may cut them into folds.
_LEAST_OF_CLASS = 5


def inner_has(method):
    """Whether the estimator inside has a method."""

    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), method)  # its AttributeError says what is missing
        return True

    return available_if(check)


class AdaptedEstimator(MetaEstimatorMixin, BaseEstimator, metaclass=ABCMeta):
    """An estimator that is trained on one domain and predicts on another."""

    # Domains travel with their rows through cross-validation; a target of its own does not, so that is for the user
    # to request.
    __metadata_request__fit = {"sample_domain": True}
    __metadata_request__predict = {"sample_domain": True}
    __metadata_request__score = {"sample_domain": True}

    def __init__(self, estimator, transport="auto", *, direction="source_to_target", random_state=None):
        self.estimator = estimator
        self.transport = transport
        self.direction = direction
        self.random_state = random_state

    #: What y holds, as `split_domains` calls it.
    _labels: str

    @abstractmethod
    def _check_estimator(self):
        """Raise if the estimator inside is of the wrong kind."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(self, X, y, *, X_target=None, y_target=None, sample_domain=None):
        """Learn the map between the domains, and train the estimator with it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the source; with `sample_domain`, rows of both domains.
        y : array-like of shape (n_samples,)
            Their labels. With `sample_domain`, labels of the target's rows are masked where they are not known: by NaN
            or None, and by -1 among classes. Known ones are used: those rows join the training set. With "auto" and
            classes they weigh more than rows of the source where the domains differ and nothing is done about it.
        X_target : array-like of shape (n_target, n_features), optional
            Rows of the target.
        y_target : array-like of shape (n_target,), optional
            Labels of `X_target`, masked in the same way.
        sample_domain : array-like of shape (n_samples,), optional
            Instead of `X_target`: the domain of each row of `X`, 0 or positive for the source and negative for the
            target. Unlike `X_target`, it can be cut into folds. Each of several sources is moved by a transport or
            account of its own, and weighs as it reaches the target; with `direction="target_to_source"` they are taken
            as one.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the target is missing, empty, given twice or of another width; if there are not two classes; if the
            target has labels that the source has not; if parameters are not valid.
        """
        check_transport(self)
        self._check_estimator()
        domains = split_domains(self, X, y, X_target, y_target, sample_domain, labels=self._labels)
        is_frozen = isinstance(self.estimator, FrozenEstimator)
        if is_frozen and self.direction == "source_to_target":
            raise ValueError(
                "A FrozenEstimator is not trained again, so that moving the source would change nothing. Move the "
                'target to it: direction="target_to_source".'
            )
        # Classes explain a shift by weights and labels to train with, which do not reach a frozen classifier.
        y0 = domains.y0 if self._labels == "classes" and not (is_frozen and self.transport == "auto") else None
        trials = None
        if not is_frozen:
            of_classes = self._labels == "classes"
            trials = Trials(self._trained, self._trained_plainly, domains, self.direction, of_classes)
        movement = fit_movement(self.transport, self.direction, domains, y0, self.random_state, trials)
        if is_frozen and movement.weights is not None:
            warnings.warn(
                f'The shift is best explained by weights ("{movement.name}"), which do not reach a FrozenEstimator: '
                "nothing is changed. Let it be trained.",
                UserWarning,
                stacklevel=2,
            )
        self._movement = movement
        self.transport_, self.chosen_ = movement.transport, movement.name
        self.evidence_, self.reason_ = movement.evidence, movement.reason
        if is_frozen:
            self._check_frozen(domains.y0)
            self.estimator_ = self.estimator
        else:
            self.estimator_ = self._trained_in_the_end(domains, movement)
        if hasattr(self.estimator_, "classes_"):
            self.classes_ = self.estimator_.classes_
        return self

    def _check_frozen(self, y0):
        known = self.estimator.classes_.tolist() if self._labels == "classes" else y0.tolist()
        if unseen := sorted({*y0.tolist()} - {*known}):
            raise ValueError(
                f"y has labels that the frozen classifier was not trained on: {unseen[:5]}; it knows {known[:10]}."
            )

    def _trained(self, domains, movement, weight_of_known=1.0):
        """The estimator, trained where the domains meet."""
        return self._train(clone(self.estimator), *self._training_set(domains, movement, weight_of_known))

    def _trained_in_the_end(self, domains, movement):
        """As `_trained`; rows of the target with known labels weigh more where nothing else is done."""
        if self._labels == "classes":
            weight = weight_of_known(movement.unexplained, len(domains.X0), domains.known1.sum())
            if weight > 1:
                try:
                    return self._trained(domains, movement, weight)
                except ValueError:  # as of a NuSVC, whose nu the weights can make infeasible
                    pass
        return self._trained(domains, movement)

    def _trained_plainly(self, X, y):
        return self._train(clone(self.estimator), X, y, None)

    def _training_set(self, domains, movement, weight_of_known=1.0):
        """The source, and the rows of the target that have labels, where they meet, and weights or None."""
        rows, labels, known = [movement.move(domains.X0, domains.domain0)], [domains.y0], domains.known1
        if movement.labelled_target is not None:
            # What an account believes of a row whose label is known does not matter.
            guessed_rows, guesses = (part[~known] for part in movement.labelled_target)
            rows, labels = [*rows, movement.move(guessed_rows, -1)], [*labels, guesses]
        if known.any():
            rows.append(movement.move(domains.X1[known], -1))
            labels.append(domains.y1[known].astype(domains.y0.dtype))
        weights = movement.weights
        if weights is None and known.any() and weight_of_known > 1:
            weights = np.ones(len(domains.X0))
        if weights is not None:
            weights = np.concatenate([weights, *(np.ones(len(part)) for part in rows[1:])])
            weights[len(weights) - known.sum() :] *= weight_of_known
        return np.concatenate(rows), np.concatenate(labels), weights

    def _train(self, estimator, X, y, weights):
        if weights is None:
            return estimator.fit(X, y)
        kept = weights > 0
        if len(np.unique(y[kept])) > 1:
            # libsvm takes a class whose rows all weigh nothing for another one.
            X, y, weights = X[kept], y[kept], weights[kept]
        last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
        if not has_fit_parameter(last, "sample_weight"):
            drawn = _systematic_sample(weights, check_random_state(self.random_state))
            if self._labels == "classes":
                drawn = np.concatenate([drawn, *(_missing_rows(y == c, weights, drawn) for c in np.unique(y))])
            return estimator.fit(X[drawn], y[drawn])
        if estimator is last:
            return estimator.fit(X, y, sample_weight=weights)
        with config_context(enable_metadata_routing=False):  # else the pipeline's steps would have to request them
            return estimator.fit(X, y, **{f"{estimator.steps[-1][0]}__sample_weight": weights})

    def move(self, X, *, sample_domain=None):
        """Rows as the estimator inside sees them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        sample_domain : array-like of shape (n_samples,), optional
            Their domains. By default all rows are of the target.

        Returns
        -------
        X_moved : ndarray or DataFrame of shape (n_samples, n_features)
            With `direction="source_to_target"` rows of the source are moved, otherwise those of the target.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        return self._named(self._movement.move(X, domain_numbers(sample_domain, len(X))))

    def _named(self, X):
        """Rows with the names of their columns, for an estimator that was trained with names before it came here."""
        if not hasattr(self.estimator_, "feature_names_in_") or not hasattr(self, "feature_names_in_"):
            return X
        import pandas as pd

        return pd.DataFrame(X, columns=self.feature_names_in_)

    def _ask(self, method, X, sample_domain):
        X = self.move(X, sample_domain=sample_domain)
        return getattr(self.estimator_, method)(X)

    def predict(self, X, *, sample_domain=None):
        """Predict rows of the target, or of the domains that `sample_domain` says.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        sample_domain : array-like of shape (n_samples,), optional
            Their domains, as in `fit`. By default all rows are of the target.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        return self._ask("predict", X, sample_domain)

    def _scored(self, measure, X, y, sample_weight, sample_domain):
        """A measure of the predictions of the target's rows, whose labels must be known."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        y = labels_of(y, len(X), "y")
        of_target = domain_numbers(sample_domain, len(X)) < 0
        # -1 is a label like any other where it is a class.
        classes = getattr(self, "classes_", np.array([])).tolist()
        masked = is_masked(y, self._labels) & [label not in classes for label in y.tolist()]
        if not of_target.any() or masked[of_target].any():
            raise ValueError(
                f"score needs the labels of the target's rows; of the {of_target.sum()} that there are, "
                f"{masked[of_target].sum()} are masked. Without them, use a scorer of rfadapt.model_selection; in "
                "cross-validation, give it as scoring=."
            )
        weights = None if sample_weight is None else np.asarray(sample_weight)[of_target]
        predicted = self.estimator_.predict(self._named(self._movement.move(X[of_target], -1)))
        return measure(np.array(y[of_target].tolist()), predicted, sample_weight=weights)


def _missing_rows(inside, weights, drawn) -> np.ndarray:
    """Numbers of the heaviest rows of a class that were not drawn, so many that it has a few rows."""
    lacking = max(_LEAST_OF_CLASS - int(inside[drawn].sum()), 0)
    left = np.setdiff1d(np.flatnonzero(inside & (weights > 0)), drawn)
    return left[np.argsort(-weights[left], kind="stable")[:lacking]]


def _systematic_sample(weights, random_state) -> np.ndarray:
    """Numbers of rows, each as often as it weighs, rounded up or down at random; a row of weight 1 is there once."""
    last = np.cumsum(np.asarray(weights, dtype=np.float64))
    marks = np.arange(random_state.random_sample(), last[-1], 1.0)
    return np.minimum(np.searchsorted(last, marks, side="right"), len(last) - 1)
