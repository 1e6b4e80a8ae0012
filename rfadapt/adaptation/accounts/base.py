"""What every account of a shift does, and the account that there is none."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.base import BaseEstimator


class Account(BaseEstimator):
    """The account that nothing has changed, and the interface of all others.

    Attributes
    ----------
    weights_ : ndarray of shape (n_source,) or None
        Weights of the source rows that it was fitted to, with mean 1; None where all weigh the same.
    labelled_target_ : tuple (rows, labels) or None
        Target rows that the account has labelled itself, to train on besides the source.

    Examples
    --------
    >>> from rfadapt.adaptation.accounts import Account
    >>> Account().fit([[0.0]], [1], [[5.0]]).transform([[2.0]])
    [[2.0]]
    """

    name = "nothing"
    #: Whether `fit` reads the labels; such accounts do not apply to regression.
    needs_classes = False
    #: Whether it is weighed only where no simpler account brings the domains together.
    is_last_resort = False
    #: Whether it can fit so much that it is weighed only with as many rows as a matrix of all directions has entries.
    is_flexible = False
    #: Whether it is taken wherever it explains the shift, because how well classes separate says nothing of it.
    goes_first = False

    #: Whether the target's rows are likelier after it than after what would be believed otherwise.
    is_likely_ = True
    #: Whether the rows speak for another account of the same kind as well.
    is_ambiguous_ = False
    weights_ = None
    labelled_target_ = None

    def fit(self, X0, y0, X1):
        """Learn how the target came from the source.

        Parameters
        ----------
        X0 : ndarray of shape (n_source, n_features)
        y0 : ndarray of shape (n_source,) or None
            Classes of the source rows; None for regression.
        X1 : ndarray of shape (n_target, n_features)

        Returns
        -------
        self : Account
        """
        return self

    def transform(self, X0):
        """Source rows as this account moves them."""
        return X0

    def inverse_transform(self, X1):
        """Target rows brought to the source."""
        return X1

    def weigh(self, X0, y0):
        """Weights of any source rows with labels `y0`, with mean 1, of shape (n_samples,)."""
        return np.ones(len(X0))

    def unweighed(self):
        """The same account, fitted as it is, that weighs no row it was fitted to."""
        other = copy.copy(self)
        other.weights_ = None
        return other

    def training_rows(self, X0, y0):
        """What to train on for the target, of the source rows that it was fitted to.

        Returns
        -------
        X : ndarray of shape (n_rows, n_features)
            The moved source rows, and behind them the target rows that the account has labelled.
        y : ndarray of shape (n_rows,)
        weights : ndarray of shape (n_rows,) or None
        """
        X = self.transform(X0)
        if self.labelled_target_ is None:
            return X, y0, self.weights_
        rows, labels = self.labelled_target_
        weights = None if self.weights_ is None else np.concatenate([self.weights_, np.ones(len(rows))])
        return np.concatenate([X, rows]), np.concatenate([y0, labels]), weights
