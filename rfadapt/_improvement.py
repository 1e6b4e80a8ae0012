"""Whether held-out rows show that something has been learned."""

from __future__ import annotations

import math

# Standard errors by which the held-out loss or the held-out rows' energy distance must be below that of the start for
# anything to count as learned. Few rows show some gains in the one only, some in the other.
_EVIDENCE = 1.0


def total(terms) -> float:
    """A sum of means: over pairs, or over the rows of either domain."""
    return sum(term.mean().item() for term in terms)


def is_below(after, before) -> bool:
    """Whether a sum of means is lower by more than the sampling error of the difference."""
    gains = [old - new for old, new in zip(before, after)]
    variance = sum(gain.var(correction=0).item() / len(gain) for gain in gains)
    return total(gains) > _EVIDENCE * math.sqrt(variance)


def has_learned(start, now, *, bound_energy) -> bool:
    """Whether the terms of the loss or of the energy distance, in this order, are below those of the start.

    With `bound_energy`, those of the energy distance must not be above them either.
    """
    strays = bound_energy and is_below(start[1], now[1])
    return not strays and any(is_below(after, before) for before, after in zip(start, now))
