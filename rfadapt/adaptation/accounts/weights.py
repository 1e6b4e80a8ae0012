"""Accounts that weigh the source's rows: other class proportions, and other frequencies of rows."""

from __future__ import annotations

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from ..._samples import drawn
from ...projection import Projection
from ..discrepancy import typical_square_distance
from .base import Account

_TOLERANCE = 1e-6
_MAX_ITER = 1000
_MAX_WEIGHT = 50.0
_LANDMARKS = 100
# Inverse strengths of regularisation of the classifier of domains, and the folds that choose one.
_STRENGTHS = [0.01, 0.1, 1.0, 10.0, 100.0]
_FOLDS = 3
# Rows of each domain that the weights are learned from.
_WEIGHED_ROWS = 2000


class ClassWeights(Account):
    r"""The account that the classes look the same and only their proportions have changed (target shift).

    The proportions :math:`\pi_1` of the target maximise its likelihood under a probabilistic classifier of the
    source, by expectation and maximisation [1]_; a source row of class c weighs :math:`\pi_1(c) / \pi_0(c)`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    proportions_ : ndarray of shape (n_classes,)
        Estimated proportions of the classes in the target.
    weights_ : ndarray of shape (n_source,)

    References
    ----------
    .. [1] Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
       Neural Computation 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.adaptation.accounts import ClassWeights
    >>> y0, y1 = np.repeat([0, 1], [50, 50]), np.repeat([0, 1], [20, 80])
    >>> noise = np.tile([-1.0, 1.0], 50)
    >>> account = ClassWeights().fit((9 * y0 + noise)[:, None], y0, (9 * y1 + noise)[:, None])
    >>> account.proportions_.round(1)
    array([0.2, 0.8])
    """

    name = "class weights"
    needs_classes = True

    def fit(self, X0, y0, X1):
        """As `Account.fit`; `y0` is needed."""
        projection = Projection.fit(X0, X1)
        self.classes_, index, counts = np.unique(y0, return_inverse=True, return_counts=True)
        prior = counts / len(y0)
        self._ratio = np.ones(len(prior))
        if len(prior) == 1:
            self.proportions_, self.weights_ = prior, np.ones(len(X0))
            return self
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_ITER))
        posterior = model.fit(projection.enter(X0), index).predict_proba(projection.enter(X1))
        self.proportions_ = _proportions(posterior, prior)
        self._ratio = self.proportions_ / prior
        self.weights_ = self._ratio[index]
        return self

    def weigh(self, X0, y0):
        """Weights of any source rows with labels `y0`; a class that was not there in `fit` weighs 1."""
        index = np.searchsorted(self.classes_, y0).clip(max=len(self.classes_) - 1)
        return np.where(self.classes_[index] == y0, self._ratio[index], 1.0)


def _proportions(posterior, prior):
    proportions = prior
    for _ in range(_MAX_ITER):
        responsibility = posterior * (proportions / prior)
        responsibility /= responsibility.sum(axis=1, keepdims=True)
        previous, proportions = proportions, responsibility.mean(axis=0)
        if np.abs(proportions - previous).max() < _TOLERANCE:
            break
    return proportions


class ImportanceWeights(Account):
    r"""The account that rows of some kinds have become more frequent (covariate shift).

    A classifier that tells the domains apart, logistic in Gaussian kernels at 100 rows, gives the ratio of densities
    [1]_; its regularisation is chosen by cross-validation.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Draws the rows.

    Attributes
    ----------
    weights_ : ndarray of shape (n_source,)
        Ratio of densities, at most 50, and brought to mean 1.
    effective_sample_size_ : float
        Share of the source rows that the weighted sample is worth: :math:`1 / \overline{w^2}`. Near zero, the target
        lies outside the source, and weights explain nothing.

    References
    ----------
    .. [1] Bickel, Brückner, Scheffer, "Discriminative learning under covariate shift", JMLR 2009.
    """

    name = "importance weights"

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X0, y0, X1):
        """As `Account.fit`."""
        random_state = check_random_state(self.random_state)
        self._projection = Projection.fit(X0, X1)
        z0, z1 = (self._projection.enter(drawn(X, random_state, _WEIGHED_ROWS)) for X in (X0, X1))
        rows, domain = np.concatenate([z0, z1]), np.repeat([0, 1], [len(z0), len(z1)])
        kernel = Nystroem(gamma=1 / typical_square_distance(rows, random_state),
                          n_components=min(_LANDMARKS, len(rows)), random_state=random_state)
        model = LogisticRegression(C=_STRENGTHS[0], max_iter=_MAX_ITER)
        if min(len(z0), len(z1)) >= _FOLDS:
            # Shuffled, as tables are often sorted.
            folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=random_state)
            model = GridSearchCV(model, {"C": _STRENGTHS}, cv=folds, scoring="neg_log_loss")
        self._model = make_pipeline(kernel, model).fit(rows, domain)
        self._odds = len(z1) / len(z0)
        self.weights_ = self.weigh(X0, y0)
        self.effective_sample_size_ = float(1 / np.square(self.weights_).mean())
        return self

    def weigh(self, X0, y0):
        """Weights of any source rows, with mean 1."""
        p = self._model.predict_proba(self._projection.enter(X0))
        weights = np.minimum(p[:, 1] / np.maximum(p[:, 0], 1e-9) / self._odds, _MAX_WEIGHT)
        return weights / weights.mean()
