"""What the estimator itself says of an account: rows of the target with known classes, the way back, and weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from sklearn.model_selection import KFold

from .._samples import drawn
from ..projection import Projection
from .accounts import Account
from .class_aware import ClassAware
from .discrepancy import FEW_ROWS, apart
from .domains import Domains
from .movement import Movement

# Rows of each half of the source, at most, on which it is seen what refining gets wrong.
_REFINED_ROWS = 2000
# So many rows in a half are enough to tell without the other half.
_ENOUGH = 1000
# How many times as much as refining gets wrong it has to change: three of four of the changes are then right.
_MOST_RIGHT = 2.0
# Parts that the known labels of the target are cut into, to see which account they speak for.
_FOLDS = 3


@dataclass(frozen=True)
class Trials:
    """Models of an estimator, trained to weigh accounts by.

    Attributes
    ----------
    train : callable
        train(domains, movement) -> what is trained where the two domains meet.
    train_plain : callable
        train_plain(X, y) -> the same estimator, trained on these rows as they are.
    domains : Domains
    direction : str
        Which rows are moved.
    of_classes : bool
        Whether labels are classes, else numbers.
    """

    train: Callable
    train_plain: Callable
    domains: Domains
    direction: str
    of_classes: bool = True

    @property
    def knows_enough(self):
        """Whether there is a row with a known class for each fold."""
        return self.domains.known1.sum() >= _FOLDS

    def rights(self, make_account):
        """Which rows of the target with a known class get it, by cross-validation.

        make_account(known) -> account, where known marks the rows of the other folds.
        """
        domains = self.domains
        known = np.flatnonzero(domains.known1)
        # Folds have a row of every class, as far as there are enough.
        known = known[np.argsort(domains.y1[known].astype(domains.y0.dtype), kind="stable")]
        right = np.zeros(len(known), dtype=bool)
        for fold in range(_FOLDS):
            test = known[fold::_FOLDS]
            others = domains.known1.copy()
            others[test] = False
            movement = Movement.by_account(make_account(others), self.direction)
            rows = movement.move(domains.X1[test], -1)
            found = self._predicted(replace(domains, known1=others), movement, rows)
            if found is not None:
                right[fold::_FOLDS] = found == domains.y1[test].astype(domains.y0.dtype)
        return right

    def confirm(self, changed, plain, shift, by=0.0) -> bool:
        """Whether an account or movement finds the way back better than the plain one, by `by` at least.

        `shift` is the squared maximum mean discrepancy between the domains. With many rows of the target nothing is
        asked, and it is True: the way back takes the target's classes for the source's, without any shift, and what
        refining sees of the target's own shape is worth more then.
        """
        if len(self.domains.X1) > FEW_ROWS:
            return True
        return self._way_back(changed, apart(shift)) - self._way_back(plain, apart(shift)) >= by

    def learns(self, account, plain) -> bool:
        """Whether the estimator can be trained with an account, and then finds the labels that it is taught.

        Of the labels that the account gives the target's rows it must find as many as after the `plain` one, where it
        is not taught them. It finds fewer where it cannot hold what both domains show together, as one normal
        distribution for each class where a few rows lie far out. It cannot be trained where weights leave too little
        of a class.
        """
        if account.labelled_target_ is None:
            return account.weights_ is None or self._given(account) is not None
        taught, untaught = self._given(account), self._given(plain)
        if taught is None or untaught is None:
            return taught is not None
        labels = account.labelled_target_[1]
        return bool((taught == labels).sum() >= (untaught == labels).sum())

    def pays(self, refined) -> bool:
        """Whether a refinement changes more of the target's classes than it gets wrong, as far as the source tells.

        Each half of the source is taken for a target of the other, whose classes are known and which has not shifted.
        Where the estimator alone finds more of them than refining does, classes do not follow the shape of the rows.
        What refining changes in the target then has to be more than what it changes here, by twice what it loses here.
        """
        changed, lost = np.mean([self._refined_half(*half) for half in self._halves()], axis=0)
        before = self._given(refined.start_)
        if lost <= 0 or before is None:
            return True
        return bool((before != refined.labelled_target_[1]).mean() - changed > _MOST_RIGHT * lost)

    def _halves(self):
        """Rows of the source to learn from, and others to refine; the other way round as well where they are few."""
        y0, random_state = self.domains.y0, np.random.RandomState(0)
        order = random_state.permutation(len(y0))
        order = order[np.argsort(y0[order], kind="stable")]  # classes are in both, as far as they have two rows
        halves = [drawn(half, random_state, _REFINED_ROWS) for half in (order[::2], order[1::2])]
        return [halves] if len(halves[1]) >= _ENOUGH else [halves, halves[::-1]]

    def _refined_half(self, learned, others):
        """Shares of other rows of the source to which refining gives another class, and wrongly, less rightly."""
        X0, y0 = self.domains.X0, self.domains.y0
        if len(np.unique(y0[learned])) < 2:
            return 0.0, 0.0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is trained once more in the end
                plain = self.train_plain(X0[learned], y0[learned]).predict(X0[others])
        except ValueError:  # too few rows
            return 0.0, 0.0
        refined = ClassAware(random_state=0).fit(X0[learned], y0[learned], X0[others]).labelled_target_[1]
        return (plain != refined).mean(), (plain == y0[others]).mean() - (refined == y0[others]).mean()

    def gains(self, weighing) -> bool:
        """Whether the weights of an account make the estimator better where they say that the target's rows are.

        Rows of the source that are held out weigh as they do in training (importance weighted cross-validation:
        Sugiyama, Krauledat, Müller, JMLR 2007). Their errors, squared if they are of numbers, must be lower by more
        than the sampling error than without weights. They seldom are: what can bend to all of the source learns less
        from a few heavy rows.
        """
        domains, weights = self.domains, weighing.weights_
        if len(weights) < _FOLDS:
            return False
        gains = np.zeros(len(weights))
        for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(gains):
            weighed = copy.copy(weighing)
            weighed.weights_ = weights[train]
            movements = [Movement.by_account(account, self.direction) for account in (weighing.unweighed(), weighed)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is trained once more in the end
                of_train, held_out = domains.of_source(train), domains.of_source(test)
                found = [self._predicted(of_train, m, m.move(held_out.X0, held_out.domain0)) for m in movements]
            if any(labels is None for labels in found):
                return False
            before, after = (_errors(labels, held_out.y0, self.of_classes) for labels in found)
            gains[test] = weights[test] * (before - after)
        return bool(gains.mean() > gains.std() / np.sqrt(len(gains)))

    def _given(self, account):
        """The classes that the estimator gives the target's rows after an account, or None where it fails."""
        movement = Movement.by_account(account, self.direction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is trained once more in the end
            return self._predicted(self.domains, movement, movement.move(self.domains.X1, -1))

    def _predicted(self, domains, movement, rows):
        """The classes of rows where the domains meet by the estimator trained there, or None where it fails."""
        try:
            return self.train(domains, movement).predict(rows)
        except ValueError:
            return None

    def _way_back(self, movement, share_of_met) -> float:
        """How well the target's rows teach the source's classes, with the classes that a model gives them.

        There are two ways. On one, no row is moved: a movement that mixes up the classes leaves the source's for the
        target's there. Where the domains are far apart it leads nowhere, and the one where they meet counts instead.
        """
        # As if no class were known, as what was chosen does not know them either.
        domains = replace(self.domains, known1=np.zeros_like(self.domains.known1))
        if isinstance(movement, Account):
            movement = Movement.by_account(movement, self.direction)
        met0, met1 = movement.move(domains.X0, domains.domain0), movement.move(domains.X1, -1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are of rows that the user has not given
            given = self._predicted(domains, movement, met1)
            if given is None:  # worse than to teach nothing
                return -1.0
            keep = self._projection.keep
            as_they_are = self._taught(keep(domains.X1), given, keep(domains.X0))
            return (1 - share_of_met) * as_they_are + share_of_met * self._taught(keep(met1), given, keep(met0))

    @cached_property
    def _projection(self):
        """Onto the directions of the way back: a few rows teach nothing of very many."""
        return Projection.fit(self.domains.X0, self.domains.X1)

    def _taught(self, X1, given, X0):
        """Share of the source's rows whose class is found by a model of the target's rows, the mean over classes."""
        try:
            found = self.train_plain(X1, given).predict(X0)
        except ValueError:  # one class alone, or too few rows: they teach nothing
            return 0.0
        y0 = self.domains.y0
        return float(np.mean([(found[y0 == label] == label).mean() for label in np.unique(y0)]))


def _errors(found, labels, of_classes):
    return (found != labels).astype(float) if of_classes else np.square(found - labels)
