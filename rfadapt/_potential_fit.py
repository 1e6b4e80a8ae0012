"""The fit of the optimal flow: convex potentials, trained one after the other and averaged."""

from __future__ import annotations

import copy
import math
import time

from ._flow_record import solve_finely
from ._objectives import SemiDual
from ._stacking import Stack
from .velocity import FlowVelocity, PotentialVelocity, varying_directions

# Potentials at most where only time says how many: every row that is moved costs an evaluation of each.
_MOST_POTENTIALS = 8
# The others share the time that the first leaves; a rest of at least this share of what it took makes one more.
_SHORTEST = 0.4
# A sample of no more training rows is fitted within seconds, and too few of its rows are held out from one potential to
# say what it has learned: there are two potentials, and up to four of still fewer rows.
_FEW_ROWS = 2048
# Held-out rows that the semi-dual is watched on, at most.
_MAX_HELD_OUT = 8192


def fit_potentials(fit, max_time) -> tuple[int, bool]:
    """Train new potentials for a `FlowFit`, or go on with those it has, and give it the velocity along their mean.

    It takes `max_time` seconds at most, if that is not None.

    Each new one holds out other rows, so that the mean has learned from all of them. Several are shrunk towards the
    affine map as far as these rows say.

    Returns
    -------
    n_iter : int
        Optimiser steps of all of them.
    learns_nothing : bool
        Whether the map is still the one that it began as.
    """
    transport, start = fit.transport, time.perf_counter()
    known = list(fit.velocity.learned.potentials) if fit.continues else []
    grows = transport.n_estimators == "auto" and max_time is not None and not known
    n_potentials = len(known) or _planned_potentials(fit)
    stack = Stack() if fit.domains.can_watch and not known and (n_potentials > 1 or grows) else None
    trained, n_iter, fold, learns_nothing = [], 0, 0, False
    fit.was_stopped = False
    while len(trained) < n_potentials and not fit.was_stopped:
        k, seconds = len(trained), None
        if max_time is not None:
            seconds = max(0.0, max_time - (time.perf_counter() - start)) / (n_potentials - k)
        if k and not known:
            fold += 1
            fit.domains.hold_out(fold)
        potential, n_steps, is_start = _fit_one(fit, k, trained, known, seconds, stack)
        n_iter += n_steps
        trained.append(potential)
        if k == 0 and grows:
            spent = time.perf_counter() - start
            n_potentials = min(_MOST_POTENTIALS, math.floor(max_time / spent + 1 - _SHORTEST))
        if stack is None:
            learns_nothing = is_start
            fit.velocity = flow_along(fit, *trained, *known[k + 1 :])
            continue
        shrunk = stack.shrunk()
        learns_nothing = not shrunk
        fit.velocity = flow_along(fit, *(shrunk or [stack.start]))
        if learns_nothing and fit.domains.n_train > _FEW_ROWS:
            break
    if fold:
        fit.domains.hold_out(0)
    return n_iter, learns_nothing


def _planned_potentials(fit):
    """How many new potentials a fit begins with."""
    transport, domains = fit.transport, fit.domains
    if transport.n_estimators != "auto":
        return transport.n_estimators
    # Fewer rows than a linear map has entries do not show more than it anyway.
    is_between = domains.n_features**2 <= domains.n_train <= _FEW_ROWS
    if transport.max_time is not None or not domains.can_watch or not is_between:
        return 1
    return min(4, 2 * _FEW_ROWS // domains.n_train)


def _fit_one(fit, k, trained, known, seconds, stack):
    """Train the k-th potential for some time; returns it, the steps taken, and whether it is still as it began."""
    transport, domains = fit.transport, fit.domains
    if known:
        potential = known[k].requires_grad_(True)
        start = copy.deepcopy(potential)
    else:
        varying = varying_directions(*domains.moments)
        potential = transport._make_potential(*domains.covariances, domains.n_train, fit.generator, varying)
        potential = potential.to(fit.device)
        start = copy.deepcopy(potential).make_affine()
    objective = SemiDual(potential, *domains.train, batch_size=transport._batch_size(), generator=fit.generator)
    monitor = None
    if domains.can_watch:
        loss = objective.held_out(*(rows.first(_MAX_HELD_OUT) for rows in domains.held))
        monitor = fit.monitor(loss, lambda potential, x: solve_finely(flow_along(fit, potential), x))

    def shown(potential):
        """What snapshots follow: a new potential counts from its end, as it brings the mean down at first."""
        return fit.velocity if trained and not known else flow_along(fit, *trained, potential, *known[k + 1 :])

    potential, n_steps = fit.train(
        objective, start, monitor, number=0, max_time=seconds, velocity_of=shown, must_beat_start=stack is None,
        checks_after=0 if stack is None else Stack.usual_checks,
    )  # fmt: skip
    if stack is not None:
        stack.add(potential, start, monitor)
    return potential, n_steps, potential is start


def flow_along(fit, *potentials) -> FlowVelocity:
    """The velocity of a fit's flow along the mean of potentials."""
    return FlowVelocity(None, PotentialVelocity(*potentials), fit.path, fit.prediction)
