"""The fit of the optimal flow: convex potentials, trained one after the other and averaged."""

from __future__ import annotations

import copy
import math
import time

from ._flow_record import solve_finely
from ._objectives import SemiDual
from .velocity import FlowVelocity, PotentialVelocity, varying_directions

# Potentials at most where only time says how many: every row that is moved costs an evaluation of each.
_MOST_POTENTIALS = 8
# The others share the time that the first leaves; a rest of at least this share of what it took makes one more.
_SHORTEST = 0.4
# Held-out rows that the semi-dual is watched on, at most.
_MAX_HELD_OUT = 8192


def fit_potentials(fit) -> tuple[int, bool]:
    """Train new potentials for a `FlowFit`, or go on with those it has, and give it the velocity along their mean.

    Each new one holds out other rows, so that the mean has learned from all of them.

    Returns
    -------
    n_iter : int
        Optimiser steps of all of them.
    learns_nothing : bool
        Whether the first one is still as it began.
    """
    transport, start = fit.transport, time.perf_counter()
    known = list(fit.velocity.learned.potentials) if fit.continues else []
    grows = transport.n_estimators == "auto" and transport.max_time is not None and not known
    n_potentials = len(known) or (1 if transport.n_estimators == "auto" else transport.n_estimators)
    trained, n_iter, fold, learns_nothing = [], 0, 0, False
    fit.was_stopped = False
    while len(trained) < n_potentials and not fit.was_stopped:
        k, seconds = len(trained), None
        if transport.max_time is not None:
            seconds = max(0.0, transport.max_time - (time.perf_counter() - start)) / (n_potentials - k)
        if k and not known:
            fold += 1
            fit.domains.hold_out(fold)
        potential, n_steps, is_start = _fit_one(fit, k, trained, known, seconds)
        n_iter += n_steps
        if k == 0:
            learns_nothing = is_start
            if is_start and not known:
                n_potentials = 1
            elif grows:
                spent = time.perf_counter() - start
                n_potentials = min(_MOST_POTENTIALS, math.floor(transport.max_time / spent + 1 - _SHORTEST))
        elif is_start and not known:
            n_potentials -= 1  # one that has learned nothing would only spoil the mean
            continue
        trained.append(potential)
        fit.velocity = flow_along(fit, *trained, *known[k + 1 :])
    if fold:
        fit.domains.hold_out(0)
    return n_iter, learns_nothing


def _fit_one(fit, k, trained, known, seconds):
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

    potential, n_steps = fit.train(objective, start, monitor, number=0, max_time=seconds, velocity_of=shown)
    return potential, n_steps, potential is start


def flow_along(fit, *potentials) -> FlowVelocity:
    """The velocity of a fit's flow along the mean of potentials."""
    return FlowVelocity(None, PotentialVelocity(*potentials), fit.path, fit.prediction)
