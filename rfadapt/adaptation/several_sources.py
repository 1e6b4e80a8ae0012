"""Several sources: an account of its own for each, and weights by how well each reaches the target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.utils import check_random_state

from .accounts import Account
from .discrepancy import left_between
from .evidence import refined_entry, settled
from .movement import Movement


@dataclass(frozen=True)
class SeveralMovements:
    """A fitted movement for each source, by its number, as one."""

    movements: dict
    name: str
    weights: np.ndarray
    labelled_target: tuple | None = None
    evidence: list = field(default_factory=list)
    reason: str = ""

    @classmethod
    def fit(cls, transport, domains, y0, random_state, trials=None):
        """Learn an account or transport from each source to the target; arguments as in `Movement.fit`.

        Every source weighs as its rows are near the target once they have moved: the inverse of the maximum mean
        discrepancy that is left, at least of sampling noise. With "auto" and classes, all moved sources together are
        then refined by the target's own classes, as one source would be; where the target has few rows and the way back
        contradicts all this, nothing is moved or weighed (see `choose_account`).
        """
        random_state = check_random_state(random_state)
        numbers, parts = np.unique(domains.domain0), {}
        moved, weights = np.array(domains.X0), np.ones(len(domains.X0))
        for number in numbers.tolist():
            rows = domains.domain0 == number
            part = domains.of_source(rows)
            labels = None if y0 is None else y0[rows]
            seed = random_state.randint(np.iinfo(np.int32).max)
            parts[number] = Movement.fit(transport, "source_to_target", part, labels, seed, refined=False)
            moved[rows] = parts[number].move(part.X0, part.domain0)
            weights[rows] = 1 / left_between(moved[rows], domains.X1, random_state)
            if parts[number].weights is not None:
                weights[rows] *= parts[number].weights
        weights /= weights.mean()
        whole = cls(
            parts,
            name=", ".join(f"{part.name} (source {n})" for n, part in parts.items()),
            weights=weights,
            evidence=[
                row | {"name": f"{row['name']} (source {n})"} for n, part in parts.items() for row in part.evidence
            ],
            reason="; ".join(f"source {n}: {part.reason}" for n, part in parts.items()),
        )
        labels_target = isinstance(transport, str) or any(part.labelled_target is not None for part in parts.values())
        if y0 is None or not labels_target:
            return whole
        met = replace(domains, X0=moved)
        if not isinstance(transport, str):
            return whole._refined(met, y0, random_state)
        trials_met = None if trials is None else replace(trials, domains=met)
        chosen = whole._refined(met, y0, random_state, trials_met, may_refuse=True)
        if trials is None or trials.knows_enough:
            return chosen
        nothing = whole._undone()
        shift = left_between(domains.X0, domains.X1, random_state)
        return chosen if trials.confirm(chosen, nothing, shift) else nothing

    def _undone(self):
        """The same where no source is moved or weighed."""
        parts = {n: Movement.by_account(Account(), part.direction) for n, part in self.movements.items()}
        names = [f"{part.name} (source {n})" for n, part in parts.items()]
        evidence = [row | {"taken": row["name"] in names} for row in self.evidence]
        reason = f"{self.reason}; but the way back from the target contradicts all of them together"
        return replace(
            self, movements=parts, name=", ".join(names), weights=np.ones(len(self.weights)), evidence=evidence,
            reason=reason,
        )

    def _refined(self, domains, y0, random_state, trials=None, may_refuse=False):
        """The same with the target's rows labelled from all sources together, which have moved already."""
        start = Account()
        start.weights_ = self.weights
        entry = refined_entry(start, domains.X0, y0, domains.X1, random_state)
        account, is_refined = entry["refined"], True
        if may_refuse:
            left = left_between(domains.X0, domains.X1, random_state)
            account, is_refined, _ = settled([entry], domains.y1, domains.known1, trials, left)
        if not is_refined:
            return self
        reason = f"{self.reason}; of all of them together, the classes of the target are refined"
        return replace(self, name=account.name, labelled_target=account.labelled_target_, reason=reason)

    @property
    def unexplained(self):
        """Always 0: what is left of each source is in the weights already."""
        return 0.0

    @property
    def weighing(self):
        """Names of the accounts that weigh the source's rows."""
        return [name for part in self.movements.values() for name in part.weighing]

    @property
    def transport(self):
        """What was fitted, by the number of the source."""
        return {number: part.transport for number, part in self.movements.items()}

    def move(self, X, domain) -> np.ndarray:
        """Rows as they are where the domains meet, as `Movement.move`."""
        domain = np.broadcast_to(domain, len(X))
        unseen = sorted({*domain[domain >= 0].tolist()} - {*self.movements})
        if unseen:
            raise ValueError(
                f"sample_domain has sources that fit has not seen: {unseen[:5]}; it saw {list(self.movements)[:10]}. "
                "Rows of a new source need a new fit."
            )
        moved = np.array(X)
        for number, part in self.movements.items():
            rows = domain == number
            if rows.any():
                moved[rows] = part.move(moved[rows], domain[rows])
        return moved


def fit_movement(transport, direction, domains, y0, random_state, trials=None):
    """The movement of one source, or of each of several; those that the target moves to are taken as one."""
    if direction == "source_to_target" and len(np.unique(domains.domain0)) > 1:
        return SeveralMovements.fit(transport, domains, y0, random_state, trials)
    return Movement.fit(transport, direction, domains, y0, random_state, trials)
