"""How well the classes of the target separate after an account, and which account to take, refined or not, by that."""

from __future__ import annotations

from functools import partial

import numpy as np

from .class_aware import ClassAware
from .discrepancy import apart

# Margin between classes in the target with which the source's classifier is sure enough. Beyond it refining found
# nothing to add in any task, and where the rule itself has changed it took away.
_SURE = 0.6
# Share of the margin before that a refinement must keep: where it is much less sure of the target's classes than the
# source alone was, what it was held to contradicts the source.
_LEAST_MARGIN = 0.55
# Share of the score by which a more complex account must be better than one that leaves the domains alike, and by which
# any must not be worse where scores tell little.
_BETTER = 0.1
# The same share for a map that can do least, above which there is no doubt.
_CLEARLY_BETTER = 0.15


def refinement(account, X0, y0, X1, random_state) -> dict:
    """What an entry of the evidence knows of the refinement of its fitted account by the target's classes."""
    seed = random_state.randint(np.iinfo(np.int32).max)
    refine = partial(ClassAware.refining, account, X0, y0, X1, seed)
    refined = refine()
    return {"refine": refine, "refined": refined, "score": _score(refined)}


def _score(refined):
    """How well the classes of the target separate; None where refining has lost some of them."""
    if refined.has_collapsed_:
        return None
    # A refinement separates what it takes for classes in any case: what there was before counts as much.
    return (refined.plain_margin_ + refined.margin_) / 2 * refined.source_accuracy_


def is_sure(entry) -> bool:
    """Whether a classifier of the moved source alone separates the classes of the target already."""
    return entry["score"] is not None and entry["refined"].plain_margin_ >= _SURE


def separates_clearly(entry, before) -> bool:
    """Whether classes separate clearly better than `before` after a map that neither turns nor bends.

    Such a map can hardly bring classes together that are not the same, as turns, mirror images, flows and weights can.
    """
    is_plain_map = entry["account"].weights_ is None and not entry["account"].is_flexible
    scores = entry["score"], before["score"]
    return is_plain_map and None not in scores and scores[0] > (1 + _CLEARLY_BETTER) * scores[1]


def best_separated(entries):
    """Of entries for doing nothing and for what explains the shift, the best, whether it is refined, and why."""
    scored = [entry for entry in entries if entry["score"] is not None]
    if not scored:
        return entries[0], False, "after every account, refining loses classes of the target"
    best = scored[0]
    for entry in scored[1:]:
        if entry["score"] > _lead(best) * best["score"]:
            best = entry
    reason = f"after {best['name']}, the classes of the target separate best"
    if is_sure(best):
        return best, False, f"{reason}, and need no refinement"
    if best["refined"].margin_ < _LEAST_MARGIN * best["refined"].plain_margin_:
        # Classes so unclear do not tell one account from another either, unless they are still less clear after it.
        least = best["score"] / _lead(best)
        simplest = next((entry for entry in scored if entry is not entries[0] and entry["score"] >= least), best)
        return simplest, False, f"refining blurs the classes of the target, so {simplest['name']} is taken as it is"
    return best, True, reason


def _lead(entry):
    """What the score of another account must exceed, as a multiple of that of this one, to be clearly better.

    The more an account leaves unexplained, the less is its simplicity worth.
    """
    return 1 + _BETTER * (1 - apart(entry["discrepancy"]))
