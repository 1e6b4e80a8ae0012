"""Classes of the target from the source's labels and the target's own shape, refined over rounds."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state

from ..target_labels import Committee
from .accounts import Account


class ClassAware(Account):
    r"""An account, refined by the target's own classes: the target rows are labelled, to be trained on as well.

    A kernel classifier f of all rows, by least squares on the labelled source, is held to three things [1]_ [2]_:
    the mean of f's features is the same in both domains, over all rows, where the source's classes get the proportions
    that the target has [4]_, and over those of each class (maximum mean discrepancy; the target's classes are those
    that f gave in the round before); f changes little between neighbours in the graph of both domains; and its norm is
    small:

    .. math:: \min_f \sum_{i \in \text{source}} w_i \|y_i - f(x_i)\|^2 + 10\, \operatorname{tr} f' M f
              + \operatorname{tr} f' L f + 0.1\, \|f\|_K^2

    where w are the account's weights, or such that every class weighs alike if it has none,
    with kernels at 600 landmark rows, so that time grows with the number of rows and no matrix has more than
    600 columns [3]_; the graph has at most 10 000 rows of each domain.

    Rows of at most 20 features are taken as they are. Of more, f is the mean of two such classifiers, which share the
    target's classes from round to round: one sees the 60 directions of largest variance, the other the angles in the
    first 20, and neighbours are near in angle. Where one of them mistakes a class for another, the other seldom does.

    For some rows it hangs on details where the rounds end. So all this is done at three scales, of 5, 10 and 20
    neighbours and kernels the narrower the more they are, with landmarks of their own. Then the three vote; where they
    contradict each other, the classifier of the moved source alone has a vote too, which weighs as much as the share of
    the target's known labels that it finds. If none are known, further rounds begin with what was voted, of 3
    neighbours and of kernels that become narrower once more. They find the edges of the classes better, but would not
    do to begin with: from nothing, narrow kernels often end with two classes taken for each other.

    Parameters
    ----------
    start : Account, default=Account()
        Moves and weighs the source first. Fitted here (a clone is not made).
    random_state : int, RandomState instance or None, default=None
        Draws the landmarks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    labelled_target_ : tuple (rows, labels)
    margin_ : float
        Mean distance between the two largest of a target row's scores, which are folded back where they are beyond 0
        or 1, where f takes the account at its word that the classes have the proportions of the source as it weighs
        it: how well the classes separate there if the account is right.
    plain_margin_ : float
        The same of a classifier of the moved source alone, without the target's rows: how sure it is already.
    source_accuracy_ : float
        Share of the source rows whose class this f finds.
    has_collapsed_ : bool
        Whether classes of the target have vanished over the rounds: the entropy of their proportions is less than half
        of that before.

    References
    ----------
    .. [1] Long, Wang, Ding, Pan, Yu, "Adaptation regularization: a general framework for transfer learning", IEEE
       TKDE 2014.
    .. [2] Wang, Feng, Chen, Yu, Huang, Yu, "Visual domain adaptation with manifold embedded distribution
       alignment", ACM Multimedia 2018.
    .. [3] Williams, Seeger, "Using the Nyström method to speed up kernel machines", NIPS 2000.
    .. [4] Yan, Ding, Li, Wang, Xu, Zuo, "Mind the class weight bias: weighted maximum mean discrepancy for
       unsupervised domain adaptation", CVPR 2017.
    """

    name = "class-aware"
    needs_classes = True

    def __init__(self, start=None, random_state=None):
        self.start = start
        self.random_state = random_state

    def fit(self, X0, y0, X1):
        """As `Account.fit`; `y0` is needed."""
        self.start_ = (self.start or Account()).fit(X0, y0, X1)
        self._refine(X0, y0, X1)
        return self

    @classmethod
    def refining(cls, fitted, X0, y0, X1, random_state, y1=None, known1=None):
        """A refinement of an account that is already fitted to these rows.

        Parameters
        ----------
        fitted : Account
        X0, y0, X1 : ndarray
            As in `fit`.
        random_state : int, RandomState instance or None
        y1 : ndarray of shape (n_target,), optional
            Classes of the target rows, of which only those that `known1` marks are looked at: f is fitted to them too,
            and they keep their class in every round.
        known1 : ndarray of bool of shape (n_target,), optional

        Returns
        -------
        self : ClassAware
        """
        self = cls(fitted, random_state)
        self.start_ = fitted
        self._refine(X0, y0, X1, y1, known1)
        return self

    def _refine(self, X0, y0, X1, y1=None, known1=None):
        self.weights_ = self.start_.weights_
        self.classes_, index = np.unique(y0, return_inverse=True)
        known = np.array([], dtype=int) if y1 is None else np.flatnonzero(known1)
        known_classes = known if y1 is None else np.searchsorted(self.classes_, y1[known].astype(self.classes_.dtype))
        moved = self.start_.transform(X0)
        random_state = check_random_state(self.random_state)
        committee = Committee(moved, index, X1, known, known_classes, random_state, self.weights_)
        as_told = committee.label(np.bincount(index, self.weights_) / len(index))
        self.plain_margin_, self.margin_ = _margin(committee.plain_scores1), _margin(as_told.scores1)
        self.source_accuracy_ = float((committee.scores(moved).argmax(axis=1) == index).mean())
        classes1 = committee.sharpened(committee.label().classes1)
        self.has_collapsed_ = _entropy(classes1) < _entropy(committee.plain_scores1.argmax(axis=1)) / 2
        self.labelled_target_ = X1, self.classes_[classes1]

    def transform(self, X0):
        """Source rows as the first account moves them."""
        return self.start_.transform(X0)

    def inverse_transform(self, X1):
        """Target rows as the first account brings them back."""
        return self.start_.inverse_transform(X1)


def _margin(scores) -> float:
    """Mean distance between the two largest scores of a row.

    Scores are learned to be 0 or 1. Far from the source they shoot over, which is no sign of being sure: what is
    beyond 0 or 1 is folded back.
    """
    ordered = np.sort(1 - np.abs(1 - np.abs(scores)), axis=1)
    return float((ordered[:, -1] - ordered[:, -2]).mean()) if scores.shape[1] > 1 else 1.0


def _entropy(labels) -> float:
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())
