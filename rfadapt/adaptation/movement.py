"""The map that an adapter learns: of the source's rows to the target, or of the target's rows to the source."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from .._random import seeded
from ..base import BaseTransport
from .accounts import Account
from .evidence import choose_account

DIRECTIONS = ("source_to_target", "target_to_source")


@dataclass(frozen=True)
class Movement:
    """A fitted transport or account, and which rows it moves."""

    transport: BaseTransport | Account
    direction: str
    backwards: bool  # whether the rows are moved by the inverse
    name: str
    evidence: list = field(default_factory=list)
    reason: str = ""

    @classmethod
    def fit(cls, transport, direction, domains, y0, random_state, trials=None, refined=True):
        """Learn from two domains.

        A transport is fitted in the direction in which it is used, so that it needs no inverse. Accounts explain how
        the target came from the source, and are inverted where it is the target that moves. `trials` and `refined` are
        passed on to `choose_account`.
        """
        backwards = direction == "target_to_source"
        X0, X1 = domains.X0, domains.X1
        if isinstance(transport, str):
            n_samples, smaller = min((len(X0), "source"), (len(X1), "target"))
            if n_samples < 2:
                raise ValueError(
                    'transport="auto" needs at least 2 rows of each domain; '
                    f"got n_samples = {n_samples} of the {smaller}."
                )
            known = {} if y0 is None else {"y1": domains.y1, "known1": domains.known1}
            choice = choose_account(X0, y0, X1, **known, trials=trials, random_state=random_state, refined=refined)
            return cls.by_account(choice.account, direction, choice.evidence, choice.reason)
        fitted = clone(transport)
        if random_state is not None:
            seeded(fitted, int(check_random_state(random_state).randint(np.iinfo(np.int32).max)))
        if isinstance(transport, Account):
            fitted.fit(X0, y0, X1)
            return cls.by_account(fitted, direction, reason="it was given")
        if fitted._reads_numbers:
            y0 = domains.y0
        if backwards:
            # The target is the transport's own source: all classes of that are needed, but not all numbers.
            fitted.fit(X1, X0, y0=domains.labels1 if fitted._reads_numbers else None, y1=y0)
        else:
            fitted.fit(X0, X1, y0=y0, y1=domains.labels1)
        return cls(fitted, direction, False, type(fitted).__name__, reason="it was given")

    @classmethod
    def by_account(cls, account, direction, evidence=(), reason=""):
        """What a fitted account does."""
        return cls(account, direction, direction == "target_to_source", account.name, list(evidence), reason)

    @property
    def weights(self):
        """Weights of the source's rows, or None."""
        return self.transport.weights_ if isinstance(self.transport, Account) else None

    @property
    def unexplained(self):
        """Squared maximum mean discrepancy that was found and is not acted on; 0 where something is done about it."""
        taken = next((entry for entry in self.evidence if entry["taken"]), None)
        is_left = taken is not None and not taken["explains"] and self.labelled_target is None
        return taken["discrepancy"] if is_left else 0.0

    @property
    def weighing(self):
        """The account's name in a list if it weighs the source's rows; else an empty list."""
        return [] if self.weights is None else [self.name]

    @property
    def labelled_target(self):
        """Rows of the target and the labels that an account gave them, or None."""
        return self.transport.labelled_target_ if isinstance(self.transport, Account) else None

    def move(self, X, domain) -> np.ndarray:
        """Rows as they are where the two domains meet.

        `domain` is one number for all rows, or one for each: 0 or positive for the source, negative for the target.
        """
        is_source = np.asarray(domain) >= 0
        moving = np.broadcast_to(is_source == (self.direction == "source_to_target"), len(X))
        if not moving.any():
            return X
        function = self.transport.inverse_transform if self.backwards else self.transport.transform
        if moving.all():
            return np.asarray(function(X))
        moved = X.copy()
        moved[moving] = function(X[moving])
        return moved


def check_transport(estimator) -> None:
    """Whether `transport` and `direction` are what they should be."""
    name, transport, direction = type(estimator).__name__, estimator.transport, estimator.direction
    if not (isinstance(transport, (BaseTransport, Account)) or isinstance(transport, str) and transport == "auto"):
        raise ValueError(
            f'The transport of {name} must be "auto" or a transport, as in {name}(..., AffineTransport()); got '
            f"{transport!r}."
        )
    if direction not in DIRECTIONS:
        raise ValueError(f"The direction of {name} must be one of {', '.join(DIRECTIONS)}; got {direction!r}.")
