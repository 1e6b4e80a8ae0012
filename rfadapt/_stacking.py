"""How far several potentials leave the affine map: as far as the rows that each has not seen bear out together."""

from __future__ import annotations

import torch

from ._improvement import has_learned, total

# Weights of the potentials in their mean with the affine one. The loss is convex in the weight, so that the first
# that is no better ends the search.
_SHARES = (1.0, 0.85, 0.7, 0.5, 0.35, 0.2, 0.1)


class Stack:
    """Potentials between the same domains, each with the rows that were held out from it.

    The mean of a potential and the affine one is as convex as they are, and what is learned of few rows is mostly too
    much of the right thing: some of it is better than all or nothing. One weight for all potentials is chosen by the
    held-out rows of all of them, which together also say whether anything has been learned.

    References
    ----------
    Wolpert, "Stacked generalization", Neural Networks 1992.
    """

    #: Checks of a potential on its held-out rows that are usually enough to find its weight.
    usual_checks = 2

    def __init__(self):
        self._members, self.start = [], None

    def add(self, potential, start, monitor):
        """Add a potential, the affine one that it began as, and a function from potentials to their held-out terms."""
        self.start = start if self.start is None else self.start
        self._members.append(_Member(potential, monitor, monitor(start)))

    def shrunk(self):
        """The potentials, each shrunk towards the affine one; none where nothing is learned."""
        start = _pooled(member.at_start for member in self._members)
        best, lowest = None, total(start[0])
        for share in _SHARES:
            potentials, terms = zip(*(member.at(share) for member in self._members))
            now = _pooled(terms)
            if total(now[0]) >= lowest and best is not None:
                break
            if total(now[0]) < lowest:
                best, lowest = (potentials, now), total(now[0])
        if best is None or not has_learned(start, best[1], bound_energy=True):
            return []
        return list(best[0])


class _Member:
    def __init__(self, potential, monitor, at_start):
        self._potential, self._monitor, self.at_start = potential, monitor, at_start
        self._known = {}

    def at(self, share):
        """The potential with this weight, and its held-out terms."""
        if share not in self._known:
            potential = self._potential if share == 1 else self._potential.shrunk(share)
            self._known[share] = potential, self._monitor(potential)
        return self._known[share]


def _pooled(terms):
    """Terms of the loss and of the energy distance, of the rows of all members."""
    return tuple(tuple(map(torch.cat, zip(*parts))) for parts in zip(*terms))
