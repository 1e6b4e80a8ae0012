"""What known labels of the target, and the way back to the source, change in the choice of an account.

Besides, what a row with such a label weighs where no account is acted on.

Ways are pairs of an entry of the evidence and whether its account is refined: of each entry the unrefined one, and
right behind it the refined one.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.stats import binomtest

from .separation import is_sure, separates_clearly

# Share of the known labels that a refinement must find more to show that there is need of it.
_CLEARLY_MORE = 0.1
# Probability, if it were luck, below which another way finds more of the known labels: four to none, or six to one.
_BY_LUCK = 0.07
# By how much the way back must be better where labels of the target are known and no more of them are found. They help
# the estimator without any account too, which then has more to lose.
_CLEARLY_BACK = 0.05
# What all known rows of the target weigh together, as a share of the source's rows and of the squared maximum mean
# discrepancy that nothing explains: a quarter of the source where the domains do not overlap.
_SHARE_OF_SHIFT = 0.25
# What one of them weighs at most: few rows that weigh much say what these few rows are.
_MOST_OF_ONE = 2.0


def after_trials(ways, taken, reason, trials, y1, shift):
    """Number of the way that is taken after all, and why.

    Parameters
    ----------
    ways : list of tuple (entry, is_refined)
        The first is the one to fall back to.
    taken : int
        Number of the way that was chosen without trials.
    reason : str
        Why it was.
    trials : Trials
    y1 : ndarray of shape (n_target,) or None
        Classes of the target, of which only known ones are looked at.
    shift : float
        Squared maximum mean discrepancy between the domains, as the first way leaves them.

    Returns
    -------
    taken : int
    reason : str
    """
    found = [_found(*way, trials, y1) for way in ways] if trials.knows_enough else None
    nothing, (entry, is_refined) = 0, ways[taken]
    if found is not None and not is_refined and is_sure(entry):
        if found[taken + 1].mean() > found[taken].mean() + _CLEARLY_MORE:
            taken, is_refined, reason = taken + 1, True, f"after {entry['name']}, refined, more known classes are found"
    if taken != nothing:
        changed, plain = entry["refined"] if is_refined else entry["account"], ways[nothing][0]["account"]
        finds_more = found is None or found[taken].sum() > found[nothing].sum()
        by = 0.0 if finds_more else _CLEARLY_BACK
        # Where classes are gone, there is no way back to all of them.
        is_clear = finds_more and (entry["account"].goes_first or separates_clearly(entry, ways[nothing][0]))
        if not is_clear and not trials.confirm(changed, plain, shift, by):
            taken, reason = nothing, f"{reason}, but the way back to the source contradicts it"
    if found is not None and (other := _surely_better(found, taken)) is not None:
        taken, (entry, is_refined) = other, ways[other]
        reason = f"{entry['name']}{', refined by its classes,' * is_refined} finds more of the known classes"
    return taken, reason


def weight_of_known(unexplained, n_source, n_known) -> float:
    """Weight of a target row whose label is known, where a source row weighs 1.

    What mixture of the errors on both samples bounds the error on the target best depends on how far the domains are
    apart: the farther, the more its few rows should count (Ben-David, Blitzer, Crammer, Kulesza, Pereira, Vaughan, "A
    theory of learning from different domains", Machine Learning 2010). Where they are alike, every row counts the same.

    Parameters
    ----------
    unexplained : float
        Squared maximum mean discrepancy between the domains that is left, and that no account explains.
    n_source, n_known : int
        Numbers of rows.

    Returns
    -------
    weight : float
        From 1 to 2.

    Examples
    --------
    >>> from rfadapt.adaptation.known_labels import weight_of_known
    >>> [weight_of_known(unexplained, n_source=600, n_known=10) for unexplained in (0.0, 0.1, 0.2)]
    [1.0, 1.5, 2.0]
    """
    return min(max(1.0, _SHARE_OF_SHIFT * unexplained * n_source / max(n_known, 1)), _MOST_OF_ONE)


def _found(entry, is_refined, trials, y1):
    """Which rows of the target with a known class get it with an entry, refined or not, by cross-validation."""
    return trials.rights(partial(entry["refine"], y1) if is_refined else lambda known1: entry["account"])


def _surely_better(found, taken):
    """Number of the way that finds more of the known labels than the one that is taken, and hardly by luck, or None.

    Few labels would otherwise choose by luck; of several such ways, the one that is surest.
    """
    luck = [_luck(by_this, found[taken]) for by_this in found]
    surest = int(np.argmin(luck))
    return surest if luck[surest] < _BY_LUCK else None


def _luck(found, before):
    """Probability of gaining so many of the labels on which the two differ if both were as good (a sign test)."""
    gained, differ = int((found & ~before).sum()), int((found != before).sum())
    return binomtest(gained, differ, alternative="greater").pvalue if differ else 1.0
