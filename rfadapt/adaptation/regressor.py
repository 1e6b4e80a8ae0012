"""A regressor that is trained on one domain and works on another."""

from __future__ import annotations

from sklearn.base import RegressorMixin, is_regressor
from sklearn.metrics import r2_score

from .adapted import AdaptedEstimator


class AdaptedRegressor(RegressorMixin, AdaptedEstimator):
    """A regressor that is trained on labelled rows of one domain and predicts rows of another.

    Parameters, methods and attributes are those of :class:`AdaptedClassifier`, but for the classes; unknown labels are
    masked with NaN, as -1 is a number like any other. The map looks at the
    numbers in `y` only where it is asked to: `RectifiedFlowTransport(coupling="joint")`.

    Parameters
    ----------
    estimator : regressor
        Trained on the moved source; wrapped in `sklearn.frozen.FrozenEstimator` it is left as it is, which needs
        `direction="target_to_source"`.
    transport : "auto", transport or account, default="auto"
        What moves the rows.
    direction : {"source_to_target", "target_to_source"}, default="source_to_target"
        Which rows are moved.
    random_state : int, RandomState instance or None, default=None
        For the choice, for drawing rows, and for a transport whose `random_state` is None.

    Attributes
    ----------
    estimator_ : regressor
        The trained (or frozen) regressor.
    transport_ : transport or account, or dict of them
        Fitted; with several sources, a dict by their numbers in `sample_domain`.
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

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from rfadapt import AdaptedRegressor, AffineTransport
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = X[:, 0]
    >>> model = AdaptedRegressor(LinearRegression(), AffineTransport()).fit(X, y, X_target=3 * X + 10)
    >>> model.score(3 * X + 10, y) > 0.99
    True
    """

    _labels = "numbers"

    def _check_estimator(self):
        if not is_regressor(self.estimator):
            raise ValueError(f"AdaptedRegressor needs a regressor; got {self.estimator!r}.")

    def score(self, X, y, sample_weight=None, *, sample_domain=None):
        """Coefficient of determination on rows of the target; arguments as in `AdaptedClassifier.score`."""
        return self._scored(r2_score, X, y, sample_weight, sample_domain)
