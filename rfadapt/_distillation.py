"""Students of a flow: fields that cross each interval of a grid in one step, there and back.

With a single interval this is distillation into one step, with more of them straightening to a grid.
"""

from __future__ import annotations

import copy
import math
import time
import warnings

import torch

from ._flow_map import few_step_grid
from ._flow_record import energy_terms, first_order_solver, solve_finely
from ._regression_fit import matched_pairs, regress
from .solvers import SOLVERS
from .velocity import FlowVelocity, GradientVelocity, PotentialVelocity

# Rows of each domain that students are measured on.
_MEASURED_ROWS = 2048
# A student's energy distance may be above its teacher's by this share, and by so many standard errors of the
# difference, before that is worth a warning.
_BOUND, _STANDARD_ERRORS = 0.1, 2.0
# Ridge functions of an inverse student that learns by itself, at most.
_LARGEST_WIDTH = 2048
# How many times as sharply the last ridge function of a student of one step rises as the first.
_SHARPEST = 8.0


def publish_students(fit):
    """Train the students of the flow that `fit` has trained, and give them to its transport, with a report."""
    transport, start = fit.transport, time.perf_counter()
    grid = few_step_grid(transport)
    solver, n_reflow = SOLVERS[first_order_solver(fit.path)](), transport.n_reflow
    teacher = fit.velocity
    transport.student_, n_iter = _student(fit, grid, solver, n_reflow + 1, backwards=False)
    transport.inverse_student_, n_back = _student(fit, grid, solver, n_reflow + 2, backwards=True)
    x0, x1 = fit.domains.measured_rows(_MEASURED_ROWS)
    transport.distillation_ = {
        "grid": grid.tolist(),
        **_report(teacher, transport.student_, solver, grid, x0, x1, ""),
        **_report(teacher, transport.inverse_student_, solver, grid.flip(0), x1, x0, "inverse_"),
        "n_iter": n_iter + n_back,
        "seconds": time.perf_counter() - start,
    }


def _student(fit, grid, solver, number, *, backwards):
    teacher = fit.velocity
    is_potential = isinstance(teacher.learned, PotentialVelocity)
    if teacher.learned is None or (is_potential and not backwards):
        return teacher, 0  # crosses every interval in one step as it is
    student, to_beat = _beginner(fit, 1 if backwards else 0) if len(grid) == 2 else (copy.deepcopy(teacher), None)
    pairs, held = matched_pairs(fit, grid, at_starts=True, backwards=backwards)
    student, n_iter = regress(
        fit, student, pairs, held, number,
        to_beat=to_beat,
        bound_energy=False,
        weighted=False,
        move=lambda velocity, x: solver.solve(velocity, x, grid.flip(0) if backwards else grid),
        backwards=backwards,
    )  # fmt: skip
    return student.requires_grad_(False), n_iter


def _beginner(fit, time):
    """A field to train for a single time, and what it has to beat: the teacher's own at that time, where it has one.

    A flow parts rows little by little, a single step all at once. The teacher's ridge functions are too smooth for
    that, and training does not sharpen them.
    """
    teacher, learned = fit.velocity, fit.velocity.at_end(time)
    if isinstance(learned, GradientVelocity):
        width, base, to_beat = learned.width, teacher.base, learned.at(time)
    elif isinstance(learned, PotentialVelocity):
        width = fit.transport._resolved_width(fit.domains.n_features, fit.domains.n_train, _LARGEST_WIDTH)
        base = None if fit.continues else fit.affine_velocity()
        to_beat = None
    else:
        return FlowVelocity(teacher.base, copy.deepcopy(learned), fit.path, fit.prediction), None
    learned = GradientVelocity(fit.domains.n_features, width, degree=0, sharpest=_SHARPEST, generator=fit.generator)
    return FlowVelocity(base, learned.to(fit.device), fit.path, fit.prediction), to_beat


@torch.no_grad()
def _report(teacher, student, solver, grid, x, target, prefix):
    """How far the student is from the teacher, and both from the target, in energy distance."""
    backwards = bool(grid[0] > grid[-1])
    exact = solve_finely(teacher, x, backwards)
    moved = solver.solve(student, x, grid)
    terms = [energy_terms(rows, target) for rows in (exact, moved)]
    energies = [sum(term.mean().item() for term in sample) for sample in terms]
    rises = [after - before for before, after in zip(*terms)]
    error = math.sqrt(sum(rise.var(correction=0).item() / len(rise) for rise in rises))
    if energies[1] > (1 + _BOUND) * energies[0] + _STANDARD_ERRORS * error:
        warnings.warn(
            f"The {prefix.replace('_', ' ')}student's energy distance is {energies[1]:.3g}, its teacher's "
            f"{energies[0]:.3g}: above it by over {_BOUND:.0%} and {_STANDARD_ERRORS:g} standard errors. Straighten "
            "the flow first (n_reflow=1), raise max_iter or width, or take more steps (straighten=True).",
            RuntimeWarning,
            stacklevel=2,
        )
    unit = target.square().sum(1).mean().clamp_min(1e-30)
    return {
        f"{prefix}teacher_energy_distance": energies[0],
        f"{prefix}student_energy_distance": energies[1],
        f"{prefix}student_error": ((moved - exact).square().sum(1).mean() / unit).item(),
    }
