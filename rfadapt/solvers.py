"""Solvers of dx = v(x, t) dt along a time grid. A decreasing grid integrates backwards: the inverse map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Solver(ABC):
    """Follows a velocity field through the times of a grid."""

    #: Evaluations of the velocity in an interval of the grid, where they are known.
    evaluations: ClassVar[int | None] = None

    @abstractmethod
    def states(self, v: Velocity, x: torch.Tensor, grid: torch.Tensor) -> Iterator[torch.Tensor]:
        """The state at every time of the grid, the first being `x` itself.

        Parameters
        ----------
        v : callable
            v(x, t) -> Tensor of shape (n, n_features), with `t` of shape (n,).
        x : Tensor of shape (n, n_features)
            State at grid[0].
        grid : Tensor of shape (n_times,)
            Increasing or decreasing times.
        """

    def solve(self, v: Velocity, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """The state at the last time of the grid, of shape (n, n_features)."""
        for state in self.states(v, x, grid):
            x = state
        return x


class FixedStepSolver(Solver):
    """One step an interval of the grid."""

    @abstractmethod
    def step(self, v: Velocity, x: torch.Tensor, t: float, dt: float) -> torch.Tensor:
        """The state at t + dt, from the state `x` at `t`."""

    def states(self, v, x, grid):
        yield x
        times = grid.tolist()
        for start, end in zip(times[:-1], times[1:]):
            x = self.step(v, x, start, end - start)
            yield x


def _at(v, x, t, dt):
    """The velocity at `t`, looked at from the side of t + dt, as it may jump at the ends of a step between 0 and 1.

    At 0 and 1 themselves there is one side alone, and a field may know that it is much easier there.
    """
    if 0 < t < 1:
        t = torch.nextafter(*torch.tensor([t, t + dt], dtype=x.dtype)).item()
    # Expanded, so that a field can see that all rows have one time.
    return v(x, x.new_full((1,), t).expand(len(x)))


@dataclass(frozen=True)
class Euler(FixedStepSolver):
    """Euler's method, order 1, one evaluation a step."""

    evaluations = 1

    def step(self, v, x, t, dt):
        return torch.add(x, _at(v, x, t, dt), alpha=dt)


@dataclass(frozen=True)
class Midpoint(FixedStepSolver):
    """The explicit midpoint method, order 2, two evaluations a step."""

    evaluations = 2

    def step(self, v, x, t, dt):
        return x + dt * _at(v, x + dt / 2 * _at(v, x, t, dt), t + dt / 2, dt)


@dataclass(frozen=True)
class Heun(FixedStepSolver):
    """Heun's method (the explicit trapezoidal rule), order 2, two evaluations a step."""

    evaluations = 2

    def step(self, v, x, t, dt):
        first = _at(v, x, t, dt)
        return x + dt / 2 * (first + _at(v, x + dt * first, t + dt, -dt))


@dataclass(frozen=True)
class RK4(FixedStepSolver):
    """The classical Runge-Kutta method, order 4, four evaluations a step."""

    evaluations = 4

    def step(self, v, x, t, dt):
        k1 = _at(v, x, t, dt)
        k2 = _at(v, x + dt / 2 * k1, t + dt / 2, dt)
        k3 = _at(v, x + dt / 2 * k2, t + dt / 2, dt)
        k4 = _at(v, x + dt * k3, t + dt, -dt)
        return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@dataclass(frozen=True)
class DDIM(FixedStepSolver):
    """The step along the path, order 1, one evaluation a step: Euler's method where paths are straight lines.

    The velocity at (x, t) is that of one pair (x0, x1), and the step goes to a(t + dt) x1 + b(t + dt) x0. It is exact,
    however long, where the flow is *first-order*: where the velocity tells of the same pair all the way.

    The velocity must know its path, as an attribute `path` (see `rfadapt.velocity.FlowVelocity`).

    References
    ----------
    Song, Meng, Ermon, "Denoising Diffusion Implicit Models", ICLR 2021.
    """

    evaluations = 1

    def step(self, v, x, t, dt):
        start, end = (x.new_full((1,), time).expand(len(x)) for time in (t, t + dt))
        pair = v.path.endpoints(x, _at(v, x, t, dt), start)
        return v.path.sample(*pair, end)[0]


@dataclass(frozen=True)
class Dopri5(Solver):
    """Dormand and Prince's adaptive method of order 5, by torchdiffeq. It chooses its own steps.

    Parameters
    ----------
    rtol, atol : float
        Relative and absolute tolerance of the local error.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    def states(self, v, x, grid):
        from torchdiffeq import odeint

        grid = grid.to(x)
        yield from odeint(lambda t, x: v(x, t.expand(len(x))), x, grid, rtol=self.rtol, atol=self.atol, method="dopri5")

    def solve(self, v, x, grid):
        # The times between the ends are for those who want to see them; here they would only cost steps.
        return super().solve(v, x, grid[[0, -1]])


SOLVERS = {"euler": Euler, "ddim": DDIM, "midpoint": Midpoint, "heun": Heun, "rk4": RK4, "dopri5": Dopri5}
