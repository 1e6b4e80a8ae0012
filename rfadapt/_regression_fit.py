"""The fit of a regressed field: on the pairs of a coupling, and in reflow on those that the flow itself makes."""

from __future__ import annotations

import copy
from functools import partial

import torch

from ._flow_record import fine_solver, solve_finely
from ._objectives import Regression
from ._timed_pairs import AnyTime, MatchedPairs
from .schedules import uniform_time_grid
from .velocity import FlowVelocity, PhasedVelocity, PotentialVelocity

# Held-out pairs that the loss is watched on: so many for each row, within these bounds.
_PAIRS_PER_ROW, _LEAST_HELD_OUT, _MOST_HELD_OUT = 4, 256, 8192
# Pairs from each end that a flow makes of rows, at most.
_MATCHED_ROWS = 65536
# The same where the way back solves an equation for every row.
_INVERTED_ROWS = 16384
# Rows that are moved at once.
_ROWS_AT_ONCE = 4096


def fit_field(fit, reflow_round) -> int:
    """Train the field of a `FlowFit` for one round, new or as it is, and return the optimiser steps."""
    transport, domains = fit.transport, fit.domains
    learned, base = fit.velocity.learned, fit.velocity.base
    if learned is None:
        learned = transport._make_velocity(domains.n_features, domains.n_train, fit.generator).to(fit.device)
    if reflow_round == 0:
        pairs, held = _coupled_pairs(fit)
    else:
        pairs, held = matched_pairs(fit, uniform_time_grid(transport.n_phases), at_starts=False)
        if transport.n_phases > 1 and not isinstance(learned, PhasedVelocity):
            learned = PhasedVelocity(learned, transport.n_phases)
    # Before any step the field is the base alone, or what an earlier round has learned: training must beat it.
    fit.velocity, n_iter = regress(
        fit, FlowVelocity(base, learned, fit.path, fit.prediction), pairs, held, reflow_round,
        # A reflow round fits the pairs of the round before, whose sample it can only lose a little of. Pairs that
        # leave rows out do not lead to the target as a whole.
        bound_energy=reflow_round == 0 and getattr(transport._coupling(), "is_balanced", True),
    )  # fmt: skip
    return n_iter


def _coupled_pairs(fit):
    """Pairs of the coupling from the training rows, and from the held-out rows where there are any."""
    coupling, domains = fit.transport._coupling(), fit.domains
    pairs = AnyTime(coupling.prepare(*domains.train, fit.generator))
    if not domains.can_watch:
        return pairs, None
    return pairs, AnyTime(coupling.prepare(*domains.held, torch.Generator().manual_seed(0)))


def matched_pairs(fit, grid, *, at_starts, backwards=False):
    """Pairs that the flow makes of the training rows, and of the held-out rows where there are any."""
    domains = fit.domains
    most = _MATCHED_ROWS // (len(grid) - 1)
    if isinstance(fit.velocity.learned, PotentialVelocity):
        most = _INVERTED_ROWS
    pairs = []
    for rows0, rows1 in [domains.train] + [domains.held] * domains.can_watch:
        states = _own_states(fit.velocity, rows0.first(most), rows1.first(most), grid)
        states, times = (states.flip(0), grid.flip(0)) if backwards else (states, grid)
        pairs.append(MatchedPairs(states, times, fit.path, at_starts=at_starts))
    return pairs if domains.can_watch else (*pairs, None)


@torch.no_grad()
def _own_states(velocity, x0, x1, grid):
    """Where a flow has rows at the times of a grid: forwards from `x0`, backwards from `x1`, one after the other.

    Returns a Tensor of shape (n_times, n0 + n1, n_features).
    """
    solver, fine = fine_solver(velocity)
    n_between = -(-(len(fine) - 1) // (len(grid) - 1))
    between = torch.linspace(0, 1, n_between + 1, dtype=grid.dtype)[:-1]
    fine = torch.cat([(grid[:-1, None] + grid.diff()[:, None] * between).flatten(), grid[-1:]])
    halves = []
    for x, times in ((x0, fine), (x1, fine.flip(0))):
        parts = [list(solver.states(velocity, part, times))[::n_between] for part in x.split(_ROWS_AT_ONCE)]
        parts = [torch.stack(part) for part in parts]
        halves.append(torch.cat(parts, dim=1))
    return torch.cat([halves[0], halves[1].flip(0)], dim=1)


def regress(
    fit, velocity, pairs, held, number,
    *, bound_energy, to_beat=None, weighted=True, move=solve_finely, backwards=False,
):  # fmt: skip
    """Train the learned part of `velocity`; `move` is how it moves the rows that it is watched on.

    Unless it betters `to_beat`, by default what it is before training, that is the result. Returns the velocity, and
    the steps taken.
    """
    transport, base, learned = fit.transport, velocity.base, velocity.learned
    half = fit.device.type == "cuda" and torch.cuda.is_bf16_supported()
    objective = Regression(
        learned.requires_grad_(True),
        base,
        pairs,
        fit.path,
        fit.prediction,
        weighted=weighted,
        batch_size=transport._batch_size(),
        generator=fit.generator,
        bfloat16=transport.precision == "bfloat16" or (transport.precision == "auto" and half),
    )
    velocity_of = partial(FlowVelocity, base, path=fit.path, prediction=fit.prediction)
    monitor = None
    if held is not None:
        n_pairs = max(_LEAST_HELD_OUT, _PAIRS_PER_ROW * max(map(len, fit.domains.held)))
        loss = objective.held_out(held, min(_MOST_HELD_OUT, n_pairs))
        monitor = fit.monitor(loss, lambda model, x: move(velocity_of(model), x), backwards)
    learned, n_iter = fit.train(
        objective,
        copy.deepcopy(learned) if to_beat is None else to_beat,
        monitor,
        number=number,
        max_time=transport.max_time,
        velocity_of=velocity_of,
        bound_energy=bound_energy,
    )
    return velocity_of(learned).eval(), n_iter
