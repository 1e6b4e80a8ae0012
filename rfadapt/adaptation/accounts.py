"""Simple accounts of a shift between domains: none, other class proportions, other weights, a map."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from .._samples import Samples, drawn
from ..geometry import fit_geometry
from ..projection import Projection
from ..rotation import LinearProblem, fit_rotation, linear_map
from ..velocity.affine import shrunk_covariances

_TOLERANCE = 1e-6
_MAX_ITER = 1000
_MAX_WEIGHT = 50.0
_LANDMARKS = 100
# Rows that one scale of distances is taken over.
_SCALE_ROWS = 500
# Rows of each domain that the weights are learned from.
_WEIGHED_ROWS = 2000


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
        logistic = LogisticRegression(max_iter=_MAX_ITER)
        model = GridSearchCV(logistic, {"C": [0.01, 0.1, 1.0, 10.0, 100.0]}, cv=3, scoring="neg_log_loss")
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


class AffineAccount(Account):
    """The account that the rows went through an affine map, as a drifting sensor's do.

    The optimal map between the Gaussians with the means and (shrunk) covariances of the samples, after a turn of the
    source if `turned`, in a mirror if `mirrored` (as by a sensor whose sign is reversed). In more than 60 features it
    moves rows in the 60 directions in which both samples together vary most.

    Parameters
    ----------
    turned : bool, default=False
        Whether the source is turned first, as exact transport and Procrustes agree on (`rfadapt.rotation`).
    mirrored : bool, default=False
        Whether it is also seen in a mirror.
    random_state : int, RandomState instance or None, default=None
        Draws the rows that are paired for the turn.

    Attributes
    ----------
    matrix_ : ndarray of shape (n_directions, n_directions)
        The linear part.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.adaptation.accounts import AffineAccount
    >>> X0 = np.random.default_rng(0).normal(size=(500, 2))
    >>> AffineAccount().fit(X0, None, X0 + [3.0, 0.0]).transform(np.zeros((1, 2))).round(2)
    array([[3., 0.]])
    """

    def __init__(self, turned=False, mirrored=False, random_state=None):
        self.turned = turned
        self.mirrored = mirrored
        self.random_state = random_state

    @property
    def name(self):
        return "mirrored affine" if self.mirrored else "turned affine" if self.turned else "affine"

    @property
    def is_last_resort(self):
        return self.mirrored

    @property
    def is_flexible(self):
        return self.turned or self.mirrored

    def fit(self, X0, y0, X1):
        """As `Account.fit`."""
        self._projection = Projection.fit(X0, X1)
        z0, z1 = (np.ascontiguousarray(self._projection.enter(X), dtype=np.float64) for X in (X0, X1))
        geometry, *moments = fit_geometry(Samples(z0), Samples(z1), "common")
        self._mean0, self._mean1, scale = (v.numpy() for v in (geometry.mean0, geometry.mean1, geometry.scale))
        covariances = (covariance.numpy() for covariance in shrunk_covariances(*moments))
        problem = LinearProblem((z0 - self._mean0) / scale, (z1 - self._mean1) / scale, *covariances)
        turn = np.eye(z0.shape[1])
        if self.turned or self.mirrored:
            turn = fit_rotation(problem, check_random_state(self.random_state), self.mirrored)
        self.matrix_ = linear_map(problem, turn)
        self._inverse = np.linalg.inv(self.matrix_)
        return self

    def transform(self, X0):
        """Source rows, moved to the target."""
        return self._projection.move(X0, lambda z: (z - self._mean0) @ self.matrix_.T + self._mean1)

    def inverse_transform(self, X1):
        """Target rows, moved to the source."""
        return self._projection.move(X1, lambda z: (z - self._mean1) @ self._inverse.T + self._mean0)


class TransportAccount(Account):
    """Any transport as an account, the flow for one.

    Parameters
    ----------
    transport : transport
        Not fitted; it is cloned.
    name : str, optional
        What to call it; the name of its class by default.
    is_last_resort : bool, default=False
        Whether it is weighed only where no simpler account brings the domains together.

    Attributes
    ----------
    transport_ : transport
        Fitted from the source to the target.
    """

    def __init__(self, transport, name=None, is_last_resort=False):
        self.transport = transport
        self.name = name or type(transport).__name__
        self.is_last_resort = is_last_resort

    @property
    def is_flexible(self):
        return self.is_last_resort

    def fit(self, X0, y0, X1):
        """As `Account.fit`."""
        self.transport_ = clone(self.transport).fit(X0, X1, y0=y0)
        return self

    def transform(self, X0):
        """Source rows, transported."""
        return self.transport_.transform(X0)

    def inverse_transform(self, X1):
        """Target rows, transported back."""
        return self.transport_.inverse_transform(X1)


def typical_square_distance(rows, random_state) -> float:
    """Median squared distance between two rows, over at most 500 of them; 1 where it vanishes."""
    from scipy.spatial.distance import pdist

    distances = pdist(drawn(rows, random_state, _SCALE_ROWS), "sqeuclidean")
    return float(np.median(distances)) or 1.0 if len(distances) else 1.0
