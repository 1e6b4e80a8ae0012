"""Two samples told apart by a classifier."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import check_random_state

from ._rows import two_samples


def domain_auc(X, Y, *, estimator=None, cv=5, max_samples=2000, random_state=None):
    """How well a classifier tells two samples apart: cross-validated area under the ROC curve.

    Parameters
    ----------
    X, Y : array-like, sparse matrix or Tensor of shape (n, n_features), (m, n_features)
        The two samples.
    estimator : classifier, optional
        By default a logistic regression on 200 Nystroem features of a Gaussian kernel, the data standardised.
        It sees mean, scale, correlation and shape, and it is smooth: it does not reach 1.0 merely because one
        sample is rounded and the other is not, as trees do.
    cv : int
        Number of folds; fewer where a sample has fewer rows. Equal rows of the two samples are kept in one
        fold, as otherwise a classifier that remembers one of them is wrong about the other, and equal samples
        score below 0.5.
    max_samples : int or None
        Use at most so many rows of each sample, drawn at random without replacement.
    random_state : int, RandomState instance or None
        Draws rows and folds, and seeds the default classifier.

    Returns
    -------
    auc : float
        0.5: indistinguishable to this classifier (chance may take it a little below); 1.0: told apart without
        error.

    Raises
    ------
    ValueError
        If the samples are not 2-D and finite with the same number of features, or one has fewer than 2 rows.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.metrics import domain_auc
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> domain_auc(X, X, random_state=0), domain_auc(X, X + 10, random_state=0)
    (0.5, 1.0)
    """
    random_state = check_random_state(random_state)
    X, Y = two_samples(X, Y, max_samples, random_state)
    if min(len(X), len(Y), cv) < 2:
        raise ValueError(
            f"domain_auc needs at least 2 rows of each sample and cv >= 2; got {len(X)} and {len(Y)} rows, "
            f"cv={cv}."
        )
    cv = min(cv, len(X), len(Y))
    rows, domain = np.concatenate([X, Y]), np.repeat([0, 1], [len(X), len(Y)])
    fold = _folds(rows, domain, cv, random_state)
    if estimator is None:
        # A kernel has no more components than the smallest training part has rows.
        n_components = min(200, len(rows) - int(np.bincount(fold).max()))
        kernel = Nystroem(n_components=n_components, random_state=random_state.randint(2**31 - 1))
        logistic = LogisticRegression(C=0.01, max_iter=1000)
        # Of rows that are all equal the kernel leaves rounding errors, which scaling would make features of.
        rounded = FunctionTransformer(np.round, kw_args={"decimals": 8})
        estimator = make_pipeline(StandardScaler(), kernel, rounded, StandardScaler(), logistic)
    scorer = get_scorer("roc_auc")
    scores = [
        scorer(clone(estimator).fit(rows[fold != k], domain[fold != k]), rows[fold == k], domain[fold == k])
        for k in range(cv)
    ]
    return float(np.mean(scores))


def _folds(rows, domain, cv, random_state):
    """A fold for every row: both domains spread evenly, equal rows of the two domains together in pairs."""
    known = {}
    value = np.array([known.setdefault(row.tobytes(), len(known)) for row in rows])
    copy = np.empty_like(value)
    for label in (0, 1):
        values = value[domain == label]
        order = np.argsort(values, kind="stable")
        first = np.searchsorted(values[order], values[order])
        copy[np.flatnonzero(domain == label)[order]] = np.arange(len(values)) - first
    # The k-th copy of a value in one domain goes with its k-th copy in the other.
    group = np.unique(value * len(rows) + copy, return_inverse=True)[1].ravel()
    kind = np.bincount(group, weights=2 * domain - 1)  # -1: only in X, 0: a pair, 1: only in Y
    shuffled = random_state.permutation(len(kind))
    # Dealing out pairs between the rows of X and those of Y leaves no fold without either.
    fold = np.empty(len(kind), dtype=np.intp)
    fold[shuffled[np.argsort(kind[shuffled], kind="stable")]] = np.arange(len(kind)) % cv
    return fold[group]
