"""Which account of a shift to act on, by what the rows show without any label of the target."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..transport import RectifiedFlowTransport
from .accounts import Account, AffineAccount, ClassWeights, ImportanceWeights, TransportAccount
from .class_aware import ClassAware
from .discrepancy import Judge

# Share of the discrepancy that an account which explains the shift may leave, besides sampling noise.
_UNEXPLAINED = 0.2
# Share of the source rows that an account's weights must leave (effective sample size): below it the target lies
# outside the source, and a handful of rows stands for all of it.
_LEAST_LEFT = 0.05
# Share of what simpler accounts leave that a last resort may leave.
_CLEARLY_LESS = 0.5
# Margin between classes in the target with which the source's classifier is sure enough. Beyond it refining found
# nothing to add in any task, and where the rule itself has changed it took away.
_SURE = 0.6
# Share of the margin before that a refinement must keep: where it is much less sure of the target's classes than the
# source alone was, what it was held to contradicts the source.
_LEAST_MARGIN = 0.55
# Share of the score by which a more complex account must be better.
_BETTER = 0.1
# Probability, if it were luck, below which another way finds more of the known labels: four to none, or six to one.
_BY_LUCK = 0.07
# Share of the known labels that a refinement must find more to show that there is need of it.
_CLEARLY_MORE = 0.1
# By how much the way back must be better where labels of the target are known and no more of them are found. They help
# the estimator without any account too, which then has more to lose.
_CLEARLY_BACK = 0.05
# What entries hold besides the evidence.
_PRIVATE = ("account", "refine", "refined")


@dataclass(frozen=True)
class Choice:
    """An account that was chosen, and why.

    Attributes
    ----------
    account : Account
        Fitted to all rows.
    evidence : list of dict
        For each candidate, the simplest first: "name"; "discrepancy", the squared maximum mean discrepancy that it
        leaves between rows that it has not seen; "explains", whether that is little enough; "effective_sample_size",
        the share of the source rows that its weights leave; "score" of its refinement by the target's classes (None
        where it was not refined); "seconds"; "taken", whether it is the one.
    reason : str
    """

    account: Account
    evidence: list = field(default_factory=list)
    reason: str = ""


def default_candidates(random_state=None) -> list:
    """The accounts that are weighed by default, the simplest first."""
    flow = RectifiedFlowTransport(scaling="common", random_state=random_state)
    return [
        Account(), ClassWeights(), ImportanceWeights(random_state), AffineAccount(random_state=random_state),
        AffineAccount(turned=True, random_state=random_state), AffineAccount(mirrored=True, random_state=random_state),
        TransportAccount(flow, "flow", is_last_resort=True),
    ]


def choose_account(X0, y0, X1, *, y1=None, known1=None, trials=None, random_state=None, candidates=None, refined=True):
    """The account of the shift between two domains that the unlabelled rows speak for.

    1. If the domains cannot be told apart (a permutation test of the maximum mean discrepancy), no row is moved or
       weighed.
    2. Each account is learned from one half of the rows and judged by the discrepancy that it leaves between the
       others. One that leaves at most a fifth of it, besides sampling noise, explains the shift, unless its weights
       leave less than 5 % of the source. Two are a last resort, as they explain too much: a mirror image, in which a
       cloud without much shape looks alike, and the flow. They must also leave half of what any simpler account leaves,
       and are not weighed where one of those leaves no more than noise. These two, and a turn, are not weighed with
       fewer rows than a matrix of all directions has entries either. If no account explains the shift, no row is
       moved or weighed: acting on a wrong account costs more than it gains.
    3. With classes, doing nothing and each account that explains the shift are refined by the target's own
       classes (`ClassAware`). The score is the margin between the classes in the target, the mean of before and after
       refining, times the share of the source rows that the refined classifier gets right; for this score it takes the
       account at its word that the classes keep their (weighed) proportions. The best score wins; within 10 %, the
       simpler account. It is kept unrefined where a classifier of the moved source alone separates the classes of the
       target already (unless refining finds over a tenth of the known labels more). A refinement that loses classes of
       the target does not count. Without classes, or where refining nearly halves the margin, the simplest account that
       explains the shift wins, unrefined.
    4. At most 300 target rows show little of their own shape, and what was chosen must be confirmed on the way back:
       the estimator, trained on the target's rows alone with the classes that it gives them after the account, must
       find the source's classes at least as well (the mean of the shares of each) as with those that it gives them
       after nothing. Otherwise no row is moved or weighed. The way goes between the rows as they are, but the farther
       the domains are apart, the more between the moved ones. Where labels of the target are known, of which no more
       are found than after nothing (by cross-validation), it must be better by 0.05.
    5. What was chosen is also dropped where the estimator cannot be trained with it or, taught the classes that a
       refinement gives the target's rows, finds fewer of them than untaught: it cannot hold what both domains show
       together, as a normal distribution for each class where some rows lie far out.
    6. Known labels of the target take part in the refinement, and decide otherwise where another account, refined or
       not, finds more of them, and hardly by luck (a sign test, p < 0.07).

    Parameters
    ----------
    X0 : ndarray of shape (n_source, n_features)
    y0 : ndarray of shape (n_source,) or None
        Classes; None for regression.
    X1 : ndarray of shape (n_target, n_features)
    y1 : ndarray of shape (n_target,), optional
        Classes of the target, of which only those that `known1` marks are looked at.
    known1 : ndarray of bool of shape (n_target,), optional
    trials : Trials, optional
        Trains the estimator with accounts, for the way back and for the known labels.
    random_state : int, RandomState instance or None, default=None
        Draws the halves, and what the default candidates draw.
    candidates : list of Account, optional
        The accounts to weigh, not fitted, the simplest first; `default_candidates` by default. Doing nothing is
        always weighed.
    refined : bool, default=True
        Whether the account comes with the refinement that was chosen for it, or as it was before.

    Returns
    -------
    choice : Choice

    Notes
    -----
    Discrepancies are taken over at most 1000 rows of each domain, in the 60 directions in which both vary most.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.adaptation.evidence import choose_account
    >>> X0 = np.random.default_rng(0).gamma(2.0, size=(500, 2))
    >>> choose_account(X0[:250], None, X0[250:], random_state=0).account.name
    'nothing'
    >>> choose_account(X0[:250], None, X0[250:] + 3, random_state=0).account.name
    'affine'
    """
    random_state = check_random_state(random_state)
    if candidates is None:
        candidates = default_candidates(random_state.randint(np.iinfo(np.int32).max))
    candidates = [a for a in candidates if type(a) is not Account and not (y0 is None and a.needs_classes)]
    judge = Judge(X0, y0, X1, random_state)
    nothing = Account().fit(X0, y0, X1)
    evidence = [_entry(nothing, judge.shift, judge.shift <= judge.noise, 0.0)]
    is_classes = y0 is not None and len(np.unique(y0)) > 1
    told_apart = judge.shift > judge.noise
    for candidate in candidates if told_apart else []:
        least_left = min(entry["discrepancy"] for entry in evidence)
        if candidate.is_last_resort and least_left <= judge.noise:
            continue
        if candidate.is_flexible and judge.n_rows < judge.n_directions**2:
            continue
        began = time.perf_counter()
        left = judge.discrepancy(candidate)
        explains = left <= judge.noise + _UNEXPLAINED * judge.shift
        explains &= not candidate.is_last_resort or left <= _CLEARLY_LESS * least_left
        account = clone(candidate).fit(X0, y0, X1)
        entry = _entry(account, left, explains, time.perf_counter() - began)
        entry["explains"] &= entry["effective_sample_size"] >= _LEAST_LEFT
        evidence.append(entry)
    explaining = [entry for entry in evidence[1:] if entry["explains"]]
    if is_classes:
        entries = [evidence[0], *explaining]
        for entry in entries:
            began = time.perf_counter()
            entry |= _refinement(entry["account"], X0, y0, X1, random_state)
            entry["seconds"] += time.perf_counter() - began
        account, is_refined, reason = settled(entries, y1, known1, trials, judge.shift)
        taken = account.start_ if is_refined else account
        return Choice(account if refined else taken, _public(evidence, taken), reason)
    if explaining:
        best = explaining[0]["account"]
        return Choice(best, _public(evidence, best), f"{best.name} is the simplest account that explains it")
    reason = "no account explains the shift" if told_apart else "the domains cannot be told apart"
    return Choice(nothing, _public(evidence, nothing), reason)


def refined_entry(account, X0, y0, X1, random_state) -> dict:
    """An entry of the evidence for a fitted account that is not weighed against others, refined."""
    return _entry(account, np.nan, True, 0.0) | _refinement(account, X0, y0, X1, random_state)


def _refinement(account, X0, y0, X1, random_state):
    """What an entry knows of the refinement of its account by the target's classes."""
    seed = random_state.randint(np.iinfo(np.int32).max)
    refine = partial(ClassAware.refining, account, X0, y0, X1, seed)
    refined = refine()
    return {"refine": refine, "refined": refined, "score": _score(refined)}


