"""The account that the classes have other proportions, and that all rows have moved by one offset."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from ..._samples import drawn
from ...projection import Projection
from .maps import AffineAccount
from .measured import measured
from .weights import ClassWeights

# Rows of the target that the mixture is fitted to, and offsets that it is begun with.
_ROWS = 1000
_STARTS = 200
# Rounds for every start, and for those that promise something: within so much likelihood a row (nats) of the best.
_SHORT, _LONG = 15, 200
_PROMISING = 1.0
_TOLERANCE = 1e-6
# Likelihood a row (nats) within which two mixtures explain the target alike.
_ALIKE = 0.1
# Share of the rows that two mixtures must give to other classes to be two explanations.
_OTHER = 0.1
# How many times as far another explanation must move the rows for the nearer one to be believed.
_FARTHER = 2.0


class OffsetClasses(ClassWeights):
    r"""The account that the classes have other proportions, or are gone, and that all rows moved by one offset.

    The target is a mixture of the source's classes, as normal distributions with one (shrunk) covariance, moved by one
    offset b. Expectation and maximisation find the proportions and the offset together, as

    .. math:: \pi_c = \tfrac{1}{n_1} \sum_i r_{ic}, \qquad b = \bar x_1 - \sum_c \pi_c \mu_c

    where :math:`r_{ic}` are the posterior probabilities of the classes. It is begun with many offsets: none, the one
    between the means, and those from a class to a cluster of the target. Of all that are about as likely, the smallest
    one is taken: a target of one class is where any class may have come from.

    Moments say less: where classes are gone, the affine map of the moments spreads the ones that are left over all.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Draws the rows and the clusters.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    proportions_ : ndarray of shape (n_classes,)
        Estimated proportions of the classes in the target; as if one more row of each had been seen.
    offset_ : ndarray of shape (n_directions,)
        In the at most 60 directions in which both samples together vary most.
    weights_ : ndarray of shape (n_source,)
    is_likely_ : bool
        Whether the target's rows are likelier than with the source's proportions, and clearly likelier where those are
        moved by an offset too, and at all where the affine map of the moments moves them.
    is_ambiguous_ : bool
        Whether other proportions are about as likely, with an offset less than twice as large.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.adaptation.accounts import OffsetClasses
    >>> y0, y1 = np.repeat([0, 1, 2], 100), np.repeat([0, 2], [50, 150])
    >>> rows = np.random.default_rng(0).normal(size=(500, 1))
    >>> account = OffsetClasses(0).fit(rows[:300] + 9 * y0[:, None], y0, rows[300:] + 9 * y1[:, None] + 2)
    >>> account.proportions_.round(2), account.offset_.round()
    (array([0.25, 0.  , 0.74]), array([2.]))
    """

    name = "class weights, offset"
    goes_first = True

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X0, y0, X1):
        """As `Account.fit`; `y0` is needed."""
        random_state = check_random_state(self.random_state)
        self._projection = Projection.fit(X0, X1, features=measured(X0, X1))
        if not self._projection.basis.size:  # nothing can have moved
            self.offset_, self.is_likely_ = np.zeros(0), False
            return super().fit(X0, y0, X1)
        self.classes_, index, counts = np.unique(y0, return_inverse=True, return_counts=True)
        prior = counts / len(y0)
        z1 = np.asarray(self._projection.enter(X1), dtype=np.float64)
        rows = drawn(z1, random_state, _ROWS)
        mixture = self._mixture(X0, index, rows)
        found = mixture.explanations(prior, random_state)
        best = found[0]
        others = [other for other in found[1:] if np.abs(other.proportions - best.proportions).sum() / 2 > _OTHER]
        self.is_ambiguous_ = any(other.length < _FARTHER * best.length for other in others)
        moments = self._mixture(AffineAccount().fit(X0, y0, X1).transform(X0), index, rows)
        simpler = max(moments.likelihood(prior), mixture.moved(prior, best) + _ALIKE)
        self.is_likely_ = bool(best.likelihood > simpler)
        self.offset_ = best.offset @ mixture.unwhiten
        # A class of which no row was seen is rare, not impossible.
        self.proportions_ = (len(z1) * best.proportions + 1) / (len(z1) + len(prior))
        self._ratio = self.proportions_ / prior
        self.weights_ = self._ratio[index]
        return self

    def _mixture(self, X0, index, rows):
        z0 = np.asarray(self._projection.enter(X0), dtype=np.float64)
        means = np.stack([z0[index == c].mean(axis=0) for c in range(index.max() + 1)])
        return _Mixture(means, z0 - means[index], rows)

    def transform(self, X0):
        """Source rows, moved to the target."""
        return self._projection.move(X0, lambda z: z + self.offset_)

    def inverse_transform(self, X1):
        """Target rows, moved to the source."""
        return self._projection.move(X1, lambda z: z - self.offset_)


class _Explanation(NamedTuple):
    """An offset and proportions, with the log-likelihood of a row of the target."""

    likelihood: float
    offset: np.ndarray  # where the classes have unit covariance
    proportions: np.ndarray

    @property
    def length(self):
        return float(np.linalg.norm(self.offset))


class _Mixture:
    """Normal distributions around means, with the covariance of the residuals, as a density of rows."""

    def __init__(self, means, residuals, rows):
        whiten, self.unwhiten = _whitening(residuals, rows.var() or 1.0)
        center = means.mean(axis=0)  # far from the origin, squares would round off what differs
        self._means, self._rows = (means - center) @ whiten, (rows - center) @ whiten
        self._mean, self._products = self._rows.mean(axis=0), self._rows @ self._means.T
        # What no offset and no proportions change, but for a constant.
        self._common = np.linalg.slogdet(whiten)[1] - np.square(self._rows).sum(axis=1).mean() / 2

    def likelihood(self, proportions):
        """Log-likelihood of a row without an offset."""
        return self._fit(np.zeros(len(self._mean)), proportions, 1).likelihood

    def moved(self, proportions, explanation):
        """Log-likelihood of a row with these proportions and the offset that suits them best."""
        offsets = explanation.offset, self._mean - proportions @ self._means
        return max(self._fit(offset, proportions, _LONG, keeps_proportions=True).likelihood for offset in offsets)

    def explanations(self, prior, random_state):
        """Explanations that are about as likely as the likeliest, the smallest offset first."""
        short = [self._fit(offset, prior, _SHORT) for offset in self._starts(prior, random_state)]
        least = max(fit.likelihood for fit in short) - _PROMISING
        found = [self._fit(fit.offset, fit.proportions, _LONG) for fit in short if fit.likelihood >= least]
        least = max(fit.likelihood for fit in found) - _ALIKE
        return sorted((fit for fit in found if fit.likelihood >= least), key=lambda fit: fit.length)

    def _starts(self, prior, random_state):
        n_classes = len(self._means)
        n_clusters = max(min(n_classes, len(self._rows), _STARTS // n_classes), 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of rows that are the same
            clusters = KMeans(n_clusters, n_init=1, random_state=random_state).fit(self._rows)
        places = np.concatenate([self._mean[None], clusters.cluster_centers_])
        yield np.zeros(len(self._mean))
        yield self._mean - prior @ self._means
        yield from (places[:, None] - self._means).reshape(-1, len(self._mean))

    def _fit(self, offset, proportions, n_rounds, keeps_proportions=False):
        last = -np.inf
        for _ in range(n_rounds):
            scores = self._products + np.log(proportions) - np.square(self._means + offset).sum(axis=1) / 2
            per_row = logsumexp(scores, axis=1)
            likelihood = per_row.mean() + self._mean @ offset + self._common
            if likelihood - last < _TOLERANCE:
                break
            last = likelihood
            found = np.maximum(np.exp(scores - per_row[:, None]).mean(axis=0), 1e-12)
            offset = self._mean - found @ self._means
            proportions = proportions if keeps_proportions else found
        return _Explanation(likelihood, offset, proportions)


def _whitening(rows, other_variance):
    """Matrices after which the covariance of centred rows, shrunk, is that of a unit, and back.

    Rows that do not vary at all are as if they had some of the other variance.
    """
    covariance = ledoit_wolf(rows, assume_centered=True)[0]
    variances, axes = np.linalg.eigh(covariance)
    # A direction in which no row differs from its class would count without end.
    deviations = np.sqrt(np.maximum(variances, 1e-6 * (variances.mean() or other_variance)))
    return axes / deviations, (axes * deviations).T
