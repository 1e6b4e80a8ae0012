"""Which account of a shift to act on, by what the rows of both domains show."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from ..projection import are_commensurable
from ..transport import RectifiedFlowTransport
from .accounts import Account, AffineAccount, ClassWeights, ImportanceWeights, OffsetClasses, TransportAccount
from .discrepancy import FEW_ROWS, Judge
from .known_labels import after_trials
from .separation import best_separated, refinement

# Share of the discrepancy that an account which explains the shift may leave, besides sampling noise.
_UNEXPLAINED = 0.2
# Share of the source rows that an account's weights must leave (effective sample size): below it the target lies
# outside the source, and a handful of rows stands for all of it.
_LEAST_LEFT = 0.05
# Share of what simpler accounts leave that a last resort may leave.
_CLEARLY_LESS = 0.5
# What entries hold besides the evidence.
_PRIVATE = ("account", "refine", "refined")
_NO_GAIN = ", but the estimator has nothing to gain by it"


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


def default_candidates(random_state=None, scaling="common") -> list:
    """The accounts that are weighed by default, the simplest first; `scaling` is the flow's."""
    # One potential: a flow is weighed often, and seldom taken.
    flow = RectifiedFlowTransport(scaling=scaling, n_estimators=1, random_state=random_state)
    return [
        Account(), ClassWeights(), ImportanceWeights(random_state), OffsetClasses(random_state),
        AffineAccount(random_state=random_state),
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
       fewer rows than a matrix of all directions has entries either, nor, without classes, with at most 300 rows of the
       target. No account moves categories and counts, features of few values that are the same in both domains. If no
       account explains the shift, no row is moved or weighed: acting on a wrong account costs more than it gains.
    3. That classes with other proportions, or some of them, were moved by one offset (`OffsetClasses`) also has to be
       likelier than what the moments say, and clearly likelier than an offset alone. Where it then explains the shift,
       it is taken as it is, its weights as far as point 7 allows: points 4 and 5 look at all classes, of which some may
       be gone. Where other proportions are about as likely with an offset less than twice as large, no row is moved or
       weighed.
    4. With classes, doing nothing and each account that explains the shift are refined by the target's own
       classes (`ClassAware`). The score is the margin between the classes in the target, the mean of before and after
       refining, times the share of the source rows that the refined classifier gets right; for this score it takes the
       account at its word that the classes keep their (weighed) proportions. The best score wins; within 10 %, less
       the more it leaves unexplained, the simpler account. It is kept unrefined where a classifier of the moved source
       alone separates the classes of the target already (unless refining finds over a tenth of the known labels more).
       A refinement that loses classes of the target does not count. Where refining nearly halves the margin, the
       simplest account that explains the shift, and with which the score is within the same 10 %, wins unrefined.
       The refinement also has to pay: between halves of the source, where nothing has shifted, it may find fewer
       classes than the estimator alone. Then it has to change more of the target's classes than it changes there, by
       twice what it loses there. Otherwise classes do not follow the shape of the rows, and the simplest account that
       explains the shift without looking at classes is taken unrefined, or nothing where that had the best score.
       Without classes, the simplest that explains it.
    5. At most 300 target rows show little of their own shape, and what was chosen must be confirmed on the way back:
       the estimator, trained on the target's rows alone with the classes that it gives them after the account, must
       find the source's classes at least as well (the mean of the shares of each) as with those that it gives them
       after nothing. Otherwise no row is moved or weighed. The way goes between the rows as they are, but the farther
       the domains are apart, the more between the moved ones. It is not asked for an affine map that neither turns nor
       mirrors and after which the score is higher by 15 %: the way between rows as they are cannot lead back where the
       classes of the one domain are in the places of others. Where labels of the target are known, of which no more
       are found than after nothing (by cross-validation), it is always asked, and must be better by 0.05.
    6. What was chosen is also dropped where the estimator cannot be trained with it or, taught the classes that a
       refinement gives the target's rows, finds fewer of them than untaught: it cannot hold what both domains show
       together, as a normal distribution for each class where some rows lie far out.
    7. Weights that no refinement goes with must make the estimator better at held-out rows of the source, which weigh
       as they say. Otherwise they are left out: most estimators learn the same without them, and from more rows.
    8. Known labels of the target take part in the refinement, and decide otherwise where another account, refined or
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
        Trains the estimator with accounts, for the way back, the known labels and weights.
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

    All of this looks at distances: features that are not commensurable (`rfadapt.projection`) are brought to one unit
    first.

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
        scaling = "common" if are_commensurable(X0, X1) else "feature"
        candidates = default_candidates(random_state.randint(np.iinfo(np.int32).max), scaling)
    candidates = [a for a in candidates if type(a) is not Account and not (y0 is None and a.needs_classes)]
    judge = Judge(X0, y0, X1, random_state)
    evidence = _weighed(candidates, judge, X0, y0, X1)
    nothing, explaining = evidence[0], [entry for entry in evidence[1:] if entry["explains"]]
    if y0 is not None and len(np.unique(y0)) > 1:
        entries = [nothing, *explaining]
        knows_enough = trials is not None and trials.knows_enough
        # Where one goes first, how the classes separate decides nothing, unless known labels may overrule it.
        if knows_enough or not any(entry["account"].goes_first for entry in entries):
            for entry in entries:
                began = time.perf_counter()
                entry |= refinement(entry["account"], X0, y0, X1, random_state)
                entry["seconds"] += time.perf_counter() - began
        account, is_refined, reason = settled(entries, y1, known1, trials, judge.shift)
        taken = account.start_ if is_refined else account
        return Choice(account if refined else taken, _public(evidence, taken), reason)
    reason = "no account explains the shift" if judge.tells_apart else "the domains cannot be told apart"
    if explaining:
        best = explaining[0]["account"]
        reason = f"{best.name} is the simplest account that explains it"
        if trials is None or best.weights_ is None or trials.gains(best):
            return Choice(best, _public(evidence, best), reason)
        reason += _NO_GAIN
    return Choice(nothing["account"], _public(evidence, nothing["account"]), reason)


def _weighed(candidates, judge, X0, y0, X1):
    """Entries for doing nothing and, if the domains can be told apart, for the candidates that are worth a look."""
    evidence = [_entry(Account().fit(X0, y0, X1), judge.shift, judge.shift <= judge.noise, 0.0)]
    for candidate in candidates if judge.tells_apart else []:
        least_left = min(entry["discrepancy"] for entry in evidence)
        if candidate.is_last_resort and least_left <= judge.noise:
            continue
        # Without classes nothing can confirm what it makes of few rows.
        has_enough = judge.n_rows >= judge.n_directions**2 and (y0 is not None or len(X1) > FEW_ROWS)
        if candidate.is_flexible and not has_enough:
            continue
        began = time.perf_counter()
        left = judge.discrepancy(candidate)
        explains = left <= judge.noise + _UNEXPLAINED * judge.shift
        explains &= not candidate.is_last_resort or left <= _CLEARLY_LESS * least_left
        account = clone(candidate).fit(X0, y0, X1)
        entry = _entry(account, left, explains, time.perf_counter() - began)
        entry["explains"] &= entry["effective_sample_size"] >= _LEAST_LEFT and account.is_likely_
        evidence.append(entry)
    return evidence


def refined_entry(account, X0, y0, X1, random_state) -> dict:
    """An entry of the evidence for a fitted account that is not weighed against others, refined."""
    return _entry(account, np.nan, True, 0.0) | refinement(account, X0, y0, X1, random_state)


def settled(entries, y1, known1, trials, shift):
    """The account of the best of refined entries, whether it is its refinement, and why.

    The first entry is what to fall back to; `shift` is what it leaves. The other arguments are as in `choose_account`.
    """
    ways = [(entry, is_refined) for entry in entries for is_refined in (False, True)]
    first = next((entry for entry in entries if entry["account"].goes_first), None)
    chosen, is_refined, reason = best_separated(entries) if first is None else _ahead(first, entries[0], trials)
    if is_refined and trials is not None and not trials.pays(chosen["refined"]):
        # Classes that do not follow the shape of the rows tell neither accounts apart nor their own proportions.
        explaining = [entry for entry in entries[1:] if not entry["account"].needs_classes]
        chosen = explaining[0] if explaining and chosen is not entries[0] else entries[0]
        is_refined = False
        reason = f"refining gets more wrong in the source than it can set right, so {chosen['name']} is taken as it is"
    taken = next(k for k, way in enumerate(ways) if way[0] is chosen and way[1] == is_refined)
    if trials is not None:
        only_weighs = taken != 0 and not is_refined and chosen["account"].weights_ is not None and chosen is not first
        if only_weighs and not trials.gains(chosen["account"]):
            taken, reason = 0, reason + _NO_GAIN
        taken, reason = after_trials(ways, taken, reason, trials, y1, shift)
    entry, is_refined = ways[taken]
    account = entry["account"]
    if is_refined:
        is_known = known1 is not None and known1.any()
        account = entry["refine"](y1, known1) if is_known else entry["refined"]
    if trials is not None and taken != 0 and not trials.learns(account, entries[0]["account"]):
        return entries[0]["account"], False, f"{reason}, but the estimator cannot hold what it is taught"
    return account, is_refined, reason


def _ahead(first, nothing, trials):
    """An account that goes ahead of others, or nothing where it may be another of its kind, unrefined, and why.

    Its weights are left out where the estimator has nothing to gain by them.
    """
    reason = f"{first['name']} explains the shift"
    if first["account"].is_ambiguous_:
        return nothing, False, f"{reason}, but so would others of this kind"
    if trials is not None and not trials.gains(first["account"]):
        first["account"] = first["account"].unweighed()
        reason += ", without its weights, as the estimator has nothing to gain by them"
    return first, False, reason


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