def settled(entries, y1, known1, trials, shift):
    """The account of the best of refined entries, whether it is its refinement, and why.

    The first entry is what to fall back to; `shift` is what it leaves. The other arguments are as in `choose_account`.
    """
    ways = [(entry, is_refined) for entry in entries for is_refined in (False, True)]
    chosen, is_refined, reason = _by_classes(entries)
    taken = next(k for k, way in enumerate(ways) if way[0] is chosen and way[1] == is_refined)
    if trials is not None:
        found = [_known_labels_found(*way, trials, y1) for way in ways] if trials.knows_enough else None
        taken, reason = _tried(ways, taken, reason, found, trials, shift)
    entry, is_refined = ways[taken]
    account = entry["account"]
    if is_refined:
        is_known = known1 is not None and known1.any()
        account = entry["refine"](y1, known1) if is_known else entry["refined"]
    if trials is not None and taken != 0 and not trials.learns(account, entries[0]["account"]):
        return entries[0]["account"], False, f"{reason}, but the estimator cannot hold what it is taught"
    return account, is_refined, reason


def _tried(ways, taken, reason, found, trials, shift):
    """Number of the way that the way back and the known labels leave or put in the place of `taken`, and the reason.

    Ways are entries, each unrefined and refined; `found` are the known labels that each of them finds, None if there
    are too few.
    """
    nothing, (entry, is_refined) = 0, ways[taken]
    if found is not None and not is_refined and _is_sure(entry):
        if found[taken + 1].mean() > found[taken].mean() + _CLEARLY_MORE:
            taken, is_refined, reason = taken + 1, True, f"after {entry['name']}, refined, more known classes are found"
    if taken != nothing:
        changed, plain = entry["refined"] if is_refined else entry["account"], ways[nothing][0]["account"]
        finds_more = found is None or found[taken].sum() > found[nothing].sum()
        if not trials.confirm(changed, plain, shift, 0.0 if finds_more else _CLEARLY_BACK):
            taken, reason = nothing, f"{reason}, but the way back to the source contradicts it"
    if found is not None and (other := _surely_better(found, taken)) is not None:
        taken, (entry, is_refined) = other, ways[other]
        reason = f"{entry['name']}{', refined by its classes,' * is_refined} finds more of the known classes"
    return taken, reason


