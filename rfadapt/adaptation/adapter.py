"""A transport as a step of a pipeline."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from .domains import FLOATS, domain_numbers, split_domains
from .movement import check_transport
from .several_sources import fit_movement


class DomainAdapter(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Makes the rows of two domains alike, as a transformer.

    In `fit`, a transport between the domains is learned; `fit_transform` returns all rows where the domains meet, for
    the next step of a pipeline to train on. Rows that come later are of the target, unless `sample_domain` says
    otherwise. Labels are not looked at; :class:`AdaptedClassifier` does more with them.

    Parameters
    ----------
    transport : "auto", transport or account
        What moves the rows. With "auto", an account that only weighs rows moves nothing, and a warning says so.
    direction : {"source_to_target", "target_to_source"}, default="source_to_target"
        Which rows are moved.
    random_state : int, RandomState instance or None, default=None
        For the choice, and for a transport whose `random_state` is None.

    Attributes
    ----------
    transport_ : transport or account, dict of them, or None
        Fitted; with several sources, a dict by their numbers in `sample_domain`; None where there was no target to be
        fitted to.
    chosen_ : str
        Name of what moves the rows.
    evidence_ : list of dict
        What was weighed for it, with "auto"; else empty.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `X` has any.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import AffineTransport, DomainAdapter
    >>> X = np.array([[0.0], [2.0], [10.0], [14.0]])
    >>> domain = np.array([1, 1, -1, -1])
    >>> DomainAdapter(AffineTransport()).fit_transform(X, sample_domain=domain).round(3).ravel()
    array([10., 14., 10., 14.])
    """

    __metadata_request__fit = {"sample_domain": True}
    __metadata_request__transform = {"sample_domain": True}

    def __init__(self, transport, *, direction="source_to_target", random_state=None):
        self.transport = transport
        self.direction = direction
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X, y=None, *, X_target=None, sample_domain=None):
        """Learn the map between the domains.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of the source; with `sample_domain`, rows of both domains.
        y : ignored
        X_target : array-like of shape (n_target, n_features), optional
            Rows of the target.
        sample_domain : array-like of shape (n_samples,), optional
            Instead of `X_target`: the domain of each row of `X`, 0 or positive for the source and negative for the
            target. Each of several sources is moved by a map of its own; with `direction="target_to_source"` they are
            taken as one.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If the target is empty, given twice or of another width; if parameters are not valid.

        Warns
        -----
        UserWarning
            If neither `X_target` nor `sample_domain` is given: no row is ever moved then.
        """
        check_transport(self)
        if X_target is None and sample_domain is None:
            validate_data(self, X, dtype=FLOATS)
            warnings.warn(
                "DomainAdapter.fit got neither X_target nor sample_domain, and will move no row.",
                UserWarning,
                stacklevel=2,
            )
            self._movement, self.transport_, self.chosen_, self.evidence_ = None, None, "nothing", []
            return self
        domains = split_domains(self, X, None, X_target, None, sample_domain, labels=None)
        movement = fit_movement(self.transport, self.direction, domains, None, self.random_state)
        if movement.weighing:
            warnings.warn(
                f'The shift is best explained by weights ("{movement.weighing[0]}"), which a transformer cannot hand '
                "on, and which move no row. AdaptedClassifier uses them.",
                UserWarning,
                stacklevel=2,
            )
        self._movement = movement
        self.transport_, self.chosen_, self.evidence_ = movement.transport, movement.name, movement.evidence
        return self

    def fit_transform(self, X, y=None, *, X_target=None, sample_domain=None):
        """Fit, and return the rows of `X` where the domains meet; without `sample_domain` they are of the source."""
        self.fit(X, y, X_target=X_target, sample_domain=sample_domain)
        if sample_domain is None:
            sample_domain = np.ones(_num_samples(X))
        return self.transform(X, sample_domain=sample_domain)

    def transform(self, X, *, sample_domain=None):
        """Rows where the domains meet.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        sample_domain : array-like of shape (n_samples,), optional
            Their domains, as in `fit`. By default all rows are of the target.

        Returns
        -------
        X_moved : ndarray of shape (n_samples, n_features)
            With `direction="source_to_target"` rows of the source are moved, otherwise those of the target.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS)
        domain = domain_numbers(sample_domain, len(X))
        return X if self._movement is None else self._movement.move(X, domain)