def _score(refined):
    """How well the classes of the target separate; None where refining has lost some of them."""
    if refined.has_collapsed_:
        return None
    # A refinement separates what it takes for classes in any case: what there was before counts as much.
    return (refined.plain_margin_ + refined.margin_) / 2 * refined.source_accuracy_


def _is_sure(entry):
    """Whether a classifier of the moved source alone separates the classes of the target already."""
    return entry["score"] is not None and entry["refined"].plain_margin_ >= _SURE


def _by_classes(entries):
    """Of entries for doing nothing and for what explains the shift, the best, whether it is refined, and why."""
    scored = [entry for entry in entries if entry["score"] is not None]
    if not scored:
        return entries[0], False, "after every account, refining loses classes of the target"
    best = scored[0]
    for entry in scored[1:]:
        if entry["score"] > (1 + _BETTER) * best["score"]:
            best = entry
    reason = f"after {best['name']}, the classes of the target separate best"
    if _is_sure(best):
        return best, False, f"{reason}, and need no refinement"
    if best["refined"].margin_ < _LEAST_MARGIN * best["refined"].plain_margin_:
        # Classes so unclear do not tell one account from another either.
        simplest = next(iter(entries[1:]), best)
        return simplest, False, f"refining blurs the classes of the target, so {simplest['name']} is taken as it is"
    return best, True, reason


def _known_labels_found(entry, is_refined, trials, y1):
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


def _entry(account, discrepancy, explains, seconds):
    weights = account.weights_
    return {
        "name": account.name, "discrepancy": float(discrepancy), "explains": bool(explains),
        "effective_sample_size": 1.0 if weights is None else float(1 / np.square(weights).mean()),
        "score": None, "seconds": seconds, "account": account,
    }


def _public(evidence, taken):
    return [
        {key: entry[key] for key in entry if key not in _PRIVATE} | {"taken": entry["account"] is taken}
        for entry in evidence
    ]
